"""The weights of one call of attention, a few rows at a time, by the model's own eager formula.

So no tensor of queries x keys is made. Most models have the same formula, softmax(q k^T x scaling +
mask); it is computed here without copies, a head at a time. Where a few rows of it are not what the
model's own `eager_attention_forward` returns (sinks, soft caps, position biases), that function
computes all rows.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

_CHUNK = 4 * 2**20  # bytes of rows that are computed at once
_CHUNK_OF_ALL = 8 * 2**20  # the same of all heads together: the formula makes several copies
_PROOF = 4  # rows at either end that are compared
Formula = Callable[..., tuple[Any, torch.Tensor | None]]


class TakesRows(Protocol):
    """What gets the rows. The rows of a head come in order, heads from several threads."""

    def add(self, batch: int, head: int, first_row: int, rows: np.ndarray) -> None:
        """Rows `first_row` and following, (rows, columns); what columns are missing is 0.

        They are overwritten afterwards.
        """


@dataclass
class AttentionCall:
    """What an attention function got: query, key and value are (batch, heads, tokens, width).

    `mask` is None, or (batch or 1, heads or 1, queries, keys): True where a key is seen, or what is
    added to the scores. Without one, each query sees the keys up to its own (`causal`), and of
    these the last `window`.
    """

    module: Any
    eager: Formula
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None
    causal: bool
    window: int | None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(batch, heads, queries, keys)."""
        batch, heads, queries, _ = self.query.shape
        return batch, heads, queries, self.key.shape[2]

    def mask_of(self, first: int, end: int) -> torch.Tensor | None:
        """The mask of these rows, as numbers to add; None where every key is seen."""
        if self.mask is not None:
            found = self.mask[..., first:end, :]
        elif not self.causal and not self.window:
            return None
        else:
            found = self._seen(first, end)
        if found.dtype != torch.bool:
            return found
        low = torch.finfo(self.query.dtype).min  # not -inf: a row without keys would be NaN
        zero = torch.zeros((), dtype=self.query.dtype, device=found.device)
        return torch.where(found, zero, low)

    def _seen(self, first: int, end: int) -> torch.Tensor:
        """Which keys these rows see where there is no mask, (1, 1, rows, keys).

        SDPA gets no mask where its own causal one is the same. Flash attention never gets one, only
        the width of its window.
        """
        rows = torch.arange(first, end, device=self.query.device)[:, None]
        back = rows - torch.arange(self.key.shape[2], device=self.query.device)
        seen = back >= 0 if self.causal else torch.ones_like(back, dtype=torch.bool)
        if self.window:
            seen = seen & (back.abs() < self.window)
        return seen[None, None]

    def by_formula(self, first: int, end: int) -> torch.Tensor:
        """These rows of all heads, (batch, heads, rows, keys), by the model's own function."""
        cut = {
            name: value[..., first:end, :] if self._has_rows(value) else value
            for name, value in self.kwargs.items()
        }
        query, mask = self.query[:, :, first:end], self.mask_of(first, end)
        _, weights = self.eager(self.module, query, self.key, self.value, mask, *self.args, **cut)
        assert weights is not None, "an eager attention returns its weights"
        return weights

    def _has_rows(self, value: Any) -> bool:
        """Whether an argument has a number for each query and key, as a position bias has."""
        sides = self.shape[2:]
        return isinstance(value, torch.Tensor) and value.dim() > 2 and value.shape[-2:] == sides


def each_rows(call: AttentionCall, taker: TakesRows) -> None:
    """Hand all rows of all heads to `taker`, a few at a time."""
    way = by_usual_formula if _is_usual(call) else by_own_formula
    way(call, taker)


def by_own_formula(call: AttentionCall, taker: TakesRows) -> None:
    """All rows by the model's own function."""
    batch, heads, queries, keys = call.shape
    step = _step(_CHUNK_OF_ALL // max(batch * heads, 1), keys)
    for first in range(0, queries, step):
        numbers = as_numbers(call.by_formula(first, min(first + step, queries)))
        for b in range(batch):
            for h in range(heads):
                taker.add(b, h, first, numbers[b, h])


def as_numbers(weights: torch.Tensor) -> np.ndarray:
    """float32, into which half precisions widen exactly, or float64; on the CPU."""
    kept = (torch.float32, torch.float64)
    wide = weights.detach() if weights.dtype in kept else weights.detach().to(torch.float32)
    found: np.ndarray = wide.cpu().numpy()
    return found


def _step(size: int, columns: int) -> int:
    """How many rows of so many columns take `size` bytes as float32, at most 256."""
    return min(max(size // max(4 * columns, 1), 1), 512)


# -------------------------------------------------------------------------- the usual formula


def _is_usual(call: AttentionCall) -> bool:
    """Whether the usual formula gives the rows at either end that the model's own gives."""
    if call.query.shape[1] % max(call.key.shape[1], 1) or not call.query.is_floating_point():
        return False
    queries = call.shape[2]
    ends = {(0, min(_PROOF, queries)), (max(queries - _PROOF, 0), queries)}
    close = 4 * torch.finfo(call.query.dtype).eps
    return all(
        torch.allclose(
            _usual_rows(call, *end), call.by_formula(*end), rtol=0, atol=close, equal_nan=True
        )
        for end in ends
    )


@dataclass(frozen=True)
class _Chunk:
    """Rows `first` to `end` over the first `columns`, and what they do not see: `mask` is added to
    the scores, `later` is True for keys among the last columns that come after the row's own.
    """

    first: int
    end: int
    columns: int
    mask: torch.Tensor | None = None
    later: torch.Tensor | None = None


def _usual_rows(call: AttentionCall, first: int, end: int) -> torch.Tensor:
    """These rows of all heads by the usual formula."""
    batch, heads, _, keys = call.shape
    rows, chunk = _UsualRows(call, end - first), _Chunk(first, end, keys, call.mask_of(first, end))
    found = [rows.of(b, h, chunk).clone() for b in range(batch) for h in range(heads)]
    return torch.stack(found).reshape(batch, heads, end - first, keys)


class _UsualRows:
    """Rows by the usual formula, computed in the same memory again and again in each thread."""

    def __init__(self, call: AttentionCall, step: int) -> None:
        self._call, self._size = call, step * call.shape[3]
        self._group = call.query.shape[1] // call.key.shape[1]
        self._scaling = _scaling(call)
        # A power of two may be multiplied first, where there are fewer numbers: it rounds nothing.
        self._scales_query = math.frexp(self._scaling)[0] == 0.5
        self._memory = threading.local()

    def of(self, batch: int, head: int, chunk: _Chunk) -> torch.Tensor:
        """softmax(q k^T x scaling + mask), in the steps of the formula.

        The next call in the same thread overwrites what this one returns.
        """
        query = self._call.query[batch, head, chunk.first : chunk.end]
        keys = self._call.key[batch, head // self._group, : chunk.columns]
        scores = self._buffer("scores", query.dtype, len(query), chunk.columns)
        if self._scales_query:
            torch.matmul(query * self._scaling, keys.T, out=scores)
        else:
            torch.matmul(query, keys.T, out=scores).mul_(self._scaling)
        if chunk.mask is not None:
            mask = chunk.mask[batch % len(chunk.mask), head % chunk.mask.shape[1]]
            scores = scores.add_(mask) if mask.dtype == scores.dtype else scores + mask
        if chunk.later is not None:
            low = torch.finfo(scores.dtype).min
            scores[:, -chunk.later.shape[1] :].masked_fill_(chunk.later, low)
        weights = self._buffer("weights", torch.float32, len(query), chunk.columns)
        torch.softmax(scores, -1, torch.float32, out=weights)
        return weights if query.dtype == torch.float32 else weights.to(query.dtype)

    def _buffer(self, name: str, dtype: torch.dtype, rows: int, columns: int) -> torch.Tensor:
        memory = vars(self._memory)
        if name not in memory:
            memory[name] = torch.empty(self._size, dtype=dtype, device=self._call.query.device)
        found: torch.Tensor = memory[name][: rows * columns].view(rows, columns)
        return found


def _scaling(call: AttentionCall) -> float:
    for given in (
        call.kwargs.get("scaling"),
        *call.args[:1],
        getattr(call.module, "scaling", None),
    ):
        if isinstance(given, (int, float)):
            return float(given)
    return float(call.query.shape[-1] ** -0.5)


def by_usual_formula(call: AttentionCall, taker: TakesRows) -> None:
    """All rows by the usual formula. Each worker has some of the heads, and goes down the rows."""
    batch, heads, queries, keys = call.shape
    step = _step(_CHUNK, keys)
    rows = _UsualRows(call, step)

    def work(places: range) -> None:
        for first in range(0, queries, step):
            chunk = _chunk(call, first, min(first + step, queries))
            for place in places:
                b, h = divmod(place, heads)
                with torch.no_grad():
                    weights = rows.of(b, h, chunk)
                taker.add(b, h, first, as_numbers(weights))

    with _workers() as (pool, count):
        for _ in pool.map(work, [range(i, batch * heads, count) for i in range(count)]):
            pass  # what a thread raised is raised here


def _chunk(call: AttentionCall, first: int, end: int) -> _Chunk:
    """Rows of a call. Where a query sees no later keys, these are not computed."""
    queries, keys = call.shape[2:]
    if call.mask is None and call.causal and not call.window and queries == keys:
        sides, device = (end - first,) * 2, call.query.device
        return _Chunk(first, end, end, None, torch.ones(sides, device=device).triu(1).bool())
    return _Chunk(first, end, keys, call.mask_of(first, end))


@contextmanager
def _workers() -> Iterator[tuple[ThreadPoolExecutor, int]]:
    """Threads that compute heads side by side, each alone, and how many there are.

    torch's own threads inside them would wait for each other, up to ten times as long.
    """
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            torch.set_num_threads(1)
            yield pool, threads
    finally:
        torch.set_num_threads(threads)
