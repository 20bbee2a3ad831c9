"""Which function computes a model's attention: eager, sdpa, ..."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from activations.errors import ToolkitError, UsageError, nearest, quoted_list
from activations.model.errors import first_line
from activations.model.hosts import hosts
from activations.system.signals import signals_deferred


def check_attention(name: str | None) -> None:
    """Raise `UsageError` where transformers has no attention of this name.

    The hub may have one of a name like `owner/kernel`.
    """
    known = ["eager", *ALL_ATTENTION_FUNCTIONS]
    if name is not None and name not in known and "/" not in name:
        close = nearest(name, known)
        hint = f"Did you mean {quoted_list(close)}?" if close else "Write eager or sdpa."
        raise UsageError(f"--attn-implementation: there is no attention '{name}'. {hint}")


@contextmanager
def attention_implementation(model: Any, name: str | None) -> Iterator[None]:
    """Let a loaded model run with this attention implementation, then restore its own.

    Of a module around other models, each of these.
    """
    check_attention(name)
    with ExitStack() as stack:
        for host in hosts(model).values() if name is not None else ():
            stack.enter_context(_implementation(host, str(name)))
        yield


@contextmanager
def _implementation(model: Any, name: str) -> Iterator[None]:
    before = implementations(model.config)
    if set(before.values()) == {name}:
        yield
        return
    with signals_deferred() as gate:
        try:
            _set_attention(model, name)
            gate.open()
            yield
        finally:
            gate.shut = True
            model.set_attn_implementation({key: value for key, value in before.items() if value})


def _set_attention(model: Any, name: str) -> None:
    try:
        model.set_attn_implementation(name)
    except Exception as error:
        raise ToolkitError(
            f"this model does not run with attention '{name}': {first_line(error)}. "
            "Use --attn-implementation eager."
        ) from error
    changed = name in implementations(model.config).values()
    if name != "eager" and not changed:  # transformers only logs it
        raise ToolkitError(
            f"this model cannot change to attention '{name}' once it is loaded. Use "
            f"--attn-implementation eager, or load it with attn_implementation='{name}'."
        )


def implementations(config: Any) -> dict[str, Any]:
    """The attention implementation of a model ("") and of each of its parts by name."""
    parts = {"": config} | {key: getattr(config, key, None) for key in config.sub_configs}
    return {key: part._attn_implementation for key, part in parts.items() if part is not None}
