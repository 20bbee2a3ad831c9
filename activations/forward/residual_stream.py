"""Where a model's residual stream runs, found by watching a short pass; no names are needed.

The layers are modules each of which is given what the one before returned: a tensor is known again
by its place in memory. That they are all of the stream is then proven: with the last one's output
held at what it was for another text, the model must return that other text's logits, to the bit.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from activations.errors import ToolkitError
from activations.forward.hooks import find_modules, forwards_replaced, hooked
from activations.model.head import logits_of
from activations.model.hosts import config_of
from activations.model.signature import accepts, input_device, paired
from activations.model.state import fixed_seed
from activations.outputs.tree import Element, at, walk, with_leaf

Call = tuple[str, int]  # a module, and which of its calls
Run = Callable[[], Any]  # a module's own forward, with its arguments
_Place = tuple[int, int, tuple[int, ...], tuple[int, ...]]
_OF_POSITIONS = 3  # dimensions
NO_LENS = "this model's layers cannot be read one by one"


@dataclass(frozen=True)
class ResidualStream:
    """The calls that return the stream, layer by layer, and at which `paths` of their outputs.

    Of most models there is one path; of some the stream is several tensors. `before` are the calls
    that ended before the first of these began (embeddings, an encoder). `others` names further
    layers of the same class in the same pass, which no lens can look into; those of an encoder
    are not among them. `chooses`: the model makes the logits of the positions that `logits_to_keep`
    names, and no others.
    """

    layers: tuple[Call, ...]
    paths: tuple[Element, ...]
    before: tuple[Call, ...]
    others: tuple[str, ...]
    chooses: bool = False

    def of(self, output: Any) -> list[torch.Tensor]:
        """The stream in what a layer returned."""
        return [at(output, path) for path in self.paths]

    def put(self, output: Any, stream: Sequence[torch.Tensor]) -> Any:
        """The same output with another stream in its place."""
        for path, tensor in zip(self.paths, stream, strict=True):
            output = with_leaf(output, path, tensor)
        return output


def find_stream(
    model: nn.Module, text: Mapping[str, Any], other: Mapping[str, Any]
) -> ResidualStream:
    """The stream of a model that is called with the arguments `text`, or `other`, of one length.

    Raises `ToolkitError` where none passes the proof.
    """

    def run(call: Callable[[], Any]) -> torch.Tensor:
        with torch.no_grad(), fixed_seed():  # Reformer hashes by chance
            logits = logits_of(call())
        assert logits is not None, "the model has a head"
        return logits

    trace = _Trace(model)
    held = run(lambda: trace.watch(text))
    chosen, chooses = _but_the_first(model, other, held, run)
    if _same(held[:, 1:] if chooses else held, chosen):
        raise ToolkitError(f"{NO_LENS}: two texts give the same logits.")
    for stream in trace.candidates():
        kept = stream.of(trace.outputs[stream.layers[-1]])
        with replaced(model, {stream.layers[-1]: partial(_put, stream, kept)}):
            if _same(held, run(lambda: model(**other))):
                return replace(stream, chooses=chooses)
    raise ToolkitError(f"{NO_LENS}: what follows the last of them reads more than its output.")


def _but_the_first(
    model: nn.Module,
    given: Mapping[str, Any],
    held: torch.Tensor,
    run: Callable[[Run], torch.Tensor],
) -> tuple[torch.Tensor, bool]:
    """The logits at all positions but the first, where the model makes those alone; else all."""
    if accepts(model, "logits_to_keep") and held.dim() == _OF_POSITIONS and held.shape[1] > 1:
        places = torch.arange(1, held.shape[1], device=input_device(model))
        with suppress(Exception):  # of another kind than it takes
            logits = run(lambda: model(**given, logits_to_keep=places))
            return logits, logits.shape[1] == len(places)
    return run(lambda: model(**given)), False


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether all bits are the same; NaN is NaN."""
    return a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


def _put(stream: ResidualStream, kept: Sequence[torch.Tensor], run: Run) -> Any:
    return stream.put(run(), kept)


# ------------------------------------------------------------------------------- replacing outputs


@contextmanager
def replaced(model: nn.Module, calls: Mapping[Call, Callable[[Run], Any]]) -> Iterator[None]:
    """Inside the block, each of these calls returns what its function does.

    It is given the module's own `forward`, to be run or not. Hooks do not see or change it: what
    was kept to be returned again has been through them.
    """
    modules = find_modules(model, dict.fromkeys(name for name, _ in calls))

    def answering(name: str, own: Callable[..., Any]) -> Callable[..., Any]:
        return _answering(own, {number: make for (of, number), make in calls.items() if of == name})

    with forwards_replaced(modules, answering, with_hooks=False):
        yield


def _answering(
    forward: Callable[..., Any], calls: Mapping[int, Callable[[Run], Any]]
) -> Callable[..., Any]:
    made = 0

    def answer(*args: Any, **kwargs: Any) -> Any:
        nonlocal made
        number, made = made, made + 1
        if number not in calls:
            return forward(*args, **kwargs)
        return calls[number](lambda: forward(*args, **kwargs))

    return answer


# ------------------------------------------------------------------------------- watching a pass


@dataclass(frozen=True)
class _Seen:
    """A call: when it began and ended, the tensors that it was given, those that it returned."""

    call: Call
    began: int
    ended: int
    given: frozenset[_Place]
    returned: Mapping[Element, _Place]

    def holds(self, other: _Seen) -> bool:
        return self.began < other.began and other.ended < self.ended


class _Trace:
    """One pass with hooks on every module. Keeps every tensor, so that no memory is used again."""

    def __init__(self, model: nn.Module) -> None:
        self.outputs: dict[Call, Any] = {}
        self._model = model
        self._calls: dict[str, int] = defaultdict(int)
        self._running: list[tuple[int, frozenset[_Place]]] = []
        self._seen: list[_Seen] = []
        self._alive: list[Any] = []
        self._clock = 0

    def watch(self, given: Mapping[str, Any]) -> Any:
        names = [name for name, _ in self._model.named_modules() if name]
        with hooked(self._model, names, self._on_call, self._on_entry):
            return self._model(**given)

    def _on_entry(self, name: str, given: Any) -> None:
        self._alive.append(given)
        self._clock += 1
        self._running.append((self._clock, frozenset(_places(given).values())))

    def _on_call(self, name: str, output: Any) -> None:
        self._clock += 1
        call = name, self._calls[name]
        self._calls[name] += 1
        self.outputs[call] = output
        self._seen.append(_Seen(call, *self._entry_and_now(), _places(output)))

    def _entry_and_now(self) -> tuple[int, int, frozenset[_Place]]:
        began, given = self._running.pop()
        return began, self._clock, given

    def candidates(self) -> Iterator[ResidualStream]:
        """Rows of calls that may be the layers, the likeliest first."""
        calls: dict[str, list[_Seen]] = defaultdict(list)
        for seen in sorted(self._seen, key=lambda seen: seen.began):
            calls[re.sub(r"(?<![^.])\d+(?![^.])", "*", seen.call[0])].append(seen)
        linked = [run for of_one in calls.values() for run in _linked(of_one)]
        outer = [run for run in linked if not any(_inside(run, other) for other in linked)]
        loose = [of_one for of_one in calls.values() if len(of_one) > 1]
        for run in sorted(outer, key=lambda run: -run[-1].ended):
            yield self._stream(run, _shared(run), outer)
        for run in sorted(loose, key=lambda run: (run[0].call[0].count("."), -run[-1].ended)):
            first = [path for path in run[-1].returned if all(path in s.returned for s in run)][:1]
            if first:
                yield self._stream(run, first, outer)

    def _stream(
        self, run: Sequence[_Seen], paths: Sequence[Element], linked: Sequence[Sequence[_Seen]]
    ) -> ResidualStream:
        names = {seen.call[0] for seen in run}
        again = [seen for seen in self._seen if seen.call[0] in names]
        # What holds an earlier call of a layer must run, or the layer's calls would be miscounted.
        early = [
            seen
            for seen in self._seen
            if seen.ended < run[0].began and not any(seen.holds(layer) for layer in again)
        ]
        outermost = [seen for seen in early if not any(other.holds(seen) for other in early)]
        kinds = {self._kind(seen) for seen in run}
        alike = [s.call[0] for r in linked if r is not run for s in r if self._kind(s) in kinds]
        return ResidualStream(
            tuple(seen.call for seen in run),
            tuple(paths),
            tuple(seen.call for seen in outermost),
            () if paired(config_of(self._model)) else tuple(dict.fromkeys(alike)),
        )

    def _kind(self, seen: _Seen) -> type[nn.Module]:
        return type(self._model.get_submodule(seen.call[0]))


def _places(tree: Any) -> dict[Element, _Place]:
    """Where in memory each tensor of a nesting is."""
    return {
        path: (
            int(leaf.untyped_storage()._cdata),
            int(leaf.storage_offset()),
            tuple(leaf.shape),
            leaf.stride(),
        )
        for path, leaf in walk(tree)
        if isinstance(leaf, torch.Tensor) and leaf.layout == torch.strided
    }


def _linked(calls: Sequence[_Seen]) -> Iterator[list[_Seen]]:
    """The longest rows of calls each of which is given what the one before returned."""
    run: list[_Seen] = []
    for seen in calls:
        if run and not _shared([*run, seen]):
            if len(run) > 1:
                yield run
            run = []
        run.append(seen)
    if len(run) > 1:
        yield run


def _shared(run: Sequence[_Seen]) -> list[Element]:
    """At which paths of its output each call returns what the next one is given."""
    pairs = list(pairwise(run))
    return [
        path
        for path in run[-1].returned
        if all(before.returned.get(path) in after.given for before, after in pairs)
    ]


def _inside(run: Sequence[_Seen], other: Sequence[_Seen]) -> bool:
    return run is not other and all(any(o.holds(seen) for o in other) for seen in run)
