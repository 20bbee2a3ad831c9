"""Heads by their names: `3.5` is layer 3, head 5; `cross:3.5` the same in cross attention."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from activations.arguments import numbered
from activations.errors import UsageError

if TYPE_CHECKING:
    from activations.attention.stack import Stack

_NAME = re.compile(r"\s*(?:([a-z0-9_]{1,60}):)?(\d{1,6})\.(\d{1,6})\s*")


@dataclass(frozen=True)
class HeadName:
    """One head, as the command line names it. Without a `kind`, it means the head of every kind."""

    layer: int
    head: int
    kind: str | None = None

    def __str__(self) -> str:
        return f"{self.kind}:{self.layer}.{self.head}" if self.kind else f"{self.layer}.{self.head}"


def parse_heads(text: str, flag: str, other: str = "") -> list[HeadName]:
    """`"3.5,cross:0.1"` -> the heads, each once.

    Raises `UsageError`, naming the flag, and what `other` the flag takes.
    """
    found = []
    for part in text.split(","):
        match = _NAME.fullmatch(part)
        if not match:
            raise UsageError(
                f"{flag} cannot read '{part}'. Write layer and head, as in 3.5{other}."
            )
        found.append(HeadName(int(match[2]), int(match[3]), match[1]))
    return list(dict.fromkeys(found))


def stacks_with(name: HeadName, stacks: Sequence[Stack], flag: str) -> list[Stack]:
    """The stacks that have this head. Raises `UsageError`, which lists what exists."""
    kinds = list(dict.fromkeys(stack.kind for stack in stacks))
    of_kind = [stack for stack in stacks if name.kind in (None, stack.kind)]
    if not of_kind:
        raise UsageError(
            f"{flag} {name}: there is no '{name.kind}' attention. There is {', '.join(kinds)}."
        )
    with_layer = [stack for stack in of_kind if name.layer in stack.layers]
    if not with_layer:
        there = numbered("layer", (layer for stack in of_kind for layer in stack.layers))
        raise UsageError(f"{flag} {name}: there is no layer {name.layer}. Choose from {there}.")
    found = [stack for stack in with_layer if name.head in stack.heads]
    if not found:
        there = numbered("head", (head for stack in with_layer for head in stack.heads))
        raise UsageError(
            f"{flag} {name}: layer {name.layer} has no head {name.head}. It has {there}."
        )
    return found
