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

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from activations.attention.stack import Stack

SCORES = ("previous_token", "induction", "same_token", "first_token", "entropy")
LOWEST_FIRST = "entropy"  # of the others, the highest is the strongest
_TINY = np.float32(1e-30)  # added to a weight, so that 0 ln 0 is 0; it changes no other


def with_scores(stacks: Sequence[Stack]) -> list[Stack]:
    """The stacks, each with the scores of its heads: (layers, heads, 5), in the order of `SCORES`.

    NaN where a score is not defined, and for values that are not probabilities. Scores are of the
    whole text; take a part of it afterwards.
    """
    return [replace(stack, scores=_score(stack)) for stack in stacks]


def _score(stack: Stack) -> np.ndarray:
    masks = _masks(stack)
    scores = np.full((len(stack.layers), len(stack.heads), len(SCORES)), np.nan)
    for i, (weights, are_probabilities) in enumerate(
        zip(stack.weights, stack.probabilities, strict=True)
    ):
        if not are_probabilities:
            continue
        if weights.dtype.kind != "f":  # only 0 and 1
            weights = weights.astype(np.float32)
        sound = np.isfinite(weights).all(axis=-1)  # (heads, rows)
        if not sound.all():
            weights = np.where(sound[..., None], weights, 0)
        means = [_mean(weights, mask, sound) for mask in masks]
        scores[i] = np.stack([*means, _entropy(weights)], axis=-1)
    return scores


def _masks(stack: Stack) -> tuple[np.ndarray, ...]:
    """The weights that count for previous token, induction, same token and first token.

    Each is (rows, columns) of True and False.
    """
    same = _same_tokens(stack)
    previous, induction, first = (np.zeros_like(same) for _ in range(3))
    first[:, stack.prefix] = True
    if stack.offset is not None:
        is_own = np.eye(same.shape[0], same.shape[1], stack.offset, dtype=bool)
        previous[:, stack.prefix : -1] = is_own[:, stack.prefix + 1 :]
        # Not what followed the token just before: that is the attending token itself.
        induction[:, 1:] = np.tril(same, stack.offset - 2)[:, :-1]
        first[is_own[:, stack.prefix]] = False
    return previous, induction, same, first


def _same_tokens(stack: Stack) -> np.ndarray:
    """(rows, columns): whether two tokens are spelled the same."""
    if not stack.knows_tokens:
        return np.zeros((len(stack.rows), len(stack.columns)), dtype=bool)
    code = {token: i for i, token in enumerate(dict.fromkeys((*stack.rows, *stack.columns)))}
    rows, columns = (np.array([code[t] for t in side]) for side in (stack.rows, stack.columns))
    same: np.ndarray = rows[:, None] == columns
    same[:, : stack.prefix] = False
    return same


def _mean(weights: np.ndarray, mask: np.ndarray, sound: np.ndarray) -> np.ndarray:
    """(heads, rows, columns) -> (heads,): the mean over sound rows in which a weight counts.

    NaN for a head that has none. Rows that are not sound hold zeros.
    """
    count = (sound & mask.any(axis=1)).sum(axis=1)
    total = weights[:, mask].sum(axis=1, dtype=np.float64)
    mean: np.ndarray = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
    return mean


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
