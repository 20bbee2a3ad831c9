"""One capture, step by step: open a model, choose, run once, write the document.

`capture` does it all from Python; the command line does the same steps with questions in between.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from activations.document.format import FORMAT
from activations.document.writer import count_non_finite, write_document
from activations.errors import ToolkitError
from activations.forward import hooks, pyvene_backend
from activations.forward.sdpa_weights import sdpa_weights
from activations.inputs import processor
from activations.inputs.prompt import encode
from activations.inputs.request import Inputs, Request
from activations.model.attn_implementation import attention_implementation
from activations.model.devices import refuse_offloaded_reads
from activations.model.errors import forward_errors
from activations.model.loading import load_model
from activations.model.signature import accepts
from activations.model.state import fixed_seed, restored
from activations.selection.answers import Selection
from activations.selection.catalog import CATEGORIES
from activations.selection.observation import weights_sources
from activations.session.header import (
    by_category,
    describe_environment,
    lost_weights,
    warnings_about,
    weights_entries,
)
from activations.session.opening import OpenedModel, tokenize_text, with_prompt
from activations.session.options import Options

BACKENDS = {"hooks": hooks.record, "pyvene": pyvene_backend.record}


@dataclass
class Capture:
    """What one forward pass put out, in memory.

    `header` is everything the document says beside the outputs, `captured` maps a category to
    {module name: output}, an output being `activations.outputs.tensor.Tensor`s nested in lists and
    dicts.
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


def load_weights(
    opened: OpenedModel, selection: Selection, request: Request, options: Options
) -> None:
    """Load the model, unless that is done; `run` does so too. Raises `ToolkitError`."""
    if opened.checkpoint is None:
        return
    # The tokenizer first: it is quick, may be missing, and tells whether the text fits.
    tokenize_text(opened, with_prompt(opened, request), opened.checkpoint.config)
    if opened.model is None:
        opened.model, opened.warnings = load_model(
            opened.checkpoint,
            _implementation(selection, options),
            options.dtype,
            options.device,
            options.device_map,
        )
    opened.outline = None


def _implementation(selection: Selection, options: Options) -> str | None:
    """The attention that is asked for; None for the model's own."""
    return options.attn_implementation or ("eager" if selection.wants_attention else None)


def run(
    opened: OpenedModel,
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
    options, request = options or Options(), with_prompt(opened, request)
    observation = opened.catalog.observation
    sources = weights_sources(observation.weights, selection.names)
    implementation = _implementation(selection, options)
    load_weights(opened, selection, request, options)
    model = opened.model
    with (
        restored(model),
        attention_implementation(model, implementation),
        fixed_seed(),
    ):
        with forward_errors(), refuse_offloaded_reads(model):
            inputs = _encode(opened, request)
        call = {**inputs.tensors, **_forward_options(opened, selection, bool(sources))}
        holders = [source.module for source in sources]
        with (
            forward_errors(),
            refuse_offloaded_reads(model),
            sdpa_weights(model, implementation, holders),
        ):
            if observation.warm_up:
                hooks.record(model, inputs.tensors, [])
            recorded = BACKENDS[options.backend](
                model, call, selection.names, progress, observation.first_after(selection.names)
            )
        environment = describe_environment(model, options)
    if not recorded.outputs:
        raise ToolkitError(
            "No data captured: none of the selected modules was called in the forward pass. "
            "Choose others; --list shows what each puts out."
        )
    captured = by_category(recorded, selection)
    non_finite = count_non_finite(captured)
    header = {
        "format": FORMAT,
        "model": opened.name,
        "prompt": request.prompt or "",
        "text_pair": request.text_pair,
        "target": request.target,
        "image": request.image and Path(request.image.name).name,
        "audio": request.audio and Path(request.audio.name).name,
        **inputs.header(),
        "selected_patterns": {c: [p.text for p in selection.patterns[c]] for c in CATEGORIES},
        "selected_modules": {c: list(selection.modules[c]) for c in CATEGORIES},
        "attention_weights": weights_entries(
            sources, recorded, opened, environment, selection.wants_attention
        ),
        "not_called": recorded.not_called or None,
        "non_finite": non_finite or None,
        "environment": environment,
    }
    return Capture(
        {key: value for key, value in header.items() if value is not None},
        captured,
        opened.warnings
        + inputs.warnings
        + (lost_weights(observation) if selection.wants_attention else [])
        + warnings_about(recorded.not_called, non_finite),
    )


def _encode(opened: OpenedModel, request: Request) -> Inputs:
    if opened.processor is None:
        return encode(opened.model, opened.tokenizer, request)
    return processor.encode(
        opened.model,
        opened.processor,
        opened.tokenizer,
        request,
        opened.catalog.observation,
    )


def _forward_options(opened: OpenedModel, selection: Selection, weights: bool) -> dict[str, Any]:
    """What the model is asked for beside its inputs: no more than the selection needs."""
    model = opened.model
    found: dict[str, Any] = {}
    if accepts(model, "use_cache"):
        found["use_cache"] = False
    if weights and opened.catalog.observation.needs_flag:
        found["output_attentions"] = True
    body = f"{getattr(model, 'base_model_prefix', '')}."
    if accepts(model, "logits_to_keep") and all(
        f"{name}.".startswith(body) for name in selection.names
    ):
        found["logits_to_keep"] = 1  # nothing chosen sees the logits
    return found
