"""Scores of heads against the same in plain loops, written from what scores.py says they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    weights: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str] | None = None,
    kind: str = "self",
) -> Stack:
    """One layer of weights (heads, rows, columns); of a text, each letter is a token."""
    heads = tuple(range(len(weights)))
    layers = (Layer.of(weights),)
    return Stack(kind.capitalize(), kind, (0,), heads, layers, tuple(rows), tuple(columns or rows))


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


SPECIAL, PUNCTUATION = ("[CLS]", "[SEP]", "</s>"), (".", ",")


def by_loops(
    matrix: list[list[float]], rows: tuple[str, ...], columns: tuple[str, ...], cross: bool
) -> list[float]:
    """The scores of one head, token by token."""
    of: dict[str, list[float]] = {name: [] for name in SCORES}
    strongest = []
    for i, row in enumerate(matrix):
        if not all(map(math.isfinite, row)):
            continue
        if cross or i > 0:
            of["first_token"].append(row[0])
        if not cross:
            of["self"].append(row[i])
            of["previous_token"] += [row[i - 1]] if i > 0 else []
            of["next_token"] += row[i + 1 : i + 2]
            earlier = [j for j in range(i) if rows[j] == rows[i]]
            of["duplicate_token"] += [sum(row[j] for j in earlier)] if earlier else []
            followers = [j + 1 for j in earlier if j + 1 != i]
            of["induction"] += [sum(row[j] for j in followers)] if followers else []
        for name, kind in (("special_tokens", SPECIAL), ("punctuation", PUNCTUATION)):
            there = [j for j, token in enumerate(columns) if token in kind]
            there = [j for j in there if j > 0 or name == "punctuation"]
            of[name] += [sum(row[j] for j in there)] if there else []
        total = sum(row)
        if total > 0:
            strongest.append(row.index(max(row)))
            shares = [weight / total for weight in row if weight > 0]
            of["entropy"].append(-sum(p * math.log(p) for p in shares))
    found = {name: mean(values) for name, values in of.items()}
    found["alignment"] = rank_correlation(strongest) if cross else math.nan
    return [found[name] for name in SCORES]


def rank_correlation(places: list[int]) -> float:
    """Spearman's, of places with their order."""
    ranks = [sum(b < a for b in places) + (places.count(a) - 1) / 2 for a in places]
    order = list(range(len(places)))
    if len(set(places)) < 2:
        return math.nan
    x, y = ([v - sum(values) / len(values) for v in values] for values in (ranks, order))
    product = sum(a * b for a, b in zip(x, y, strict=True))
    return product / math.sqrt(sum(a * a for a in x) * sum(b * b for b in y))


def expected(stack: Stack) -> np.ndarray:
    heads = stack.weights[0].dense().astype(np.float64).tolist()
    found = [by_loops(matrix, stack.rows, stack.columns, stack.is_cross) for matrix in heads]
    scores = np.array(found)
    ahead = scores[:, SCORES.index("next_token")]
    ahead[~(ahead > 0).any(keepdims=True).repeat(len(ahead))] = np.nan
    return scores


def of(found: np.ndarray, *names: str) -> np.ndarray:
    """These scores of all heads."""
    return found[:, [SCORES.index(name) for name in names]]


def scores_of(stack: Stack) -> np.ndarray:
    (scored,) = with_scores([stack])
    assert scored.scores is not None
    assert scored.scores.shape == (1, len(stack.heads), len(SCORES))
    return scored.scores[0]


TEXTS = st.lists(st.sampled_from([*"abc.", "[SEP]", "[CLS]", ","]), min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(TEXTS, st.integers(0, 999), st.booleans())
def test_self_attention(text: list[str], seed: int, causal: bool) -> None:
    """Few tokens, so that most texts repeat some."""
    stack = stack_of(random_weights(seed, 3, len(text), causal=causal), text)
    np.testing.assert_allclose(scores_of(stack), expected(stack), atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(TEXTS, TEXTS, st.integers(0, 999))
def test_cross_attention(rows: list[str], columns: list[str], seed: int) -> None:
    weights = random_weights(seed, 2, len(rows), len(columns))
    stack = stack_of(weights, rows, columns, "cross")
    found = scores_of(stack)
    np.testing.assert_allclose(found, expected(stack), atol=1e-5)
    of_one_text = ("previous_token", "next_token", "self", "duplicate_token", "induction")
    assert np.isnan(of(found, *of_one_text)).all()


def test_an_induction_head_and_a_previous_token_head() -> None:
    text = "abcdabcd"
    induction, previous = np.zeros((2, 8, 8), np.float32)
    for i in range(8):
        induction[i, i - 3 if i > 3 else i] = 1
        previous[i, max(i - 1, 0)] = 1
    found = scores_of(stack_of(np.stack([induction, previous]), text))
    # In the first head the 5th token looks at the 2nd.
    np.testing.assert_allclose(of(found, "previous_token", "induction"), [[0, 1], [1, 0]])
    assert (of(found, "entropy") == 0).all()
    assert not np.signbit(found[np.isfinite(found)]).any()  # a negative zero would have a sign


def test_rows_that_do_not_sum_to_one_are_divided_by_their_sum() -> None:
    """Models with sinks; and rows of nothing count for no entropy."""
    weights = random_weights(3, 2, 6, causal=False)
    halved = weights / 2
    halved[:, 4] = 0
    stack = stack_of(halved, "abcdef")
    np.testing.assert_allclose(scores_of(stack), expected(stack), atol=1e-5)
    full = scores_of(stack_of(np.delete(weights, 4, axis=1), "abcdf", "abcdef", "cross"))
    entropies = of(scores_of(stack), "entropy"), of(full, "entropy")
    np.testing.assert_allclose(*entropies, atol=1e-5)


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
    assert np.isnan(of(found, "induction", "duplicate_token")[2]).all()
    assert np.isnan(found[3]).all()
    sound = scores_of(stack_of(weights[:, :3, :3], "abc", kind=kind))
    np.testing.assert_allclose(found[2], sound[2], atol=1e-5)


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
    without = expected(stack_of(weights[..., prefix:], text))
    np.testing.assert_allclose(found[:, :-1], without[:, :-1], atol=1e-6)
    np.testing.assert_allclose(of(found, "entropy"), of(expected(stack), "entropy"), atol=1e-5)


def test_pooled_rows_have_no_token_before_them() -> None:
    stack = replace(
        stack_of(random_weights(1, 2, 3, 6, causal=False), "#x", "abcabc"),
        rows=("#0", "#1", "#2"),
        is_aligned=False,
        knows_tokens=False,
    )
    found = scores_of(stack)
    first = stack.weights[0].dense()[:, :, 0]
    np.testing.assert_allclose(of(found, "first_token")[:, 0], first.mean(axis=1), atol=1e-6)
    named = [name for name in SCORES if not np.isnan(of(found, name)).all()]
    assert named == ["first_token", "entropy"]


@pytest.mark.parametrize("odd", [-0.5, 1.5, 40.0])
def test_raw_scores_have_no_scores(odd: float) -> None:
    weights = random_weights(6, 2, 5)
    weights[1, 2, 2] = odd
    assert np.isnan(scores_of(stack_of(weights, "abcde"))).all()


@pytest.mark.parametrize("kind", ["self", "cross"])
def test_positions_are_no_spellings(kind: str) -> None:
    stack = stack_of(random_weights(8, 2, 6), "abca.c", kind=kind)
    known, unknown = scores_of(stack), scores_of(replace(stack, knows_tokens=False))
    spelled = ("induction", "duplicate_token", "punctuation", "special_tokens")
    assert np.isnan(of(unknown, *spelled)).all()
    assert not np.isnan(of(known, "punctuation")).any()
    others = [name for name in SCORES if name not in spelled]
    np.testing.assert_array_equal(of(unknown, *others), of(known, *others))


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


# --------------------------------------------------------------------------- as others define them


def test_the_relations_to_published_scores() -> None:
    """TransformerLens's detector and mosaic, and the share of sinks (arXiv 2410.10781)."""
    text = ["<s>", *(f"t{i}" for i in range(50)), *(f"t{i}" for i in range(50))]
    count = len(text)
    perfect = np.zeros((count, count), np.float32)
    for i in range(count):  # it looks at what followed the first copy, else at the start
        perfect[i, i - 49 if i > 50 else 0] = 1
    heads = np.stack([perfect, *random_weights(1, 3, count)])
    found = scores_of(stack_of(heads, text))

    def detected(pattern: np.ndarray) -> np.ndarray:
        """`detect_head(error_measure="mul")`: the share of all attention in a pattern."""
        shares: np.ndarray = (heads * pattern).sum((1, 2)) / heads.sum((1, 2))
        return shares

    previous = np.eye(count, k=-1)
    duplicate = np.eye(count, k=-50) * (np.arange(count) > 50)[:, None]
    induction = np.eye(count, k=-49) * (np.arange(count) > 50)[:, None]
    names = ("previous_token", "duplicate_token", "induction")
    shares = np.stack([detected(p) for p in (previous, duplicate, induction)], axis=1)
    rows = [count - 1, 50, 50]
    np.testing.assert_allclose(of(found, *names) * rows / count, shares, atol=1e-6)
    assert found[0, SCORES.index("induction")] == 1
    assert shares[0, 2] == pytest.approx(0.495, abs=5e-4)
    assert perfect.diagonal(-49).mean() == pytest.approx(0.981, abs=5e-4)  # the mosaic's stripe
    sinks = heads[:, :, 0].mean(axis=1)
    first = of(found, "first_token")[:, 0]
    np.testing.assert_allclose((1 + (count - 1) * first) / count, sinks, atol=1e-6)


@pytest.mark.parametrize(
    ("tokens", "special", "punctuation"),
    [
        (["[CLS]", "a", ",", "##!", "[SEP]"], [4], [2, 3]),
        (["<s>", "▁a", "▁.", "</s>", "<0x0A>"], [3], [2]),
        (["<|endoftext|>", "Ġa", "Ġ.", "<|im_end|>", "âĢĶ"], [3], [2, 4]),
        (["a", "[b]", "<", "$", "·"], [], [2, 4]),  # $ and < are symbols
    ],
)
def test_what_is_special_and_what_is_punctuation(
    tokens: list[str], special: list[int], punctuation: list[int]
) -> None:
    punctuation = [i for i in punctuation if tokens[i] != "<"]
    weights = random_weights(4, 2, len(tokens), causal=False)
    found = scores_of(stack_of(weights, tokens))
    for name, columns in (("special_tokens", special), ("punctuation", punctuation)):
        expected = weights[:, :, columns].sum(-1).mean(-1) if columns else [math.nan] * 2
        np.testing.assert_allclose(of(found, name)[:, 0], expected, atol=1e-6)
