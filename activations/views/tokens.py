"""What the tokens and words of a stack are called on pages and figures."""

from __future__ import annotations

from activations.attention.spelling import readable
from activations.attention.stack import Stack
from activations.attention.word_marks import word_labels
from activations.attention.words import column_words, row_words


def labels(stack: Stack) -> tuple[list[str], list[str]]:
    """What rows and columns are called, as a person reads it."""
    virtual, tokens = stack.columns[: stack.prefix], stack.columns[stack.prefix :]
    return readable(stack.rows), [*virtual, *readable(tokens)]


def labels_of_words(stack: Stack) -> tuple[list[str], list[str]]:
    """What the words of rows and columns are called."""
    rows, columns = row_words(stack), column_words(stack)
    virtual, tokens = stack.columns[: stack.prefix], stack.columns[stack.prefix :]
    names = [*virtual, *word_labels(tokens, columns[stack.prefix :].tolist())]
    return word_labels(stack.rows, rows.tolist()), names
