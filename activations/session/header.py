"""What the document says beside the outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from activations.errors import ToolkitError
from activations.forward.hooks import Recording
from activations.model.loading import versions
from activations.model.signature import input_device
from activations.outputs.tensor import Tensor
from activations.outputs.tree import at
from activations.selection.answers import Selection
from activations.selection.catalog import CATEGORIES
from activations.selection.observation import Observation, WeightsSource
from activations.session.opening import OpenedModel
from activations.session.options import Options
from activations.version import __version__


def weights_entries(
    sources: Sequence[WeightsSource],
    recorded: Recording,
    opened: OpenedModel,
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
        layer = None if source.module in shared else opened.catalog.layer_of(source.module)
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


def by_category(recorded: Recording, selection: Selection) -> dict[str, dict[str, Any]]:
    category_of = {name: c for c, names in selection.modules.items() for name in names}
    captured: dict[str, dict[str, Any]] = {category: {} for category in CATEGORIES}
    for key, output in recorded.outputs.items():
        name = key if key in category_of else key.rpartition("@")[0]
        captured[category_of[name]][key] = output
    return captured


def describe_environment(model: Any, options: Options) -> dict[str, Any]:
    return {
        "toolkit": __version__,
        **versions(),
        "backend": options.backend,
        "attn_implementation": getattr(model.config, "_attn_implementation", None),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": input_device(model).type,
        "revision": options.revision,
    }


def lost_weights(observation: Observation) -> list[str]:
    return [
        f"the {kind} attention weights that this model returns are handed out by none of its "
        "modules (it changes them afterwards), so they are not captured."
        for kind in observation.lost
    ]


def warnings_about(
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
