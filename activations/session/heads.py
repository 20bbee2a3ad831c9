"""Where what a capture keeps holds the heads' own outputs, side by side: `--with-inputs`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from activations.document.interventions import HeadInput
from activations.inputs.request import Inputs
from activations.selection.answers import Selection
from activations.session.naming import attention_layers
from activations.session.opening import OpenedModel
from activations.session.trials import head_places


def proven_heads(
    opened: OpenedModel, inputs: Inputs, call: Mapping[str, Any], selection: Selection
) -> tuple[HeadInput, ...]:
    """The selected modules whose input is proven to be the outputs of heads, in the model's order.

    Nothing is tried where no attention returns weights.
    """
    layers = attention_layers(opened.catalog)
    if not layers:
        return ()
    found = head_places(opened, inputs, call, [layer.source.tensor for layer in layers])
    return tuple(
        HeadInput(layer.kind, layer.layer, place.name, place.heads, place.axis)
        for layer in layers
        if (place := found.get(layer.source.tensor)) is not None
        if place.module in selection.names
    )
