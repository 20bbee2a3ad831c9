"""What a process holds in memory, as Linux counts it."""

from __future__ import annotations

import gc
import re
from pathlib import Path


def held() -> int:
    """Bytes now."""
    gc.collect()
    return _field("VmRSS")


def peak() -> int:
    """The most bytes since the process began, or since `forget_peak`.

    Not getrusage's figure: that counts what the parent held when it forked.
    """
    return _field("VmHWM")


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _field(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise ValueError(f"this system does not tell {name}")
    return int(found[1]) * 1024
