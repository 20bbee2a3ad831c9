"""Tokens merged to words: which belong together, and the weights between words."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Layer, random_weights, stack_of, write_capture
from hypothesis import given
from hypothesis import strategies as st

from activations import load
from activations.attention.layer import as_dense, as_rows
from activations.attention.stack import Stack, take
from activations.attention.weights import read_attention
from activations.attention.word_marks import word_labels, word_numbers
from activations.attention.words import can_merge, column_words, merged, row_words, why_not_merged
from activations.outputs.sparse import Sparse, keep_above

# ---------------------------------------------------------------------------- which belong together


def words(tokens: Sequence[str], **told: Any) -> list[str]:
    numbers = word_numbers(tokens, **told)
    assert len(numbers) == len(tokens)
    assert [number for number, _ in groupby(numbers)] == list(range(max(numbers, default=-1) + 1))
    return word_labels(tokens, numbers)


MARKED = [
    # WordPiece; Thai goes on without spaces, so it says nothing there
    ("[CLS] un ##bel ##ie ##vable , [UNK] ##s [SEP]", "[CLS] unbelievable , [UNK] ##s [SEP]"),
    ("don ' t 東 京 ##に ส ##วั", "don ' t 東 京 ##に ส ##วั"),
    # byte-level BPE; the next token after a line break begins a word without a mark
    ("The Ġc at 's Ġsa t . . Ċ Now", "The ·cat's ·sat .. ↵ Now"),
    ("Ġ 1 2 Ġ( x ) Ġ$ 5 a + b", "·12 ·( x ) ·$ 5a + b"),
    ("Ġcaf Ã © s Ġð Ł Ļ Ĥ æ Ŀ ± äº ¬", "·cafés ·🙂 東 京"),
    ("Ġa </s> b c <|im_start|> d", "·a </s> bc <|im_start|> d"),
    # SentencePiece, with bytes of characters that it does not know
    ("<s> ▁The ▁ a bc d . ▁U . S </s>", "<s> ·The ·abcd . ·U . S </s>"),
    ("▁x <0xF0> <0x9F> <0x99> <0x82> <0x0A> y z", "·x 🙂 <0x0A> yz"),
    ("▁ 東京 に 行く", "· 東京 に 行く"),
    ("▁a 🙂 \u200d 🙃 b", "·a 🙂\u200d🙃 b"),
    # letters that are no bytes
    ("a ##Ã©", "aÃ©"),
    # CLIP, XLM; fairseq
    ("<|startoftext|> un believ able</w> .</w> a</w>", "<|startoftext|> unbelievable . a"),
    ("<s> un@@ believ@@ able mat@@ . cat </s>", "<s> unbelievable mat@@ . cat </s>"),
    # no marks
    ("un believ able", "un believ able"),
    ("", ""),
]


@pytest.mark.parametrize(("tokens", "expected"), MARKED)
def test_marks(tokens: str, expected: str) -> None:
    assert words(tokens.split()) == expected.split()


def test_characters_as_tokens() -> None:
    assert words(list("the cat, sat")) == ["the", "·cat", ",", "·sat"]


SAID = [
    ("un believ able", [0, 0, 0], "unbelievable"),
    ("Ġa b c", [0, 1, 1], "·a bc"),
    ("[CLS] a b [SEP] a b", [None, 0, 1, None, 2, 2], "[CLS] a b [SEP] ab"),
    ("▁a <unk> b", [0, 0, 0], "·a<unk>b"),
    ("▁mat . ▁3 . 14", [0, 0, 1, 1, 1], "·mat . ·3 . 14"),
    ("▁$ 5 ▁a", [0, 0, 1], "·$5 ·a"),
    ("Ġæ Ŀ ± äº ¬ Ġa", [0, 0, 0, 0, 0, 1], "·東 京 ·a"),
    ("Ġa b c Ġd e", [0, 0], "·ab c ·de"),  # the model generated the others
]


@pytest.mark.parametrize(("tokens", "said", "expected"), SAID)
def test_what_the_tokenizer_said(tokens: str, said: list[int | None], expected: str) -> None:
    cuts = [2] if len(said) == 2 else []
    assert words(tokens.split(), said=said, cuts=cuts) == expected.split()


def test_no_word_goes_over_a_cut() -> None:
    assert words(["Ġa", "b", "c", "Ġæ", "Ŀ", "±"], cuts=[1, 4]) == [
        "·a",
        "bc",
        "·\\xe6",
        "\\x9d\\xb1",
    ]


@given(st.lists(st.sampled_from(["Ġa", "b", ".", "æ", "Ŀ", "</s>", "##c", "d@@", "e</w>", "▁"])))
def test_any_tokens_have_words(tokens: list[str]) -> None:
    assert sum(map(len, words(tokens))) > 0 or not tokens


# ------------------------------------------------------------------------------------ their weights


def by_hand(weights: np.ndarray, rows: Sequence[int], columns: Sequence[int]) -> np.ndarray:
    """(rows, columns) weights -> those between words, number by number."""
    found = np.full((len(set(rows)), len(set(columns))), np.nan)
    for i, row in enumerate(dict.fromkeys(rows)):
        whole = [r for r, word in enumerate(rows) if word == row and np.isfinite(weights[r]).all()]
        for j, column in enumerate(dict.fromkeys(columns)):
            pieces = [c for c, word in enumerate(columns) if word == column]
            sums = [sum(float(weights[r, c]) for c in pieces) for r in whole]
            if sums:
                found[i, j] = sum(sums) / len(sums)
    return found


ROWS, COLUMNS = [3, 3, 4, 5, 5, 5, 6], [-1, 0, 1, 1, 2, 3, 3, 3, 4]


@pytest.fixture
def weights() -> np.ndarray:
    found = random_weights(1, 1, len(ROWS), len(COLUMNS))[0]
    found[3, 2] = np.nan  # a row of a word with others
    found[6] = np.inf  # and one that is a word alone
    return found


def test_sums_to_words_and_means_from_words(weights: np.ndarray) -> None:
    found = as_dense(merged(weights, ROWS, COLUMNS))
    np.testing.assert_allclose(found, by_hand(weights, ROWS, COLUMNS), atol=1e-12)
    assert np.isnan(found[-1]).all()
    np.testing.assert_allclose(found[:-1].sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("above", [0.0, 0.05, 0.999])
def test_weights_that_were_kept(weights: np.ndarray, above: float) -> None:
    kept = keep_above(weights[None, None], above)
    found = merged(kept, ROWS, COLUMNS)
    assert isinstance(found, Sparse)
    assert found.above == kept.above
    left = np.where(np.isfinite(weights) & (weights <= above), 0, weights)
    np.testing.assert_allclose(as_dense(found), by_hand(left, ROWS, COLUMNS), atol=1e-12)
    rows = as_rows(found)
    np.testing.assert_allclose((rows.sums + rows.rest)[:-1], 1, atol=1e-6)
    assert np.isnan(rows.rest[-1])
    largest = np.nan_to_num(as_dense(found)).astype(np.float16)
    np.testing.assert_array_equal(found.overview[0, 0], largest)  # a cell a word


def test_nothing_large_is_made_of_a_long_text() -> None:
    """100,000 tokens would be 80 GB."""
    count = 100_000
    eye = Sparse(
        0.01,
        (1, 1, count, count),
        np.arange(count + 1),
        np.arange(count, dtype=np.uint32),
        keep_above(np.full((1, 1, count, 1), 0.75), 0.01).weights,
        np.full((1, 1, count), 0.25, np.float32),
        np.zeros((1, 1, 1, 1), np.float16),
    )
    numbers = np.arange(count) // 2
    found = merged(eye, numbers, numbers)
    assert isinstance(found, Sparse)
    rows = as_rows(found)
    np.testing.assert_array_equal(rows.columns, np.arange(count // 2))
    np.testing.assert_allclose(rows.weights, 0.75)
    np.testing.assert_allclose(rows.rest, 0.25)


# --------------------------------------------------------------------------------------- a document

TOKENS = ["[CLS]", "pl", "##ay", "##ing", "[SEP]", "pl", "##ay", "[SEP]"]


def read(folder: Path, layers: Sequence[Layer], **header: Any) -> list[Stack]:
    write_capture(folder / "x.json", layers, **header)
    return read_attention(load(folder / "x.json"))


def test_a_pair_and_a_part_of_it(tmp_path: Path) -> None:
    header = {"tokens": TOKENS, "sentence_b_start": 5}
    (stack,) = read(tmp_path, [Layer(0, random_weights(0, 2, 8))], **header)
    assert stack.row_words == stack.column_words == (0, 1, 1, 1, 2, 3, 3, 4)
    assert can_merge(stack)
    (part,) = take([stack], tokens=(3, 6))
    assert part.row_words == part.column_words == (1, 2, 3)
    assert not can_merge(part)


def test_a_document_that_says_words(tmp_path: Path) -> None:
    said = [0, 0, 0, 0, None, 1, 2]
    header = {"tokens": [*"abcdefg", "##h"], "words": said}
    layers = [Layer(0, random_weights(0, 2, 8))]
    (stack,) = read(tmp_path, layers, **header)
    assert stack.row_words == (0, 0, 0, 0, 1, 2, 3, 3)
    (stack,) = read(tmp_path, layers, **header, sentence_b_start=2, continuation_start=7)
    assert stack.row_words == (0, 0, 1, 1, 2, 3, 4, 5)
    assert why_not_merged(stack) is None


def test_one_step_of_a_generation(tmp_path: Path) -> None:
    """The rows are the last tokens; the first of them goes on with a word."""
    (stack,) = read(tmp_path, [Layer(0, random_weights(0, 2, 5, 8))], tokens=TOKENS)
    assert stack.row_words == (1, 2, 3, 3, 4)
    assert stack.column_words == (0, 1, 1, 1, 2, 3, 3, 4)


def test_virtual_tokens_stay(tmp_path: Path) -> None:
    (stack,) = read(tmp_path, [Layer(0, random_weights(0, 2, 8, 10))], tokens=TOKENS)
    assert stack.row_words == (0, 1, 1, 1, 2, 3, 3, 4)
    assert stack.column_words == (-2, -1, *stack.row_words)


def test_two_texts(tmp_path: Path) -> None:
    target = ["</s>", "▁ein", "e", "▁Katze"]
    header = {"tokens": TOKENS, "decoder_tokens": target}
    layers = [
        Layer(0, random_weights(0, 2, 4, 8), "cross"),
        Layer(0, random_weights(1, 2, 4), "decoder"),
    ]
    decoder, cross = read(tmp_path, layers, **header)
    assert (cross.row_words, cross.column_words) == ((0, 1, 1, 2), (0, 1, 1, 1, 2, 3, 3, 4))
    assert decoder.row_words == decoder.column_words == (0, 1, 1, 2)
    _, said = read(tmp_path, layers, **header, decoder_words=[None, 0, 1, 2], words=[None] * 8)
    assert (said.row_words, said.column_words) == ((0, 1, 2, 3), tuple(range(8)))
    (alone,) = read(tmp_path, layers[:1], tokens=TOKENS, decoder_tokens=["a"])  # of another length
    assert alone.row_words == ()
    assert row_words(alone).tolist() == [0, 1, 2, 3]
    assert column_words(alone).tolist() == [0, 1, 1, 1, 2, 3, 3, 4]


def test_two_towers_read_the_same_text(tmp_path: Path) -> None:
    header = {"tokens": list("abcd"), "student_tokens": list("abcd"), "words": [0, 0, 1, 1]}
    layers = [Layer(0, random_weights(0, 2, 4), "student")]
    (stack,) = read(tmp_path, layers, **header)
    assert stack.row_words == (0, 0, 1, 1)
    (stack,) = read(tmp_path, layers, **{**header, "student_tokens": list("abce")})
    assert stack.row_words == (0, 1, 2, 3)


def test_why_tokens_stay() -> None:
    plain = stack_of(random_weights(0, 1, 4))
    assert why_not_merged(plain) == "Self: no word has several tokens, so tokens are shown."
    raw = stack_of(np.full((1, 2, 2), -3.0))
    raw = Stack(**{**vars(raw), "row_words": (0, 0), "column_words": (0, 0)})
    line = "Self: only attention weights can be merged to words, so tokens are shown."
    assert why_not_merged(raw) == line
    assert not can_merge(raw)
