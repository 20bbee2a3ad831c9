"""Being interrupted: Ctrl-C, SIGTERM and a closed terminal end a run, but not its tidying up."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# SIGHUP comes when a terminal is closed; Windows has none. SIGINT is last: see `signals_deferred`.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGHUP", "SIGTERM", "SIGINT") if hasattr(signal, name)
)
_SAME_WISH = 2.0  # seconds
_SOON = 0.01
_LONGEST_CHAIN = 100  # of errors that led to others; it may go round in a circle


class Terminated(BaseException):
    """A SIGTERM or SIGHUP. No `Exception`, so that nobody takes it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


_last = float("-inf")  # when one was last let through


def _is_same_wish() -> bool:
    """Whether one was let through moments ago: a second would cut the tidying up short.

    Ctrl-C pressed twice, or a signal to the whole group of processes.
    """
    global _last
    now = time.monotonic()
    if now - _last < _SAME_WISH:
        return True
    _last = now
    return False


class SignalGate:
    """Where signals wait while it is shut. Opened for work, and shut again before tidying up:

        with signals_deferred() as gate:
            try:
                ...  # what is to be undone
                gate.open()
                yield
            finally:
                gate.shut = True
                ...  # undo it

    `shut` is set without a call: only calls and loops let a signal in between.
    """

    def __init__(self) -> None:
        self.shut = True
        self.waiting: list[int] = []
        self.others: dict[int, Any] = {}  # the handlers there were

    def open(self) -> None:
        self.shut = False
        self.let_in()

    def let_in(self) -> None:
        """Pass on what came: the first of all, as they are one wish."""
        if self.waiting:
            number = self.waiting[0]
            self.waiting.clear()
            signal.raise_signal(number)

    def __call__(self, number: int, frame: Any) -> None:
        handler: Any = self
        while isinstance(handler, SignalGate):  # outwards
            if handler.shut:
                handler.waiting.append(number)
                return
            handler = handler.others[number]
        if not callable(handler):  # what the system does by default
            signal.signal(number, handler)
            signal.raise_signal(number)
        elif not _is_same_wish():
            handler(number, frame)


@contextmanager
def signals_deferred() -> Iterator[SignalGate]:
    """Let signals wait until the block is done or the gate open. For moments, not for work."""
    global _last
    gate = SignalGate()
    if not any(isinstance(signal.getsignal(number), SignalGate) for number in SIGNALS):
        _last = float("-inf")  # nothing is being tidied up: what comes now is another wish
    try:
        with _handled_by(gate):
            yield gate
            gate.shut = True
    finally:
        gate.let_in()


def raise_interruption(error: BaseException) -> None:
    """Raise what interrupted where that made another error.

    Python makes a RuntimeError of a Ctrl-C while it makes a class, and libraries others of theirs.
    """
    found: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if isinstance(found, (KeyboardInterrupt, Terminated)):
            raise found
        found = found and (found.__cause__ or found.__context__)


@contextmanager
def signals_raised() -> Iterator[None]:
    """Let signals unwind the stack, so that hooks and temporary files are removed.

    Those that are ignored (nohup) stay so.
    """
    global _last
    _last = float("-inf")
    gate = SignalGate()
    gate.shut = False
    gate.others = dict.fromkeys(SIGNALS, _stop)
    with _handled_by(gate), _never_swallowed():
        yield


@contextmanager
def _never_swallowed() -> Iterator[None]:
    """Send a signal again that came where nothing can be raised: in some object's `__del__`.

    Python would print a traceback, and go on.
    """
    own, timers = sys.unraisablehook, []

    def heard(info: Any) -> None:
        if not isinstance(info.exc_value, (KeyboardInterrupt, Terminated)):
            own(info)
            return
        timers.append(threading.Timer(_SOON, _send, [_number(info.exc_value)]))
        timers[-1].daemon = True
        timers[-1].start()

    sys.unraisablehook = heard
    try:
        yield
    finally:
        sys.unraisablehook = own
        for timer in timers:
            timer.cancel()


def _send(number: int) -> None:
    """To the main thread itself, which may be waiting for something, where that can be done."""
    global _last
    _last = float("-inf")  # not in `heard`, where the next one would be lost as well
    if sys.platform == "win32":
        signal.raise_signal(number)
    else:
        signal.pthread_kill(threading.main_thread().ident or 0, number)


def _number(error: KeyboardInterrupt | Terminated) -> int:
    return error.exit_code - 128 if isinstance(error, Terminated) else signal.SIGINT


def _stop(number: int, frame: Any) -> None:
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)


@contextmanager
def _handled_by(gate: SignalGate) -> Iterator[None]:
    """Take signals at this gate; in the main thread, as no other gets any."""
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
        # SIGINT, the one that comes again and again, last: it would keep the others from it.
        for number, own in before.items():
            signal.signal(number, own)
