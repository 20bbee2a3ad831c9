"""One capture: run an opened model once, keep what the selected modules return, write it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from activations.document.writer import count_non_finite, write_document
from activations.errors import ToolkitError
from activations.forward import hooks, pyvene_backend
from activations.forward.hooks import Recording
from activations.forward.output_attentions import attentions_asked
from activations.forward.sdpa_weights import sdpa_weights
from activations.inputs.processor import name_positions
from activations.inputs.prompt import complete
from activations.inputs.request import Inputs
from activations.model.attn_implementation import attention_implementation
from activations.model.errors import forward_errors
from activations.model.loading import load_model
from activations.model.offloading import refuse_offloaded_reads
from activations.model.signature import accepts, arguments
from activations.model.state import fixed_seed, restored
from activations.selection.answers import Selection
from activations.selection.catalog import CATEGORIES
from activations.session.header import build_header, capture_warnings, describe_environment
from activations.session.opening import OpenedModel
from activations.session.options import Options

_KINDS_OF_ONE = ("self", "encoder", "decoder", "cross")  # of attention, in one model
BACKENDS = {"hooks": hooks.record, "pyvene": pyvene_backend.record}


@dataclass
class Capture:
    """What one forward pass returned, in memory.

    `header` is everything the document says besides the outputs. `captured` maps a category to
    {module name: output}, an output being `activations.outputs.tensor.Tensor`s nested in lists and
    dicts. `warnings` are lines for the user.
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
        """Write the document; with `release` free the memory of what is written.

        Raises `ToolkitError` where that fails.
        """
        write_document(path, self.header, self.captured, progress, format, release)


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
    """The attention that is asked for; None for the model's own."""
    return options.attn_implementation or ("eager" if selection.wants_attention else None)


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
    inputs, recorded, environment = _pass(opened, selection, options, progress)
    if not recorded.outputs:
        raise ToolkitError(
            "No data captured: none of the selected modules was called in the forward pass. "
            "Choose others; --list shows what each returns."
        )
    captured = _by_category(recorded, selection)
    non_finite = count_non_finite(captured)
    header = build_header(opened, selection, inputs, recorded, environment, non_finite)
    warnings = capture_warnings(opened, selection, recorded, non_finite)
    return Capture(header, captured, [*opened.warnings, *inputs.warnings, *warnings])


def _pass(
    opened: OpenedModel,
    selection: Selection,
    options: Options,
    progress: Callable[[str], None] | None,
) -> tuple[Inputs, Recording, dict[str, Any]]:
    """The forward pass: its inputs, what was recorded, and the environment.

    The model is left as it was.
    """
    model, observation = opened.model, opened.catalog.observation
    implementation = _implementation(selection, options)
    sources = selection.weights(observation)
    with (
        restored(model),
        attention_implementation(model, implementation),
        fixed_seed(),
        forward_errors(),
        refuse_offloaded_reads(model),
    ):
        inputs = _inputs(opened)
        given = arguments(model, inputs.tensors, observation.call_form)
        call = {**given, **_forward_options(model, selection)}
        asked = attentions_asked if sources and observation.needs_flag else nullcontext
        with sdpa_weights(model, implementation, [source.module for source in sources]):
            if observation.warm_up:
                hooks.record(model, given, [])
            with asked(model):
                recorded = BACKENDS[options.backend](
                    model,
                    call,
                    selection.names,
                    progress,
                    observation.first_after(selection.names),
                    selection.calls,
                )
        return inputs, recorded, describe_environment(model, options)


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


def _forward_options(model: Any, selection: Selection) -> dict[str, Any]:
    """The arguments besides the inputs: no more output than the selection needs."""
    found: dict[str, Any] = {}
    if accepts(model, "use_cache"):
        found["use_cache"] = False
    body = f"{getattr(model, 'base_model_prefix', '')}."
    if accepts(model, "logits_to_keep") and all(
        f"{name}.".startswith(body) for name in selection.names
    ):
        found["logits_to_keep"] = 1  # nothing chosen sees the logits
    return found
