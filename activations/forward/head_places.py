"""Where the heads of an attention still stand side by side: before its output projection.

There a head can be cut alone. The place is asked of the model, in one short pass: the last matrix
inside the attention that does not read what the attention reads (else the first one after it), and
the axis of its input that falls into as many equal parts as there are heads. It is proven by
gradients: part h of that input must depend on the weights of head h, and of no other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from activations.forward.edits import INPUT, Place
from activations.forward.hooks import EndPass, hooked
from activations.outputs.tree import at, walk
from activations.selection.observation import WeightsSource

_OF_A_MATRIX = 2  # dimensions; a convolution of width 1 has one more


@dataclass(frozen=True)
class HeadPlaces:
    """The heads of one attention tensor, in the input of one call of `module`.

    They are `heads` equal parts of `width` numbers of the axis `axis`; `tokens` is the axis of the
    positions, None where the positions are not in one. Both count from the end.
    """

    module: str
    call: int
    axis: int
    heads: int
    width: int
    tokens: int | None

    @property
    def name(self) -> str:
        """The call, as a document names it."""
        return f"{self.module}@{self.call}" if self.call else self.module

    def of(self, head: int) -> Place:
        first = head * self.width
        return Place(
            self.module, self.call, INPUT, self.axis, first, first + self.width, self.tokens
        )


def find_head_places(
    model: nn.Module,
    given: Mapping[str, Any],
    sources: Sequence[WeightsSource],
    wanted: Iterable[tuple[str, int]],
) -> dict[tuple[str, int], HeadPlaces]:
    """The places of these attention tensors (`WeightsSource.tensor`), of those that can be proven.

    `sources` are all places where a module returns one; `given` are arguments of a short pass,
    which must return weights.
    """
    innermost: dict[tuple[str, int], WeightsSource] = {}
    for source in sources:
        held = innermost.get(source.tensor)
        if held is None or source.module.count(".") > held.module.count("."):
            innermost[source.tensor] = source
    looked = {tensor: innermost[tensor] for tensor in wanted if tensor in innermost}
    trace = _Trace(model, {(source.module, source.call) for source in looked.values()})
    with _gradients(model):
        trace.watch(given)
        found = {tensor: _proven(trace, source) for tensor, source in looked.items()}
    return {tensor: place for tensor, place in found.items() if place is not None}


@contextmanager
def _gradients(model: nn.Module) -> Iterator[None]:
    """Let all weights that can have gradients have them, inside the block."""
    frozen = [p for p in model.parameters() if p.is_floating_point() and not p.requires_grad]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        with torch.enable_grad():
            yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


@dataclass(frozen=True)
class _Call:
    """A call of a module: when it began and ended, the tensors of floats that it was given, what it
    returned.
    """

    module: str
    number: int
    began: int
    ended: int
    given: list[torch.Tensor]
    returned: Any

    @property
    def memory(self) -> set[int]:
        """Where the tensors that it was given are."""
        return {tensor.untyped_storage().data_ptr() for tensor in self.given}


class _Trace:
    """The calls of all matrices and of some attentions in one pass, in the order they began.

    The pass ends when these attentions have returned, and a matrix after them.
    """

    def __init__(self, model: nn.Module, attentions: set[tuple[str, int]]) -> None:
        self._model, self._awaited = model, set(attentions)
        others = {name for name, _ in attentions}
        self._matrices = {name for name, part in model.named_modules() if _is_matrix(part)}
        self._names = [*self._matrices, *(others - self._matrices)]
        self._running: list[tuple[int, list[torch.Tensor]]] = []
        self._numbers: dict[str, int] = defaultdict(int)
        self._calls: list[_Call] = []
        self._clock = self._last = 0

    def watch(self, given: Mapping[str, Any]) -> None:
        with (
            suppress(EndPass),
            hooked(self._model, self._names, self._on_call, self._on_entry),
        ):
            self._model(**given)
        self._calls.sort(key=lambda call: call.began)

    def _on_entry(self, name: str, given: Any) -> None:
        self._clock += 1
        leaves = (leaf for _, leaf in walk(given) if isinstance(leaf, torch.Tensor))
        self._running.append((self._clock, [leaf for leaf in leaves if leaf.is_floating_point()]))

    def _on_call(self, name: str, output: Any) -> None:
        self._clock += 1
        began, given = self._running.pop()
        number = self._numbers[name]
        self._numbers[name] += 1
        self._calls.append(_Call(name, number, began, self._clock, given, output))
        if not self._awaited and name in self._matrices and began > self._last:
            raise EndPass
        if (name, number) in self._awaited:
            self._awaited.remove((name, number))
            self._last = self._clock

    def call(self, module: str, number: int) -> _Call | None:
        there = (call for call in self._calls if (call.module, call.number) == (module, number))
        return next(there, None)

    def projections(self, attention: _Call) -> Iterator[_Call]:
        """The matrices that may read what the heads of this attention return, likeliest first."""
        matrices = [call for call in self._calls if call.module in self._matrices and call.given]
        reads = attention.memory
        inside = [
            call
            for call in matrices
            if attention.began <= call.began and call.ended <= attention.ended
            if not call.memory & reads
        ]
        yield from sorted(inside, key=lambda call: -call.ended)
        yield from [call for call in matrices if call.began > attention.ended][:1]


def _is_matrix(module: nn.Module) -> bool:
    """Whether it multiplies by a matrix: Linear, Conv1D, a convolution of width 1."""
    weight = getattr(module, "weight", None)
    if isinstance(module, nn.Embedding) or not isinstance(weight, torch.Tensor):
        return False
    wide = weight.dim() == _OF_A_MATRIX + 1 and weight.shape[-1] == 1
    packed = hasattr(module, "in_features")  # quantized weights have other shapes
    return weight.dim() == _OF_A_MATRIX or wide or packed


def _proven(trace: _Trace, source: WeightsSource) -> HeadPlaces | None:
    """The place of a source's heads, None where there is none, or none that can be proven."""
    attention = trace.call(source.module, source.call)
    weights: Any = None if attention is None else at(attention.returned, source.element, None)
    if attention is None or source.axes is not None or not _are_weights(weights):
        return None
    heads = weights.shape[1]
    for projection in trace.projections(attention):
        given = projection.given[0]
        for axis in range(-1, -given.dim(), -1):
            if given.shape[axis] % heads == 0 and _each_head_has_a_part(given, axis, weights):
                width, tokens = given.shape[axis] // heads, _positions(given, axis, weights)
                return HeadPlaces(projection.module, projection.number, axis, heads, width, tokens)
    return None


def _are_weights(weights: Any) -> bool:
    """Whether they are (batch, heads, queries, keys), in the graph of gradients."""
    is_tensor = isinstance(weights, torch.Tensor) and weights.dim() == len("bhqk")
    return is_tensor and weights.requires_grad


def _each_head_has_a_part(given: torch.Tensor, axis: int, weights: torch.Tensor) -> bool:
    """Whether part h of the input depends on the weights of head h, and of no other."""
    if not given.requires_grad:
        return False
    heads = weights.shape[1]
    generator = torch.Generator().manual_seed(0)
    # Random, as sums may be constant: each row of weights is 1 in sum.
    random = torch.rand(given.shape, generator=generator).to(given.device, given.dtype) + 0.5
    for head, part in enumerate((given * random).chunk(heads, axis)):
        (found,) = torch.autograd.grad(part.sum(), weights, retain_graph=True, allow_unused=True)
        if found is None:
            return False
        depends = found.ne(0).flatten(2).any(2).any(0)
        if int(depends.sum()) != 1 or not bool(depends[head]):
            return False
    return True


def _positions(given: torch.Tensor, axis: int, weights: torch.Tensor) -> int | None:
    """The axis of the input, from the end, that has a place for each query."""
    if weights.shape[0] != 1:  # windows
        return None
    others = [i for i in range(-given.dim(), 0) if i != axis and given.shape[i] == weights.shape[2]]
    return others[-1] if others else None
