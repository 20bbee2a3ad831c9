"""Where a model is put: on one device, or spread by accelerate over devices and the disk.

torch is imported only to look for a device, so that a wrong name is refused without it.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from activations.errors import ToolkitError, UsageError

if TYPE_CHECKING:
    import torch

_WAYS_TO_SPREAD = ("auto", "balanced", "balanced_low_0", "sequential")  # accelerate's
_DEVICE = re.compile(r"(cpu|cuda|mps)(:\d{1,4})?")


def check_device(name: str, flag: str = "--device") -> None:
    """Raise `UsageError` where this is not a device's name."""
    if name != "auto" and not _DEVICE.fullmatch(name):
        raise UsageError(f"{flag} takes auto, cpu, cuda, cuda:0 or mps, not '{name}'.")


def _pick_device(name: str, flag: str) -> torch.device:
    """`auto` is CUDA, else Apple's MPS, else the CPU. Raises `ToolkitError` where it is missing."""
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    counts = {"cpu": 1, "mps": int(torch.backends.mps.is_available())}
    counts["cuda"] = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= counts[device.type]:
        raise ToolkitError(f"this machine has no device '{name}'. Write {flag} cpu or auto.")
    return device


def parse_device_map(text: str | None) -> Any:
    """`--device-map` as accelerate takes it: a way to spread a model, or a place for each part.

    A way is `auto`, `balanced`, `balanced_low_0`, `sequential` or `disk` (all weights stay on the
    disk and are read layer by layer); places are a JSON object from module names to `cpu`, `disk`
    or a device. Raises `UsageError` where it is neither.
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
            f"--device-map takes {', '.join(_WAYS_TO_SPREAD)}, disk, or a JSON object such as "
            f'{{"model": "cpu", "lm_head": "disk"}}, not \'{text}\'.'
        )
    for name in _devices_of(places):
        check_device(name, "--device-map")
    return places


def _devices_of(places: Any) -> list[str]:
    """The devices that a parsed device map names; a number is a GPU."""
    named = places.values() if isinstance(places, dict) else ()
    return [
        f"cuda:{place}" if isinstance(place, int) and not isinstance(place, bool) else str(place)
        for place in named
        if place != "disk"
    ]


def find_devices(device: str, device_map: str | None) -> tuple[torch.device, Any]:
    """The device, and the device map as accelerate takes it.

    Raises `ToolkitError` where this machine does not have one of the devices.
    """
    places = parse_device_map(device_map)
    for name in _devices_of(places):
        _pick_device(name, "--device-map")
    return _pick_device(device, "--device"), places
