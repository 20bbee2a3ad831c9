"""Attention as one view can show it, and parts of it: layers, heads and tokens. numpy only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from activations.arguments import numbered
from activations.attention.layer import Layer
from activations.attention.sides import Sides
from activations.document.picture import Picture, parts_in_words
from activations.errors import UsageError, ignore
from activations.text import counted, printable

_MASKED = -1e4  # raw scores are far above; masks are the smallest float16 or below


@dataclass(frozen=True)
class Stack:
    """Attention of one kind over layers of one shape, as one view can show it.

    `weights` holds for each of `layers` what reads its (heads, rows, columns); rows are the tokens
    that attend (queries), columns those attended to (keys). `heads` are the heads' real numbers.
    There may be fewer rows than columns: rows are the last tokens of the columns' text, unless
    `is_aligned` is False (pooled rows). `start` is the position in the text of the first column,
    negative where virtual tokens stand before the text (prefix tuning). A second sentence starts at
    column `split`, the text that the model generated at `written`. `knows_tokens` is False where
    the document lacks tokens, so that positions stand for them. `picture` is that whose patches or
    frames are among the columns' text. `scores` is what
    `activations.attention.scores` computes, (layers, heads, scores). `row_words` and `column_words`
    have for each token the number of its word in its text, below 0 for virtual tokens; they are
    empty where the tokens are not known.
    """

    name: str
    kind: str
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    weights: tuple[Layer, ...]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    split: int | None = None
    written: int | None = None
    start: int = 0
    is_aligned: bool = True
    knows_tokens: bool = True
    picture: Picture | None = None
    scores: np.ndarray | None = None
    row_words: tuple[int, ...] = ()
    column_words: tuple[int, ...] = ()

    @cached_property
    def probabilities(self) -> tuple[bool, ...]:
        """For each layer, whether its values are probabilities; else they are raw scores."""
        return tuple(layer.probabilities for layer in self.weights)

    @cached_property
    def has_whole_rows(self) -> bool:
        """Whether almost no attention goes to tokens that are not among the columns."""
        return all(layer.has_whole_rows for layer in self.weights)

    @cached_property
    def title(self) -> str:
        """The name, safe to show: it may contain module names, which may be hostile."""
        return printable(self.name)

    @property
    def is_cross(self) -> bool:
        """Whether rows and columns are tokens of two texts."""
        return self.kind.endswith("cross")

    @property
    def sides(self) -> Sides:
        """What its rows and columns are."""
        return Sides(self.rows, self.columns, self.start, self.is_aligned, self.knows_tokens)

    @property
    def offset(self) -> int | None:
        """Row i is the token of column i + offset; None where rows are no tokens of the columns."""
        return None if self.is_cross else self.sides.offset

    @property
    def prefix(self) -> int:
        """How many of the columns are virtual tokens before the text."""
        return max(-self.start, 0)

    @property
    def row_start(self) -> int:
        """The position in its text of the first row."""
        return self.start + (self.offset or 0)

    @property
    def size(self) -> str:
        """How many tokens: `24 tokens`, or `13 x 1,500 tokens` where rows and columns differ.

        With a picture `[CLS] and 14 × 14 patches`, or `13 tokens × 1,500 frames`, are counted.
        """
        rows, columns = len(self.rows), len(self.columns)
        picture = None if self.first_part is None else self.picture
        if picture is None:
            return counted(rows, "token") if rows == columns else f"{rows:,} x {columns:,} tokens"
        if rows == columns and not self.is_cross:
            return parts_in_words(self.columns, picture, self.first_part or 0)
        part = picture.part if columns == picture.parts else "token"
        return f"{counted(rows, 'token')} × {counted(columns, part)}"

    @property
    def first_part(self) -> int | None:
        """The column of the picture's first patch or frame; None where not all are columns."""
        if self.picture is None:
            return None
        column = self.picture.start - self.start
        ends = column + self.picture.parts
        return column if column >= 0 and ends <= len(self.columns) else None

    @property
    def end(self) -> int:
        """The position after the last of rows and columns."""
        return max(self.row_start + len(self.rows), self.start + len(self.columns))

    def within(self, first: int, end: int) -> tuple[slice, slice]:
        """The rows and the columns whose positions in the text are first:end."""
        return (
            slice(max(first - self.row_start, 0), max(end - self.row_start, 0)),
            slice(max(first - self.start, 0), max(end - self.start, 0)),
        )

    def reaches(self, first: int, end: int) -> bool:
        """Whether both rows and columns have tokens at positions first:end."""
        rows, columns = self.within(first, end)
        return bool(self.rows[rows] and self.columns[columns])


def take(
    stacks: Sequence[Stack],
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    tokens: tuple[int, int] | None = None,
    warn: Callable[[str], None] = ignore,
) -> list[Stack]:
    """Only these layers, heads and token positions (first, end). Raises `UsageError`.

    Negative layers count from the end of those that there are: encoder and decoder each have a
    last layer.
    `warn` gets a line for each stack that is left out because it has no such heads or tokens while
    others have. (A layer is shown whichever stack it is in.)
    """
    found = list(stacks)
    left_out: list[str] = []
    if layers is not None:
        meant = [_from_the_start(layers, stack, stacks) for stack in stacks]
        known = {n for s in stacks for n in s.layers}
        missing = [n for n, *found in zip(layers, *meant, strict=True) if not known & set(found)]
        _check(missing, known, "layer", "--layers")
        parts = map(_take_layers, stacks, meant)
        found = [part for part in parts if part.layers]
    if heads is not None:
        _check(heads, {n for s in stacks for n in s.heads}, "head", "--heads")
        left_out += [
            f"--heads leaves out '{s.name}', which has {numbered('head', s.heads)}."
            for s in found
            if not set(heads) & set(s.heads)
        ]
        found = [part for stack in found if (part := _take_heads(stack, heads)).heads]
    if tokens is not None and found:
        longest = max(stack.end for stack in found)
        if tokens[1] > longest or tokens[0] >= tokens[1]:
            raise UsageError(
                f"--tokens {tokens[0]}:{tokens[1]} is outside the text: there are tokens "
                f"0:{longest}."
            )
        left_out += [
            f"--tokens leaves out '{s.name}', which has {s.size}."
            for s in found
            if not s.reaches(*tokens)
        ]
        found = [_take_tokens(stack, *tokens) for stack in found if stack.reaches(*tokens)]
    if found:
        for line in left_out:
            warn(line)
    return found


def _from_the_start(layers: Sequence[int], stack: Stack, stacks: Sequence[Stack]) -> list[int]:
    """-1 is the last of the stack's layers and of those in other stacks of the same list.

    They are of the same kind (but not of the same shape), and have none of its layers.
    """
    there = set(stack.layers)
    for other in stacks:
        if other.kind == stack.kind and not there & set(other.layers):
            there.update(other.layers)
    in_order = sorted(there)
    return [in_order[n] if -len(in_order) <= n < 0 else n for n in layers]


def _check(wanted: Sequence[int], known: set[int], what: str, flag: str) -> None:
    missing = [number for number in wanted if number not in known]
    if missing:
        raise UsageError(
            f"{flag}: there is no {what} {missing[0]} in the document. It has "
            f"{numbered(what, known)}."
        )


def _take_layers(stack: Stack, layers: Sequence[int]) -> Stack:
    kept = [i for i, layer in enumerate(stack.layers) if layer in layers]
    return replace(
        stack,
        layers=tuple(stack.layers[i] for i in kept),
        weights=tuple(stack.weights[i] for i in kept),
        scores=None if stack.scores is None else stack.scores[kept],
    )


def _take_heads(stack: Stack, heads: Sequence[int]) -> Stack:
    kept = [i for i, head in enumerate(stack.heads) if head in heads]
    return replace(
        stack,
        heads=tuple(stack.heads[i] for i in kept),
        weights=tuple(_with_heads(layer, kept) for layer in stack.weights),
        scores=None if stack.scores is None else stack.scores[:, kept],
    )


def _with_heads(layer: Layer, kept: Sequence[int]) -> Layer:
    facts = layer.facts
    if facts is not None:
        facts = replace(facts, sums=facts.sums[kept], left=facts.left[kept])
    return replace(layer, heads=tuple(layer.heads[i] for i in kept), facts=facts)


def _take_tokens(stack: Stack, first: int, end: int) -> Stack:
    rows, columns = stack.within(first, end)
    kept = stack.columns[columns]
    split, written = (
        None if mark is None else mark - columns.start for mark in (stack.split, stack.written)
    )
    return replace(
        stack,
        weights=tuple(
            replace(layer, rows=layer.rows[rows], columns=layer.columns[columns])
            for layer in stack.weights
        ),
        rows=stack.rows[rows],
        columns=kept,
        start=stack.start + columns.start,
        split=split if split is not None and 0 < split < len(kept) else None,
        written=max(written, 0) if written is not None and written < len(kept) else None,
        row_words=stack.row_words[rows],
        column_words=stack.column_words[columns],
    )


def showable(weights: np.ndarray) -> np.ndarray:
    """Where values are finite and not the huge negative number of a mask (squeezebert)."""
    shown: np.ndarray = np.isfinite(weights) & (weights > _MASKED)
    return shown
