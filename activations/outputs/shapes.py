"""What a module returned, without the numbers: shapes and dtypes, nested as the module nested them.

The probe makes such an outline of every module's output, for the tables and for the estimate of a
document's size. No torch here, and no numpy.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from activations.outputs.tree import Element, map_leaves, walk

CELLS = 128  # of the overview of a sparse tensor, along each side at most


@dataclass(frozen=True)
class Count:
    """A size that follows the text: `times` the number of tokens, plus `plus`.

    `letter` says which tokens: T, or, with an encoder and a decoder, S for the encoder's and T for
    the decoder's. The number of patches or frames is fixed by the model and is a plain number.
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

    `causal` marks attention weights (..., queries, keys) that are zero above the diagonal.
    """

    sizes: tuple[int | Count, ...]
    dtype: str
    causal: bool = False

    def known(self, lengths: Mapping[str, int]) -> list[int]:
        """The sizes for these lengths. Raises `KeyError` where one is missing."""
        return [size if isinstance(size, int) else size.of(lengths) for size in self.sizes]

    def numbers(self, lengths: Mapping[str, int]) -> tuple[int, int]:
        """How many numbers the tensor holds and how many of them are certainly zero.

        `lengths` gives each letter's value. Raises `KeyError` where one is missing.
        """
        sizes = self.known(lengths)
        count = prod(sizes)
        if not self.causal or not count:
            return count, 0
        rows, columns = sizes[-2:]
        side = min(rows, columns)  # every row sees the columns before the first row
        return count, count // (rows * columns) * (side * (side - 1) // 2)


@dataclass(frozen=True)
class Lengths:
    """How many tokens a pass reads.

    `text` counts what the model (or its encoder) reads, including what it generates first; None
    where it reads no text. `target` counts the decoder's. With `at_most` the model decides when to
    stop generating, and these are upper limits.
    """

    text: int | None = None
    target: int | None = None
    at_most: bool = False

    @property
    def letters(self) -> dict[str, int]:
        """The number of tokens for each letter of a `Count`."""
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
    """A short pass: its numbers of tokens, by the letters of `Count`, and what modules returned.

    `outputs` has each module's output from its first call: `Shape`s with plain numbers as sizes,
    nested in lists and dicts.
    """

    lengths: Mapping[str, int]
    outputs: Mapping[str, Any]


def outlines(
    seen: Seen, other: Seen, causal: Collection[tuple[str, Element]]
) -> tuple[dict[str, Any], set[str]]:
    """The outputs of `seen`, with `Count`s in place of sizes that follow the text.

    Also the names of modules whose sizes follow the text in a way that two passes do not show
    (Reformer pads it to whole chunks). `causal` says where, by module and element, the weights of
    a causal attention are.
    """
    unexplained: set[str] = set()

    def outline(name: str, output: Any) -> Any:
        there = dict(walk(other.outputs.get(name)))

        def explain(leaf: Any, path: Element) -> Any:
            if not isinstance(leaf, Shape):
                return leaf
            match: Any = there.get(path)  # the same place in the other pass
            alike = isinstance(match, Shape) and len(match.sizes) == len(leaf.sizes)
            before = match.sizes if alike else (None,) * len(leaf.sizes)
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


def _size(
    size: Any, lengths: Mapping[str, int], had: Any, other_lengths: Mapping[str, int]
) -> int | Count:
    """What a size follows, if it was `had` in the other pass (None where that is not known)."""
    found = []
    for letter, length in lengths.items():
        more = length - other_lengths[letter]
        if had is None or not more:
            found += [Count(letter)] if size == length else []
        elif size != had and (size - had) % more == 0 and (size - had) // more > 0:
            times = (size - had) // more
            found.append(Count(letter, times, size - times * length))
    return min(found, key=lambda count: abs(count.plus), default=size)
