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
from activations.forward.outlines import made, outlined
from activations.forward.residual_stream import NO_LENS, Call, ResidualStream, Run, replaced
from activations.model.head import logits_of
from activations.model.state import fixed_seed
from activations.system.memory import LOGITS_AT_ONCE

_PRECISE = 4  # bytes of a number
Change = Callable[[int, torch.Tensor], torch.Tensor]  # of a layer: (1, tokens, hidden) -> the same


class Tail:
    """The end of `model(**given)`. Call `parts` after a pass within `watching`.

    `vocabulary` is how many logits a position has; `last_only` says that none but the last layer's
    stream will be read.
    """

    def __init__(
        self,
        model: nn.Module,
        given: Mapping[str, Any],
        stream: ResidualStream,
        vocabulary: int,
        last_only: bool = False,
    ) -> None:
        self._model, self._stream, self._vocabulary = model, stream, vocabulary
        self._given = {name: x for name, x in given.items() if name != "logits_to_keep"}
        self._last = stream.layers[-1]
        self._last_output: Any = None
        self._outlines: dict[Call, Any] = {}  # of what is called before the last layer
        self._streams: dict[Call, list[torch.Tensor]] = {}
        self._read = {self._last} if last_only else set(stream.layers)
        self.chooses = stream.chooses

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Keep what the layers return in the pass in the block, and what comes before them."""
        wanted = {*self._stream.layers, *self._stream.before}
        calls: dict[str, int] = defaultdict(int)

        def keep(name: str, output: Any) -> None:
            call = name, calls[name]
            calls[name] += 1
            if call in self._read:
                # Copied: the model may change its own tensor in place afterwards.
                self._streams[call] = [t.detach().clone() for t in self._stream.of(output)]
            if call == self._last:
                self._last_output = output
            elif call in wanted:
                self._outlines[call] = outlined(output)

        with hooked(self._model, {name for name, _ in wanted}, keep):
            yield
        if len(self._streams) < len(self._read):
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
        return int(self._streams[self._last][0].shape[-1])

    @property
    def precise(self) -> bool:
        """Whether the stream is in float32 or better."""
        return self._streams[self._last][0].element_size() >= _PRECISE

    def every_layer(
        self, positions: Sequence[int], change: Change | None = None
    ) -> Iterator[Iterator[torch.Tensor]]:
        """What each layer's stream, after `change`, gives at these positions; see `parts`.

        At few positions the layers go through in one batch, so that the head's weights are read
        once; with no more logits than one layer has at all positions.
        """
        step = self._in_a_batch(len(positions))
        first = 0
        while first < self.layers:
            group = range(first, min(first + step, self.layers))
            batch = self._batch(group, positions, change) if step > 1 else None
            if batch is None and step > 1:
                step = 1  # this model takes no such batch
                continue
            if batch is None:
                yield self.parts(first, positions, change)
            else:
                yield from (iter([logits]) for logits in batch)
            first = group.stop

    def _in_a_batch(self, positions: int) -> int:
        """How many layers go through together."""
        streams = self._streams[self._last]
        if not self.chooses or any(tensor.shape[0] != 1 for tensor in streams):
            return 1
        most = min(streams[0].numel() // self.width, LOGITS_AT_ONCE // self._vocabulary)
        return max(most // positions, 1)

    def _batch(
        self, layers: Sequence[int], positions: Sequence[int], change: Change | None
    ) -> torch.Tensor | None:
        try:
            logits = self._logits(layers, positions, change)
        except RuntimeError:  # sizes that do not fit each other
            return None
        return logits if logits.shape[:2] == (len(layers), len(positions)) else None

    def parts(
        self, layer: int, positions: Sequence[int], change: Change | None = None
    ) -> Iterator[torch.Tensor]:
        """What a layer's stream, after `change`, gives: (positions, vocabulary), part by part."""
        step = max(LOGITS_AT_ONCE // self._vocabulary, 1) if self.chooses else len(positions)
        for first in range(0, len(positions), step):
            yield self._logits([layer], positions[first : first + step], change)[0]

    def _logits(
        self, layers: Sequence[int], positions: Sequence[int], change: Change | None
    ) -> torch.Tensor:
        """(layers, positions, vocabulary)."""
        streams = [self._stream_of(layer, change) for layer in layers]
        batch = [torch.cat(tensors) for tensors in zip(*streams, strict=True)]
        given = self._given
        if self.chooses:
            given = {**given, "logits_to_keep": torch.tensor(positions, device=batch[0].device)}
        with replaced(self._model, self._answers(batch)), torch.no_grad(), fixed_seed():
            logits = logits_of(self._model(**given))
        assert logits is not None, "the model has a head"
        if logits.dim() == len(("layers", "labels")):
            logits = logits[:, None]
        return logits if logits.shape[1] == len(positions) else logits[:, list(positions)]

    def _stream_of(self, layer: int, change: Change | None) -> list[torch.Tensor]:
        first, *others = self._streams[self._stream.layers[layer]]
        return [first if change is None else change(layer, first), *others]

    def _answers(self, stream: Sequence[torch.Tensor]) -> dict[Call, Callable[[Run], Any]]:
        """What each call returns. Of those before the last one, nobody reads it."""
        output = self._stream.put(self._last_output, stream)
        answers = {call: partial(_made, outline) for call, outline in self._outlines.items()}
        return {**answers, self._last: partial(_stored, output)}


def _made(outline: Any, run: Run) -> Any:
    return made(outline)


def _stored(output: Any, run: Run) -> Any:
    return output
