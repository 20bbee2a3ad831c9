"""What the probe saw of a model, as plain data. No torch here: what uses it can be pure.

`activations.forward.probe` makes an `Observation`; `activations.selection.catalog` sorts it;
`activations.session.header` uses it to say where the attention weights are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from activations.outputs.shapes import Shape
from activations.outputs.tree import Element


@dataclass(frozen=True)
class Module:
    """A module of the model: its full name and its class's name."""

    name: str
    class_name: str


@dataclass(frozen=True)
class WeightsSource:
    """One place where one of the model's attention tensors is returned.

    `kind` is "self", "encoder", "decoder" or "cross", or the name of one of several towers ("text",
    "vision"); `position` the tensor's place among the model's own attentions of that kind. The same
    (kind, position) at several modules is one tensor that outer modules return again.
    """

    module: str
    call: int
    element: Element
    kind: str
    position: int
    axes: tuple[int, ...] | None = None

    @property
    def tensor(self) -> tuple[str, int]:
        return self.kind, self.position


@dataclass(frozen=True)
class Observation:
    """A model's modules (in the model's order, without the root) and what a short pass showed.

    `calls` counts the calls of each module. `outputs` outlines what its first call returned, nested
    in lists and dicts: an `activations.outputs.shapes.Shape` in place of each tensor, None, and
    class names for anything else. `unsure` names modules whose calls or shapes cannot be known in
    advance: they follow the data (an expert gets the rows picked for it), or the length of the
    text in a way that two passes do not show.
    `positions` has the number of rows and columns of a kind's attention matrices, where all agree.
    `lost` names the kinds of attention that the model returns but no module does: the model changes
    them afterwards (Longformer, LED's encoder, CPM-Ant).
    `call_form` is how the model takes its inputs (see `activations.model.signature.arguments`).
    `spans` gives the order of the pass: when each call of a module began and ended, counted in
    calls and returns of any module. Only modules that were called have one.
    `needs_flag`: weights appear only when `output_attentions=True` is passed to the forward call.
    `warm_up`: the model replaces its own modules in its first pass, so hooks are added after one.
    `logits` outlines what the model predicts with, None where it returns no logits; `head` counts
    the weights that make them, 0 where that is not known.
    `probed` is False when no pass could be run: then only names and classes are known.
    """

    modules: tuple[Module, ...]
    calls: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    unsure: frozenset[str] = frozenset()
    weights: tuple[WeightsSource, ...] = ()
    positions: dict[str, int] = field(default_factory=dict)
    lost: tuple[str, ...] = ()
    spans: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    call_form: str = "names"
    needs_flag: bool = False
    warm_up: bool = False
    probed: bool = True
    logits: Shape | None = None
    head: int = 0

    def first_after(self, modules: Iterable[str]) -> str | None:
        """The module whose first call comes after the layers of these have returned.

        Not after the modules themselves: within a layer, a longer text may call them again (CANINE
        attends chunk by chunk). None where one of them was not called in the short pass, or nothing
        comes after.
        """
        modules = list(modules)
        if not modules or any(name not in self.spans for name in modules):
            return None
        last = max(self.spans[around][-1][1] for name in modules for around in self._around(name))
        later = [(calls[0], name) for name, calls in self.spans.items() if calls[0][0] > last]
        return min(later)[1] if later else None

    def _around(self, name: str) -> list[str]:
        """The module and its parents up to its layer; up to the root if its name has no number."""
        parts = name.split(".")
        number = next((i for i, part in enumerate(parts) if part.isdecimal()), 0)
        around = [".".join(parts[:end]) for end in range(number + 1, len(parts) + 1)]
        return [module for module in around if module in self.spans]


@dataclass(frozen=True)
class Called:
    """One call of a module, and when it began and ended in the trial run."""

    module: str
    call: int
    began: int
    ended: int

    def is_around(self, other: Called) -> bool:
        return self.began <= other.began and other.ended <= self.ended


def weights_sources(
    sources: Iterable[WeightsSource], chosen: Iterable[str]
) -> tuple[WeightsSource, ...]:
    """Each attention tensor once, from the outermost chosen module that returns it.

    The order is the model's own: by kind as the model returns them, then by layer.
    """
    chosen = set(chosen)
    best: dict[tuple[str, int], WeightsSource] = {}
    for source in sources:
        if source.module not in chosen:
            continue
        held = best.get(source.tensor)
        if held is None or source.module.count(".") < held.module.count("."):
            best[source.tensor] = source
    return tuple(best.values())
