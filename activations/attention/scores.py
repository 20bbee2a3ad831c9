"""What a head does, in five numbers: how much of its attention goes where. numpy only.

Each is a mean over the tokens that attend, of the attention weights that go to

* `previous_token`: the token before (every token but the first has one);
* `induction`: the tokens that followed earlier occurrences of the attending token, except itself
  (over the tokens that occurred earlier; Olsson et al. 2022, "In-context Learning and Induction
  Heads");
* `same_token`: tokens spelled as the attending one, itself included;
* `first_token`: the first token of the text, where many heads rest (every token but the first);

and of the `entropy` of the attention weights, -sum(p ln p) in nats: 0 where all goes to one token,
ln(n) where it is spread evenly over n. Rows that do not sum to 1 are divided by their sum.

Each head's rows that are not finite are left out of its means.

Cross attention has no previous and no next token; there, all tokens of the decoder count. Where
only positions are known, not tokens, there is no `same_token` and no `induction`. Virtual tokens
before the text (prefix tuning) are no tokens of it; they count for the entropy only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from activations.attention.layer import Head, Layer, look
from activations.attention.stack import Stack
from activations.outputs.sparse import chunk_of, row_sums

SCORES = ("previous_token", "induction", "same_token", "first_token", "entropy")
LOWEST_FIRST = "entropy"  # of the others, the highest is the strongest
_KEPT = 8  # chunks of rows whose same tokens are remembered
_CACHED = 2**16  # numbers whose logarithms stay in a processor's cache
_TINY = np.float32(1e-30)  # added to a weight, so that 0 ln 0 is 0; it changes no other


# (stack, place of the layer, place of the head, its weights)
Visit = Callable[[Stack, int, int, Head], None]


def with_scores(stacks: Sequence[Stack], visit: Visit | None = None) -> list[Stack]:
    """The stacks, read once, each with the scores of its heads: (layers, heads, 5), in the order of
    `SCORES`, and the facts of its layers.

    NaN where a score is not defined, and for values that are not probabilities. Scores are of the
    whole text; take a part of it afterwards. Those that the document has are taken from there: of
    weights of which small ones were left out they could not be computed. `visit` is called with
    every head of probabilities as it is read, from two threads.
    """
    return [_scored(stack, visit) for stack in stacks]


def _scored(stack: Stack, visit: Visit | None) -> Stack:
    layers, scores = zip(
        *(_of_layer(stack, i, visit) for i in range(len(stack.layers))), strict=True
    )
    return replace(stack, weights=layers, scores=np.stack(scores))


def _of_layer(stack: Stack, place: int, visit: Visit | None) -> tuple[Layer, np.ndarray]:
    """A layer with its facts, and the scores of its heads."""
    layer, added = stack.weights[place], row_scores(stack)
    known = layer.known_scores

    def see(head_place: int, head: Head) -> None:
        if known is None and isinstance(head, np.ndarray):
            for first in range(0, len(head), step := chunk_of(head.shape[1])):
                added.add(head_place, first, head[first : first + step])
        if visit is not None:
            visit(stack, place, head_place, head)

    facts = look(layer, see)
    if known is not None:
        scores = known[list(layer.heads)]
    elif facts.probabilities and not facts.above:
        scores = added.means()
    else:
        scores = np.full((len(stack.heads), len(SCORES)), np.nan)
    return replace(layer, facts=facts), scores


def row_scores(stack: Stack) -> RowScores:
    """What adds up the scores of one layer of a stack."""
    rows, columns = (stack.rows, stack.columns) if stack.knows_tokens else (None, None)
    return RowScores(len(stack.heads), rows, columns, stack.offset, stack.prefix)


class RowScores:
    """The scores of heads whose weights come a few rows at a time.

    `rows` and `columns` are tokens, or None where only positions are known. Row i is the token of
    column i + `offset`; None where rows are no tokens of the columns. `prefix` counts the virtual
    tokens before the text. The heads may come from different threads.
    """

    def __init__(
        self,
        heads: int,
        rows: Sequence[str] | None,
        columns: Sequence[str] | None,
        offset: int | None,
        prefix: int = 0,
    ) -> None:
        self._codes = None if rows is None or columns is None else _coded(rows, columns, prefix)
        self._alike: dict[tuple[int, int, int], np.ndarray] = {}
        self._offset, self._prefix = offset, prefix
        self._totals = np.zeros((heads, len(SCORES)))
        self._counts = np.zeros((heads, len(SCORES)), np.int64)

    def add(
        self,
        head: int,
        first_row: int,
        rows: np.ndarray,
        sums: np.ndarray | None = None,
    ) -> None:
        """Take rows `first_row` and following of a head, (rows, columns), all between 0 and 1.

        There may be fewer columns than in all: the rest of these rows is 0. `sums` are the
        rows', where they are known.
        """
        sums = row_sums(rows) if sums is None else sums
        sound = np.isfinite(sums)
        if not sound.all():
            rows, sums = np.where(sound[:, None], rows, 0), np.where(sound, sums, 0)
        for i, (values, counted) in enumerate(self._values(first_row, rows, sums)):
            self._totals[head, i] += values[counted & sound].sum(dtype=np.float64)
            self._counts[head, i] += np.count_nonzero(counted & sound)

    def means(self) -> np.ndarray:
        """(heads, 5), in the order of `SCORES`; NaN where a score is not defined."""
        nan = np.full(self._totals.shape, np.nan)
        means = np.divide(self._totals, self._counts, out=nan, where=self._counts > 0)
        found: np.ndarray = np.maximum(means, 0)  # rounding may leave an entropy of -0.0000001
        return found

    def _values(
        self,
        first_row: int,
        rows: np.ndarray,
        sums: np.ndarray,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each of `SCORES`, the value of each row, and where it counts."""
        count, width = rows.shape
        flat = np.ascontiguousarray(rows).reshape(-1)
        line = np.arange(count) * width  # where each row begins in `flat`
        own = None if self._offset is None else np.arange(count) + first_row + self._offset
        alike = self._same_tokens(first_row, count, width), line, line + width
        if own is None:
            yield np.zeros(count), np.zeros(count, bool)
            yield _added(flat, alike[0], line, line)
        else:
            yield _at(rows, own - 1, self._prefix)
            # Not what followed the token just before: that is the attending token itself.
            yield _added(flat[1:], alike[0], line, line + np.maximum(own - 1, 0))
        yield _added(flat, *alike)
        values, counted = _at(rows, np.full(count, self._prefix), 0)
        yield values, counted if own is None else counted & (own != self._prefix)
        yield _entropies(rows, sums)

    def _same_tokens(self, first_row: int, count: int, width: int) -> np.ndarray:
        """Where in these rows tokens are spelled as the attending one: places in (rows, columns).

        Kept for a while: all heads have the same rows.
        """
        if self._codes is None:
            return np.zeros(0, np.int64)
        key = first_row, count, width
        found = self._alike.get(key)
        if found is None:
            rows, columns = self._codes[0][first_row : first_row + count], self._codes[1][:width]
            found = np.flatnonzero(rows[:, None] == columns)
            while len(self._alike) > _KEPT:
                self._alike.pop(next(iter(self._alike)), None)
            self._alike[key] = found
        return found


def _coded(
    rows: Sequence[str], columns: Sequence[str], prefix: int
) -> tuple[np.ndarray, np.ndarray]:
    """A number for each spelling, of the rows and of the columns."""
    code = {token: i for i, token in enumerate(dict.fromkeys((*rows, *columns)))}
    of_rows, of_columns = (np.array([code[t] for t in side], np.int32) for side in (rows, columns))
    of_columns[:prefix] = -1  # no token of the text
    return of_rows, of_columns


def _at(rows: np.ndarray, columns: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    """The weight of one column in each row, and whether it is there (not below `least`)."""
    there = (columns >= least) & (columns < rows.shape[1])
    values = rows[np.arange(len(rows)), np.where(there, columns, 0)]
    return values, there


def _added(
    flat: np.ndarray, places: np.ndarray, first: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each row, the sum of the numbers at those of `places` that are in its first:end, and
    whether there are any. `places` are in order.
    """
    bounds = np.searchsorted(places, first), np.searchsorted(places, end)
    sums = np.zeros(len(places) + 1)
    reached = places[: bounds[1][-1]]  # beyond, there may be no number
    np.cumsum(flat[reached], out=sums[1 : len(reached) + 1])
    return sums[bounds[1]] - sums[bounds[0]], bounds[1] > bounds[0]


def _entropies(rows: np.ndarray, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The entropy of each row in nats; it counts where anything is attended to."""
    unscaled, step = np.empty_like(sums), max(_CACHED // rows.shape[1], 1)
    for first in range(0, len(rows), step):
        part = rows[first : first + step]
        logs = part + _TINY
        np.log(logs, out=logs)
        unscaled[first : first + step] = -np.vecdot(part, logs)
    filled = sums > 0
    # H(w / s) = H(w) / s + ln s
    found = np.divide(unscaled, sums, out=np.zeros_like(sums), where=filled)
    found += np.log(sums, out=np.zeros_like(sums), where=filled)
    return found, filled
