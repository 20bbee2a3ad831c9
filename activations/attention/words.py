"""Attention between words: to a word the sum over its pieces, from a word the mean over them.

So it is defined in Clark et al. 2019, "What Does BERT Look at?". Rows sum to what they did before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from activations.attention.layer import Head, as_rows
from activations.attention.sides import Header, Sides, tokens_of, words_of
from activations.attention.stack import Stack
from activations.attention.word_marks import word_numbers
from activations.outputs.sparse import Sparse, overview_of
from activations.outputs.tensor import Tensor

_MARKS = ("sentence_b_start", "continuation_start")  # where a text changes; no word goes on there


def words_of_sides(
    header: Header, kind: str, sides: Sides
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """For each row and column the number of its word in its text; below 0 for virtual tokens.

    Empty where the document has no tokens for them.
    """
    texts = ("decoder", "encoder") if kind == "cross" else (kind, kind)
    rows = _numbers(header, texts[0])
    columns = rows if texts[0] == texts[1] else _numbers(header, texts[1])
    return _fitted(sides.rows, *rows), _fitted(sides.columns, *columns)


def _numbers(header: Header, text: str) -> tuple[list[str], tuple[int, ...]]:
    """The tokens of a text, and the numbers of their words."""
    tokens = tokens_of(header, text) or []
    marks = [header.get(key) for key in _MARKS] if text in ("self", "encoder") else []
    return tokens, word_numbers(tokens, words_of(header, text), [m for m in marks if m])


def _fitted(
    names: Sequence[str], tokens: Sequence[str], numbers: tuple[int, ...]
) -> tuple[int, ...]:
    """The numbers for these names: all tokens of the text, its last ones, or some before it."""
    before = len(names) - len(tokens)
    if tokens and tuple(names[max(before, 0) :]) == tuple(tokens[max(-before, 0) :]):
        return (*range(-before, 0), *numbers[max(-before, 0) :])
    return ()


# ---------------------------------------------------------------------------------------- a stack


def can_merge(stack: Stack) -> bool:
    """Whether words of it have several tokens, and its weights can be added up."""
    return _has_pieces(stack) and all(stack.probabilities)


def _has_pieces(stack: Stack) -> bool:
    return any(len(set(words)) < len(words) for words in (stack.row_words, stack.column_words))


def why_not_merged(stack: Stack) -> str | None:
    """Why the tokens of a stack are not merged to words; None where they are."""
    if not _has_pieces(stack):
        return f"{stack.name}: no word has several tokens, so tokens are shown."
    if not all(stack.probabilities):
        return f"{stack.name}: only attention weights can be merged to words, so tokens are shown."
    return None


def row_words(stack: Stack) -> np.ndarray:
    """The numbers of the rows' words; of each its own where they are not known."""
    return _known(stack.row_words, len(stack.rows))


def column_words(stack: Stack) -> np.ndarray:
    return _known(stack.column_words, len(stack.columns))


def _known(words: tuple[int, ...], count: int) -> np.ndarray:
    return np.array(words, np.int64) if words else np.arange(count)


# ----------------------------------------------------------------------------------------- a head


def merged(head: Head, rows: Any, columns: Any) -> Head:
    """A head's weights between words, from the numbers of the rows' and the columns' words.

    float64 (row words, column words), or what was kept of it. Of a word's rows those that are not
    finite are left out; where all are, so is the word's: NaN.
    """
    row_starts, column_starts = starts_of(rows), starts_of(columns)
    if isinstance(head, Sparse):
        return _merged_sparse(head, row_starts, column_starts)
    sums = np.add.reduceat(head.astype(np.float64), column_starts, axis=1)
    sound = np.isfinite(head).all(axis=1)
    sums[~sound] = 0
    counts = np.add.reduceat(sound.astype(np.int64), row_starts)
    found: np.ndarray = _mean(np.add.reduceat(sums, row_starts, axis=0), counts[:, None])
    return found


def starts_of(words: Any) -> np.ndarray:
    """The first of the tokens of each word."""
    numbers = np.asarray(words)
    return np.flatnonzero(np.diff(numbers, prepend=numbers[:1] - 1))


def _merged_sparse(head: Sparse, row_starts: np.ndarray, column_starts: np.ndarray) -> Sparse:
    rows, columns = head.shape[2:]
    height, width = len(row_starts), len(column_starts)
    whole = as_rows(head)
    row_of, column_of = (
        np.searchsorted(starts, np.arange(count), "right") - 1
        for starts, count in ((row_starts, rows), (column_starts, columns))
    )
    sound = np.isfinite(whole.rest)  # of other rows, nothing was kept
    counts = np.bincount(row_of, sound, height)
    lines = np.repeat(row_of, whole.starts[1:] - whole.starts[:-1])
    cells, inverse = np.unique(lines * width + column_of[whole.columns], return_inverse=True)
    at_rows, at_columns = np.divmod(cells, width)
    weights = np.bincount(inverse, whole.weights, len(cells)) / counts[at_rows]
    rest = _mean(np.bincount(row_of, np.where(sound, whole.rest, 0), height), counts)
    shape = (1, 1, height, width)
    return Sparse(
        head.above,
        shape,
        np.concatenate([[0], np.cumsum(np.bincount(at_rows, minlength=height))]),
        at_columns.astype(head.columns.dtype),
        Tensor("float64", weights.shape, weights),
        rest.astype(np.float32)[None, None],
        overview_of(shape, at_rows, at_columns, weights),
    )


def _mean(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return found
