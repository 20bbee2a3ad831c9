"""Independent truth: what the model itself returns, and what plain hooks written here see."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import nn

from activations.outputs.tensor import Tensor


def raw_hooks(model: nn.Module, inputs: dict[str, Any], names: list[str]) -> dict[str, list[Any]]:
    """What each module returned at each call of one pass, deep-copied at once."""
    seen: dict[str, list[Any]] = {name: [] for name in names}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: seen[name].append(copy.deepcopy(output))
        )
        for name in names
    ]
    with torch.no_grad():
        model(**inputs)
    for handle in handles:
        handle.remove()
    return seen


def assert_same(recorded: Any, returned: Any) -> None:
    """Recorded equals returned, whatever the nesting, bit for bit."""
    if isinstance(returned, torch.Tensor):
        assert isinstance(recorded, Tensor)
        assert recorded.shape == tuple(returned.shape)
        assert recorded.dtype == str(returned.dtype).removeprefix("torch.")
        wide = returned.float() if returned.dtype in (torch.bfloat16, torch.float16) else returned
        found, expected = recorded.numbers(), wide.numpy()
        if wide.is_complex():
            expected = torch.view_as_real(wide).numpy()
        np.testing.assert_array_equal(found, expected)
    elif isinstance(returned, dict):
        assert list(recorded) == list(returned)
        for key in returned:
            assert_same(recorded[key], returned[key])
    elif isinstance(returned, (tuple, list)):
        assert len(recorded) == len(returned)
        for a, b in zip(recorded, returned, strict=True):
            assert_same(a, b)
    elif returned is None or isinstance(returned, (bool, int, float, str)):
        assert recorded == returned
    else:
        assert recorded == type(returned).__name__


def own_attentions(model: Any, inputs: dict[str, Any]) -> dict[str, list[torch.Tensor]]:
    """{kind: tensors} as the model returns them when asked; () and None count as nothing."""
    with torch.no_grad():
        returned = model(**inputs | {"output_attentions": True, "return_dict": True})
    found = {
        key.removesuffix("attentions").rstrip("_") or "self": list(_flat(value))
        for key, value in returned.items()
        if key.endswith("attentions")
    }
    return {kind: tensors for kind, tensors in found.items() if tensors}


def _flat(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [tensor for item in value or () for tensor in _flat(item)]
