"""One forward pass -> what each chosen module returned, by PyTorch forward hooks."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from activations.errors import ToolkitError, ignore, nearest, quoted_list
from activations.forward.keeping import Keeper
from activations.outputs.tensor import Tensor
from activations.outputs.tree import Element, map_leaves
from activations.system.signals import signals_deferred
from activations.text import encodable

# torch stores these as bits and cannot read numbers from them.
_NO_NUMBERS = re.compile(r"u?int[1-7]$|bits|float4")
_INTEGERS = (-(2**63), 2**64 - 1)  # what the document's writer accepts
OnCall = Callable[[str, Any], None]


@dataclass
class Recording:
    """What the chosen modules returned, in the order they were asked for.

    `outputs` maps a module's name to its output: `Tensor`s, or a keeper's `Sparse`s, nested in
    lists and dicts as the module nested them. A module called k times has k entries: `name`,
    `name@1`, ... `name@k-1`, or those of them that were asked for. `not_called` names the chosen
    modules that never fired.
    """

    outputs: dict[str, Any] = field(default_factory=dict)
    not_called: list[str] = field(default_factory=list)


def record(
    model: nn.Module,
    inputs: Mapping[str, Any],
    names: Iterable[str],
    progress: Callable[[str], None] | None = None,
    stop_before: str | None = None,
    only: Mapping[str, Container[int]] | None = None,
    keeper: Keeper | None = None,
) -> Recording:
    """Call `model(**inputs)` once with hooks on the named modules; return what they returned.

    `progress` is called with a module's name after each of its calls. `stop_before` names a module
    that is called only after these: the pass ends there. Of the modules in `only`, only these calls
    are kept, counted from 0. `keeper` makes attention weights sparse. The hooks are always removed.

    Raises `ToolkitError` ("Module not found") when the model has no module of a name.
    """
    recorder = Recorder(names, progress or ignore, only or {}, keeper)
    hooks = hooked(model, recorder.names, recorder.keep)
    with hooks, torch.no_grad(), stopping_before(model, stop_before):
        model(**inputs)
    return recorder.recording()


class Recorder:
    """Copies what modules return, call by call, as long as the pass lasts."""

    def __init__(
        self,
        names: Iterable[str],
        progress: Callable[[str], None],
        only: Mapping[str, Container[int]],
        keeper: Keeper | None = None,
    ) -> None:
        self.names = list(names)
        self._keeper = keeper
        self._progress = progress
        self._only = only
        self._calls = dict.fromkeys(self.names, 0)
        self._kept: dict[str, dict[str, Any]] = {name: {} for name in self.names}

    def keep(self, name: str, output: Any) -> None:
        call = self._calls[name]
        self._calls[name] += 1
        if name not in self._only or call in self._only[name]:
            self._kept[name][f"{name}@{call}" if call else name] = self._snapshot(
                name, call, output
            )
            self._progress(name)

    def _snapshot(self, name: str, call: int, output: Any) -> Any:
        keeper = self._keeper
        if keeper is None:
            return snapshot(output)

        def leaf_kept(leaf: Any, path: Element) -> Any:
            is_tensor = isinstance(leaf, torch.Tensor)
            sparse = keeper.leaf(name, call, path, leaf) if is_tensor else None
            return _snapshot_leaf(leaf) if sparse is None else sparse

        return map_leaves(output, leaf_kept)

    def recording(self) -> Recording:
        """What was kept, module by module."""
        outputs = {key: output for kept in self._kept.values() for key, output in kept.items()}
        return Recording(outputs, [name for name, kept in self._kept.items() if not kept])


class _EndPass(BaseException):
    """All that was asked for is recorded. Not an `Exception`, so that no model catches it."""


@contextmanager
def stopping_before(model: nn.Module, name: str | None) -> Iterator[None]:
    """End the pass inside the block just before the named module is called."""
    if name is None:
        yield
        return

    def stop(name: str, given: Any) -> None:
        raise _EndPass

    with suppress(_EndPass), hooked(model, [name], on_entry=stop):
        yield


@contextmanager
def hooked(
    model: nn.Module,
    names: Iterable[str],
    on_call: OnCall | None = None,
    on_entry: OnCall | None = None,
) -> Iterator[None]:
    """Inside the block, call `on_entry(name, (args, kwargs))` before every call of the named
    modules and `on_call(name, output)` after it, where these are given.
    """
    handles = []
    with signals_deferred() as gate:
        try:
            for name, module in find_modules(model, names).items():
                if on_call is not None:
                    handles.append(module.register_forward_hook(partial(_after, name, on_call)))
                if on_entry is not None:
                    before = partial(_before, name, on_entry)
                    handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            gate.open()
            yield
        finally:
            gate.shut = True
            for handle in handles:
                handle.remove()


@contextmanager
def forwards_replaced(
    modules: Mapping[str, nn.Module],
    make: Callable[[str, Callable[..., Any]], Callable[..., Any]],
    with_hooks: bool = True,
) -> Iterator[None]:
    """Inside the block, each module has the `forward` that `make(name, its own)` returns, as
    accelerate does it; and without `with_hooks` none of its hooks.
    """
    aside = ("forward",) if with_hooks else ("forward", "_forward_hooks", "_forward_pre_hooks")
    before = {
        name: {key: vars(module).get(key) for key in aside} for name, module in modules.items()
    }
    with signals_deferred() as gate:
        try:
            for name, module in modules.items():
                module.forward = make(name, module.forward)
                for key in aside[1:]:
                    setattr(module, key, OrderedDict())
            gate.open()
            yield
        finally:
            gate.shut = True
            for name, module in modules.items():
                module.__dict__.pop("forward", None)
                for key, own in before[name].items():
                    if own is not None:
                        setattr(module, key, own)


# Hooks that returned something would replace the module's output, or its arguments.
def _after(name: str, on_call: OnCall, module: nn.Module, args: Any, output: Any) -> None:
    on_call(name, output)


def _before(name: str, on_entry: OnCall, module: nn.Module, args: Any, kwargs: Any) -> None:
    on_entry(name, (args, kwargs))


def find_modules(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Module]:
    """The named modules. Raises `ToolkitError` naming the nearest ones where a name is wrong."""
    # A module shared under several names is found by each of them.
    modules = dict(model.named_modules(remove_duplicate=False))
    names = list(names)
    for name in names:
        if name not in modules:
            close = nearest(name, modules)
            hint = f"Did you mean {quoted_list(close)}?" if close else "--list shows what it has."
            raise ToolkitError(f"Module not found: the model has no module '{name}'. {hint}")
    return {name: modules[name] for name in names}


def snapshot(output: Any) -> Any:
    """A copy of a module's output on the CPU: `Tensor`s, lists, dicts, None, numbers and strings.

    Tuples, lists, namedtuples and nested tensors become lists of their elements, dicts and
    ModelOutputs dicts. Anything else (a Cache, or a tensor whose numbers cannot be read) becomes
    the name of its class.
    """
    return map_leaves(output, lambda leaf, _: _snapshot_leaf(leaf))


def _snapshot_leaf(leaf: Any) -> Any:
    if isinstance(leaf, torch.Tensor):
        return _snapshot_tensor(leaf)
    if isinstance(leaf, str):
        return encodable(leaf)
    if isinstance(leaf, float):
        return float(leaf)  # JSON does not accept subclasses
    if leaf is None or (isinstance(leaf, int) and _INTEGERS[0] <= leaf <= _INTEGERS[1]):
        return leaf
    return type(leaf).__name__


def _snapshot_tensor(tensor: torch.Tensor) -> Any:
    if tensor.is_nested:
        return [snapshot(part) for part in tensor.unbind()]
    # Such a class stores its numbers in its own way (MaskedTensor), and torch cannot read them.
    if type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        return type(tensor).__name__
    if tensor.is_meta:
        return "Tensor on meta"
    dtype = str(tensor.dtype).removeprefix("torch.")
    return f"Tensor of {dtype}" if _NO_NUMBERS.match(dtype) else _copy(tensor, dtype)


def _copy(tensor: torch.Tensor, dtype: str) -> Tensor:
    shape, plain = tuple(tensor.shape), tensor.detach()
    if plain.is_quantized:
        plain = plain.dequantize()
    if plain.layout != torch.strided:
        plain = plain.to_dense()
    if plain.is_complex():
        plain = torch.view_as_real(plain.resolve_conj())
    # Always copied: the model may change its own tensor in place afterwards.
    plain = plain.to("cpu", copy=True).contiguous()
    if plain.dtype == torch.bfloat16:
        data = plain.view(torch.uint16).numpy()
    elif plain.is_floating_point() and plain.element_size() == 1:
        data = plain.to(torch.float32).numpy()  # 8-bit floats: exact in float32
    else:
        data = plain.resolve_neg().numpy()
    return Tensor(dtype, shape, data)
