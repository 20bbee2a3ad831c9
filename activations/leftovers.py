"""Temporary files: their names, their locks, and what killed runs left of them."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

PARTIAL = ".partial"  # how the name of a temporary file ends
_LONGEST_START = 200  # bytes of it
_TRIES = 100  # in a second


def start_of_name(target: Path) -> str:
    """How the names of temporary files for `target` start; a name takes up to 255 bytes."""
    name = target.name
    while len(os.fsencode(name)) > _LONGEST_START:
        name = name[:-1]
    return f".{name}."


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove the temporary files beside `path` that were to take its place and nobody writes.

    A run that is killed by SIGKILL, or by a power cut, cannot do it itself. Those of other paths
    are left to the next run that writes these.
    """
    with suppress(OSError):  # then there they stay
        target = Path(os.path.realpath(path))
        ours = re.compile(re.escape(start_of_name(target)) + r"[a-z0-9_]{8}" + re.escape(PARTIAL))
        for path_there in target.parent.iterdir():
            if ours.fullmatch(path_there.name):
                _remove_unlocked(path_there)


def _remove_unlocked(path: Path) -> None:
    with suppress(OSError):  # taken its place or removed meanwhile; or of another user
        handle = os.open(path, os.O_RDWR)
        try:
            if locked(handle, wait=False):
                path.unlink()
        finally:
            os.close(handle)


def locked(handle: int, wait: bool) -> bool:
    """Lock an open file, for as long as it is open. False where that cannot be done.

    Where locks are unknown (Windows, some network disks) none is ever had, and so no leftover
    removed.
    """
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Of the runs that put files into this folder, so that those that belong together stay so.

    Where that cannot be had in a second (a run was stopped here), or not at all (nothing can be
    locked, or the folder not be read), go on.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        yield
        return
    try:
        _wait_for(handle)
        yield
    finally:
        os.close(handle)


def _wait_for(handle: int) -> None:
    if sys.platform == "win32":
        return
    for _ in range(_TRIES):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(1 / _TRIES)
        except OSError:
            return
        else:
            return
