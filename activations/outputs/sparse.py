"""Attention weights of which only the large ones are kept, and what is known of the others.

A row of attention sums to 1, so hardly any of its weights can be large: at most 99 are above 0.01,
whatever the length of the text. `SparseBuilder` keeps these exactly as they come, rows by rows, so
that no more than a few rows are ever there as a whole. Of what it leaves out it notes the sum of
each row, the count, and the largest weight of every cell of an overview. numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from activations.outputs.shapes import CELLS
from activations.outputs.tensor import Tensor

_NARROW = 2**16  # of so many columns, each is named by 16 bits


@dataclass(frozen=True, eq=False)
class Sparse:
    """Attention weights above `above`, of (batch, heads, rows, columns); rows attend to columns.

    As in a compressed sparse row matrix, row r of head h in batch b is row i = (b x heads + h) x
    rows + r of all: its weights are entries `row_starts[i]:row_starts[i + 1]` of `columns` (uint16;
    uint32 for more than 65,536 columns) and of `weights`, a `Tensor` in the model's own dtype.
    `rest`, (batch, heads, rows) float32, is the sum of what was left out of each row; NaN for a row
    that is not finite, of which nothing is kept. `overview`, (batch, heads, <= 128, <= 128)
    float16, has the largest weight of each cell of `cell` rows and columns. `axes`, where given,
    turn the tensor of the model into these dimensions (XLNet has others).
    """

    above: float
    shape: tuple[int, int, int, int]
    row_starts: np.ndarray
    columns: np.ndarray
    weights: Tensor
    rest: np.ndarray
    overview: np.ndarray
    axes: tuple[int, ...] | None = None

    @property
    def dtype(self) -> str:
        return self.weights.dtype

    @property
    def dropped(self) -> int:
        """How many weights were left out, zeros of a mask among them."""
        return math.prod(self.shape) - len(self.columns)

    @property
    def cell(self) -> tuple[int, int]:
        """How many rows and columns a cell of the overview has."""
        return cell_size(self.shape)

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        """The shape of the model's own tensor."""
        if self.axes is None:
            return self.shape
        return tuple(self.shape[self.axes.index(i)] for i in range(len(self.shape)))

    @property
    def size(self) -> int:
        """The bytes of `dense()`."""
        return math.prod(self.shape) * (8 if self.dtype == "float64" else 4)

    def head(self, head: int, batch: int = 0) -> Rows:
        """One head's rows."""
        first = self._line(head, batch)
        starts = self.row_starts[first : first + self.shape[2] + 1].astype(np.int64)
        entries = slice(starts[0], starts[-1])
        weights = Tensor(self.dtype, (-1,), self.weights.data[entries]).numbers()
        return Rows(starts - starts[0], self.columns[entries], weights, self.rest[batch, head])

    def _line(self, head: int, batch: int = 0) -> int:
        """Which of all rows is the first of this head."""
        return (batch * self.shape[1] + head) * self.shape[2]

    def part(
        self,
        head: int,
        rows: slice = slice(None),
        columns: slice = slice(None),
        above: float = 0.0,
    ) -> Sparse:
        """These rows and columns of one head of the first batch, and of them what is `above`.

        What is kept here and not there counts as left out of its row; weights in other columns do
        not. The overview of a part shows what was kept.
        """
        shown, held = range(self.shape[2])[rows], range(self.shape[3])[columns]
        whole, shape = self.head(head), (1, 1, len(shown), len(held))
        first, end = whole.starts[shown.start], whole.starts[shown.stop]
        starts = whole.starts[shown.start : shown.stop + 1] - first
        in_rows = np.repeat(np.arange(len(shown)), starts[1:] - starts[:-1])
        at, weights = (
            whole.columns[first:end].astype(np.int64) - held.start,
            whole.weights[first:end],
        )
        inside = (at >= 0) & (at < len(held))
        kept = inside & (weights > above)
        lost = inside & ~kept
        rest = whole.rest[rows] + np.bincount(in_rows[lost], weights[lost], minlength=len(shown))
        if shape[2:] == self.shape[2:]:
            overview = self.overview[:1, head : head + 1]
        else:
            overview = overview_of(shape, in_rows[inside], at[inside], weights[inside])
        counts = np.bincount(in_rows[kept], minlength=len(shown))
        data = self.weights.data[self.row_starts[self._line(head)] :][first:end][kept]
        return Sparse(
            max(above, self.above),
            shape,
            np.concatenate([[0], np.cumsum(counts)]),
            at[kept].astype(self.columns.dtype),
            Tensor(self.dtype, data.shape, data),
            rest.astype(np.float32)[None, None],
            overview,
        )

    def dense(self) -> np.ndarray:
        """The model's own tensor, with 0 for what was left out, and rows of NaN as they were.

        float32, or float64 where the weights are.
        """
        count = int(np.prod(self.shape[:3]))
        numbers = self.weights.numbers()
        found = np.zeros((count, self.shape[3]), numbers.dtype)
        starts = self.row_starts.astype(np.int64)
        found[np.repeat(np.arange(count), starts[1:] - starts[:-1]), self.columns] = numbers
        found[np.isnan(self.rest.reshape(-1))] = np.nan
        whole = found.reshape(self.shape)
        return whole if self.axes is None else whole.transpose(np.argsort(self.axes))


@dataclass(frozen=True, eq=False)
class Rows:
    """One head's weights: row r has entries `starts[r]:starts[r + 1]` of `columns` and `weights`.

    `rest` is the sum of what was left out of each row, NaN where the row is not finite.
    """

    starts: np.ndarray
    columns: np.ndarray
    weights: np.ndarray
    rest: np.ndarray

    @property
    def sums(self) -> np.ndarray:
        """The sum of what was kept of each row, float64."""
        count = len(self.starts) - 1
        lines = np.repeat(np.arange(count), self.starts[1:] - self.starts[:-1])
        return np.bincount(lines, self.weights, minlength=count)

    def same_as(self, other: Rows) -> bool:
        """Whether two heads have the same weights."""
        return all(
            np.array_equal(getattr(self, name), getattr(other, name), equal_nan=True)
            for name in ("starts", "columns", "weights", "rest")
        )


def cell_size(shape: Sequence[int]) -> tuple[int, int]:
    """Rows and columns that share a cell of the overview of a (..., rows, columns) tensor."""
    rows, columns = shape[-2:]
    return max(-(-rows // CELLS), 1), max(-(-columns // CELLS), 1)


def overview_of(
    shape: tuple[int, int, int, int], rows: np.ndarray, columns: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """The overview of a head that has only these weights."""
    high, wide = cell_size(shape)
    found = np.zeros((1, 1, -(-shape[2] // high), -(-shape[3] // wide)), np.float16)
    np.maximum.at(found[0, 0], (rows // high, columns // wide), weights.astype(np.float16))
    return found


class SparseBuilder:
    """Makes a `Sparse` of (batch, heads, rows, columns) weights that come a few rows at a time.

    The rows of a head come in order; different heads may come from different threads.
    """

    def __init__(
        self,
        shape: tuple[int, int, int, int],
        above: float,
        dtype: str = "float32",
        axes: tuple[int, ...] | None = None,
    ) -> None:
        batch, heads, rows, columns = shape
        self._shape, self._above, self._dtype, self._axes = shape, above, dtype, axes
        self._cell = cell_size(shape)
        cells = (-(-rows // self._cell[0]), -(-columns // self._cell[1]))
        self._overview = np.zeros((batch, heads, *cells), np.float16)
        self._rest = np.zeros((batch, heads, rows), np.float32)
        self._counts = np.zeros((batch, heads, rows), np.int64)
        self._column_dtype = np.uint16 if columns <= _NARROW else np.uint32
        self._columns: list[list[np.ndarray]] = [[] for _ in range(batch * heads)]
        self._weights: list[list[np.ndarray]] = [[] for _ in range(batch * heads)]

    def add(
        self,
        batch: int,
        head: int,
        first_row: int,
        rows: np.ndarray,
        sums: np.ndarray | None = None,
    ) -> None:
        """Take rows `first_row` and following of a head: (rows, columns) of float32 or float64.

        There may be fewer columns than in all: the rest of these rows is 0. `sums` are the rows',
        where they are known.
        """
        count, width = rows.shape
        sums = row_sums(rows) if sums is None else sums
        sound = np.isfinite(sums)
        if not sound.all():
            rows = np.where(sound[:, None], rows, 0)
        kept = rows > self._above
        places = np.flatnonzero(kept)
        weights = rows.reshape(-1)[places]
        in_rows, columns = np.divmod(places, width)
        place = batch * self._shape[1] + head
        self._columns[place].append(columns.astype(self._column_dtype))
        self._weights[place].append(_narrowed(weights, self._dtype))
        here = slice(first_row, first_row + count)
        self._counts[batch, head, here] = np.bincount(in_rows, minlength=count)
        sums = np.where(sound, sums, np.nan)
        rest = sums - np.bincount(in_rows, weights, minlength=count)
        self._rest[batch, head, here] = np.maximum(rest, 0)  # rounding may leave -0.0000001
        self._look_over(batch, head, first_row, rows)

    def _look_over(self, batch: int, head: int, first_row: int, rows: np.ndarray) -> None:
        """Note the largest weight of each cell: rows first, as both at once takes far longer."""
        high, wide = self._cell
        pooled = _pooled(rows, high, -first_row % high)
        largest = np.maximum.reduceat(pooled, np.arange(0, rows.shape[1], wide), axis=1)
        cells, first = largest.shape, first_row // high
        seen = self._overview[batch, head, first : first + cells[0], : cells[1]]
        np.maximum(seen, largest.astype(np.float16), out=seen)

    def finish(self) -> Sparse:
        """What was kept. Also frees what it was made of."""
        columns = _joined(self._columns, np.dtype(self._column_dtype))
        weights = _joined(self._weights, _narrowed(np.zeros(0, np.float32), self._dtype).dtype)
        starts = np.zeros(self._counts.size + 1, np.int64)
        np.cumsum(self._counts.reshape(-1), out=starts[1:])
        fits = starts[-1] < 2**32
        return Sparse(
            self._above,
            self._shape,
            starts.astype(np.uint32) if fits else starts,
            columns,
            Tensor(self._dtype, weights.shape, weights),
            self._rest,
            self._overview,
            self._axes,
        )


def _pooled(rows: np.ndarray, high: int, lead: int) -> np.ndarray:
    """The largest of each column in every `high` rows; the first `lead` rows end a cell."""
    lead = min(lead, len(rows))
    count, width = (len(rows) - lead) // high, rows.shape[1]
    end = lead + count * high
    cells = [rows[None, :lead], rows[lead:end].reshape(count, high, width), rows[None, end:]]
    return np.concatenate([cell.max(axis=1) for cell in cells if cell.size])


def _joined(parts: list[list[np.ndarray]], dtype: np.dtype) -> np.ndarray:
    """All parts of all heads in order; the parts are freed."""
    found = [part for of_head in parts for part in of_head]
    parts.clear()
    return np.concatenate(found) if found else np.zeros(0, dtype)


def _narrowed(numbers: np.ndarray, dtype: str) -> np.ndarray:
    """Numbers as a `Tensor` of this dtype holds them: they were widened from it, so exactly."""
    if dtype == "bfloat16":
        return (np.ascontiguousarray(numbers, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return numbers.astype({"float16": np.float16, "float64": np.float64}.get(dtype, np.float32))


def row_sums(rows: np.ndarray) -> np.ndarray:
    """The sum of each row; as a product, which takes half as long."""
    with np.errstate(invalid="ignore", over="ignore"):  # of infinities
        found: np.ndarray = np.vecdot(rows, np.ones(rows.shape[1], rows.dtype))
    return found


def are_probabilities(values: np.ndarray) -> bool:
    """Whether all finite values are between 0 and 1, except for rounding."""
    if values.size == 0 or (values.min() >= 0 and values.max() <= 1.001):
        return True  # NaN is neither
    finite = values[np.isfinite(values)]
    return finite.size == 0 or bool(finite.min() >= 0 and finite.max() <= 1.001)


def keep_above(
    weights: np.ndarray, above: float, dtype: str = "float32", axes: tuple[int, ...] | None = None
) -> Sparse:
    """What is kept of (batch, heads, rows, columns) weights that are there as a whole."""
    batch, heads, rows, columns = weights.shape
    builder = SparseBuilder((batch, heads, rows, columns), above, dtype, axes)
    for b in range(batch):
        for h in range(heads):
            for first in range(0, rows, chunk_of(columns)):
                builder.add(b, h, first, weights[b, h, first : first + chunk_of(columns)])
    return builder.finish()


def chunk_of(columns: int) -> int:
    """How many rows are looked at together: as many as stay in a processor's cache."""
    return int(np.clip(2**19 // max(columns, 1), 1, 128))
