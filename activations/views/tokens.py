"""What the tokens and words of a stack are called on pages and figures."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import accumulate, pairwise

from activations.attention.spelling import readable
from activations.attention.stack import Stack
from activations.attention.word_marks import word_labels
from activations.attention.words import column_words, row_words
from activations.text import printable


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


def short_labels(labels: Sequence[str], width: int) -> tuple[str, ...]:
    """The labels as figures show them: so many Latin letters wide, at most."""
    return tuple(shortened(printable(text), width) for text in labels)


def shortened(text: str, width: int) -> str:
    """The text, its end replaced by an ellipsis where it is wider than `width` Latin letters."""
    widths = [_width(c, before) for before, c in pairwise(["", *text])]
    if sum(widths) <= width:
        return text
    kept = sum(total < width for total in accumulate(widths))
    return text[:kept].rstrip("\u200c\u200d") + "…"


def _width(c: str, before: str) -> int:
    """How many Latin letters wide: marks and joiners take no room, nor does what they join."""
    if before == "\u200d" or unicodedata.category(c) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(c) in "WF" else 1
