"""What a model does after its last layer, with any layer's residual stream in the last one's place.

The model itself does it: its final norm, projections, head and soft caps need not be known. All
calls up to the last layer return at once what they returned in the real pass.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from activations.errors import ToolkitError
from activations.forward.hooks import hooked
from activations.forward.residual_stream import NO_LENS, Call, ResidualStream, Run, replaced
from activations.model.head import logits_of
from activations.model.signature import accepts
from activations.model.state import fixed_seed
from activations.system.memory import LOGITS_AT_ONCE

_PRECISE = 4  # bytes of a number
Change = Callable[[torch.Tensor], torch.Tensor]  # (1, tokens, hidden) -> the same


class Tail:
    """The end of `model(**given)`. Call `parts` after a pass within `watching`."""

    def __init__(
        self, model: nn.Module, given: Mapping[str, Any], stream: ResidualStream, vocabulary: int
    ) -> None:
        self._model, self._stream, self._vocabulary = model, stream, vocabulary
        self._given = {name: x for name, x in given.items() if name != "logits_to_keep"}
        self._outputs: dict[Call, Any] = {}
        self._streams: dict[Call, list[torch.Tensor]] = {}
        self._chooses = accepts(model, "logits_to_keep")

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Keep what the layers, and what comes before them, return in the pass in the block."""
        wanted = {*self._stream.layers, *self._stream.before}
        calls: dict[str, int] = defaultdict(int)

        def keep(name: str, output: Any) -> None:
            call = name, calls[name]
            calls[name] += 1
            if call in self._stream.layers:
                # Copied: the model may change its own tensor in place afterwards.
                self._streams[call] = [t.detach().clone() for t in self._stream.of(output)]
                output = self._stream.put(output, [None] * len(self._stream.paths))
            if call in wanted:
                self._outputs[call] = output

        with hooked(self._model, {name for name, _ in wanted}, keep):
            yield
        if len(self._streams) < len(self._stream.layers):
            raise ToolkitError(f"{NO_LENS}: this text does not call all of them.")

    @property
    def layers(self) -> int:
        return len(self._stream.layers)

    @property
    def names(self) -> tuple[str, ...]:
        """The layers, as a document names them: `name@1` is a module's second call."""
        return tuple(f"{name}@{call}" if call else name for name, call in self._stream.layers)

    @property
    def others(self) -> tuple[str, ...]:
        """Layers that the stream does not run through."""
        return self._stream.others

    @property
    def width(self) -> int:
        """How many numbers a token's stream has."""
        return int(self._streams[self._stream.layers[-1]][0].shape[-1])

    @property
    def precise(self) -> bool:
        """Whether the stream is in float32 or better."""
        return self._streams[self._stream.layers[-1]][0].element_size() >= _PRECISE

    def parts(
        self, layer: int, positions: Sequence[int], change: Change | None = None
    ) -> Iterator[torch.Tensor]:
        """What a layer's stream, after `change`, gives: (positions, vocabulary), part by part."""
        step = max(LOGITS_AT_ONCE // self._vocabulary, 1) if self._chooses else len(positions)
        for first in range(0, len(positions), step):
            yield self._logits(layer, positions[first : first + step], change)

    def _logits(self, layer: int, positions: Sequence[int], change: Change | None) -> torch.Tensor:
        stream = [tensor.clone() for tensor in self._streams[self._stream.layers[layer]]]
        if change is not None:
            stream[0] = change(stream[0])
        given = self._given
        if self._chooses:
            given = {**given, "logits_to_keep": torch.tensor(positions, device=stream[0].device)}
        with replaced(self._model, self._answers(stream)), torch.no_grad(), fixed_seed():
            logits = logits_of(self._model(**given))
        assert logits is not None, "the model has a head"
        rows = logits[0] if logits.dim() == 3 else logits
        return rows if len(rows) == len(positions) else rows[list(positions)]

    def _answers(self, stream: Sequence[torch.Tensor]) -> dict[Call, Callable[[Run], Any]]:
        """What each call returns. Nothing reads the stream of the layers before the last."""
        last = self._stream.layers[-1]
        answers = dict(self._outputs)
        for call, own in self._streams.items():
            empty = [torch.zeros_like(tensor) for tensor in own]
            answers[call] = self._stream.put(self._outputs[call], stream if call == last else empty)
        return {call: partial(_stored, output) for call, output in answers.items()}


def _stored(output: Any, run: Run) -> Any:
    return output
