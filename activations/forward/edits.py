"""Changing a pass: parts of what modules are given, or return, replaced while it runs.

A contribution (of a head, a block, any module) stands at a `Place`. It is replaced by zeros, by its
mean over the positions of the text, or by what stood there when the model read another text.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from activations.errors import ToolkitError
from activations.forward.hooks import hooked
from activations.model.state import fixed_seed
from activations.outputs.tree import Element, at, walk, with_leaf

INPUT, OUTPUT = "input", "output"
ZERO, MEAN, SOURCE = "zero", "mean", "source"
Given = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Place:
    """Where a contribution stands: in the first float tensor that a module is given or returns.

    `call` is one of the module's calls, None for all. Of a head it is the part `first` to `end` of
    the axis `axis`; of a whole module, with `axis` None, all of the tensor. `tokens` is the axis of
    the positions, None where there is none. Axes are counted from the end, as a batch may be in
    front.
    """

    module: str
    call: int | None
    side: str = OUTPUT
    axis: int | None = None
    first: int = 0
    end: int = 0
    tokens: int | None = None

    def overlaps(self, other: Place) -> bool:
        """Whether both would write the same numbers."""
        same_call = self.call is None or other.call is None or self.call == other.call
        apart = self.axis is not None and (self.end <= other.first or other.end <= self.first)
        return (self.module, self.side) == (other.module, other.side) and same_call and not apart


@dataclass(frozen=True)
class Write:
    """A place and what to put there, at these positions (None: all), in one `row` of a batch.

    `values` are those of another pass, by the number of the call.
    """

    place: Place
    way: str = ZERO
    positions: tuple[int, ...] | None = None
    row: int | None = None
    values: Mapping[int, torch.Tensor] = field(default_factory=dict)

    def change(self, tensor: torch.Tensor, call: int) -> torch.Tensor:
        """A copy of the tensor, changed."""
        changed = tensor.clone()
        part = part_of(changed, self.place)
        if self.row is not None:
            part = part.narrow(0, self.row, 1)
        if self.positions is None:
            part.copy_(self._new(part, call))
            return changed
        assert self.place.tokens is not None, "was checked"
        where = torch.tensor(self.positions, device=part.device)
        new = self._new(part, call).index_select(self.place.tokens, where)
        part.index_copy_(self.place.tokens, where, new)
        return changed

    def _new(self, part: torch.Tensor, call: int) -> torch.Tensor:
        if self.way == ZERO:
            return torch.zeros_like(part)
        if self.way == MEAN:
            assert self.place.tokens is not None, "was checked"
            mean = part.float().mean(self.place.tokens, keepdim=True)
            return mean.to(part.dtype).expand_as(part)
        found = self.values.get(call)
        if found is None or found.shape != part.shape:
            there = "none" if found is None else "x".join(map(str, found.shape))
            raise ToolkitError(
                f"--patch: {self.place.module} handles {'x'.join(map(str, part.shape))} numbers of "
                f"the prompt and {there} of the source. Choose another place."
            )
        return found


class Edits:
    """The writes of one pass: make a new one for each. `unreached` and `moved` say what they did.

    With hooks of your own, hand what a module is given to `entry`, and what it returns to `output`.
    """

    def __init__(self, writes: Sequence[Write] = ()) -> None:
        self._sides: dict[str, dict[str, list[Write]]] = {INPUT: {}, OUTPUT: {}}
        for write in writes:
            self._sides[write.place.side].setdefault(write.place.module, []).append(write)
        self._calls: dict[tuple[str, str], int] = defaultdict(int)
        self._writes, self._reached = list(writes), set[int]()
        self.moved = False

    @property
    def inputs(self) -> tuple[str, ...]:
        """The modules whose input is changed."""
        return tuple(self._sides[INPUT])

    @property
    def outputs(self) -> tuple[str, ...]:
        """The modules whose output is changed."""
        return tuple(self._sides[OUTPUT])

    @property
    def unreached(self) -> list[Place]:
        """The places that the pass did not come to."""
        return [write.place for write in self._writes if id(write) not in self._reached]

    def entry(self, name: str, given: Given) -> Given | None:
        """What the module is to be given in place of this; None for the same."""
        return self._changed(INPUT, name, given)  # type: ignore[no-any-return]

    def output(self, name: str, output: Any) -> Any:
        """What the module is to return in place of this; None for the same."""
        return self._changed(OUTPUT, name, output)

    def _changed(self, side: str, name: str, tree: Any) -> Any:
        call = self._calls[side, name]
        self._calls[side, name] += 1
        writes = [w for w in self._sides[side].get(name, ()) if w.place.call in (None, call)]
        path = first_tensor(tree) if writes else None
        if path is None:
            return None
        before = tensor = at(tree, path)
        for write in writes:
            tensor = write.change(tensor, call)
            self._reached.add(id(write))
        self.moved = self.moved or not torch.equal(before, tensor)
        return with_leaf(tree, path, tensor)

    @contextmanager
    def active(self, model: nn.Module) -> Iterator[None]:
        """Write in the passes in the block."""
        with (
            hooked(model, self.inputs, on_entry=self.entry),
            hooked(model, self.outputs, on_call=self.output),
        ):
            yield


def run_watched(
    model: nn.Module,
    given: Mapping[str, Any],
    places: Sequence[Place],
    see: Callable[[int, int, torch.Tensor], None],
) -> Any:
    """What `model(**given)` returns. Meanwhile `see(number of the place, number of the call, what
    stands there)` is called.
    """
    calls: dict[tuple[str, str], int] = defaultdict(int)

    def show(side: str, name: str, tree: Any) -> None:
        call = calls[side, name]
        calls[side, name] += 1
        path = first_tensor(tree)
        for number, place in enumerate(places if path is not None else ()):
            if (place.module, place.side) == (name, side) and place.call in (None, call):
                see(number, call, part_of(at(tree, path or ()), place))

    def names(side: str) -> list[str]:
        return list(dict.fromkeys(place.module for place in places if place.side == side))

    with (
        hooked(model, names(INPUT), on_entry=partial(show, INPUT)),
        hooked(model, names(OUTPUT), on_call=partial(show, OUTPUT)),
        torch.no_grad(),
        fixed_seed(),
    ):
        return model(**given)


def read_values(
    model: nn.Module, given: Mapping[str, Any], places: Sequence[Place]
) -> list[dict[int, torch.Tensor]]:
    """What stands at each place in the pass `model(**given)`, by the number of the call."""
    values: list[dict[int, torch.Tensor]] = [{} for _ in places]

    def keep(number: int, call: int, part: torch.Tensor) -> None:
        values[number][call] = part.detach().clone()

    run_watched(model, given, places, keep)
    return values


def first_tensor(tree: Any) -> Element | None:
    """The path of the first tensor of floats."""
    leaves = ((path, x) for path, x in walk(tree) if isinstance(x, torch.Tensor))
    return next((path for path, tensor in leaves if tensor.is_floating_point()), None)


def part_of(tensor: torch.Tensor, place: Place) -> torch.Tensor:
    """The numbers at the place: a view."""
    if place.axis is None:
        return tensor
    return tensor.narrow(place.axis, place.first, place.end - place.first)
