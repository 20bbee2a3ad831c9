"""Models whose weights accelerate keeps elsewhere: reads that it would get wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from activations.errors import ToolkitError


def is_offloaded(model: nn.Module) -> bool:
    """Whether some weights are not in memory: accelerate fetches them, or they are missing."""
    return any(parameter.is_meta for parameter in model.parameters())


@contextmanager
def refuse_offloaded_reads(model: nn.Module) -> Iterator[None]:
    """Raise `ToolkitError` where the model reads a weight that is not there yet.

    accelerate fetches a module's weights when the module is called. Where a model reads them
    otherwise (LongCat's router passes `classifier.weight` to a function) they are still empty, and
    the result would silently be wrong.
    """
    watch: Any = _Watch if is_offloaded(model) else nullcontext
    with watch():
        yield


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation. Only by mistake do empty (meta) tensors meet others in one."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        tensors = [item for item in args if isinstance(item, torch.Tensor)]
        empty = [tensor for tensor in tensors if tensor.device.type == "meta"]
        if empty and len(empty) < len(tensors):
            raise ToolkitError(
                "this model reads weights past their modules, so that accelerate does not fetch "
                "them. Load it without offloading: with a --device-map without 'disk', or none."
            )
        return func(*args, **(kwargs or {}))
