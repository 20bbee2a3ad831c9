"""Which layer each call of a module belongs to.

A layer is a member of a numbered list, and its number the one in its name. Where a pass calls a
member several times (ALBERT has one module for all its layers), each call is a layer, and they are
numbered in the order of the calls. So it is with a block of attention that has no number at all.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

Spans = Mapping[str, Sequence[tuple[int, int]]]  # when each call of a module began and ended


@dataclass(frozen=True)
class Numbered:
    """A module with a layer number in its name, and the member of a list that has this number.

    `model.layers.3.mlp` is in the member `model.layers.3` of the list `model.layers`. A block
    without a number that is called as several layers is a list's only member, 0.
    """

    name: str
    member: str
    number: int

    @property
    def list_name(self) -> str:
        return self.member.rpartition(".")[0]


@dataclass(frozen=True)
class Layers:
    """The layer of each call of a module, and how many layers (`depth`) there are in its list.

    A single layer is that of every call; None is that of a call which no layer made. `calls` is
    empty where the calls are the layers, and the module is never called.
    """

    calls: tuple[int | None, ...] = (None,)
    depth: int = 0


def reused_blocks(attention: Iterable[str], spans: Spans) -> list[str]:
    """The modules without a number that are called as layers: each call is one.

    They are the outermost ones around these attention modules that are called as often, more than
    once.
    """
    blocks: dict[str, None] = {}
    for name in attention:
        parts, calls = name.split("."), len(spans.get(name, ()))
        around = (".".join(parts[:end]) for end in range(1, len(parts) + 1))
        if calls > 1:
            blocks[next(module for module in around if len(spans.get(module, ())) == calls)] = None
    return list(blocks)


def find_layers(modules: Iterable[Numbered], spans: Spans) -> dict[str, Layers]:
    """The layers of the modules that have a number, by name."""
    by_list: dict[str, list[Numbered]] = defaultdict(list)
    for module in modules:
        by_list[module.list_name].append(module)
    return {
        name: layers for inside in by_list.values() for name, layers in _in_one_list(inside, spans)
    }


def _in_one_list(modules: Sequence[Numbered], spans: Spans) -> Iterator[tuple[str, Layers]]:
    running = _List({module.member: module.number for module in modules}, spans)
    calls = {module.name: running.of_calls(module) for module in modules}
    known = {layer for found in calls.values() for layer in found if layer is not None}
    for name, found in calls.items():
        yield name, Layers(found, max(known, default=-1) + 1)


class _List:
    """One list: which of its layers runs when."""

    def __init__(self, numbers: Mapping[str, int], spans: Spans) -> None:
        self._spans = spans
        self._is_reused = any(len(spans.get(member, ())) > 1 for member in numbers)
        self._calls = sorted(
            (began, ended, number)
            for member, number in numbers.items()
            for began, ended in spans.get(member, ())
        )

    def of_calls(self, module: Numbered) -> tuple[int | None, ...]:
        found = [self._at(began) for began, _ in self._spans.get(module.name, ())]
        if not self._is_reused:
            # A list that is not called itself, only its members' parts, runs at no time.
            found = [module.number if layer is None else layer for layer in found]
            found = found or [module.number]
        return tuple(found[:1] if len(set(found)) == 1 else found)

    def _at(self, time: int) -> int | None:
        """The layer that runs at this time."""
        i = bisect_right(self._calls, time, key=lambda call: call[0]) - 1
        if i < 0 or self._calls[i][1] < time:
            return None
        return i if self._is_reused else self._calls[i][2]
