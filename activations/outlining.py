"""What modules put out in two passes of unlike length -> which sizes follow the text, and how.

With one pass only, a width of 11 could not be told from 11 tokens. Pure functions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from activations.observation import Element
from activations.shapes import Count, Shape
from activations.tensors import map_leaves, walk


@dataclass(frozen=True)
class Seen:
    """A short pass: its numbers of tokens, by the letters of `Count`, and what came out.

    `outputs` has each module's output from its first call: `Shape`s of mere numbers, nested in
    lists and dicts.
    """

    lengths: Mapping[str, int]
    outputs: Mapping[str, Any]


def outlines(
    seen: Seen, other: Seen, causal: Collection[tuple[str, Element]]
) -> tuple[dict[str, Any], set[str]]:
    """The outputs of `seen`, with `Count`s in the place of sizes that follow the text.

    `causal` says where, by module and element, the weights of a causal attention are. And the
    names of modules of which the two passes show only that sizes follow the text, not how
    (Reformer fills it up to whole chunks).
    """
    unexplained: set[str] = set()

    def outline(name: str, output: Any) -> Any:
        there = dict(walk(other.outputs.get(name)))

        def explain(leaf: Any, path: Element) -> Any:
            if not isinstance(leaf, Shape):
                return leaf
            before = _sizes_before(leaf, there.get(path))
            sizes = tuple(
                _size(size, seen.lengths, had, other.lengths)
                for size, had in zip(leaf.sizes, before, strict=True)
            )
            if any(
                size == number and had not in (None, number)
                for size, number, had in zip(sizes, leaf.sizes, before, strict=True)
            ):
                unexplained.add(name)
            return Shape(sizes, leaf.dtype, (name, path) in causal)

        return map_leaves(output, explain)

    return {name: outline(name, output) for name, output in seen.outputs.items()}, unexplained


def _sizes_before(shape: Shape, other: Any) -> tuple[Any, ...]:
    """The sizes at the same place in the other pass; None for each where there is no such."""
    if isinstance(other, Shape) and len(other.sizes) == len(shape.sizes):
        return other.sizes
    return (None,) * len(shape.sizes)


def _size(
    size: Any, lengths: Mapping[str, int], had: Any, other_lengths: Mapping[str, int]
) -> int | Count:
    """What a size follows that was `had` in the other pass (None where that is not known)."""
    found = []
    for letter, length in lengths.items():
        more = length - other_lengths[letter]
        if had is None or not more:
            found += [Count(letter)] if size == length else []
        elif size != had and (size - had) % more == 0 and (size - had) // more > 0:
            times = (size - had) // more
            found.append(Count(letter, times, size - times * length))
    return min(found, key=lambda count: abs(count.plus), default=size)
