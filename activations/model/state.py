"""A model's mode, hooks and modules, and the random numbers: restored after a pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from activations.system.signals import signals_deferred


@contextmanager
def restored(model: Any) -> Iterator[None]:
    """Put a model into `eval()` mode and back, module by module.

    The hooks that transformers adds to return attentions are removed too: after an interruption it
    would add them a second time, and return everything twice. Modules that the model replaces in
    its pass are put back (big_bird has others for a short text).
    """
    parts = [(module, dict(module._modules), _words(module)) for module in model.modules()]
    training = [module for module in model.modules() if module.training]
    marked = [module for module in model.modules() if _HOOKED in vars(module)]
    own = {id(hook) for module in model.modules() for hook in module._forward_hooks.values()}
    with signals_deferred() as gate:
        try:
            model.eval()
            gate.open()
            yield
        finally:
            gate.shut = True
            _put_back(parts)
            for module in training:
                module.training = True
            for module in model.modules():
                _unhook(module, own)
                if module not in marked:
                    vars(module).pop(_HOOKED, None)


def _words(module: Any) -> dict[str, str]:
    """A module's attributes of text, such as the kind of attention it has now."""
    return {name: value for name, value in vars(module).items() if isinstance(value, str)}


def _put_back(parts: list[tuple[Any, dict[str, Any], dict[str, str]]]) -> None:
    """Put back the modules' children, and their texts where a child was replaced."""
    replaced = [(module, own) for module, own, _ in parts if module._modules != own]
    for module, own in replaced:
        vars(module)["_modules"] = own
    for module, _, words in parts if replaced else ():
        vars(module).update(words)


# The attribute by which transformers knows that its hooks are there, and their module.
_HOOKED, _HOOKS = "_output_capturing_hooks_installed", "transformers.utils.output_capturing"


def _unhook(module: Any, own: set[int]) -> None:
    """Remove the hooks of transformers, except those that were there before."""
    for number, hook in list(module._forward_hooks.items()):
        if getattr(hook, "__module__", "") == _HOOKS and id(hook) not in own:
            del module._forward_hooks[number]


@contextmanager
def fixed_seed() -> Iterator[None]:
    """Seed the CPU's generator inside the block and restore its state afterwards.

    Some models draw random numbers in their pass (Reformer's hashes).
    """
    with signals_deferred() as gate:
        before = torch.default_generator.get_state()
        try:
            torch.default_generator.manual_seed(0)
            gate.open()
            yield
        finally:
            gate.shut = True
            torch.default_generator.set_state(before)
