"""One layer's attention weights, read from the document when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from activations.outputs.sparse import Rows, Sparse, are_probabilities, row_sums
from activations.system.workers import in_turn

Head = np.ndarray | Sparse  # (rows, columns), or what was kept of (1, 1, rows, columns)
Opened = Callable[[int], Head]  # a head of an opened layer, by its place
_NEARLY_NONE = 1e-3  # of a row's attention
_A_TASK = 2**19  # weights; it takes some time to hand over even one


@dataclass(frozen=True)
class Facts:
    """What one reading of a layer shows.

    `probabilities`: whether all values that are finite are between 0 and 1. `above`: the threshold
    up to which weights were left out of the document, 0 where none were. `odd` counts the values
    that are not finite. `sums` and `left` are means over the rows of each head: of their sum, and
    of what was left out of it; NaN where no row is finite.
    """

    probabilities: bool
    above: float
    odd: int
    sums: np.ndarray
    left: np.ndarray


@dataclass(frozen=True)
class Layer:
    """Weights of some `heads`, `rows` and `columns` of a tensor, by their places in it.

    `open` makes ready to read it and returns what reads a head as a whole: a layer in JSON is
    parsed once for all its heads. `size` is the tensor's (rows, columns). `stored` is how many
    bytes of the document it takes, `memory` how many reading it does. `known_scores` are those that
    the document has, (heads of the tensor, scores), `control` those of the text that a diagnostic
    is compared with; `facts` what a reading has shown.
    """

    open: Callable[[], Opened]
    heads: tuple[int, ...]
    rows: range
    columns: range
    size: tuple[int, int]
    stored: int = 0
    memory: int = 0
    known_scores: np.ndarray | None = None
    control: np.ndarray | None = None
    facts: Facts | None = None

    @classmethod
    def of(cls, weights: np.ndarray) -> Layer:
        """A layer of weights (heads, rows, columns) that are in memory."""
        heads, rows, columns = weights.shape
        return cls.whole(lambda: weights.__getitem__, heads, rows, columns)

    @classmethod
    def whole(cls, open: Callable[[], Opened], heads: int, rows: int, columns: int) -> Layer:
        return cls(open, tuple(range(heads)), range(rows), range(columns), (rows, columns))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(heads, rows, columns)."""
        return len(self.heads), len(self.rows), len(self.columns)

    def head(self, place: int) -> Head:
        """The weights of `heads[place]`."""
        return self.cut(self.open()(self.heads[place]))

    def each_head(self) -> Iterator[Head]:
        """The weights of all heads, one at a time."""
        opened = self.open()
        for head in self.heads:
            yield self.cut(opened(head))

    def dense(self) -> np.ndarray:
        """All heads in one array, with 0 for weights that were left out."""
        return np.stack([as_dense(head) for head in self.each_head()])

    def cut(self, head: Head) -> Head:
        """The rows and columns of this layer, of a head of the whole tensor."""
        rows, columns = (slice(r.start, r.stop) for r in (self.rows, self.columns))
        if isinstance(head, Sparse):
            return head if self.is_whole else head.part(0, rows, columns)
        numbers = head if head.dtype.kind == "f" else head.astype(np.float32)  # only 0 and 1
        return numbers[rows, columns]

    @property
    def together(self) -> int:
        """How many heads are worth a task of their own."""
        return max(_A_TASK // max(len(self.rows) * len(self.columns), 1), 1)

    @property
    def is_whole(self) -> bool:
        """Whether all rows and columns of the tensor are in it."""
        return (len(self.rows), len(self.columns)) == self.size

    @property
    def probabilities(self) -> bool:
        return self._facts.probabilities

    @property
    def above(self) -> float:
        return self._facts.above

    @cached_property
    def _facts(self) -> Facts:
        return look(self) if self.facts is None else self.facts

    @cached_property
    def has_whole_rows(self) -> bool:
        """Whether its rows attend to hardly anything outside its columns."""
        if len(self.columns) == self.size[1]:
            return True
        opened, columns = self.open(), slice(self.columns.start, self.columns.stop)
        return all(
            _outside(opened(head), slice(self.rows.start, self.rows.stop), columns) < _NEARLY_NONE
            for head in self.heads
        )


def as_dense(head: Head) -> np.ndarray:
    """A head's (rows, columns), with 0 for weights that were left out."""
    found: np.ndarray = head.dense()[0, 0] if isinstance(head, Sparse) else head
    return found


def as_rows(head: Sparse) -> Rows:
    return head.head(0)


def sums_of(head: Head) -> np.ndarray:
    """The sum of each row, of what was left out too."""
    if isinstance(head, Sparse):
        rows = as_rows(head)
        sums: np.ndarray = rows.sums + rows.rest
        return sums
    return row_sums(head)


def are_same(head: Head, other: Head) -> bool:
    """Whether two heads hold the same numbers."""
    if isinstance(head, Sparse) and isinstance(other, Sparse):
        return as_rows(head).same_as(as_rows(other))
    if isinstance(head, Sparse) or isinstance(other, Sparse):
        return False
    return np.array_equal(head, other, equal_nan=True)


def _outside(head: Head, rows: slice, columns: slice) -> float:
    """The most that one of these rows attends to columns that are not among these."""
    if isinstance(head, Sparse):
        elsewhere = as_rows(head.part(0, rows)).sums - as_rows(head.part(0, rows, columns)).sums
        return float(elsewhere.max(initial=0))
    size = np.abs(head[rows])
    outside = size[:, : columns.start].sum(axis=-1) + size[:, columns.stop :].sum(axis=-1)
    return float(outside.max(initial=0))


def look(
    layer: Layer,
    each: Callable[[int, Head, np.ndarray], None] | None = None,
    is_work: bool = False,
) -> Facts:
    """Read a layer once. `each(place, head, sums of its rows)` is called with every head of
    probabilities; where one turns out to be none, not with all of them. It is called from two
    threads if heads are large, or `is_work`: if it does more than to add up numbers.
    """

    def see(numbered: tuple[int, Head]) -> tuple[bool, float, int, float, float]:
        place, head = numbered
        sums = sums_of(head)
        found = _of_sparse(head) if isinstance(head, Sparse) else _of_dense(head, sums)
        if each is not None and found[0]:
            each(place, head, sums)
        return found

    heads = enumerate(layer.each_head())
    apart = is_work or layer.together == 1
    seen = list(in_turn(see, heads, layer.together) if apart else map(see, heads))
    probabilities, above, odd, sums, left = zip(*seen, strict=True) if seen else ((),) * 5
    return Facts(
        all(probabilities), max(above, default=0.0), sum(odd), np.array(sums), np.array(left)
    )


def _of_dense(head: np.ndarray, sums: np.ndarray) -> tuple[bool, float, int, float, float]:
    # What is most of the time, in one look: no sum is NaN, and no weight above its row's sum.
    if sums.size and sums.max() <= 1.001 and head.min(initial=0) >= 0:
        return True, 0.0, 0, float(sums.mean()), 0.0
    sound = np.isfinite(sums)
    odd = 0 if sound.all() else int(head.size - np.count_nonzero(np.isfinite(head)))
    mean = float(sums[sound].mean()) if sound.any() else np.nan
    return are_probabilities(head), 0.0, odd, mean, 0.0


def _of_sparse(head: Sparse) -> tuple[bool, float, int, float, float]:
    rows = as_rows(head)
    sound = np.isfinite(rows.rest)
    left = float(rows.rest[sound].mean()) if sound.any() else np.nan
    mean = float(rows.sums[sound].mean()) + left if sound.any() else np.nan
    return True, head.above, int((~sound).sum()) * head.shape[3], mean, left
