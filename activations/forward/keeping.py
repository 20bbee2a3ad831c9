"""Keeping only the large attention weights of a pass, as they come: see `outputs/sparse.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch

from activations.forward.attention_rows import AttentionCall, as_numbers, each_rows
from activations.outputs.sparse import Sparse, SparseBuilder, are_probabilities, chunk_of, row_sums
from activations.outputs.tree import Element
from activations.selection.observation import WeightsSource


class AddsUp(Protocol):
    """Scores of heads that are given a few rows at a time (`attention/scores.py`)."""

    def add(
        self,
        head: int,
        first_row: int,
        rows: np.ndarray,
        sums: np.ndarray | None,
    ) -> None: ...

    def means(self) -> np.ndarray: ...


# (kind, heads, rows, columns) -> what adds up their scores, None where none are wanted
Scorer = Callable[[str, int, int, int], AddsUp | None]


class Keeper:
    """Makes what attention modules return sparse, so that no tensor of weights is kept whole.

    Those up to `above` are left out. `sources` say where the weights are. Afterwards `scores` has
    the scores of each tensor of a batch of one, (heads, scores), by its kind and position, and
    `whole` names the elements that are kept as they are, as their values are no attention weights.
    """

    def __init__(
        self, above: float, sources: Iterable[WeightsSource], scorer: Scorer | None = None
    ) -> None:
        self.above, self._scorer = above, scorer
        self._sources = {(s.module, s.call, s.element): s for s in sources}
        self._stand_ins: dict[int, tuple[torch.Tensor, Sparse, AddsUp | None]] = {}
        self._made: dict[tuple[str, int], Sparse | None] = {}
        self.scores: dict[tuple[str, int], np.ndarray] = {}
        self.whole: list[str] = []

    def stand_in(self, call: AttentionCall, kind: str) -> torch.Tensor:
        """The weights of a call beside which no weights are computed, which it returns in place of
        them: a tensor of their shape that takes no memory. `leaf` knows it again.
        """
        taker = _Taker(call.shape, self.above, call.query.dtype, self._score(kind, call.shape))
        each_rows(call, taker)
        place = torch.zeros((), dtype=call.query.dtype, device=call.query.device)
        self._stand_ins[place.untyped_storage()._cdata] = (
            place,
            taker.builder.finish(),
            taker.sums,
        )
        return place.expand(call.shape)

    def leaf(self, module: str, call: int, element: Element, tensor: torch.Tensor) -> Sparse | None:
        """What is kept of a tensor that a module returned; None where it is kept whole."""
        source = self._sources.get((module, call, element))
        if source is None:
            return None
        if source.tensor not in self._made:
            self._made[source.tensor] = self._make(source, tensor)
        found = self._made[source.tensor]
        if found is None:
            self.whole.append("/".join([module, *map(str, element)]))
        return found and replace(found, axes=source.axes)

    def _make(self, source: WeightsSource, tensor: torch.Tensor) -> Sparse | None:
        place = self._stand_ins.pop(tensor.untyped_storage()._cdata, None)
        if place is not None:
            _, sparse, sums = place
        else:
            weights = tensor.detach().permute(source.axes) if source.axes else tensor.detach()
            if not _are_weights(weights):
                return None
            batch, heads, rows, columns = weights.shape
            shape = batch, heads, rows, columns
            taker = _Taker(shape, self.above, weights.dtype, self._score(source.kind, shape))
            for b in range(batch):
                for h in range(heads):
                    matrix = np.ascontiguousarray(as_numbers(weights[b, h]))
                    for first in range(0, rows, step := chunk_of(columns)):
                        taker.add(b, h, first, matrix[first : first + step])
            sparse, sums = taker.builder.finish(), taker.sums
        if sums is not None:
            self.scores[source.tensor] = sums.means()
        return sparse

    def _score(self, kind: str, shape: tuple[int, int, int, int]) -> AddsUp | None:
        batch, heads, rows, columns = shape
        return self._scorer(kind, heads, rows, columns) if self._scorer and batch == 1 else None


class _Taker:
    """Rows of weights -> what is kept of them, and their scores."""

    def __init__(
        self,
        shape: tuple[int, int, int, int],
        above: float,
        dtype: torch.dtype,
        sums: AddsUp | None,
    ) -> None:
        self.builder = SparseBuilder(shape, above, str(dtype).removeprefix("torch."))
        self.sums = sums

    def add(self, batch: int, head: int, first_row: int, rows: np.ndarray) -> None:
        sums = row_sums(rows)
        self.builder.add(batch, head, first_row, rows, sums)
        if self.sums is not None:
            self.sums.add(head, first_row, rows, sums)


def _are_weights(tensor: torch.Tensor) -> bool:
    """Whether it is (batch, heads, rows, columns) of numbers between 0 and 1."""
    if tensor.dim() != 4 or not tensor.is_floating_point() or 0 in tensor.shape:
        return False
    return all(are_probabilities(as_numbers(head)) for batch in tensor for head in batch)
