"""What Python callers use: `capture`, `load` and the `Document` both return."""

from __future__ import annotations

import operator
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from types import NoneType
from typing import Any

from activations.arguments import check, check_new_tokens, number, numbers
from activations.attention.compare import by_change
from activations.document import reader
from activations.document.destination import prepare_output
from activations.document.format import DOCUMENT
from activations.errors import UsageError
from activations.forward.lens_matrices import checked_lens
from activations.inputs.conversation import Turn, checked_turns
from activations.inputs.media import read_audio, read_image
from activations.inputs.request import Request
from activations.model.config_file import check_layers
from activations.model.place import check_place
from activations.model.vocabulary import tokens_of
from activations.model.weight_files import check_weights
from activations.selection.answers import parse_spec
from activations.selection.answers import select as choose
from activations.session.options import Options, check_source, checkpoint_of
from activations.session.targets import Target, parse_targets
from activations.system.files import check_room
from activations.views.compared import compared
from activations.views.content import read_content
from activations.views.notebook import View, document_html, make_view
from activations.views.score_table import score_rows


class Document(reader.Document):
    """A capture on disk, its attention as scores and as a page."""

    def scores(self, by: str | None = None) -> list[dict[str, Any]]:
        """What each head does, over the whole text: one dict a head, as for a `pandas.DataFrame`.

        The keys are "attention" (its kind), "layer", "head" and the names in
        `activations.attention.scores.SCORES`, where the scores are defined; NaN where one is not.
        `by` names a score: the strongest heads come first (of entropy the lowest), those for which
        it is not defined last. Without it they are in the document's order.

        Raises `UsageError` where `by` is no score, `ToolkitError` where the document holds no
        attention weights.
        """
        check("the name of a score", str, NoneType, by=by)
        return score_rows(read_content(self, tokens_of).stacks, by)

    def compare(self, other: reader.Document) -> list[dict[str, Any]]:
        """How much each head changed from this document (A) to another (B), the most changed first.

        One dict a head: "attention" (its kind), "layer", "head" and "change", the mean total
        variation distance between the rows: 0 where they attend alike, 1 where they attend to
        nothing in common. Where the texts differ, tokens that stand for each other are compared
        (the longest common subsequence, and what is between them where that is as many tokens).
        What else differs between the captures is a `UserWarning`.

        Raises `ToolkitError` where the documents hold other layers, heads or kinds of attention.
        """
        check("a document, as load() opens it", reader.Document, other=other)
        found = compared((self, other), tokens_of)
        for line in found.about():
            warnings.warn(line, stacklevel=2)
        return [
            {
                "attention": pair.a.kind,
                "layer": pair.a.layers[layer],
                "head": pair.a.heads[head],
                "change": float(pair.changes[layer, head]),
            }
            for pair, layer, head in by_change(found.comparison.pairs)
        ]

    def view(
        self,
        view: str = "head",
        *,
        layers: int | Iterable[int] | None = None,
        heads: int | Iterable[int] | None = None,
        tokens: tuple[int, int] | None = None,
        min_weight: float = 0.01,
        height: int | None = None,
        words: bool = False,
    ) -> View:
        """The attention as a page that shows itself in a notebook: `doc.view("model", layers=[2])`.

        `view` is "head" or "model"; `layers` and `heads` are the numbers of those to show (layer -1
        is the last), `tokens` is (first, end), None being all; lines with a weight of `min_weight`
        or less are not drawn; `height` is in pixels. With `words` it opens with the pieces of each
        word merged. The page is what the command writes; `.save(path)` writes it too.

        Raises `UsageError` for what is not there, `ToolkitError` where there is no attention.
        """
        check("True or False", bool, words=words)
        return make_view(self, tokens_of, view, layers, heads, tokens, min_weight, height, words)

    def _repr_html_(self) -> str:
        return document_html(self, tokens_of)


def load(path: str | os.PathLike[str]) -> Document:
    """Open a document. Nothing but its header is parsed until it is asked for.

    Takes what this toolkit writes and any JSON with the same keys (pretty-printed, without
    `shape`, `tokens` or `attention_weights`), which is parsed whole.

    Raises `ToolkitError` when the file is missing, not JSON, cut short or another format.
    """
    return Document(path)


def capture(
    model: Any = None,
    prompt: str | Sequence[Mapping[str, str]] | None = None,
    *,
    ids: Iterable[int] | None = None,
    diagnostic: str | None = None,
    select: str = "attn:weights",
    output: str | os.PathLike[str] = DOCUMENT,
    format: str = "json",
    tokenizer: Any = None,
    processor: Any = None,
    layers: int | Iterable[int] | None = None,
    text_pair: str | None = None,
    target: str | None = None,
    max_new_tokens: int | None = None,
    chat: bool = False,
    image: str | os.PathLike[str] | None = None,
    audio: str | os.PathLike[str] | None = None,
    source_language: str | None = None,
    target_language: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    device_map: str | None = None,
    keep_above: float | None = None,
    predict: int | None = None,
    lens: str | os.PathLike[str] | None = None,
    at: int | Iterable[int] | None = None,
    ablate: str | Iterable[str] = (),
    ablate_with: str | None = None,
    patch: str | Iterable[str] = (),
    source: str | None = None,
    sweep: str | None = None,
    with_inputs: bool = False,
    attn_implementation: str | None = None,
    backend: str = "hooks",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Document:
    """Capture what a model's modules return for one prompt, write the document and open it.

    `model` is a hub name, a checkpoint folder, or a loaded model together with its `tokenizer`
    (None: the bundled demo model). A loaded model may be any module that takes `input_ids`, such as
    a classifier around a Hugging Face model. `tokenizer` is a tokenizer, a name or a folder.
    `prompt` is a text (None: a short story), or a conversation: a list of {"role": ..., "content":
    ...}; `ids` are token ids in its place, or `diagnostic` is "induction": random tokens, twice,
    with a control. `select` is what `--auto-select` takes, `layers` one number or several. Of
    attention weights, only those above `keep_above` are kept, with the sum of
    the others of each row: for long texts. `predict` counts the likeliest next tokens (words of a
    masked model, labels of a classifier) to keep at every position (5; 0 for none); where `layers`
    leave out the last one, there are none unless it is given. `lens` is "logit", for what each
    layer would predict, or a safetensors file of a matrix a layer (`layers.{layer}`, (hidden,
    hidden)) to apply first; `at` are the positions of the text to look at, or to change (-1 is the
    last; None: all).

    `ablate` names what is replaced by zeros in the pass, or with `ablate_with="mean"` by its mean
    over the positions: heads ("2.5", "cross:0.1"), feed-forward blocks ("mlp:3"), attention blocks
    ("attn:3") and modules by their full names, as one text with commas or several. `patch` names
    what is replaced by what it is when the model reads the text `source`, of the same number of
    tokens. `sweep` is "heads" or "mlps": each is ablated in turn, for a table of what the
    prediction would be. What is captured is the changed pass (of a sweep the unchanged one), and
    with `with_inputs` also what each module was given.

    `format` is "json", or "safetensors" for the numbers in
    a second file next to the document. `dtype` and `device` may be torch's own. `target` is the
    decoder's text of an encoder-decoder model; without it the model generates up to
    `max_new_tokens` (16) tokens, greedily. A decoder-only model first generates `max_new_tokens`,
    if given. `source_language` and `target_language` are codes of the tokenizer (NLLB, M2M100,
    mBART). `image` and `audio` are files, for models that read them; a loaded model then needs its
    `processor`.

    Returns the `Document` at `output`; what the command warns of is a `UserWarning`. Raises
    `ToolkitError`, whose text is one line for the user (`UsageError` where an argument is wrong);
    the model is left as it was in any case.
    """
    check("a text", str, select=select, format=format, backend=backend)
    check("a text", str, NoneType, text_pair=text_pair, target=target, diagnostic=diagnostic)
    check("a text", str, NoneType, source_language=source_language, target_language=target_language)
    check("a text", str, NoneType, device_map=device_map, revision=revision)
    check("a text", str, NoneType, attn_implementation=attn_implementation)
    check("the name of a file", str, os.PathLike, output=output)
    check("the name of a file", str, os.PathLike, NoneType, image=image, audio=audio)
    check('"logit" or the name of a file', str, os.PathLike, NoneType, lens=lens)
    check("a text", str, NoneType, ablate_with=ablate_with, source=source, sweep=sweep)
    check("True or False", bool, chat=chat, trust_remote_code=trust_remote_code)
    check("True or False", bool, with_inputs=with_inputs)
    if max_new_tokens is not None:
        max_new_tokens = number(max_new_tokens, "max_new_tokens", operator.index, "12")
    check_new_tokens(max_new_tokens)
    chosen_layers = numbers(layers, "layers")
    answers = parse_spec(select)
    prepare_output(output, format)
    model, tokenizer = (
        os.fspath(named) if isinstance(named, os.PathLike) else named
        for named in (model, tokenizer)
    )
    if tokenizer is not None and not isinstance(tokenizer, str) and not callable(tokenizer):
        check("a tokenizer of transformers, a name or a folder", str, tokenizer=tokenizer)
    named = model is None or isinstance(model, str)
    if named:
        check_place(checkpoint_of(model))
        check_weights(checkpoint_of(model))
        check_layers(checkpoint_of(model), chosen_layers)
    options = Options(
        str(dtype).removeprefix("torch."),
        str(device),
        device_map,
        attn_implementation,
        backend,
        revision,
        trust_remote_code,
        None if keep_above is None else float(number(keep_above, "keep_above", float, "0.01")),
        None if predict is None else number(predict, "predict", operator.index, "5"),
        None if lens is None else checked_lens(lens),
        None if at is None else tuple(numbers(at, "at") or ()),
        _targets(ablate, "ablate"),
        ablate_with,
        _targets(patch, "patch"),
        sweep,
        with_inputs,
    )
    check_source(options, source)
    conversation = _conversation(prompt)
    given = {"prompt": prompt, "ids": ids, "diagnostic": diagnostic}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise UsageError(f"{names[0]} and {names[1]} cannot be combined. Give one of them.")
    request = Request(
        prompt=prompt if isinstance(prompt, str) else None,
        text_pair=text_pair,
        target=target,
        max_new_tokens=max_new_tokens,
        chat=chat or conversation is not None,
        image=None if image is None else read_image(os.fspath(image)),
        audio=None if audio is None else read_audio(os.fspath(audio)),
        ids=None if ids is None else _token_ids(ids),
        diagnostic=diagnostic,
        source=source,
        conversation=conversation,
        source_language=source_language,
        target_language=target_language,
    )
    # Not at the top, as these import torch. All that can be refused without it has been refused.
    from activations.session.estimate import forecast
    from activations.session.opening import open_loaded, open_model
    from activations.session.run import run
    from activations.session.sweeping import sweep as run_sweep

    if named:
        opened = open_model(model, options, request, tokenizer=tokenizer)
    else:
        own = Options(
            attn_implementation=attn_implementation,
            backend=backend,
            keep_above=options.keep_above,
            predict=options.predict,
            lens=options.lens,
            at=options.at,
            ablate=options.ablate,
            ablate_with=ablate_with,
            patch=options.patch,
            sweep=sweep,
            with_inputs=with_inputs,
        )
        if options != own:
            raise UsageError(
                "dtype, device, device_map, revision and trust_remote_code are for models that are "
                "loaded here, and this one is loaded already. Leave them out."
            )
        if not hasattr(model, "named_modules"):
            check("a name, a folder or a loaded model", str, os.PathLike, model=model)
        opened = open_loaded(model, tokenizer, processor, request)
    selection = choose(opened.catalog, answers, chosen_layers)
    size = forecast(
        opened, selection, options, format, lambda line: warnings.warn(line, stacklevel=4)
    )
    check_room(output, size.bytes)
    made = run(opened, selection, options)
    run_sweep(opened, options, made)
    for line in made.warnings:
        warnings.warn(line, stacklevel=2)
    made.save(output, format=format, release=True)
    return load(output)


def _targets(asked: Any, name: str) -> tuple[Target, ...]:
    """What is to be changed, as one text or several."""
    texts = [asked] if isinstance(asked, str) else asked
    check("a text, or several, as in ablate=['2.5', 'mlp:3']", list, tuple, **{name: texts})
    check(
        "texts, as in ablate=['2.5', 'mlp:3']",
        str,
        **{f"{name}[{i}]": t for i, t in enumerate(texts)},
    )
    return parse_targets(",".join(texts), f"--{name}") if texts else ()


def _token_ids(ids: Any) -> tuple[int, ...]:
    """Token ids; also a batch of one text, as tokenizers return them."""
    rows = ids.tolist() if hasattr(ids, "tolist") else ids
    one = rows[0] if isinstance(rows, list) and len(rows) == 1 else None
    return tuple(numbers(one if isinstance(one, list) else rows, "ids") or ())


def _conversation(prompt: Any) -> tuple[Turn, ...] | None:
    """A prompt that is a list of turns."""
    if prompt is None or isinstance(prompt, str):
        return None
    check("a text, or a list of turns", list, tuple, prompt=prompt)
    if prompt and all(isinstance(text, str) for text in prompt):
        raise UsageError("prompt takes one text, not several. Capture one at a time.")
    return checked_turns(prompt, "the conversation")
