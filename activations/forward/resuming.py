"""A pass of many rows that begins at one of the layers: what comes before is not computed again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from activations.forward.hooks import hooked
from activations.forward.outlines import made, outlined
from activations.forward.residual_stream import Call, ResidualStream, Run, replaced


class Resuming:
    """Passes of `model(**given)` with the same row many times. Watch an ordinary pass first.

    Without a `stream` every pass begins at the start.
    """

    def __init__(
        self, model: nn.Module, given: Mapping[str, Any], stream: ResidualStream | None
    ) -> None:
        self._model, self._given, self._stream = model, dict(given), stream
        self._outputs: dict[Call, Any] = {}  # of what comes before the layers
        self._layers: dict[Call, Any] = {}  # outlines, with the stream in them

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Keep what the layers of the pass in the block return, and what comes before them."""
        stream = self._stream
        calls: dict[str, int] = defaultdict(int)
        wanted = {} if stream is None else dict.fromkeys([*stream.before, *stream.layers])

        def keep(name: str, output: Any) -> None:
            assert stream is not None
            call = name, calls[name]
            calls[name] += 1
            if call in stream.layers:
                # Copied: the model may change its own tensor in place afterwards.
                kept = [tensor.detach().clone() for tensor in stream.of(output)]
                self._layers[call] = stream.put(outlined(output), kept)
            elif call in wanted:
                self._outputs[call] = tree_map_only(torch.Tensor, _copied, output)

        with hooked(self._model, {name for name, _ in wanted}, keep):
            yield

    def layer_of(self, module: str) -> int:
        """The first layer that this module may belong to."""
        layers = () if self._stream is None else self._stream.layers
        names = [name for name, _ in layers]
        for number, name in enumerate(names):
            if f"{module}.".startswith(f"{name}.") and names.count(name) == 1:
                return number
        return 0

    def run(self, start: int, rows: int) -> Any:
        """What the model returns for so many rows; the layers from `start` on are computed."""
        given = _repeated(rows, self._given)
        with replaced(self._model, self._answers(start, rows)), torch.no_grad():
            return self._model(**given)

    def _answers(self, start: int, rows: int) -> dict[Call, Callable[[Run], Any]]:
        """What each call before that layer returns. Of the earlier layers nobody reads it."""
        if self._stream is None or not start:
            return {}
        before = {call: partial(_again, rows, kept) for call, kept in self._outputs.items()}
        layers = {
            call: partial(_again, rows, self._layers[call]) for call in self._stream.layers[:start]
        }
        return {**before, **layers}


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().clone()


def _again(rows: int, kept: Any, run: Run) -> Any:
    return _repeated(rows, made(kept))


def _repeated(rows: int, tree: Any) -> Any:
    """Every tensor of one row with so many; not by `expand`, as models write into them."""

    def repeated(tensor: torch.Tensor) -> torch.Tensor:
        one = tensor.dim() > 0 and tensor.shape[0] == 1
        return tensor.repeat(rows, *[1] * (tensor.dim() - 1)) if one else tensor

    return tree_map_only(torch.Tensor, repeated, tree)
