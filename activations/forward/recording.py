"""One forward pass -> what each chosen module was given and returned, by PyTorch forward hooks."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import torch
from torch import nn

from activations.errors import ignore
from activations.forward.edits import Edits, Given
from activations.forward.hooks import hooked, stopping_before
from activations.forward.keeping import Keeper
from activations.forward.snapshots import snapshot, snapshot_leaf
from activations.outputs.tree import Element, map_leaves

Watching = AbstractContextManager[Any]


@dataclass
class Recording:
    """What the chosen modules returned, in the order they were asked for.

    `outputs` maps a module's name to its output: `Tensor`s, or a keeper's `Sparse`s, nested in
    lists and dicts as the module nested them. A module called k times has k entries: `name`,
    `name@1`, ... `name@k-1`, or those of them that were asked for. `inputs` has what it was given,
    by the same names, where that was asked for: the argument itself where it is one alone, else
    {name of the argument: what it was}. `not_called` names the chosen modules that never fired.
    """

    outputs: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    not_called: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Wanted:
    """What to record: of these modules, what they return, and with `inputs` what they are given.

    `progress` is called with a module's name after each of its calls. Of the modules in `only`,
    only these calls are kept, counted from 0. `keeper` makes attention weights sparse.
    `stop_before` names a module that is called only after these: the pass ends there.
    """

    names: Iterable[str]
    progress: Callable[[str], None] = ignore
    stop_before: str | None = None
    only: Mapping[str, Container[int]] = field(default_factory=dict)
    keeper: Keeper | None = None
    inputs: bool = False


def record(
    model: nn.Module,
    inputs: Mapping[str, Any],
    wanted: Wanted,
    edits: Edits | None = None,
    within: Watching | None = None,
) -> Recording:
    """Call `model(**inputs)` once with hooks on the wanted modules; return what they returned.

    `edits` are written in the pass; what is recorded is what comes of them, and so is what is seen
    by hooks that `within` adds. The hooks are always removed.

    Raises `ToolkitError` ("Module not found") when the model has no module of a name.
    """
    recorder = Recorder(model, wanted, edits)
    with (
        hooked(model, recorder.entered, on_entry=recorder.entry),
        hooked(model, recorder.left, on_call=recorder.output),
        within or nullcontext(),
        torch.no_grad(),
        stopping_before(model, wanted.stop_before),
    ):
        model(**inputs)
    return recorder.recording()


class Recorder:
    """Copies what modules are given and return, call by call, as long as the pass lasts.

    Hand it what the modules in `entered` are given, and those in `left` return; it answers with
    what takes the place of that, None for the same.
    """

    def __init__(self, model: nn.Module, wanted: Wanted, edits: Edits | None = None) -> None:
        self._model, self._wanted, self._edits = model, wanted, edits or Edits()
        self._names = list(dict.fromkeys(wanted.names))
        self._calls = {side: dict.fromkeys(self._names, 0) for side in ("in", "out")}
        self._given: dict[str, Any] = {}
        self._kept: dict[str, dict[str, Any]] = {name: {} for name in self._names}
        own = self._names if wanted.inputs else []
        self.entered = list(dict.fromkeys([*own, *self._edits.inputs]))
        self.left = list(dict.fromkeys([*self._names, *self._edits.outputs]))

    def entry(self, name: str, given: Given) -> Given | None:
        changed = self._edits.entry(name, given)
        key = self._key(name, "in") if self._wanted.inputs else None
        if key is not None:
            self._given[key] = snapshot(self._arguments(name, *(changed or given)))
        return changed

    def output(self, name: str, output: Any) -> Any:
        changed = self._edits.output(name, output)
        call = self._calls["out"].get(name, 0)
        key = self._key(name, "out")
        if key is not None:
            returned = output if changed is None else changed
            self._kept[name][key] = self._snapshot(name, call, returned)
            self._wanted.progress(name)
        return changed

    def _key(self, name: str, side: str) -> str | None:
        """What this call is recorded as; None where it is not."""
        calls, only = self._calls[side], self._wanted.only
        if name not in calls:
            return None
        call = calls[name]
        calls[name] += 1
        if name in only and call not in only[name]:
            return None
        return f"{name}@{call}" if call else name

    def _arguments(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The one argument, or all by their names."""
        if len(args) == 1 and not kwargs:
            return args[0]
        try:
            forward = signature(self._model.get_submodule(name).forward)
            named = forward.bind_partial(*args).arguments
        except (TypeError, ValueError):  # a forward that is not written in Python
            named = {str(number): value for number, value in enumerate(args)}
        return {**named, **kwargs}

    def _snapshot(self, name: str, call: int, output: Any) -> Any:
        keeper = self._wanted.keeper
        if keeper is None:
            return snapshot(output)

        def leaf_kept(leaf: Any, path: Element) -> Any:
            is_tensor = isinstance(leaf, torch.Tensor)
            sparse = keeper.leaf(name, call, path, leaf) if is_tensor else None
            return snapshot_leaf(leaf) if sparse is None else sparse

        return map_leaves(output, leaf_kept)

    def recording(self) -> Recording:
        """What was kept, module by module."""
        outputs = {key: output for kept in self._kept.values() for key, output in kept.items()}
        inputs = {key: self._given[key] for key in outputs if key in self._given}
        return Recording(outputs, inputs, [name for name, kept in self._kept.items() if not kept])
