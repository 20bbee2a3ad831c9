"""Python's garbage collector, kept out of the way while large libraries are imported."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """Collect no garbage inside the block; switch the collector on again after it.

    Importing torch and transformers makes a million objects that stay. The collector looks through
    all of them again and again, a fifth of the time, and finds next to nothing.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # what is imported stays, so no later collection looks through it
        if was_enabled:
            gc.enable()
