"""What a head does, in a number for each thing a head is known to do. numpy only.

Each but the last two is a mean over the tokens that attend, of the attention weights that go to

* `previous_token`, `next_token`: the token before, the token after;
* `self`: the attending token itself;
* `duplicate_token`: earlier tokens spelled as the attending one (over those that have any);
* `induction`: the tokens that followed earlier occurrences of the attending token, except itself
  (over the tokens that occurred earlier; Olsson et al. 2022, "In-context Learning and Induction
  Heads");
* `first_token`: the first token of the text, where many heads rest (every token but the first);
* `special_tokens`: `[SEP]`, the end of the text, ..., but not the first token;
* `punctuation`: tokens of punctuation alone.

`alignment` is of cross attention: the rank correlation (Spearman) of each token's strongest column
with its own place, 1 where a head reads the other text from its start to its end. `entropy` is the
mean of the entropy of the attention weights, -sum(p ln p) in nats: 0 where all goes to one token,
ln(n) where it is spread evenly over n. Rows that do not sum to 1 are divided by their sum.

Each head's rows that are not finite are left out of its means.

A score that says nothing is NaN for all heads: where a text has no such tokens; `next_token` where
no head looks ahead (causal attention); in cross attention all that need one text for rows and
columns; where only positions are known, not tokens, all that need to know a token. Virtual tokens
before the text (prefix tuning) are no tokens of it; they count for the entropy only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from activations.attention.layer import Head, Layer, look
from activations.attention.sides import Sides
from activations.attention.spelling import are_punctuation, are_special
from activations.attention.stack import Stack
from activations.outputs.sparse import row_sums

SCORES = (
    "previous_token",
    "next_token",
    "self",
    "duplicate_token",
    "induction",
    "first_token",
    "special_tokens",
    "punctuation",
    "alignment",
    "entropy",
)
LOWEST_FIRST = "entropy"  # of the others, the highest is the strongest
_NEXT, _INDUCTION, _ALIGNMENT = map(SCORES.index, ("next_token", "induction", "alignment"))
_MARKED = slice(SCORES.index("special_tokens"), SCORES.index("alignment"))
_KEPT = 8  # plans: those of all parts of a head of 2,048 tokens
_TOGETHER = 2**19  # weights that are looked at together: each part takes some time to begin
_CACHED = 2**16  # numbers whose logarithms stay in a processor's cache
_LN_2 = np.log(2)
_TINY = np.float32(1e-30)  # added to a weight, so that 0 ln 0 is 0; it changes no other


# (stack, place of the layer, place of the head, its weights)
Visit = Callable[[Stack, int, int, Head], None]


def with_scores(stacks: Sequence[Stack], visit: Visit | None = None) -> list[Stack]:
    """The stacks, read once, each with the scores of its heads: (layers, heads, scores), in the
    order of `SCORES`, and the facts of its layers.

    NaN where a score is not defined, and for values that are not probabilities. Scores are of the
    whole text; take a part of it afterwards. Those that the document has are taken from there: of
    weights of which small ones were left out they could not be computed. `visit` is called with
    every head of probabilities as it is read, from two threads.
    """
    return [_scored(stack, visit) for stack in stacks]


def _scored(stack: Stack, visit: Visit | None) -> Stack:
    plans = Plans(stack.sides, stack.is_cross)
    of_layers = [_of_layer(stack, i, plans, visit) for i in range(len(stack.layers))]
    scores = np.stack([scores for _, scores in of_layers])
    if not (scores[..., _NEXT] > 0).any():
        scores[..., _NEXT] = np.nan
    return replace(stack, weights=tuple(layer for layer, _ in of_layers), scores=scores)


def _of_layer(
    stack: Stack, place: int, plans: Plans, visit: Visit | None
) -> tuple[Layer, np.ndarray]:
    """A layer with its facts, and the scores of its heads."""
    layer, added = stack.weights[place], RowScores(len(stack.heads), plans)
    known = layer.known_scores

    def see(head_place: int, head: Head, sums: np.ndarray) -> None:
        if known is None and isinstance(head, np.ndarray):
            for first in range(0, len(head), step := max(_TOGETHER // head.shape[1], 1)):
                part = slice(first, first + step)
                added.add(head_place, first, head[part], sums[part])
        if visit is not None:
            visit(stack, place, head_place, head)

    facts = look(layer, see, visit is not None)
    if known is not None:
        scores = known[list(layer.heads)]
    elif facts.probabilities and not facts.above:
        scores = added.means()
    else:
        scores = np.full((len(stack.heads), len(SCORES)), np.nan)
    return replace(layer, facts=facts), scores


@dataclass(frozen=True)
class _Plan:
    """Which weights of some rows are added up: the same for all heads.

    `places` are those of one score after another in the flat rows, from `starts` on those of
    `scores`: the scores that have any. `counted` says for all but the last two scores which rows
    count.
    """

    places: np.ndarray
    starts: np.ndarray
    scores: np.ndarray
    counted: np.ndarray

    @classmethod
    def of(cls, places: list[np.ndarray], counted: list[np.ndarray]) -> _Plan:
        sizes = np.array([len(some) for some in places])
        scores = np.flatnonzero(sizes)
        starts = (np.cumsum(sizes) - sizes)[scores]
        # Counts as numbers: a product of arrays of bool only says whether any row counts.
        joined = np.concatenate(places, dtype=np.int32)  # half as large as they came
        return cls(joined, starts, scores, np.stack(counted, dtype=np.int64))

    def sums(self, rows: np.ndarray) -> np.ndarray:
        """What is added to each of `scores`: all in one look, as each takes some time to begin."""
        chosen = rows.reshape(-1)[self.places]
        found: np.ndarray = np.add.reduceat(chosen, self.starts, dtype=np.float64)
        return found


def control_of(stack: Stack) -> np.ndarray | None:
    """The induction of each head on the text that a diagnostic is compared with: (layers, heads).

    None where the document is no such diagnostic. NaN for layers without it.
    """
    if all(layer.control is None for layer in stack.weights):
        return None
    none = np.full(len(stack.heads), np.nan)
    return np.stack(
        [
            none if layer.control is None else layer.control[list(layer.heads), _INDUCTION]
            for layer in stack.weights
        ]
    )


class Plans:
    """Which weights count for which score, of rows and columns that are these tokens.

    `is_cross`: whether they are tokens of two texts. The same for all layers of a stack.
    """

    def __init__(self, sides: Sides, is_cross: bool) -> None:
        known = sides.knows_tokens
        self.rows = len(sides.rows)
        self.is_cross = is_cross
        self._prefix, self._columns = max(-sides.start, 0), len(sides.columns)
        self._offset = None if is_cross else sides.offset
        self._codes = _coded(sides, self._prefix) if known and not is_cross else None
        self._marks = _marked(sides, self._prefix, known)
        self._has_marks = bool(self._marks.any())
        self._kept: dict[tuple[int, int, int], _Plan] = {}

    def of(self, first_row: int, count: int, width: int) -> _Plan:
        """What is added up of these rows. Kept for a while: all heads have the same rows."""
        key = first_row, count, width
        found = self._kept.get(key)
        if found is None:
            while len(self._kept) > _KEPT:
                self._kept.pop(next(iter(self._kept)), None)
            found = self._kept[key] = self._made(first_row, count, width)
        return found

    def marked(self, rows: np.ndarray) -> Sequence[float]:
        """How much of these rows goes to special tokens, and how much to punctuation."""
        if not self._has_marks:
            return 0, 0
        in_columns = np.ones(len(rows), rows.dtype) @ rows
        found: Sequence[float] = in_columns @ self._marks[: rows.shape[1]]
        return found

    def _made(self, first_row: int, count: int, width: int) -> _Plan:
        own = None if self._offset is None else np.arange(count) + first_row + self._offset
        every, none = np.ones(count, bool), np.zeros(count, bool)
        if own is None:
            chosen = [(np.zeros(0, np.int64), none)] * 5
        else:
            chosen = [self._at(own + step, width) for step in (-1, 1, 0)]
            in_rows, columns = self._same_tokens(first_row, count, width)
            # Not what followed the token just before: that is the attending token itself.
            for before, step in ((own, 0), (own - 1, 1)):
                are = columns < before[in_rows]
                places = in_rows[are] * width + columns[are] + step
                chosen.append((places, np.bincount(in_rows[are], minlength=count) > 0))
        firsts = np.full(count, self._prefix)
        chosen.append(
            self._at(firsts if own is None else np.where(own == firsts, -1, firsts), width)
        )
        counted = [rows for _, rows in chosen]
        counted += [every if mark.any() else none for mark in self._marks.T]
        return _Plan.of([places for places, _ in chosen], counted)

    def _at(self, columns: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
        """The place of one column in each row, and in which rows the text has that token."""
        there = (columns >= self._prefix) & (columns < self._columns)
        given = np.flatnonzero(there & (columns < width))
        return given * width + columns[given], there

    def _same_tokens(self, first_row: int, count: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows and columns at which tokens are spelled as the attending one."""
        if self._codes is None:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        rows, columns = self._codes[0][first_row : first_row + count], self._codes[1][:width]
        found = np.flatnonzero(rows[:, None] == columns)
        return np.divmod(found, max(width, 1))


class RowScores:
    """The scores of a layer's heads, whose weights come a few rows at a time.

    The heads may come from different threads.
    """

    def __init__(self, heads: int, plans: Plans) -> None:
        self._plans = plans
        self._strongest = np.full((heads, plans.rows), -1) if plans.is_cross else None
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
        count, width = rows.shape
        plan, totals = self._plans.of(first_row, count, width), self._totals[head]
        entropies, filled = _entropies(rows, sums)
        totals[plan.scores] += plan.sums(rows)
        totals[_MARKED] += self._plans.marked(rows)
        totals[-1] += entropies.sum(dtype=np.float64)
        self._counts[head, :-2] += plan.counted @ sound
        self._counts[head, -1] += np.count_nonzero(filled)
        if self._strongest is not None:
            columns = np.where(filled, rows.argmax(axis=1), -1)
            self._strongest[head, first_row : first_row + count] = columns

    def means(self) -> np.ndarray:
        """(heads, scores), in the order of `SCORES`; NaN where a score is not defined."""
        nan = np.full(self._totals.shape, np.nan)
        means = np.divide(self._totals, self._counts, out=nan, where=self._counts > 0)
        found: np.ndarray = np.maximum(means, 0)  # rounding may leave an entropy of -0.0000001
        if self._strongest is not None:
            found[:, _ALIGNMENT] = list(map(_alignment, self._strongest))
        return found


def _coded(sides: Sides, prefix: int) -> tuple[np.ndarray, np.ndarray]:
    """A number for each spelling, of the rows and of the columns."""
    code = {token: i for i, token in enumerate(dict.fromkeys((*sides.rows, *sides.columns)))}
    both = (sides.rows, sides.columns)
    of_rows, of_columns = (np.array([code[t] for t in side], np.int32) for side in both)
    of_columns[:prefix] = -1  # no token of the text
    return of_rows, of_columns


def _marked(sides: Sides, prefix: int, known: bool) -> np.ndarray:
    """(columns, 2) of 0 and 1: special tokens but the first of the text, and punctuation."""
    marks = np.zeros((len(sides.columns), 2), np.float32)
    if known:
        tokens = sides.columns[prefix:]
        marks[prefix:, 0] = are_special(tokens)
        marks[prefix:, 1] = are_punctuation(tokens)
        marks[prefix : prefix + 1, 0] = 0
    return marks


def _entropies(rows: np.ndarray, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The entropy of each row in nats, and in which rows anything is attended to."""
    products, step = np.empty_like(sums), max(_CACHED // rows.shape[1], 1)
    logs = np.empty((min(step, len(rows)), rows.shape[1]), rows.dtype)
    for first in range(0, len(rows), step):
        part = rows[first : first + step]
        some = np.add(part, _TINY, out=logs[: len(part)])
        np.log2(some, out=some)  # takes half as long as np.log
        np.vecdot(part, some, out=products[first : first + step])
    filled = sums > 0
    divisors = np.where(filled, sums, 1)
    products *= -_LN_2
    # H(w / s) = H(w) / s + ln s
    return products / divisors + np.log(divisors), filled


def _alignment(strongest: np.ndarray) -> float:
    """Spearman's rank correlation of the rows' strongest columns (-1: none) with their order.

    NaN where there are no two rows, or all have the same column. Equal columns share their mean
    rank.
    """
    columns = strongest[strongest >= 0]
    if len(columns) < 2 or (columns == columns[0]).all():
        return float("nan")
    _, place, counts = np.unique(columns, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float(np.corrcoef(ranks, np.arange(len(columns)))[0, 1])
