"""Being interrupted: Ctrl-C, SIGTERM and a closed terminal end a run, but not its tidying up."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# SIGHUP comes when a terminal is closed; Windows has none. SIGINT is last: see `undisturbed`.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGHUP", "SIGTERM", "SIGINT") if hasattr(signal, name)
)
_SAME_WISH = 2.0  # seconds


class Terminated(BaseException):
    """A SIGTERM or SIGHUP. No `Exception`, so that nobody takes it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


@contextmanager
def signals_raised() -> Iterator[None]:
    """Let signals unwind the stack, so that hooks and temporary files are removed.

    A second one within moments is the same wish (Ctrl-C pressed twice, a signal to the whole
    group): raised too, it would cut the tidying up short. Those that are ignored (nohup) stay so.
    """
    last = float("-inf")

    def stop(number: int, frame: Any) -> None:
        nonlocal last
        if time.monotonic() - last < _SAME_WISH:
            return
        last = time.monotonic()
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)

    with _handled_by(stop):
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let signals wait until the block is done. For moments, not for work.

    Ends by passing on what came: the first of them, as they are one wish.
    """
    held: list[int] = []

    def hold(number: int, frame: Any) -> None:
        held.append(number)

    with _handled_by(hold):
        yield
    if held:
        signal.raise_signal(held[0])


@contextmanager
def _handled_by(handler: Any) -> Iterator[None]:
    """Take signals by this handler; in the main thread, as no other gets any."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # None is a handler that is not Python's.
    before = {
        number: own
        for number in SIGNALS
        if (own := signal.getsignal(number)) not in (signal.SIG_IGN, None)
    }
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        # SIGINT, the one that comes again and again, last: it would keep the others from it.
        for number, own in before.items():
            signal.signal(number, own)
