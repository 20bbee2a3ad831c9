"""One capture: run an opened model once, keep what the selected modules return, write it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from activations.document.writer import count_non_finite, write_document
from activations.errors import ToolkitError, ignore
from activations.forward import pyvene_backend, recording
from activations.forward.keeping import Keeper
from activations.forward.output_attentions import attentions_asked
from activations.forward.probe import probe_inputs
from activations.forward.recording import Recording, Wanted
from activations.forward.sdpa_trial import agrees_with_eager
from activations.forward.sdpa_weights import sdpa_weights
from activations.inputs.positions import name_positions
from activations.inputs.prompt import complete
from activations.inputs.request import Inputs, Request
from activations.model.attn_implementation import attention_implementation
from activations.model.errors import forward_errors
from activations.model.loading import load_model
from activations.model.offloading import refuse_offloaded_reads
from activations.model.signature import accepts, arguments
from activations.model.state import fixed_seed, restored
from activations.selection.answers import Selection
from activations.selection.catalog import CATEGORIES
from activations.selection.observation import Observation, WeightsSource
from activations.session.changing import Changed, Changing
from activations.session.header import Pass, build_header, capture_warnings, describe_environment
from activations.session.heads import proven_heads
from activations.session.opening import OpenedModel, with_request
from activations.session.options import MOST, Options
from activations.session.predicting import Predicting, head_of_model, predicted_row
from activations.session.scoring import scorer

_ONLY_SCORES = 0.999  # a threshold above which hardly any weight is
_KINDS_OF_ONE = ("self", "encoder", "decoder", "cross")  # of attention, in one model
BACKENDS = {"hooks": recording.record, "pyvene": pyvene_backend.record}


@dataclass
class Capture:
    """What one forward pass returned, in memory.

    `header` is everything the document says besides the outputs. `captured` maps a category to
    {module name: output}, an output being `activations.outputs.tensor.Tensor`s, and
    `activations.outputs.sparse.Sparse`s, nested in lists and dicts. `given` maps a module's name
    to what it was given, where that was asked for; `inputs` is what the model read. `warnings` are
    lines for the user.
    """

    header: dict[str, Any]
    captured: dict[str, dict[str, Any]]
    given: dict[str, Any] = field(default_factory=dict)
    inputs: Inputs | None = None
    warnings: list[str] = field(default_factory=list)

    def save(
        self,
        path: str | os.PathLike[str],
        progress: Callable[[str], None] | None = None,
        format: str = "json",
        release: bool = False,
    ) -> None:
        """Write the document; with `release` free the memory of what is written.

        Raises `ToolkitError` where that fails.
        """
        write_document(path, self.header, self.captured, progress, format, release, self.given)


def load_weights(opened: OpenedModel, selection: Selection, options: Options) -> None:
    """Load the model unless it is loaded; `run` does so too. Raises `ToolkitError`."""
    if opened.model is None and opened.checkpoint is not None:
        opened.model, warnings = load_model(
            opened.checkpoint,
            _implementation(selection, options),
            options.dtype,
            options.device,
            options.device_map,
        )
        opened.warnings += warnings


def _implementation(selection: Selection, options: Options) -> str | None:
    """The attention that is asked for; None for the model's own.

    Where only large weights are kept, `_pass` finds out whether SDPA will do.
    """
    if options.attn_implementation or options.keep_above is not None:
        return options.attn_implementation
    return "eager" if selection.wants_attention else None


def run(
    opened: OpenedModel,
    selection: Selection,
    options: Options | None = None,
    progress: Callable[[str], None] | None = None,
) -> Capture:
    """Run the prompt once and keep what the selected modules return.

    `progress` is called with a module's name after each of its calls. Raises `ToolkitError` when
    the model fails, nothing fires ("No data captured") or attention weights were chosen that this
    attention implementation does not return.
    """
    options = options or Options()
    load_weights(opened, selection, options)
    made = _pass(opened, selection, options, progress)
    if not made.recorded.outputs:
        raise ToolkitError(
            "No data captured: none of the selected modules was called in the forward pass. "
            "Choose others; --list shows what each returns."
        )
    control = _control(opened, selection, options, made.inputs)
    captured = _by_category(made.recorded, selection)
    non_finite = count_non_finite(captured)
    header = build_header(opened, selection, made, non_finite, control)
    warnings = capture_warnings(opened, selection, made.recorded, non_finite, made.keeper)
    warnings += [*made.predicted.warnings, *made.changed.warnings]
    return Capture(
        header,
        captured,
        made.recorded.inputs,
        made.inputs,
        [*opened.warnings, *made.inputs.warnings, *warnings],
    )


def _pass(
    opened: OpenedModel,
    selection: Selection,
    options: Options,
    progress: Callable[[str], None] | None,
    named: Inputs | None = None,
) -> Pass:
    """The forward pass. Scores are of its own tokens, or of those that it stands for: `named`.

    The model is left as it was.
    """
    model, observation = opened.model, opened.catalog.observation
    implementation = _implementation(selection, options)
    sources = selection.weights(observation)
    with restored(model), fixed_seed(), forward_errors(), refuse_offloaded_reads(model):
        with attention_implementation(model, implementation):
            inputs = _inputs(opened)
        given = arguments(model, inputs.tensors, observation.call_form)
        call = {**given, **({"use_cache": False} if accepts(model, "use_cache") else {})}
        keeper = None
        if options.keep_above is not None and sources:
            keeper = _keeper(opened, selection, options.keep_above, named or inputs)
            if implementation is None and selection.wants_attention:
                implementation = "sdpa" if _allows_sdpa(opened, inputs, sources) else "eager"
        asked = attentions_asked if sources and observation.needs_flag else nullcontext
        with attention_implementation(model, implementation):
            if observation.warm_up:
                recording.record(model, given, Wanted([]))
            heads = proven_heads(opened, inputs, call, selection) if options.with_inputs else ()
            with asked(model):
                predicting, changing = _beside(opened, selection, options, inputs, call)
                with sdpa_weights(model, implementation, _with_inner(sources, observation), keeper):
                    recorded = BACKENDS[options.backend](
                        model,
                        predicting.call,
                        _wanted(opened, selection, options, progress, keeper),
                        None if changing is None else changing.edits,
                        _both(predicting, changing),
                    )
                predicted = predicting.result()
                changed = changing.result(predicting.most or MOST) if changing else Changed()
            environment = describe_environment(model, options)
    return Pass(inputs, recorded, environment, keeper, predicted, changed, heads)


def _keeper(opened: OpenedModel, selection: Selection, above: float, named: Inputs) -> Keeper:
    """What keeps only the large attention weights, with scores by the tokens of `named`."""
    observation = opened.catalog.observation
    kept = [source for source in observation.weights if source.module in selection.names]
    return Keeper(above, kept, scorer(named.header(), observation, opened.lengths))


def _beside(
    opened: OpenedModel,
    selection: Selection,
    options: Options,
    inputs: Inputs,
    call: Mapping[str, Any],
) -> tuple[Predicting, Changing | None]:
    """What is predicted in the pass, and what is changed in it."""
    body = f"{getattr(opened.model, 'base_model_prefix', '')}."
    changed = [target.module for target in (*options.ablate, *options.patch) if target.module]
    sees_logits = not all(f"{name}.".startswith(body) for name in (*selection.names, *changed))
    most = options.predictions(selection, opened.catalog.observation)
    predicting = Predicting(opened, options, most, inputs, call, sees_logits)
    if not options.changes:
        return predicting, None
    head = head_of_model(opened)
    row = None if head is None else predicted_row(opened, head, inputs)
    return predicting, Changing(opened, options, inputs, predicting.call, row)


def _wanted(
    opened: OpenedModel,
    selection: Selection,
    options: Options,
    progress: Callable[[str], None] | None,
    keeper: Keeper | None,
) -> Wanted:
    """What is recorded. The pass ends early where nothing later is asked for."""
    observation = opened.catalog.observation
    to_the_end = options.changes or options.predictions(selection, observation)
    return Wanted(
        selection.names,
        progress or ignore,
        None if to_the_end else observation.first_after(selection.names),
        selection.calls,
        keeper,
        options.with_inputs,
    )


@contextmanager
def _both(predicting: Predicting, changing: Changing | None) -> Iterator[None]:
    """Watch the pass in the block for what is predicted and for what the changes do."""
    with predicting.watching(), changing.watching() if changing else nullcontext():
        yield


def _control(
    opened: OpenedModel, selection: Selection, options: Options, inputs: Inputs
) -> Keeper | None:
    """What has the scores of a diagnostic's control, as if it were the diagnostic's text.

    None where there is no diagnostic, or no attention is captured.
    """
    made = opened.encoded and opened.encoded.diagnostic
    if not made or not selection.weights(opened.catalog.observation):
        return None
    other = with_request(opened, Request(ids=made.control))
    implementation = options.attn_implementation or (
        "eager" if options.keep_above is None else None
    )
    scored = replace(
        options,
        attn_implementation=implementation,
        keep_above=_ONLY_SCORES,
        predict=0,
        lens=None,
        at=options.at if options.ablate else None,
        patch=(),
        sweep=None,
        with_inputs=False,
    )
    return _pass(other, selection, scored, None, inputs).keeper


def _with_inner(sources: Sequence[WeightsSource], observation: Observation) -> list[WeightsSource]:
    """The sources, and the modules inside them that return the same weights."""
    tensors = {source.tensor for source in sources}
    return [source for source in observation.weights if source.tensor in tensors]


def _allows_sdpa(opened: OpenedModel, inputs: Inputs, sources: Sequence[WeightsSource]) -> bool:
    """Whether the weights computed beside SDPA are those of the model's own eager attention.

    Both are computed for a short text.
    """
    model, observation = opened.model, opened.catalog.observation
    tensors = inputs.tensors
    if opened.processor is None:  # a text: its first tokens will do
        short = probe_inputs(model, {})
        tensors = {name: tensors[name][:, : short[name].shape[1]] for name in short}
    given = arguments(model, tensors, observation.call_form)
    return agrees_with_eager(model, given, _with_inner(sources, observation), observation)


def _inputs(opened: OpenedModel) -> Inputs:
    """What was encoded when the model was opened, on its device, with the decoder's text."""
    assert opened.encoded is not None, "a model that is only listed is not run"
    inputs = complete(opened.model, opened.tokenizer, opened.request, opened.encoded)
    observation = opened.catalog.observation
    if opened.processor is not None:
        name_positions(inputs, opened.model, opened.processor, observation)
    else:  # several models in one module read the same text, each under its own name
        towers = {source.kind for source in observation.weights} - set(_KINDS_OF_ONE)
        inputs.tower_tokens |= {f"{kind}_tokens": inputs.tokens for kind in sorted(towers)}
    return inputs


def _by_category(recorded: Recording, selection: Selection) -> dict[str, dict[str, Any]]:
    category_of = {name: c for c, names in selection.modules.items() for name in names}
    captured: dict[str, dict[str, Any]] = {category: {} for category in CATEGORIES}
    for key, output in recorded.outputs.items():
        name = key if key in category_of else key.rpartition("@")[0]
        captured[category_of[name]][key] = output
    return captured
