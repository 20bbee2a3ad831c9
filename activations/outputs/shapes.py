"""What a module put out, without the numbers: shapes and dtypes, nested as the module nested them.

The probe draws such an outline of every module's output; the words in the tables and the estimate
of a document's size are both read off it. No torch here, and no numpy.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from activations.outputs.tree import Element, map_leaves, walk


@dataclass(frozen=True)
class Count:
    """A size that follows the text: `times` as many as there are tokens, and `plus` some.

    `letter` says which tokens: T, or, with an encoder and a decoder, S the encoder's and T the
    decoder's. Patches and frames are counted as they are: their number is the model's own.
    """

    letter: str
    times: int = 1
    plus: int = 0

    def of(self, lengths: Mapping[str, int]) -> int:
        return max(self.times * lengths[self.letter] + self.plus, 0)

    def __str__(self) -> str:
        times = "" if self.times == 1 else str(self.times)
        return f"{times}{self.letter}" + (f"{self.plus:+}" if self.plus else "")


@dataclass(frozen=True)
class Shape:
    """A tensor's `sizes` and `dtype`.

    `causal` tells of attention weights (..., queries, keys) of which those above the diagonal are
    zero.
    """

    sizes: tuple[int | Count, ...]
    dtype: str
    causal: bool = False

    def numbers(self, lengths: Mapping[str, int]) -> tuple[int, int]:
        """How many numbers the tensor holds and how many of them are zero for sure.

        `lengths` says what the letters stand for. Raises `KeyError` where it does not.
        """
        sizes = [size if isinstance(size, int) else size.of(lengths) for size in self.sizes]
        count = prod(sizes)
        if not self.causal or not count:
            return count, 0
        rows, columns = sizes[-2:]
        side = min(rows, columns)  # what came before the first row is seen by all
        return count, count // (rows * columns) * (side * (side - 1) // 2)


@dataclass(frozen=True)
class Lengths:
    """How many tokens a pass is about.

    `text` counts what the model (or its encoder) reads, with what it writes itself first; None
    where it reads none. `target` counts the decoder's. With `at_most` it is the model that decides
    when to stop writing, and these are the most.
    """

    text: int | None = None
    target: int | None = None
    at_most: bool = False

    @property
    def letters(self) -> dict[str, int]:
        """What the letters of `activations.outputs.shapes.Count` stand for."""
        named = {"T": self.text} if self.target is None else {"S": self.text, "T": self.target}
        return {letter: count for letter, count in named.items() if count is not None}


def in_words(outline: Any) -> str:
    """`[1,T,896]`, `([1,T,896], [1,14,T,T])`: an outline as the tables show it."""
    if isinstance(outline, Shape):
        return "[" + ",".join(map(str, outline.sizes)) + "]"
    if isinstance(outline, dict):
        items = [f"{key}: {in_words(value)}" for key, value in outline.items()]
        return "{" + ", ".join(items) + "}"
    if isinstance(outline, list):
        return "(" + ", ".join(map(in_words, outline)) + ")"
    return str(outline)


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
