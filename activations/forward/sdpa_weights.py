"""Attention weights for attention that does not compute them (SDPA, flash attention).

Such an attention returns its output and None. Inside `sdpa_weights`, transformers' attention
function of that name runs unchanged; in addition the modelling file's own
`eager_attention_forward` computes the weights from the same queries and keys, and they replace the
None. The model continues with the unchanged output, so its logits stay the same, bit for bit.

The function registered under the implementation's own name is replaced meanwhile. A new name would
not do: models check the name elsewhere too (`if config._attn_implementation == "sdpa"`).
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from activations.system.signals import signals_deferred

_LOCK = threading.Lock()  # the function is registered for the whole process


@contextmanager
def sdpa_weights(
    model: nn.Module, implementation: str | None, names: Sequence[str]
) -> Iterator[None]:
    """Let the named modules, and the modules inside them, return weights under `implementation`.

    Models that do not use transformers' attention interface, and implementations it does not know,
    are not changed: they return None as before.
    """
    # eager is not in there: it returns its weights itself.
    if implementation not in ALL_ATTENTION_FUNCTIONS or not names:
        yield
        return
    wanted = {part for name in names for part in model.get_submodule(name).modules()}
    with _LOCK:
        own = ALL_ATTENTION_FUNCTIONS[implementation]

        def with_weights(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
            output, weights = own(module, *args, **kwargs)
            if weights is None and module in wanted:
                weights = _eager_weights(module, *args, **kwargs)
            return output, weights

        with signals_deferred() as gate:
            try:
                AttentionInterface.register(implementation, with_weights)
                gate.open()
                yield
            finally:
                gate.shut = True
                AttentionInterface.register(implementation, own)


def _eager_weights(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any = None,
    *args: Any,
    **kwargs: Any,
) -> torch.Tensor | None:
    """The weights (batch, heads, queries, keys) by the model's own eager formula, if it has one.

    query, key and value are (batch, heads, tokens, width), as the attention interface passes them.
    None where the eager formula cannot read the mask.
    """
    eager = _eager_forward(module)
    is_known = isinstance(attention_mask, torch.Tensor) and attention_mask.dim() == 4
    if eager is None or not (attention_mask is None or is_known):
        return None
    causal = kwargs.pop("is_causal", None)
    causal = getattr(module, "is_causal", True) if causal is None else causal
    if attention_mask is None:
        attention_mask = _mask(query, key, bool(causal), kwargs.get("sliding_window"))
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        low = torch.finfo(query.dtype).min
        zero = torch.zeros((), dtype=query.dtype, device=query.device)
        attention_mask = torch.where(attention_mask, zero, low)
    weights: torch.Tensor | None
    _, weights = eager(module, query, key, value, attention_mask, *args, **kwargs)
    return weights


def _mask(
    query: torch.Tensor, key: torch.Tensor, causal: bool, window: int | None
) -> torch.Tensor | None:
    """Which keys each query sees, (1, 1, queries, keys), where there is no mask.

    SDPA gets no mask where its own causal one is the same. Flash attention never gets one, only the
    width of its window.
    """
    if not causal and not window:
        return None
    rows = torch.arange(query.shape[-2], device=query.device)[:, None]
    back = rows - torch.arange(key.shape[-2], device=query.device)
    seen = back >= 0 if causal else torch.ones_like(back, dtype=torch.bool)
    if window:
        seen = seen & (back.abs() < window)
    return seen[None, None]


def _eager_forward(module: nn.Module) -> Callable[..., tuple[Any, Any]] | None:
    """`eager_attention_forward` of the file that defines this module, or one it inherits from."""
    for base in type(module).__mro__:
        found = getattr(sys.modules.get(base.__module__), "eager_attention_forward", None)
        if found is not None:
            return found  # type: ignore[no-any-return]
    return None
