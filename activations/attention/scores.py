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

Cross attention has no previous and no next token; there, all tokens of the decoder count. Where
only positions are known, not tokens, there is no `same_token` and no `induction`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from activations.attention.stack import Stack

SCORES = ("previous_token", "induction", "same_token", "first_token", "entropy")
_TINY = np.float32(1e-30)  # added to a weight, so that 0 ln 0 is 0; it changes no other


@dataclass(frozen=True)
class _Pairs:
    """Which (row, column) pairs count for a score, and over how many rows to take the mean."""

    rows: np.ndarray
    columns: np.ndarray
    count: int

    def mean(self, weights: np.ndarray) -> np.ndarray:
        """(heads, rows, columns) -> (heads,); NaN where no token counts."""
        if not self.count:
            return np.full(len(weights), np.nan)
        total: np.ndarray = weights[:, self.rows, self.columns].sum(axis=1, dtype=np.float64)
        return total / self.count


def with_scores(stacks: Sequence[Stack]) -> list[Stack]:
    """The stacks, each with the scores of its heads: (layers, heads, 5), in the order of `SCORES`.

    NaN where a score is not defined: a text without repeated tokens has no induction, a text
    without known tokens no same token either, cross attention no previous token; values that are
    not probabilities have no scores. Scores are of the whole text; take a part of it afterwards.
    """
    return [replace(stack, scores=_score(stack)) for stack in stacks]


def _score(stack: Stack) -> np.ndarray:
    pairs = _pairs(stack)
    scores = np.full((len(stack.layers), len(stack.heads), len(SCORES)), np.nan)
    for i, (weights, are_probabilities) in enumerate(
        zip(stack.weights, stack.probabilities, strict=True)
    ):
        if not are_probabilities:
            continue
        if weights.dtype.kind != "f":  # only 0 and 1
            weights = weights.astype(np.float32)
        if not np.isfinite(weights).all():
            weights = np.where(np.isfinite(weights), weights, 0)
        means = [which.mean(weights) for which in pairs]
        scores[i] = np.stack([*means, _entropy(weights)], axis=-1)
    return scores


def _pairs(stack: Stack) -> tuple[_Pairs, ...]:
    """What counts for previous token, induction, same token and first token."""
    same = _same_tokens(stack)
    if stack.is_cross:
        nothing = np.empty(0, int)
        none = _Pairs(nothing, nothing, 0)
        every = np.arange(len(stack.rows))
        return none, none, _pairs_of(*same), _pairs_of(every, np.zeros_like(every))
    later = np.arange(1, len(stack.rows))
    # Not what followed the token just before: that is the attending token itself.
    earlier = same[1] < same[0] - 1
    return (
        _pairs_of(later, later - 1),
        _pairs_of(same[0][earlier], same[1][earlier] + 1),
        _pairs_of(*same),
        _pairs_of(later, np.zeros_like(later)),
    )


def _same_tokens(stack: Stack) -> tuple[np.ndarray, np.ndarray]:
    """The rows and columns of all pairs of tokens that are spelled the same."""
    if not stack.knows_tokens:
        return np.empty(0, int), np.empty(0, int)
    code = {token: i for i, token in enumerate(dict.fromkeys((*stack.rows, *stack.columns)))}
    rows, columns = (np.array([code[t] for t in side]) for side in (stack.rows, stack.columns))
    row, column = np.nonzero(rows[:, None] == columns)
    return row, column


def _pairs_of(rows: np.ndarray, columns: np.ndarray) -> _Pairs:
    return _Pairs(rows, columns, len(np.unique(rows)))


def _entropy(weights: np.ndarray) -> np.ndarray:
    """(heads, rows, columns) -> (heads,): mean entropy of the rows in nats; NaN without rows."""
    sums = weights.sum(axis=-1)
    unscaled = -np.einsum("hij,hij->hi", weights, np.log(weights + _TINY))
    filled = sums > 0
    # H(w / s) = H(w) / s + ln s
    rows = np.divide(unscaled, sums, out=np.zeros_like(sums), where=filled)
    rows += np.log(sums, out=np.zeros_like(sums), where=filled)
    count = filled.sum(axis=-1)
    total = rows.sum(axis=-1, dtype=np.float64)
    mean = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
    found: np.ndarray = np.maximum(mean, 0)  # rounding may leave -0.0000001
    return found
