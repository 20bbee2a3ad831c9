"""How much memory this process can still get, and how much of it logits may take."""

from __future__ import annotations

import os
from pathlib import Path

LOGITS_AT_ONCE = 2**28  # numbers: 1 GB in float32. More are made part by part, where that can be
_PROC = Path("/proc/meminfo")
_LIMITS = (  # of a container, and what it has used of it
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


def free_memory() -> int | None:
    """Bytes, by what the system and the container allow; None where neither says."""
    found = [_of_system(), *(_of_container(*files) for files in _LIMITS)]
    return min((size for size in found if size is not None), default=None)


def _of_system() -> int | None:
    try:
        lines = _PROC.read_text(encoding="ascii").splitlines()
        return next(int(x.split()[1]) for x in lines if x.startswith("MemAvailable:")) * 1024
    except (OSError, StopIteration, ValueError):
        pass  # not Linux: then all that is there
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows
        return None


def _of_container(limit: Path, used: Path) -> int | None:
    try:
        return max(int(limit.read_text()) - int(used.read_text()), 0)
    except (OSError, ValueError):  # no container, or "max"
        return None
