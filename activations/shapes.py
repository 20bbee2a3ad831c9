"""What a module put out, without the numbers: shapes and dtypes, nested as the module nested them.

The probe draws such an outline of every module's output; the words in the tables and the estimate
of a document's size are both read off it. No torch here, and no numpy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any


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


def shapes_in(outline: Any) -> Iterator[Shape]:
    """Every tensor of an outline."""
    if isinstance(outline, Shape):
        yield outline
    elif isinstance(outline, (dict, list)):
        for item in outline.values() if isinstance(outline, dict) else outline:
            yield from shapes_in(item)
