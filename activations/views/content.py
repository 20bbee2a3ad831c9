"""A document -> what to show of it: attention with tokens and scores, and the words around it.

Pages, figures, tables of scores and notebooks all start here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from activations.arguments import numbered
from activations.attention.layer import Facts
from activations.attention.scores import with_scores
from activations.attention.spelling import readable
from activations.attention.stack import Stack, take
from activations.attention.weights import read_attention
from activations.attention.words import why_not_merged
from activations.document.interventions import Sweep
from activations.document.reader import Document
from activations.errors import ToolkitError, UsageError, Warn, ignore
from activations.text import printable
from activations.views.effect_section import effect_section
from activations.views.forecast import forecast
from activations.views.names import short_model
from activations.views.packing import FirstReading
from activations.views.predictions import page_predictions


@dataclass(frozen=True)
class Caption:
    """What a page says it shows: the model, what it read, and what was left out and why.

    `texts` are further texts by their names: a second sentence, the decoder's target, an image's
    file. `capture` is an id, by which a page notices a link from another capture. `document` is
    the name of the document's file, without its ending.
    """

    model: str
    prompt: str
    notes: tuple[str, ...] = ()
    texts: tuple[tuple[str, str], ...] = ()
    capture: str = ""
    document: str = ""

    @property
    def title(self) -> str:
        """The model, as titles name it."""
        return short_model(self.model)

    @property
    def read(self) -> tuple[tuple[str, str], ...]:
        """All that the model read; a model of images or audio reads no prompt."""
        prompt = (("Prompt", self.prompt),)
        return prompt + self.texts if self.prompt or not self.texts else self.texts


_NEARLY_ONE = 0.01
TokensOf = Callable[[str, Sequence[object]], list[str]]


@dataclass(frozen=True)
class Content:
    """What a page, a figure or a table shows, and the words around it.

    `first` has heads that were packed for pages while they were read, `predictions` what pages show
    of what the model predicted, `effect` the HTML of what was changed, `sweep` what each head does,
    `tokens` those of the text that the predictions are of.
    """

    caption: Caption
    stacks: tuple[Stack, ...]
    first: FirstReading | None = None
    predictions: dict[str, Any] | None = None
    effect: str = ""
    sweep: Sweep | None = None
    tokens: list[str] | None = None


def read_content(
    document: Document,
    tokens_of: TokensOf,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    tokens: tuple[int, int] | None = None,
    warn: Warn = ignore,
    pages: bool = True,
    words: bool = False,
) -> Content:
    """The attention of these layers, heads and token positions (first, end); None is all.

    `tokens_of(model, ids)` names the tokens of a document that has only their ids. Scores are
    always of the whole text. `warn` gets what will take long, and the caption's notes on what is
    left out. `pages`: whether pages are made of it. `words`: whether tokens are merged to words, of
    which the notes say where that cannot be. Raises `ToolkitError` where there is no
    attention to show, or too much, `UsageError` for what does not exist.
    """
    found = _looked_up_tokens(document, tokens_of, warn)
    notes: list[str] = []

    def note(line: str) -> None:
        shown = printable(line)  # it may name modules, and must not be reordered by them
        if shown not in notes:
            notes.append(shown)
            warn(line)

    def sizes(stacks: Sequence[Stack]) -> list[str]:
        return [stack.size for stack in stacks]

    chosen = take(read_attention(document, note, found), layers, heads, warn=note)
    parts = take(chosen, tokens=tokens)
    forecast(parts, pages, warn)
    first = FirstReading(parts) if pages else None
    scored = with_scores(chosen, None if first is None else first.visit)
    odd = sum(layer.facts.odd for stack in scored for layer in stack.weights if layer.facts)
    if odd:
        note(f"{odd:,} attention weights are not finite: neither drawn nor scored.")
    notes += map(printable, about_weights(scored))
    stacks = take(scored, tokens=tokens, warn=note)
    if not stacks:
        raise UsageError("nothing is left to show. Choose other --layers, --heads or --tokens.")
    for stack in stacks if words else ():
        if reason := why_not_merged(stack):
            note(reason)
    if tokens is not None and sizes(chosen) != sizes(stacks):
        notes.append(f"Only the tokens {tokens[0]} to {tokens[1] - 1} are shown.")
    if any(stack.written is not None for stack in stacks):
        notes.append("Underlined tokens were generated by the model.")
    if any(stack.split is not None for stack in stacks):
        notes.append("Tokens in italics belong to the second text.")
    caption = Caption(
        document.model,
        document.prompt,
        tuple(notes),
        _texts(document),
        _capture_id(document),
        document.path.stem,
    )
    predictions = None
    if pages:
        predictions = page_predictions(
            document.header, document.predictions, document.lens, stacks, found, tokens
        )
    effect = effect_section(document.header)
    read = None
    if document.predictions is not None and document.predictions.text is not None:
        key = document.predictions.text
        read = readable(document.header.get(key) or found.get(key) or [])
    return Content(caption, tuple(stacks), first, predictions, effect, document.sweep, read)


def about_weights(stacks: Sequence[Stack]) -> Iterator[str]:
    """What a reader should know of the weights of these stacks, which were read: a line each."""
    facts = [layer.facts for stack in stacks for layer in stack.weights if layer.facts is not None]
    left = [fact.left for fact in facts if fact.above]
    if left:
        above = max(fact.above for fact in facts)
        share = np.concatenate(left)
        share = share[np.isfinite(share)]
        if share.size:
            yield (
                f"Weights up to {above:g} were left out when this was captured: "
                f"{share.mean():.0%} of the attention, {share.max():.0%} of one head's."
            )
    for stack in stacks:
        odd_sums = [
            layer
            for layer, weights in zip(stack.layers, stack.weights, strict=True)
            if weights.probabilities and _do_not_sum_to_one(weights.facts)
        ]
        if odd_sums:
            layers = numbered("layer", odd_sums)
            yield f"{stack.name}: rows of {layers} do not sum to 1 (attention sinks?)."


def _do_not_sum_to_one(facts: Facts | None) -> bool:
    """Whether the rows of a head sum to something else, in the mean."""
    return facts is not None and bool((np.abs(facts.sums - 1) > _NEARLY_ONE).any())


def _capture_id(document: Document) -> str:
    """The same for all pages of one capture, whichever part of it they show.

    Computed from the ids where there are any: tokens may have been looked up since.
    """
    ids = ["input_ids", "decoder_input_ids"]
    tokens = ids if any(key in document.header for key in ids) else ["tokens", "decoder_tokens"]
    read = [document.model, document.prompt, _texts(document)]
    known = json.dumps([*read, *map(document.header.get, tokens)])  # halves of characters too
    return hashlib.sha256(known.encode("ascii")).hexdigest()[:8]


def _texts(document: Document) -> tuple[tuple[str, str], ...]:
    """What the model read besides the prompt, and what it generated."""
    names = {
        "text_pair": "Second",
        "target": "Target",
        "image": "Image",
        "audio": "Audio",
        "written": "Generated",
    }
    header = document.header
    return tuple((name, header[key]) for key, name in names.items() if header.get(key))


def _looked_up_tokens(document: Document, tokens_of: TokensOf, warn: Warn) -> dict[str, list[str]]:
    """The tokens that the header lacks and has ids for, by key, from the model's tokenizer."""
    header = document.header
    pairs = (("tokens", "input_ids"), ("decoder_tokens", "decoder_input_ids"))
    ids = {
        names: _ids(header[key]) for names, key in pairs if names not in header if header.get(key)
    }
    try:
        return {names: tokens_of(document.model, found) for names, found in ids.items()}
    except (ToolkitError, ImportError, LookupError, TypeError, ValueError, OverflowError):
        warn(
            f"the document has no tokens and the tokenizer of '{document.model}' cannot be loaded; "
            "ids are shown."
        )
        return {names: [f"#{i}" for i in found] for names, found in ids.items()}


def _ids(rows: list[Any]) -> list[Any]:
    """The first text's ids, whether they stand in a batch or alone."""
    return rows[0] if isinstance(rows[0], list) else rows
