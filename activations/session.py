"""One capture, step by step: open a model, choose, run once, write the document.

`capture` does it all from Python; the command line does the same steps with questions in between.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import NoneType
from typing import Any

from activations import (
    __version__,
    interventions,
    models,
    probe,
    processing,
    recording,
    restoring,
)
from activations.arguments import check, check_new_tokens, number, numbers
from activations.beside import weights_beside
from activations.catalog import CATEGORIES, weights_sources
from activations.document import Document, load
from activations.errors import ToolkitError, UsageError
from activations.explained import failures_explained
from activations.files import check_output, check_room
from activations.implementations import attention_implementation
from activations.inputs import Inputs, Request, encode, lengths, tokenize
from activations.media import read_audio, read_image
from activations.observation import Observation, WeightsSource
from activations.offloaded import nothing_missing
from activations.selection import Selection, parse_spec
from activations.selection import select as choose
from activations.sizes import Estimate, Lengths, expected_size
from activations.subjects import Options, Subject, open_subject, subject_of
from activations.tensors import Tensor, at
from activations.writing import FORMAT, count_non_finite, write_document

DEMO_PROMPT = "Once there was a fox named Zolimar. One day Zolimar met a bear by the river."
BACKENDS = {"hooks": recording.record, "pyvene": interventions.record}


@dataclass
class Capture:
    """What one forward pass put out, in memory.

    `header` is everything the document says beside the outputs, `captured` maps a category to
    {module name: output}, an output being `activations.tensors.Tensor`s nested in lists and dicts.
    `warnings` are lines for the user.
    """

    header: dict[str, Any]
    captured: dict[str, dict[str, Any]]
    warnings: list[str] = field(default_factory=list)

    def save(
        self,
        path: str | os.PathLike[str],
        progress: Callable[[str], None] | None = None,
        format: str = "json",
        release: bool = False,
    ) -> None:
        """Write the document, in one step; with `release` letting go of what is written.

        Raises `ToolkitError` where that fails.
        """
        write_document(path, self.header, self.captured, progress, format, release)


def capture(
    model: Any = None,
    prompt: str | None = None,
    *,
    select: str = "attn:weights",
    output: str | os.PathLike[str] = "agnostic_activations.json",
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
    dtype: str = "auto",
    device: str = "auto",
    device_map: str | None = None,
    attn_implementation: str | None = None,
    backend: str = "hooks",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Document:
    """Capture what a model's modules put out for one prompt, write it and open what was written.

    `model` is a hub name, a checkpoint folder, or a loaded model together with its `tokenizer`
    (None: the bundled demo model). `select` is what `--auto-select` takes, `layers` one number or
    several. `format` is "json", or "safetensors" for the numbers in a file of their own beside the
    document. `dtype` and `device` may be torch's own. `target` is the
    decoder's text of an encoder-decoder model; without it the model writes up to `max_new_tokens`
    (16) itself, greedily. A decoder-only model first writes `max_new_tokens`, if given. `image` and
    `audio` are files, for models that read such; one that is loaded needs its `processor` then.

    Returns the `Document` at `output`. Raises `ToolkitError`, whose text is one line for the user
    (`UsageError` where an argument is wrong); the model is left as it was in any case.
    """
    check("a text", str, select=select, format=format, backend=backend)
    check("a text", str, NoneType, prompt=prompt, text_pair=text_pair, target=target)
    check("a text", str, NoneType, device_map=device_map, revision=revision)
    check("a text", str, NoneType, attn_implementation=attn_implementation)
    check("the name of a file", str, os.PathLike, output=output)
    check("the name of a file", str, os.PathLike, NoneType, image=image, audio=audio)
    check("True or False", bool, chat=chat, trust_remote_code=trust_remote_code)
    if max_new_tokens is not None:
        max_new_tokens = number(max_new_tokens, "max_new_tokens", operator.index, "12")
    check_new_tokens(max_new_tokens)
    chosen_layers = numbers(layers, "layers")
    answers = parse_spec(select)
    check_output(output, format)
    options = Options(
        str(dtype).removeprefix("torch."),
        str(device),
        device_map,
        attn_implementation,
        backend,
        revision,
        trust_remote_code,
    )
    request = Request(
        prompt,
        text_pair,
        target,
        max_new_tokens,
        chat,
        None if image is None else read_image(os.fspath(image)),
        None if audio is None else read_audio(os.fspath(audio)),
    )
    if model is None or isinstance(model, (str, os.PathLike)):
        subject = open_subject(None if model is None else os.fspath(model), options, request)
        if tokenizer is not None:
            subject.tokenizer = tokenizer
    else:
        if options != Options(attn_implementation=attn_implementation, backend=backend):
            raise UsageError(
                "dtype, device, device_map, revision and trust_remote_code are for models that are "
                "loaded here, and this one is loaded already. Leave them out."
            )
        if not hasattr(model, "named_modules"):
            check("a name, a folder or a loaded model", str, os.PathLike, model=model)
        subject = subject_of(model, tokenizer, processor, request)
    selection = choose(subject.catalog, answers, chosen_layers)
    check_room(output, foresee(subject, selection, request, format).size.bytes)
    run(subject, selection, request, options).save(output, format=format, release=True)
    return load(output)


def with_prompt(subject: Subject, request: Request) -> Request:
    """The request, with the prompt of the demonstration where a model that reads text has none."""
    if request.prompt is None and subject.processor is None:
        return replace(request, prompt=DEMO_PROMPT)
    return request


@dataclass(frozen=True)
class Prospect:
    """What a run will be about, as far as that can be told beforehand."""

    lengths: Lengths
    size: Estimate


def foresee(
    subject: Subject, selection: Selection, request: Request, format: str = "json"
) -> Prospect:
    """How many tokens will be read and how large the document will be. Loads no weights.

    Raises `UsageError` when the text does not fit the model.
    """
    request = with_prompt(subject, request)
    model = subject.outline if subject.model is None else subject.model
    with failures_explained():
        read = _tokenize(subject, request, model.config)
        told = lengths(model, subject.tokenizer, request, read)
    observation = subject.catalog.observation
    return Prospect(told, expected_size(observation, selection.names, told, format))


def load_weights(
    subject: Subject, selection: Selection, request: Request, options: Options
) -> None:
    """Load the model, unless that is done; `run` does so too. Raises `ToolkitError`."""
    if subject.checkpoint is None:
        return
    # The tokenizer first: it is quick, may be missing, and tells whether the text fits.
    _tokenize(subject, with_prompt(subject, request), subject.checkpoint.config)
    if subject.model is None:
        subject.model, subject.warnings = models.load_model(
            subject.checkpoint,
            _implementation(selection, options),
            options.dtype,
            options.device,
            options.device_map,
        )
    subject.outline = None


def _implementation(selection: Selection, options: Options) -> str | None:
    """The attention that is asked for; None for the model's own."""
    return options.attn_implementation or ("eager" if selection.wants_attention else None)


def _tokenize(subject: Subject, request: Request, config: Any) -> int | None:
    """How many tokens the text is. Raises `UsageError` when it does not fit the model."""
    if subject.processor is not None:
        return subject.read
    if subject.tokenizer is None and subject.checkpoint is not None:
        subject.tokenizer = models.load_tokenizer(subject.checkpoint)
    return int(tokenize(config, subject.tokenizer, request)["input_ids"].shape[-1])


def run(
    subject: Subject,
    selection: Selection,
    request: Request,
    options: Options | None = None,
    progress: Callable[[str], None] | None = None,
) -> Capture:
    """Run the prompt once and keep what the selected modules put out.

    `progress` is called with a module's name after each of its calls. Raises `ToolkitError` when
    the model fails, nothing fires ("No data captured") or attention weights were chosen that this
    attention implementation does not hand out.
    """
    options, request = options or Options(), with_prompt(subject, request)
    observation = subject.catalog.observation
    sources = weights_sources(observation.weights, selection.names)
    implementation = _implementation(selection, options)
    load_weights(subject, selection, request, options)
    model = subject.model
    with (
        restoring.left_as_it_was(model),
        attention_implementation(model, implementation),
        restoring.the_same_chances(),
    ):
        with failures_explained(), nothing_missing(model):
            inputs = _encode(subject, request)
        call = {**inputs.tensors, **_forward_options(subject, selection, bool(sources))}
        holders = [source.module for source in sources]
        with (
            failures_explained(),
            nothing_missing(model),
            weights_beside(model, implementation, holders),
        ):
            if observation.warm_up:
                recording.record(model, inputs.tensors, [])
            recorded = BACKENDS[options.backend](
                model, call, selection.names, progress, observation.first_after(selection.names)
            )
        environment = _environment(model, options)
    if not recorded.outputs:
        raise ToolkitError(
            "No data captured: none of the selected modules was called in the forward pass. "
            "Choose others; --list shows what each puts out."
        )
    captured = _by_category(recorded, selection)
    non_finite = count_non_finite(captured)
    header = {
        "format": FORMAT,
        "model": subject.name,
        "prompt": request.prompt or "",
        "text_pair": request.text_pair,
        "target": request.target,
        "image": request.image and Path(request.image.name).name,
        "audio": request.audio and Path(request.audio.name).name,
        **inputs.header(),
        "selected_patterns": {c: [p.text for p in selection.patterns[c]] for c in CATEGORIES},
        "selected_modules": {c: list(selection.modules[c]) for c in CATEGORIES},
        "attention_weights": _weights_header(
            sources, recorded, subject, environment, selection.wants_attention
        ),
        "not_called": recorded.not_called or None,
        "non_finite": non_finite or None,
        "environment": environment,
    }
    return Capture(
        {key: value for key, value in header.items() if value is not None},
        captured,
        subject.warnings
        + inputs.warnings
        + (_lost(observation) if selection.wants_attention else [])
        + _warnings(recorded.not_called, non_finite),
    )


def _encode(subject: Subject, request: Request) -> Inputs:
    if subject.processor is None:
        return encode(subject.model, subject.tokenizer, request)
    return processing.encode(
        subject.model,
        subject.processor,
        subject.tokenizer,
        request,
        subject.catalog.observation,
    )


def _forward_options(subject: Subject, selection: Selection, weights: bool) -> dict[str, Any]:
    """What the model is asked for beside its inputs: no more than the selection needs."""
    model = subject.model
    found: dict[str, Any] = {}
    if probe.accepts(model, "use_cache"):
        found["use_cache"] = False
    if weights and subject.catalog.observation.needs_flag:
        found["output_attentions"] = True
    body = f"{getattr(model, 'base_model_prefix', '')}."
    if probe.accepts(model, "logits_to_keep") and all(
        f"{name}.".startswith(body) for name in selection.names
    ):
        found["logits_to_keep"] = 1  # nothing chosen sees the logits
    return found


def _by_category(recorded: recording.Recording, selection: Selection) -> dict[str, dict[str, Any]]:
    category_of = {name: c for c, names in selection.modules.items() for name in names}
    captured: dict[str, dict[str, Any]] = {category: {} for category in CATEGORIES}
    for key, output in recorded.outputs.items():
        name = key if key in category_of else key.rpartition("@")[0]
        captured[category_of[name]][key] = output
    return captured


def _weights_header(
    sources: Sequence[WeightsSource],
    recorded: recording.Recording,
    subject: Subject,
    environment: dict[str, Any],
    wanted: bool,
) -> list[dict[str, Any]]:
    """Where the attention weights stand in the document, checked against what was recorded.

    Unless attention was `wanted`, they may be missing: a layer that hands them on was chosen, and
    the model runs with its own attention.
    """
    entries: list[dict[str, Any]] = []
    shared = {source.module for source in sources if source.call}
    for source in sources:
        key = f"{source.module}@{source.call}" if source.call else source.module
        try:
            weights = at(recorded.outputs[key], source.element)
        except (LookupError, TypeError):
            weights = None
        if not isinstance(weights, Tensor) and not wanted:
            continue
        if not isinstance(weights, Tensor):
            raise ToolkitError(_no_weights(environment["attn_implementation"]))
        # A module called several times is several layers: count its calls.
        layer = None if source.module in shared else subject.catalog.layer_of(source.module)
        entry = {
            "module": key,
            "element": list(source.element),
            "layer": source.position if layer is None else layer,
            "kind": source.kind,
        }
        entries.append(entry | ({"axes": list(source.axes)} if source.axes else {}))
    return entries


def _no_weights(implementation: str) -> str:
    return (
        f"attention weights are not available under the attention implementation "
        f"'{implementation}'. Use --attn-implementation eager, or choose other modules."
    )


def _environment(model: Any, options: Options) -> dict[str, Any]:
    return {
        "toolkit": __version__,
        **models.versions(),
        "backend": options.backend,
        "attn_implementation": getattr(model.config, "_attn_implementation", None),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": probe.input_device(model).type,
        "revision": options.revision,
    }


def _lost(observation: Observation) -> list[str]:
    return [
        f"the {kind} attention weights that this model returns are handed out by none of its "
        "modules (it changes them afterwards), so they are not captured."
        for kind in observation.lost
    ]


def _warnings(
    not_called: Sequence[str], non_finite: dict[str, dict[str, dict[str, int]]]
) -> list[str]:
    lines = []
    if not_called:
        more = f" and {len(not_called) - 3} more" if len(not_called) > 3 else ""
        lines.append(
            f"not called in this pass, so not captured: {', '.join(not_called[:3])}{more}."
        )
    for module, elements in non_finite.items():
        for element, counts in elements.items():
            found = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
            where = f"{module}, element {element}" if element else module
            lines.append(
                f"{where} holds {found}; JSON has null for them, --format safetensors keeps them."
            )
    return lines
