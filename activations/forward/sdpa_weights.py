"""Attention weights for attention that does not compute them (SDPA, flash attention).

Such an attention returns its output and None. Inside `sdpa_weights`, transformers' attention
function of that name runs unchanged; in addition the modelling file's own eager formula computes
the weights from the same queries and keys, a few rows at a time, and they replace the None. The
model continues with the unchanged output, so its logits stay the same, bit for bit.

The function registered under the implementation's own name is replaced meanwhile. A new name would
not do: models check the name elsewhere too (`if config._attn_implementation == "sdpa"`).
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from activations.forward.attention_rows import AttentionCall, Formula, each_rows
from activations.forward.keeping import Keeper
from activations.selection.observation import WeightsSource
from activations.system.signals import signals_deferred

_LOCK = threading.Lock()  # the function is registered for the whole process


@contextmanager
def sdpa_weights(
    model: nn.Module,
    implementation: str | None,
    sources: Sequence[WeightsSource],
    keeper: Keeper | None = None,
) -> Iterator[None]:
    """Let the modules of these sources, and those inside them, return weights under
    `implementation`; with a `keeper`, stand-ins for what it keeps of them.

    Models that do not use transformers' attention interface, and implementations it does not know,
    are not changed: they return None as before.
    """
    # eager is not in there: it returns its weights itself.
    if implementation not in ALL_ATTENTION_FUNCTIONS or not sources:
        yield
        return
    # What is inside another source's module has its kind: the innermost comes last.
    in_order = sorted(sources, key=lambda source: source.module.count("."))
    kinds = {p: s.kind for s in in_order for p in model.get_submodule(s.module).modules()}
    with _LOCK:
        own = ALL_ATTENTION_FUNCTIONS[implementation]

        def with_weights(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
            output, weights = own(module, *args, **kwargs)
            call = _call(module, *args, **kwargs) if weights is None and module in kinds else None
            if call is not None:
                weights = keeper.stand_in(call, kinds[module]) if keeper else _whole(call)
            return output, weights

        with signals_deferred() as gate:
            try:
                AttentionInterface.register(implementation, with_weights)
                gate.open()
                yield
            finally:
                gate.shut = True
                AttentionInterface.register(implementation, own)


def _call(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any = None,
    *args: Any,
    **kwargs: Any,
) -> AttentionCall | None:
    """A call as the attention interface passes it; None where the model has no eager formula, or
    one that cannot read the mask.
    """
    eager = _eager_forward(module)
    is_known = isinstance(attention_mask, torch.Tensor) and attention_mask.dim() == 4
    if eager is None or not (attention_mask is None or is_known):
        return None
    causal = kwargs.pop("is_causal", None)
    causal = getattr(module, "is_causal", True) if causal is None else causal
    window = kwargs.get("sliding_window")
    return AttentionCall(
        module, eager, query, key, value, attention_mask, bool(causal), window, args, kwargs
    )


def _whole(call: AttentionCall) -> torch.Tensor:
    """All weights of a call, (batch, heads, queries, keys)."""
    whole = torch.zeros(call.shape, dtype=call.query.dtype, device=call.query.device)
    each_rows(call, _Filling(whole))
    return whole


class _Filling:
    """Puts rows into the tensor of all of them."""

    def __init__(self, whole: torch.Tensor) -> None:
        self._whole = whole

    def add(self, batch: int, head: int, first_row: int, rows: np.ndarray) -> None:
        count, width = rows.shape
        self._whole[batch, head, first_row : first_row + count, :width] = torch.from_numpy(rows)


def _eager_forward(module: nn.Module) -> Formula | None:
    """`eager_attention_forward` of the file that defines this module, or one it inherits from."""
    for base in type(module).__mro__:
        found = getattr(sys.modules.get(base.__module__), "eager_attention_forward", None)
        if found is not None:
            return found  # type: ignore[no-any-return]
    return None
