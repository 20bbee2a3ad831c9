"""What is to be changed, by name -> where it stands in the model, proven."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from activations.errors import ToolkitError, quoted_list
from activations.forward.edits import Place
from activations.inputs.request import Inputs
from activations.outputs.shapes import Shape
from activations.outputs.tree import walk
from activations.selection.catalog import Catalog
from activations.selection.observation import Called, WeightsSource
from activations.session.naming import attention_layers, attention_of, calls_of, outermost
from activations.session.opening import OpenedModel
from activations.session.targets import Target
from activations.session.trials import blocks, head_places

_OF_POSITIONS = 3  # dimensions of what most modules return: (batch, positions, width)


def find_places(
    opened: OpenedModel,
    inputs: Inputs,
    call: Mapping[str, Any],
    targets: Sequence[Target],
    flag: str,
) -> list[Place]:
    """Where each target stands. Raises `ToolkitError` where that cannot be proven."""
    catalog = opened.catalog
    sources = {t.text: attention_of(catalog, t.head, flag).source for t in targets if t.head}
    tensors = {source.tensor for source in sources.values()}
    heads = head_places(opened, inputs, call, tensors) if tensors else {}
    found = []
    for target in targets:
        if target.head is not None:
            there = heads.get(sources[target.text].tensor)
            if there is None:
                raise ToolkitError(no_heads(f"{flag} {target.text}", sources[target.text]))
            found.append(there.of(target.head.head))
        elif target.block is not None and target.layer is not None:
            calls = calls_of(catalog, target, flag)
            one = "", target.layer
            block = blocks(opened, inputs, call, {one: calls}).get(one)
            if block is None:
                raise ToolkitError(_no_block(catalog, target, calls, flag))
            found.append(place_of(opened, block.module, block.call))
        elif target.module is not None:
            found.append(place_of(opened, target.module, target.call))
    return found


def no_heads(what: str, source: WeightsSource) -> str:
    return (
        f"{what}: no place can be proven where the heads of {source.module} stand side by side, "
        "so that one could be changed alone. Name the whole module."
    )


def place_of(opened: OpenedModel, module: str, call: int | None) -> Place:
    """What a whole module returns."""
    shapes = (leaf for _, leaf in walk(opened.catalog.observation.outputs.get(module)))
    shape = next((s for s in shapes if isinstance(s, Shape) and "float" in s.dtype), None)
    axes = () if shape is None else tuple(range(-len(shape.sizes), 0))
    follow = [a for a in axes if shape is not None and not isinstance(shape.sizes[a], int)]
    if not follow and len(axes) == _OF_POSITIONS and opened.lengths.text is None:
        follow = [-2]  # patches or frames: their number does not follow a text
    return Place(module, call, tokens=follow[0] if len(follow) == 1 else None)


def _no_block(catalog: Catalog, target: Target, calls: Sequence[Called], flag: str) -> str:
    there = {called.module for called in calls}
    names = [a.source.module for a in attention_layers(catalog) if a.source.module in there]
    return (
        f"{flag} {target.text}: no single module of layer {target.layer} returns all that this "
        f"block adds. Name a module: {quoted_list(names or outermost(calls))}."
    )
