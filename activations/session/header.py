"""What the document says besides the outputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activations.document.format import FORMAT
from activations.document.interventions import (
    HeadInput,
    effect_entry,
    head_input_entry,
    intervention_entry,
)
from activations.document.predictions import lens_entry, predictions_entry
from activations.document.writer import NonFinite
from activations.errors import ToolkitError, first_few
from activations.forward.keeping import Keeper
from activations.forward.recording import Recording
from activations.inputs.request import Diagnostic, Inputs
from activations.model.active_adapter import active_adapter
from activations.model.hosts import dtype_of, hosts
from activations.model.loading import versions
from activations.model.signature import input_device
from activations.outputs.sparse import Sparse
from activations.outputs.tensor import Tensor
from activations.outputs.tree import at
from activations.selection.answers import Selection
from activations.selection.catalog import CATEGORIES
from activations.selection.observation import WeightsSource
from activations.session.changing import Changed
from activations.session.opening import OpenedModel
from activations.session.options import Options
from activations.session.predicting import Predicted
from activations.session.scoring import score_entry
from activations.version import __version__


@dataclass(frozen=True)
class Pass:
    """What came of a forward pass, and what it read. `heads` are where heads stand side by side."""

    inputs: Inputs
    recorded: Recording
    environment: dict[str, Any]
    keeper: Keeper | None
    predicted: Predicted
    changed: Changed
    heads: tuple[HeadInput, ...] = ()


def build_header(
    opened: OpenedModel,
    selection: Selection,
    made: Pass,
    non_finite: NonFinite,
    control: Keeper | None = None,
) -> dict[str, Any]:
    """All keys but the outputs, in the document's order. Keys that do not apply are left out.

    Raises `ToolkitError` where attention weights were chosen that the model did not return.
    """
    request, encoded = opened.request, opened.encoded
    assert encoded is not None, "a model that is only listed is not run"
    recorded, keeper, predicted, changed = made.recorded, made.keeper, made.predicted, made.changed
    entries = _weights_entries(opened, selection, recorded, made.environment)
    header = {
        "format": FORMAT,
        "model": opened.name,
        "adapter": _adapter(opened),
        "tokenizer": opened.tokenizer_name,
        "prompt": encoded.prompt,
        "diagnostic": _diagnostic(encoded.diagnostic, entries, control),
        "conversation": list(request.turns) if request.chat else None,
        "text_pair": request.text_pair,
        "source_language": request.source_language,
        "target_language": request.target_language,
        "target": request.target,
        "source": request.source,
        "image": request.image and Path(request.image.name).name,
        "audio": request.audio and Path(request.audio.name).name,
        **made.inputs.header(),
        "selected_patterns": {c: [p.text for p in selection.patterns[c]] for c in CATEGORIES},
        "selected_modules": {c: list(selection.modules[c]) for c in CATEGORIES},
        "attention_weights": [entry for entry, _ in entries],
        "predictions": predicted.predictions and predictions_entry(predicted.predictions),
        "lens": predicted.lens and lens_entry(predicted.lens, predicted.lens_file),
        "interventions": [intervention_entry(one) for one in changed.interventions] or None,
        "effect": changed.effect and effect_entry(changed.effect),
        "heads": [head_input_entry(one) for one in made.heads] or None,
        "keep_above": keeper and keeper.above,
        "scores": keeper and _scores(entries, keeper),
        "not_called": recorded.not_called or None,
        "non_finite": non_finite or None,
        "environment": made.environment,
    }
    return {key: value for key, value in header.items() if value is not None}


def _adapter(opened: OpenedModel) -> dict[str, str] | None:
    """What was loaded on which base model; None where the model is no adapter."""
    adapter = None if opened.checkpoint is None else opened.checkpoint.adapter
    if adapter is not None:
        return {"name": adapter.name, "base_model": adapter.base, "type": adapter.type}
    return active_adapter(opened.model, opened.name)  # of a model that the user loaded


def _weights_entries(
    opened: OpenedModel, selection: Selection, recorded: Recording, environment: dict[str, Any]
) -> list[tuple[dict[str, Any], WeightsSource]]:
    """Where the attention weights stand in the document, checked against what was recorded.

    They may be missing where no attention module was chosen, only a layer that returns them too:
    then the model runs with its own attention.
    """
    entries: list[tuple[dict[str, Any], WeightsSource]] = []
    for source in selection.weights(opened.catalog.observation):
        key = f"{source.module}@{source.call}" if source.call else source.module
        weights = at(recorded.outputs, (key, *source.element), None)
        if not isinstance(weights, (Tensor, Sparse)):
            if not selection.wants_attention:
                continue
            raise ToolkitError(
                "attention weights are not available under the attention implementation "
                f"'{environment['attn_implementation']}'. Use --attn-implementation eager, or "
                "choose other modules."
            )
        layer = opened.catalog.layer_of_call(source.module, source.call)
        entry = {
            "module": key,
            "element": list(source.element),
            "layer": source.position if layer is None else layer,
            "kind": source.kind,
        }
        entry |= {"axes": list(source.axes)} if source.axes else {}
        entries.append((entry, source))
    return entries


def _diagnostic(
    made: Diagnostic | None,
    entries: list[tuple[dict[str, Any], WeightsSource]],
    control: Keeper | None,
) -> dict[str, Any] | None:
    """What the text was made for, and the scores of its control."""
    if made is None:
        return None
    scores = {} if control is None else {"control": _scores(entries, control)}
    return made.header() | scores


def _scores(
    entries: list[tuple[dict[str, Any], WeightsSource]], keeper: Keeper
) -> list[dict[str, Any]]:
    """The scores of the tensors of which small weights were left out, or of a control."""
    return [
        score_entry(entry["module"], entry["element"], keeper.scores[source.tensor])
        for entry, source in entries
        if source.tensor in keeper.scores
    ]


def describe_environment(model: Any, options: Options) -> dict[str, Any]:
    ways = [host.config._attn_implementation for host in hosts(model).values()]
    return {
        "toolkit": __version__,
        **versions(),
        "backend": options.backend,
        "attn_implementation": next(iter(ways), None),
        "dtype": str(dtype_of(model)).removeprefix("torch."),
        "device": input_device(model).type,
        "revision": options.revision,
    }


def capture_warnings(
    opened: OpenedModel,
    selection: Selection,
    recorded: Recording,
    non_finite: NonFinite,
    keeper: Keeper | None = None,
) -> list[str]:
    """What the user should know about a capture, a line each."""
    lines = [
        f"the {kind} attention weights that this model returns are not returned by any of its "
        "modules (it changes them afterwards), so they are not captured."
        for kind in (opened.catalog.observation.lost if selection.wants_attention else ())
    ]
    if recorded.not_called:
        lines.append(f"not called in this pass, so not captured: {first_few(recorded.not_called)}.")
    if keeper is not None and keeper.whole:
        lines.append(
            f"kept whole, as these values are not attention weights: {first_few(keeper.whole)}."
        )
    for module, elements in non_finite.items():
        for element, counts in elements.items():
            found = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
            where = f"{module}, element {element}" if element else module
            lines.append(
                f"{where} holds {found}; JSON has null for them, --format safetensors keeps them."
            )
    return lines
