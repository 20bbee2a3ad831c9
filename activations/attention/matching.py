"""Which tokens of two texts stand for each other."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class Matching:
    """Pairs of positions, one in each text, in order; `equal` says which hold the same token.

    `unmatched` are the positions that are in no pair, of each text.
    """

    a: np.ndarray
    b: np.ndarray
    equal: np.ndarray
    unmatched: tuple[tuple[int, ...], tuple[int, ...]]

    @property
    def is_identity(self) -> bool:
        """Whether the texts are the same."""
        return not any(self.unmatched) and bool(self.equal.all())


def match(a: Sequence[Hashable], b: Sequence[Hashable]) -> Matching:
    """The tokens of the longest common subsequence, and what stands between two of them, where that
    is as many tokens in both texts: one name in place of another.
    """
    common = [(-1, -1), *_common(a, b), (len(a), len(b))]
    pairs: list[tuple[int, int]] = []
    for (i, j), (k, m) in pairwise(common):
        if k - i == m - j:
            pairs += zip(range(i + 1, k), range(j + 1, m), strict=True)
        pairs.append((k, m))
    pairs.pop()  # the ends of both
    found = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    first, second = found[:, 0], found[:, 1]
    equal = np.array([a[i] == b[j] for i, j in pairs], dtype=bool)
    left = [
        tuple(sorted(set(range(len(text))) - set(of.tolist())))
        for text, of in ((a, first), (b, second))
    ]
    return Matching(first, second, equal, (left[0], left[1]))


def _common(a: Sequence[Hashable], b: Sequence[Hashable]) -> Iterator[tuple[int, int]]:
    """The pairs of the longest common subsequence. What begins and ends both is seen first."""
    start = 0
    while start < min(len(a), len(b)) and a[start] == b[start]:
        yield start, start
        start += 1
    end = 0
    while end < min(len(a), len(b)) - start and a[-1 - end] == b[-1 - end]:
        end += 1
    yield from _between(a, b, start, end)
    for back in range(end, 0, -1):
        yield len(a) - back, len(b) - back


def _between(
    a: Sequence[Hashable], b: Sequence[Hashable], start: int, end: int
) -> Iterator[tuple[int, int]]:
    """Hunt and Szymanski's table of lengths, from its end: `lengths[i][j]` is of a[i:], b[j:]."""
    left, right = a[start : len(a) - end], b[start : len(b) - end]
    lengths = np.zeros((len(left) + 1, len(right) + 1), np.int32)
    codes = {token: code for code, token in enumerate(dict.fromkeys([*left, *right]))}
    coded = np.array([codes[token] for token in right], np.int64)
    for i in range(len(left) - 1, -1, -1):
        # Along a row: the longest so far, or one more than what follows where the tokens agree.
        here = np.where(coded == codes[left[i]], lengths[i + 1, 1:] + 1, lengths[i + 1, :-1])
        lengths[i, :-1] = np.maximum.accumulate(here[::-1])[::-1]
    i = j = 0
    while i < len(left) and j < len(right):
        if left[i] == right[j]:
            yield start + i, start + j
            i, j = i + 1, j + 1
        elif lengths[i + 1, j] >= lengths[i, j + 1]:
            i += 1
        else:
            j += 1
