"""What is to be changed, by name: whether the model has it. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from activations.arguments import numbered
from activations.attention.heads import HeadName
from activations.errors import UsageError, nearest, quoted_list
from activations.outputs.shapes import Shape
from activations.outputs.tree import at
from activations.selection.catalog import Catalog
from activations.selection.observation import Called, WeightsSource, weights_sources
from activations.session.options import Options
from activations.session.targets import CATEGORY_OF, Target

Layer = tuple[str, int]  # of a list of layers, by its name: an encoder's, a decoder's


@dataclass(frozen=True)
class AttentionLayer:
    """The heads of one layer's attention of one kind."""

    kind: str
    layer: int
    heads: int
    source: WeightsSource


def attention_layers(catalog: Catalog) -> list[AttentionLayer]:
    """All attentions that return weights, in the model's order."""
    observation = catalog.observation
    everywhere = {source.module for source in observation.weights}
    found = []
    for source in weights_sources(observation.weights, everywhere):
        shape = at(observation.outputs.get(source.module), source.element, None)
        sizes = shape.sizes if isinstance(shape, Shape) else ()
        heads = sizes[source.axes[1] if source.axes else 1] if len(sizes) == len("bhqk") else 0
        layer = catalog.layer_of_call(source.module, source.call)
        found.append(
            AttentionLayer(
                source.kind,
                source.position if layer is None else layer,
                heads if isinstance(heads, int) else 0,
                source,
            )
        )
    return found


def check_changes(catalog: Catalog, options: Options) -> None:
    """Raise `UsageError` where what is to be changed is not there."""
    for flag, targets in (("--ablate", options.ablate), ("--patch", options.patch)):
        for target in targets:
            _check_target(catalog, target, flag)


def _check_target(catalog: Catalog, target: Target, flag: str) -> None:
    if target.head is not None:
        attention_of(catalog, target.head, flag)
    elif target.block is not None and target.layer is not None:
        calls_of(catalog, target, flag)
    elif target.module is not None:
        _check_module(catalog, target, flag)


def attention_of(catalog: Catalog, name: HeadName, flag: str) -> AttentionLayer:
    layers = attention_layers(catalog)
    kinds = list(dict.fromkeys(layer.kind for layer in layers))
    if not kinds:
        raise UsageError(f"{flag} {name}: no module of this model returns attention weights.")
    if name.kind is None and len(kinds) > 1:
        raise UsageError(
            f"{flag} {name}: there is {', '.join(kinds)} attention. Say which, as in "
            f"{kinds[0]}:{name}."
        )
    of_kind = [layer for layer in layers if name.kind in (None, layer.kind)]
    if not of_kind:
        raise UsageError(
            f"{flag} {name}: there is no '{name.kind}' attention. There is {', '.join(kinds)}."
        )
    found = [layer for layer in of_kind if layer.layer == name.layer]
    if not found:
        there = numbered("layer", (layer.layer for layer in of_kind))
        raise UsageError(f"{flag} {name}: there is no layer {name.layer}. Choose from {there}.")
    if len(found) > 1:
        modules = quoted_list(layer.source.module for layer in found)
        raise UsageError(f"{flag} {name}: the layer has {modules}. Name the whole module.")
    if name.head >= found[0].heads:
        raise UsageError(
            f"{flag} {name}: layer {name.layer} has no head {name.head}. It has "
            f"{numbered('head', range(found[0].heads))}."
        )
    return found[0]


def block_calls(catalog: Catalog, block: str) -> dict[Layer, list[Called]]:
    """The calls of a category in each layer of each list of layers."""
    spans = catalog.observation.spans
    found: dict[Layer, list[Called]] = {}
    for pattern in catalog.of(CATEGORY_OF[block]):
        of_list = pattern.text.partition("{")[0].rstrip(".")
        for name in pattern.names if pattern.depth else ():
            for number, (began, ended) in enumerate(spans.get(name, ())):
                layer = catalog.layer_of_call(name, number)
                if layer is not None:
                    called = Called(name, number, began, ended)
                    found.setdefault((of_list, layer), []).append(called)
    return found


def calls_of(catalog: Catalog, target: Target, flag: str) -> list[Called]:
    """The calls of a block's category in its layer. Raises `UsageError` where there are none, or
    several such layers.
    """
    assert target.block is not None
    calls, stack = block_calls(catalog, target.block), target.stack
    lists = [of for of, number in calls if number == target.layer]
    there = [of for of in lists if stack in (None, of) or stack in of.split(".")]
    if len(there) == 1 and target.layer is not None:
        return calls[there[0], target.layer]
    if len(lists) > 1:
        shared = set.intersection(*(set(of.split(".")) for of in lists))
        own = [next((part for part in of.split(".") if part not in shared), of) for of in lists]
        raise UsageError(
            f"{flag} {target.text}: there is a layer {target.layer} in {quoted_list(lists)}. Say "
            f"which, as in {own[-1]}:{target.block}:{target.layer}."
        )
    numbers = {number for _, number in calls}
    choose = f"Choose from {numbered('layer', numbers)}." if calls else "It has none."
    raise UsageError(f"{flag} {target.text}: the model has no such layer. {choose}")


def outermost(calls: Sequence[Called]) -> list[str]:
    """The names of those that are in no other."""
    return [
        one.module
        for one in calls
        if not any(other.is_around(one) for other in calls if other is not one)
    ]


def _check_module(catalog: Catalog, target: Target, flag: str) -> None:
    calls = catalog.observation.calls
    assert target.module is not None
    if target.module not in calls:
        close = nearest(target.module, calls)
        hint = f"Did you mean {quoted_list(close)}?" if close else "--list shows what it has."
        raise UsageError(f"{flag}: the model has no module '{target.module}'. {hint}")
