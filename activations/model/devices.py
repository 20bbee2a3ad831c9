"""Where a model is put: one device, or spread by accelerate over devices and the disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from activations.errors import ToolkitError, UsageError

_WAYS_TO_SPREAD = ("auto", "balanced", "balanced_low_0", "sequential")  # accelerate's


def pick_device(device: str, flag: str = "--device") -> torch.device:
    """`auto` is CUDA, else Apple's MPS, else the CPU. Raises `UsageError` where one is missing."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError:
        raise UsageError(
            f"{flag} does not know '{device}'. Write auto, cpu, cuda, cuda:0 or mps."
        ) from None
    there = {"cpu": place.index in (None, 0), "cuda": torch.cuda.is_available()}
    there["mps"] = torch.backends.mps.is_available()
    if not there.get(place.type, False) or (
        place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count()
    ):
        raise ToolkitError(f"this machine has no device '{device}'. Write {flag} cpu or auto.")
    return place


def parse_device_map(text: str | None) -> Any:
    """`--device-map` as accelerate takes it: a way to spread a model, or a place for each part.

    A way is `auto`, `balanced`, `balanced_low_0`, `sequential` or `disk` (all weights stay on the
    disk and are read layer by layer); places are a JSON object from module names to `cpu`, `disk`
    or a device. Raises `UsageError` where it is neither, `ToolkitError` where a device is missing.
    """
    if text is None or text in _WAYS_TO_SPREAD:
        return text
    if text == "disk":
        return {"": "disk"}
    try:
        places = json.loads(text)
    except ValueError:
        places = None
    if not isinstance(places, dict) or not places:
        raise UsageError(
            f"--device-map does not know '{text}'. Write {', '.join(_WAYS_TO_SPREAD)}, disk, or "
            'a JSON object such as {"model": "cpu", "lm_head": "disk"}.'
        )
    for device in places.values():
        if device != "disk":
            number = isinstance(device, int) and not isinstance(device, bool)
            pick_device(f"cuda:{device}" if number else str(device), "--device-map")
    return places


@contextmanager
def refuse_offloaded_reads(model: nn.Module) -> Iterator[None]:
    """Raise `ToolkitError` where the model reads a weight that is still on the disk.

    accelerate fetches a module's weights when the module is called. Where a model reads them
    otherwise (LongCat's router passes `classifier.weight` to a function) they are still empty, and
    the result would be garbage without a word.
    """
    places = getattr(model, "hf_device_map", None) or {}
    watch: Any = _Watch if "disk" in places.values() else nullcontext
    with watch():
        yield


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation. Empty tensors (of the meta device) meet others only by mistake."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        tensors = [item for item in args if isinstance(item, torch.Tensor)]
        empty = [tensor for tensor in tensors if tensor.device.type == "meta"]
        if empty and len(empty) < len(tensors):
            raise ToolkitError(
                "--device-map: this model reads weights past their modules, so that accelerate "
                "does not fetch them from the disk. Use a map without 'disk', or none."
            )
        return func(*args, **(kwargs or {}))
