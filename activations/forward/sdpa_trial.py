"""Whether a model's attention weights can be computed beside SDPA: tried, not assumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
from torch import nn

from activations.forward.keeping import Keeper
from activations.forward.output_attentions import attentions_asked
from activations.forward.recording import Wanted, record
from activations.forward.sdpa_weights import sdpa_weights
from activations.model.attn_implementation import attention_implementation
from activations.outputs.sparse import Sparse
from activations.outputs.tree import walk
from activations.selection.observation import Observation, WeightsSource
from activations.system.signals import raise_interruption

_CLOSE = 2e-3  # weights are compared as 16-bit floats


def agrees_with_eager(
    model: nn.Module,
    given: Mapping[str, Any],
    sources: Sequence[WeightsSource],
    observation: Observation,
) -> bool:
    """Whether all weights of these sources come beside SDPA, as the model's eager attention
    returns them for the same short inputs.

    The largest weights of each part of the text are compared, which is all weights of a short one.
    """
    try:
        eager = _trial(model, "eager", given, sources, observation)
        beside = _trial(model, "sdpa", given, sources, observation)
    except Exception as error:  # the model does not run with SDPA, or not with stand-ins
        raise_interruption(error)
        return False
    return list(eager) == list(beside) and all(
        eager[key].shape == beside[key].shape
        and np.allclose(eager[key].overview, beside[key].overview, rtol=0, atol=_CLOSE)
        and np.allclose(eager[key].rest, beside[key].rest, rtol=0, atol=0.01, equal_nan=True)
        for key in eager
    )


def _trial(
    model: nn.Module,
    implementation: str,
    given: Mapping[str, Any],
    sources: Sequence[WeightsSource],
    observation: Observation,
) -> dict[Any, Sparse]:
    """What a pass keeps of each tensor of weights. Raises where one of them does not come."""
    keeper = Keeper(0.01, sources)
    names = list(dict.fromkeys(source.module for source in sources))
    asked = attentions_asked if observation.needs_flag else nullcontext
    with (
        attention_implementation(model, implementation),
        sdpa_weights(model, implementation, sources, keeper),
        asked(model),
    ):
        outputs = record(model, given, Wanted(names, keeper=keeper)).outputs
    found = {
        (name, path): leaf
        for name, tree in outputs.items()
        for path, leaf in walk(tree)
        if isinstance(leaf, Sparse)
    }
    wanted = {(f"{s.module}@{s.call}" if s.call else s.module, s.element) for s in sources}
    if not wanted <= set(found):
        raise LookupError("weights are missing")
    return found
