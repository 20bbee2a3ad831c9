"""Scores of heads against the same in plain loops, written from what scores.py says they are."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from browser import random_weights
from hypothesis import given, settings
from hypothesis import strategies as st

from activations.attention.layer import Layer
from activations.attention.scores import SCORES, with_scores
from activations.attention.stack import Stack, take


def stack_of(
    weights: np.ndarray, rows: str, columns: str | None = None, kind: str = "self"
) -> Stack:
    """One layer of weights (heads, rows, columns); each letter is a token."""
    heads = tuple(range(len(weights)))
    layers = (Layer.of(weights),)
    return Stack(kind.capitalize(), kind, (0,), heads, layers, tuple(rows), tuple(columns or rows))


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def by_loops(matrix: list[list[float]], rows: str, columns: str, cross: bool) -> list[float]:
    """The five scores of one head, token by token."""
    previous, induction, same, first, entropies = [], [], [], [], []
    for i, row in enumerate(matrix):
        if not all(map(math.isfinite, row)):
            continue
        alike = [weight for weight, token in zip(row, columns, strict=True) if token == rows[i]]
        if alike:
            same.append(sum(alike))
        if cross or i > 0:
            first.append(row[0])
        if not cross and i > 0:
            previous.append(row[i - 1])
        followers = [j + 1 for j in range(i) if rows[j] == rows[i] and j + 1 != i]
        if not cross and followers:
            induction.append(sum(row[j] for j in followers))
        total = sum(row)
        if total > 0:
            shares = [weight / total for weight in row if weight > 0]
            entropies.append(-sum(p * math.log(p) for p in shares))
    return [mean(previous), mean(induction), mean(same), mean(first), mean(entropies)]


def expected(stack: Stack) -> np.ndarray:
    rows, columns = "".join(stack.rows), "".join(stack.columns)
    heads = stack.weights[0].dense().astype(np.float64).tolist()
    return np.array([by_loops(matrix, rows, columns, stack.is_cross) for matrix in heads])


def scores_of(stack: Stack) -> np.ndarray:
    (scored,) = with_scores([stack])
    assert scored.scores is not None
    assert scored.scores.shape == (1, len(stack.heads), len(SCORES))
    return scored.scores[0]


TEXTS = st.text("abc", min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(TEXTS, st.integers(0, 999), st.booleans())
def test_self_attention(text: str, seed: int, causal: bool) -> None:
    """Few letters, so that most texts repeat some."""
    stack = stack_of(random_weights(seed, 3, len(text), causal=causal), text)
    np.testing.assert_allclose(scores_of(stack), expected(stack), atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(TEXTS, TEXTS, st.integers(0, 999))
def test_cross_attention(rows: str, columns: str, seed: int) -> None:
    weights = random_weights(seed, 2, len(rows), len(columns))
    stack = stack_of(weights, rows, columns, "cross")
    found = scores_of(stack)
    np.testing.assert_allclose(found, expected(stack), atol=1e-5)
    assert np.isnan(found[:, :2]).all()  # no previous token, no induction
    assert np.isnan(found[:, 2]).all() == (not set(rows) & set(columns))


def test_an_induction_head_and_a_previous_token_head() -> None:
    text = "abcdabcd"
    induction, previous = np.zeros((2, 8, 8), np.float32)
    for i in range(8):
        induction[i, i - 3 if i > 3 else i] = 1
        previous[i, max(i - 1, 0)] = 1
    found = scores_of(stack_of(np.stack([induction, previous]), text))
    np.testing.assert_allclose(found[0, :2], [0, 1])  # the 5th token looks at the 2nd
    np.testing.assert_allclose(found[1, :2], [1, 0])
    assert (found[:, 4] == 0).all()
    assert not np.signbit(found).any()  # printed, a negative zero would have a sign


def test_rows_that_do_not_sum_to_one_are_divided_by_their_sum() -> None:
    """Models with sinks; and rows of nothing count for no entropy."""
    weights = random_weights(3, 2, 6, causal=False)
    halved = weights / 2
    halved[:, 4] = 0
    stack = stack_of(halved, "abcdef")
    np.testing.assert_allclose(scores_of(stack), expected(stack), atol=1e-5)
    full = scores_of(stack_of(np.delete(weights, 4, axis=1), "abcdf", "abcdef", "cross"))
    np.testing.assert_allclose(scores_of(stack)[:, 4], full[:, 4], atol=1e-5)


@pytest.mark.parametrize("kind", ["self", "cross"])
def test_rows_that_are_not_finite_are_left_out(kind: str) -> None:
    """Those of one head; the others keep theirs. A head without a row for a score has none."""
    weights = random_weights(5, 4, 6)
    weights[0, 3, 1] = np.nan
    weights[1, 5] = np.inf
    weights[2, 3:] = np.nan  # the rows that have something to repeat
    weights[3] = np.nan
    stack = stack_of(weights, "abcabc", kind=kind)
    found = scores_of(stack)
    np.testing.assert_allclose(found, expected(stack), atol=1e-5)
    assert np.isnan(found[2, SCORES.index("induction")])
    assert np.isnan(found[3]).all()
    sound = scores_of(stack_of(weights[:, :3, :3], "abc", kind=kind))
    others = [i for i in range(len(SCORES)) if SCORES[i] != "induction"]
    np.testing.assert_allclose(found[2, others], sound[2, others], atol=1e-5)


@pytest.mark.parametrize(("rows", "columns"), [(6, 10), (1, 7), (4, 5)])
def test_the_last_tokens_of_a_text(rows: int, columns: int) -> None:
    """One step of a generation with a cache: the same as in these rows of the whole text."""
    text = "abcabcabca"[:columns]
    whole = random_weights(rows, 3, columns)
    hidden = whole.copy()
    hidden[:, : columns - rows] = np.nan  # which leaves these rows out
    last = stack_of(whole[:, columns - rows :], text[columns - rows :], text)
    np.testing.assert_allclose(scores_of(last), scores_of(stack_of(hidden, text)), atol=1e-6)


@pytest.mark.parametrize("prefix", [1, 4])
def test_virtual_tokens_before_the_text(prefix: int) -> None:
    """Prefix tuning: only the entropy knows of them, whatever they are called."""
    text = "abcabca"
    weights = random_weights(prefix, 3, len(text), len(text) + prefix, causal=False)
    stack = stack_of(weights, text, "a" * prefix + text)
    found = scores_of(replace(stack, start=-prefix))
    np.testing.assert_allclose(
        found[:, :4], expected(stack_of(weights[..., prefix:], text))[:, :4], atol=1e-6
    )
    entropy = SCORES.index("entropy")
    np.testing.assert_allclose(found[:, entropy], expected(stack)[:, entropy], atol=1e-5)


def test_pooled_rows_have_no_token_before_them() -> None:
    stack = replace(
        stack_of(random_weights(1, 2, 3, 6, causal=False), "#x", "abcabc"),
        rows=("#0", "#1", "#2"),
        is_aligned=False,
        knows_tokens=False,
    )
    found = scores_of(stack)
    assert np.isnan(found[:, :3]).all()
    first = stack.weights[0].dense()[:, :, 0]
    np.testing.assert_allclose(found[:, 3], first.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("odd", [-0.5, 1.5, 40.0])
def test_raw_scores_have_no_scores(odd: float) -> None:
    weights = random_weights(6, 2, 5)
    weights[1, 2, 2] = odd
    assert np.isnan(scores_of(stack_of(weights, "abcde"))).all()


@pytest.mark.parametrize("kind", ["self", "cross"])
def test_positions_are_no_spellings(kind: str) -> None:
    stack = stack_of(random_weights(8, 2, 6), "abcabc", kind=kind)
    known, unknown = scores_of(stack), scores_of(replace(stack, knows_tokens=False))
    spelled = [SCORES.index("induction"), SCORES.index("same_token")]
    assert np.isnan(unknown[:, spelled]).all()
    assert not np.isnan(known[:, SCORES.index("same_token")]).any()
    others = [i for i in range(len(SCORES)) if i not in spelled]
    np.testing.assert_array_equal(unknown[:, others], known[:, others])


def test_scores_stay_those_of_the_whole_text() -> None:
    (scored,) = with_scores([stack_of(random_weights(7, 3, 9), "abcabcabc")])
    assert scored.scores is not None
    (part,) = take([scored], heads=[0, 2], tokens=(2, 5))
    assert part.scores is not None
    np.testing.assert_array_equal(part.scores, scored.scores[:, [0, 2]])


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, -1e30])
def test_a_part_of_weights_that_are_not_finite(odd: float) -> None:
    """numpy warns of nothing, and rows that are not sound are not called whole."""
    weights = np.tril(np.full((1, 4, 4), 0.25, np.float32))
    inside = stack_of(weights, "abcd")
    with np.errstate(all="raise"):
        assert take([inside], tokens=(0, 2))[0].has_whole_rows
        weights[0, 0, 3] = odd
        assert not take([inside], tokens=(0, 2))[0].has_whole_rows
