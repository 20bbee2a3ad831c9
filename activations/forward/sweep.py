"""What a model would predict without each of many places, in turn.

Several places are cut in one pass, each in a row of its own, from the layer on that the first of
them stands in. A further row is left as it is: only where that gives what the ordinary pass gave
are the others believed. Else each place is cut in a pass of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from activations.errors import ToolkitError
from activations.forward.edits import Edits, Place, Write
from activations.forward.residual_stream import ResidualStream
from activations.forward.resuming import Resuming
from activations.model.state import fixed_seed

_NEARLY = 1e-4  # of a probability: in other shapes, sums have other last bits
_ROUGHLY = 0.02  # in half precision
_PRECISE = 4  # bytes of a number
ROWS_AT_ONCE = 4096  # times the tokens of each


@dataclass(frozen=True)
class Cut:
    """A place, and what to put there; `way` and `positions` are those of a `Write`."""

    place: Place
    way: str
    positions: tuple[int, ...] | None

    def written(self, row: int | None = None) -> Write:
        return Write(self.place, self.way, self.positions, row)


class Sweeper:
    """The rows of logits of `model(**given)`, without one place after the other.

    `row` takes the logits that are looked at from what the model returns, (rows, vocabulary).
    `tokens` is how long the text is.
    """

    def __init__(
        self,
        model: nn.Module,
        given: Mapping[str, Any],
        stream: ResidualStream | None,
        row: Callable[[Any], torch.Tensor],
        tokens: int,
    ) -> None:
        self._model, self._given, self._row = model, dict(given), row
        self._most = max(ROWS_AT_ONCE // max(tokens, 1), 1)
        self._resuming = Resuming(model, given, stream)
        with self._resuming.watching(), torch.no_grad(), fixed_seed():
            self.unchanged = row(model(**given))
        self._batches = True

    def without(self, cuts: Sequence[Cut]) -> Iterator[torch.Tensor]:
        """The logits (vocabulary,) without each of these, in their order."""
        start = min((self._resuming.layer_of(cut.place.module) for cut in cuts), default=0)
        for first in range(0, len(cuts), self._most):
            some = cuts[first : first + self._most]
            found = self._together(some, start) if self._batches else None
            if found is None:
                yield from map(self._alone, some)
            else:
                yield from found

    def _alone(self, cut: Cut) -> torch.Tensor:
        edits = Edits([cut.written()])
        with edits.active(self._model), torch.no_grad(), fixed_seed():
            found = self._row(self._model(**self._given))
        if edits.unreached:
            raise ToolkitError(f"the pass did not come to {cut.place.module}.")
        return found[0]

    def _together(self, cuts: Sequence[Cut], start: int) -> torch.Tensor | None:
        """All in one pass; None where that is not what one pass for each gives."""
        edits = Edits([cut.written(row) for row, cut in enumerate(cuts)])
        try:
            with edits.active(self._model), fixed_seed():
                found = self._row(self._resuming.run(start, len(cuts) + 1))
        except Exception:  # a model that takes no such batch fails in its own way
            return None
        if len(found) != len(cuts) + 1 or edits.unreached:
            return None
        return found[:-1] if self._same(found[-1], self.unchanged[0]) else None

    def proven(self, cuts: Sequence[Cut]) -> None:
        """Look once whether the first of these is the same in a pass of its own; else make one for
        each from now on.
        """
        start = min(self._resuming.layer_of(cut.place.module) for cut in cuts)
        found = self._together(cuts[: self._most], start)
        if found is None or not self._same(found[0], self._alone(cuts[0])):
            self._batches = False

    def _same(self, a: torch.Tensor, b: torch.Tensor) -> bool:
        close = _NEARLY if a.element_size() >= _PRECISE else _ROUGHLY
        return torch.allclose(a.float().softmax(-1), b.float().softmax(-1), 0, close, True)
