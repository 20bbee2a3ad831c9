"""What the tokens of a stack are called on pages and figures."""

from __future__ import annotations

from activations.attention.spelling import readable
from activations.attention.stack import Stack


def labels(stack: Stack) -> tuple[list[str], list[str]]:
    """What rows and columns are called, as a person reads it."""
    virtual, tokens = stack.columns[: stack.prefix], stack.columns[stack.prefix :]
    return readable(stack.rows), [*virtual, *readable(tokens)]
