"""Attention weights as a page carries them: 16-bit steps, deflated, base64, head by head.

A page opens on the overviews of all heads, and reads a head's weights when it is opened. A head of
probabilities has only those above a threshold, in planes of bytes: of each number the lowest byte
stands with the other lowest bytes, then come the next ones, which deflates to half the size.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from activations.attention.layer import Head, as_dense
from activations.attention.stack import Stack, showable
from activations.attention.words import can_merge, column_words, row_words, starts_of
from activations.errors import ToolkitError
from activations.outputs.sparse import Sparse, cell_size, keep_above
from activations.system.sizes import size_text
from activations.system.workers import in_turn
from activations.text import encodable
from activations.views.tokens import labels, labels_of_words

NOT_A_NUMBER = 65535  # stands for NaN and infinities among 16-bit numbers
SHADES = 63  # of an overview
ALL_DECIMALS = 0.00005  # a weight above it is at least 0.0001 when it is rounded to 4 decimals
_THRESHOLDS = (ALL_DECIMALS, 0.001, 0.01)  # the lowest with which the page stays within its budget
BUDGET = 70_000_000  # bytes of a page's weights
LARGEST = 400_000_000  # V8 drops a script of over 512 M characters without a message
_STEPS = 10_000  # 4 decimals


Blob = tuple[np.ndarray, bytes]  # a head's overview in shades, and its text


@dataclass(frozen=True)
class Packed:
    """`stacks`: what the page's script knows of each. `overviews` and `heads` are blobs, base64
    text by ids that the script knows too.
    """

    stacks: list[dict[str, Any]]
    overviews: dict[str, bytes]
    heads: dict[str, bytes]


class FirstReading:
    """Packs the heads of these stacks when they are read for their scores: JSON is parsed once.

    With all decimals. Given up, `blobs` being empty, where that takes more than a page's budget.
    """

    def __init__(self, stacks: Sequence[Stack]) -> None:
        self._layers = {
            (s.name, s.layers[i]): s.weights[i] for s in stacks for i in range(len(s.layers))
        }
        self._room = BUDGET
        self.blobs: dict[tuple[str, int, int], Blob] = {}

    def visit(self, stack: Stack, layer: int, head: int, weights: Head) -> None:
        """Take a head of the whole text, by its place (see `attention.scores.with_scores`)."""
        key = stack.name, stack.layers[layer]
        if key in self._layers and self._room > 0:
            blob = _sparse_blob(self._layers[key].cut(weights), ALL_DECIMALS)
            self._room -= len(blob[1])
            self.blobs[(*key, stack.heads[head])] = blob
        if self._room <= 0:
            self.blobs.clear()


def pack(
    stacks: Sequence[Stack], budget: int = BUDGET, first: FirstReading | None = None
) -> Packed:
    """Stacks -> what a page needs of them, if possible within this many bytes.

    `first` has those of their heads that were packed before. Raises `ToolkitError` where even the
    largest weights are too many for a browser.
    """
    for above in _THRESHOLDS:
        limit = LARGEST if above == _THRESHOLDS[-1] else min(budget, LARGEST)
        ready = first.blobs if first is not None and above == ALL_DECIMALS else {}
        packed = _Packing(above, limit, ready).of(stacks)
        if packed is not None:
            return packed
    raise too_large()


def too_large(size: int = 0) -> ToolkitError:
    """The error of a page of `size` bytes, 0 where that is not known."""
    about = f"about {size_text(size)}" if size else f"over {size_text(LARGEST)}"
    most = f", and browsers open {size_text(LARGEST)}" if size else ""
    return ToolkitError(
        f"the page would be too large to open: {about}{most}. Show a part of it with --layers, "
        "--heads or --tokens."
    )


class _Packing:
    """One attempt to pack all stacks, given up where it takes more than `limit` bytes."""

    def __init__(
        self, above: float, limit: int, ready: Mapping[tuple[str, int, int], Blob]
    ) -> None:
        self._above, self._limit, self._ready = above, limit, ready
        self._size = 0
        self._packed = Packed([], {}, {})

    def of(self, stacks: Sequence[Stack]) -> Packed | None:
        for id, stack in enumerate(stacks):
            raw = None if all(stack.probabilities) else _scale(stack)
            if not self._add_heads(id, stack, raw):
                return None
            described = self._described(id, stack, raw)
            parts = _sentence_parts(stack, len(stacks) > 1)
            self._packed.stacks.extend(
                {**described, "name": encodable(n), "rows": r, "columns": c} for n, r, c in parts
            )
        return self._packed

    def _add_heads(self, id: int, stack: Stack, raw: tuple[float, float] | None) -> bool:
        """Whether there is room for the heads of this stack."""

        squeeze, pieces = zlib.compressobj(1), []
        for number, (overview, text) in enumerate(self._blobs(stack, raw)):
            layer, head = divmod(number, len(stack.heads))
            self._packed.heads[f"head-{id}-{layer}-{head}"] = text
            pieces.append(squeeze.compress(overview.tobytes()))
            self._size += len(text)
            if self._size > self._limit:
                return False
        overviews = base64.b64encode(b"".join([*pieces, squeeze.flush()]))
        self._packed.overviews[f"overview-{id}"] = overviews
        self._size += len(overviews)
        return self._size <= self._limit

    def _blobs(self, stack: Stack, raw: tuple[float, float] | None) -> Iterable[Blob]:
        """Every head of a stack, packed."""
        names = [(stack.name, layer, head) for layer in stack.layers for head in stack.heads]
        if raw is None and all(name in self._ready for name in names):
            return [self._ready[name] for name in names]

        def blob(head: Head) -> Blob:
            return _raw_blob(head, *raw) if raw else _sparse_blob(head, self._above)

        all_heads = (head for layer in stack.weights for head in layer.each_head())
        return in_turn(blob, all_heads, stack.weights[0].together)

    def _described(self, id: int, stack: Stack, raw: tuple[float, float] | None) -> dict[str, Any]:
        row_tokens, column_tokens = labels(stack)
        shape = len(row_tokens), len(column_tokens)
        cell = cell_size(shape)
        kept_above = max((layer.above for layer in stack.weights), default=0.0)
        return {
            "id": id,
            "layers": stack.layers,
            "heads": stack.heads,
            "rowTokens": row_tokens,
            "columnTokens": column_tokens,
            **_described_words(stack),
            "second": stack.split,
            "generated": stack.written,
            "start": stack.start,
            "offset": stack.offset,
            "wholeRows": stack.has_whole_rows,
            "probabilities": raw is None,
            # In the page's JSON, NaN becomes null.
            "scores": None if stack.scores is None else stack.scores.round(6).tolist(),
            "above": max(self._above, kept_above),
            "keptAbove": kept_above,
            "cell": cell,
            "cells": [-(-size // step) for size, step in zip(shape, cell, strict=True)],
            "bytes": _bytes_of(shape[1]),
            "raw": raw and {"base": raw[0], "steps": raw[1]},
        }


def _described_words(stack: Stack) -> dict[str, Any]:
    """Of rows and columns the words: which tokens they begin with, what they are called, and the
    number in the text of the first one. Null where tokens are not merged.
    """
    if not can_merge(stack):
        return {"rowWords": None, "columnWords": None}
    sides = zip((row_words(stack), column_words(stack)), labels_of_words(stack), strict=True)
    rows, columns = (
        {"starts": starts_of(words).tolist(), "labels": named, "first": int(words[0])}
        for words, named in sides
    )
    return {"rowWords": rows, "columnWords": columns}


def _sentence_parts(
    stack: Stack, is_one_of_several: bool
) -> list[tuple[str, tuple[int, int], tuple[int, int]]]:
    """The filters bertviz offers for a pair of sentences: (name, rows, columns)."""
    rows, columns = (0, len(stack.rows)), (0, len(stack.columns))
    if stack.split is None or stack.offset is None:
        return [(stack.title, rows, columns)]
    row_split = max(stack.split - stack.offset, 0)  # 0 where all rows are of the second sentence
    row_sides = {"A": (0, row_split), "B": (row_split, len(stack.rows))}
    column_sides = {"A": (stack.prefix, stack.split), "B": (stack.split, len(stack.columns))}
    arrows = [("A", "A"), ("B", "B"), ("A", "B"), ("B", "A")]
    title = f"{stack.title}: " if is_one_of_several else ""
    parts = [
        (f"{title}Sentence {a} -> Sentence {b}", row_sides[a], column_sides[b])
        for a, b in arrows
        if row_split or a == "B"
    ]
    return [(f"{title}All", rows, columns), *parts]


def _bytes_of(columns: int) -> int:
    """How many bytes name a column, or count those of a row."""
    return 2 if columns <= NOT_A_NUMBER else 3


def _sparse_blob(head: Head, above: float) -> Blob:
    """A head's overview in shades, and its blob: counts, columns, weights and rests."""
    if isinstance(head, Sparse):
        sparse = head.part(0, above=above) if above > head.above else head
    else:
        sparse = keep_above(head[None, None], above)
    rows, width = sparse.head(0), _bytes_of(sparse.shape[3])
    columns = rows.columns.astype(np.int64)
    steps = np.diff(columns, prepend=0)
    first = rows.starts[:-1][rows.starts[1:] > rows.starts[:-1]]  # of each row that has any
    steps[first] = columns[first]
    planes = [
        _planes(rows.starts[1:] - rows.starts[:-1], width),
        _planes(steps, width),
        _planes(_steps(rows.weights), 2),
        _planes(_steps(rows.rest), 2),
    ]
    return _shades(sparse.overview[0, 0]), _squeezed(b"".join(planes))


def _raw_blob(head: Head, base: float, steps: float) -> Blob:
    """The same of a head whose values are no probabilities: all of them are there."""
    values = as_dense(head)  # where some layers are no probabilities, all are shown like these
    shown = showable(values)
    # float64: in float32 0.00005 could round to either side.
    q = np.rint((np.where(shown, values, base).astype(np.float64) - base) * steps)
    most = max(float(q.max(initial=0)), 1.0)
    overview = keep_above((np.where(shown, q, 0) / most)[None, None], 1.0).overview[0, 0]
    q = np.where(shown, q, NOT_A_NUMBER)
    return _shades(overview), _squeezed(_planes(q.reshape(-1), 2))


def _planes(numbers: np.ndarray, width: int) -> bytes:
    """All lowest bytes, then all second ones, and so on."""
    in_bytes = numbers.astype("<u4").view(np.uint8).reshape(-1, 4)
    found: bytes = in_bytes[:, :width].T.tobytes()
    return found


def _steps(weights: np.ndarray) -> np.ndarray:
    """Numbers of at least 0 as steps of 0.0001."""
    # float64: in float32 0.00005 could round to either side.
    q = np.rint(weights.astype(np.float64) * _STEPS)
    found: np.ndarray = np.where(np.isfinite(q), np.minimum(q, NOT_A_NUMBER - 1), NOT_A_NUMBER)
    return found


def _shades(overview: np.ndarray) -> np.ndarray:
    """An overview as a page paints it: by the root, as small weights would hardly be seen."""
    share = np.sqrt(np.clip(np.nan_to_num(overview.astype(np.float32)), 0, 1))
    found: np.ndarray = np.rint(SHADES * share).astype(np.uint8)
    return found


def _squeezed(data: bytes) -> bytes:
    return base64.b64encode(zlib.compress(data, 1))


def _scale(stack: Stack) -> tuple[float, float]:
    """The least of the raw values of a stack, and the steps for a difference of 1."""
    low, high = np.inf, -np.inf
    for layer in stack.weights:
        for head in layer.each_head():
            values = as_dense(head)
            shown = values[showable(values)]
            low = min(low, float(shown.min(initial=np.inf)))
            high = max(high, float(shown.max(initial=-np.inf)))
    if low > high:  # nothing is shown
        return 0.0, float(_STEPS)
    largest = NOT_A_NUMBER - 1
    if low >= 0 and high <= largest / _STEPS:
        return 0.0, float(_STEPS)
    return low, min(float(_STEPS), largest / max(high - low, 1e-30))
