"""Asking the Hugging Face models in a module for their attentions, whatever is around them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from activations.model.hosts import hosts
from activations.model.signature import accepts
from activations.system.signals import signals_deferred


@contextmanager
def attentions_asked(model: nn.Module) -> Iterator[Mapping[str, Any]]:
    """Inside the block, the Hugging Face models in a module compute and return their attentions.

    Yields what each of them returned in its first call, by name, filled as they are called. The
    modules around them get what they expect: a tuple without attentions where they ask for one.
    """
    returned: dict[str, Any] = {}
    handles = []
    with signals_deferred() as gate:
        try:
            for name, host in hosts(model).items():
                asked = _Asked(name, host, returned)
                handles.append(host.register_forward_pre_hook(asked.before, with_kwargs=True))
                handles.append(host.register_forward_hook(asked.after))
            gate.open()
            yield returned
        finally:
            gate.shut = True
            for handle in handles:
                handle.remove()


class _Asked:
    """The hooks of one model."""

    def __init__(self, name: str, host: Any, returned: dict[str, Any]) -> None:
        self._name, self._returned = name, returned
        flags = ("output_attentions", "return_dict")
        self._asked = {flag: True for flag in flags if accepts(host, flag)}
        self._tuple_expected = False

    def before(self, host: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        expected = kwargs.get("return_dict", getattr(host.config, "return_dict", True))
        self._tuple_expected = expected is False and "return_dict" in self._asked
        return args, {**kwargs, **self._asked}

    def after(self, host: Any, args: Any, output: Any) -> Any:
        self._returned.setdefault(self._name, output)
        if not self._tuple_expected:
            return None
        return tuple(value for key, value in output.items() if not key.endswith("attentions"))
