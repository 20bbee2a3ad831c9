"""Ctrl-C, SIGTERM and a closed terminal end a run, but do not interrupt its clean-up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from activations.errors import causes

# SIGHUP comes when a terminal is closed; Windows has none.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGHUP", "SIGTERM", "SIGINT") if hasattr(signal, name)
)


class SignalGate:
    """A handler that lets signals wait while it is shut. Opened for work, shut for clean-up:

        with signals_deferred() as gate:
            try:
                ...  # what is to be undone
                gate.open()
                yield
            finally:
                gate.shut = True
                ...  # undo it

    `shut` is set without a call: Python handles signals at calls and in loops.
    """

    def __init__(self) -> None:
        self.shut = True
        self.waiting: list[int] = []
        self.others: dict[int, Any] = {}  # the handlers there were

    def open(self) -> None:
        self.shut = False
        self.let_in()

    def let_in(self) -> None:
        """Pass on the first that came: the others would only interrupt the clean-up."""
        if self.waiting:
            number = self.waiting[0]
            self.waiting.clear()
            signal.raise_signal(number)

    def __call__(self, number: int, frame: Any) -> None:
        handler: Any = self
        while isinstance(handler, SignalGate):  # from the inner to the outer
            if handler.shut:
                handler.waiting.append(number)
                return
            handler = handler.others[number]
        if not callable(handler):  # the system's default
            signal.signal(number, handler)
            signal.raise_signal(number)
        else:
            handler(number, frame)


@contextmanager
def signals_deferred() -> Iterator[SignalGate]:
    """Let signals wait until the block ends or the gate is opened."""
    gate = SignalGate()
    try:
        with _handled_by(gate):
            yield gate
            gate.shut = True
    finally:
        gate.let_in()


def raise_interruption(error: BaseException) -> None:
    """Raise the interruption that led to this error, if one did.

    Python turns a Ctrl-C during the making of a class into a RuntimeError; libraries do the like.
    """
    for found in causes(error):
        if isinstance(found, (KeyboardInterrupt, SystemExit)):
            raise found


@contextmanager
def signals_raised() -> Iterator[None]:
    """Let signals unwind the stack, so that hooks and temporary files are removed.

    Those that are ignored (nohup) stay so.
    """
    gate = SignalGate()
    gate.shut = False
    gate.others = dict.fromkeys(SIGNALS, _stop)
    with _handled_by(gate):
        yield


def _stop(number: int, frame: Any) -> None:
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


@contextmanager
def _handled_by(gate: SignalGate) -> Iterator[None]:
    """Handle signals with this gate; only in the main thread, as others get none."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # None is a handler that is not Python's.
    before = {
        number: own
        for number in SIGNALS
        if (own := signal.getsignal(number)) not in (signal.SIG_IGN, None)
    }
    gate.others = gate.others or before
    try:
        for number in before:
            signal.signal(number, gate)
        yield
    finally:
        for number, own in before.items():
            signal.signal(number, own)
