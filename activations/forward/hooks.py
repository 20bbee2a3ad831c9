"""PyTorch hooks, and other `forward`s, for the length of a block; always removed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from torch import nn

from activations.errors import ToolkitError, nearest, quoted_list
from activations.system.signals import signals_deferred

# (module name, what it is given or returns) -> what takes the place of that; None for the same
OnCall = Callable[[str, Any], Any]


class EndPass(BaseException):
    """All that was asked for is recorded. Not an `Exception`, so that no model catches it."""


@contextmanager
def stopping_before(model: nn.Module, name: str | None) -> Iterator[None]:
    """End the pass inside the block just before the named module is called."""
    if name is None:
        yield
        return

    def stop(name: str, given: Any) -> None:
        raise EndPass

    with suppress(EndPass), hooked(model, [name], on_entry=stop):
        yield


@contextmanager
def hooked(
    model: nn.Module,
    names: Iterable[str],
    on_call: OnCall | None = None,
    on_entry: OnCall | None = None,
) -> Iterator[None]:
    """Inside the block, call `on_entry(name, (args, kwargs))` before every call of the named
    modules and `on_call(name, output)` after it, where these are given. What they return is what
    the module is given, or returns, instead; None changes nothing.
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


def _after(name: str, on_call: OnCall, module: nn.Module, args: Any, output: Any) -> Any:
    return on_call(name, output)


def _before(name: str, on_entry: OnCall, module: nn.Module, args: Any, kwargs: Any) -> Any:
    return on_entry(name, (args, kwargs))


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
