"""What both commands share: talking to the user, and turning errors into one line and a code.

Results go to stdout; everything else, progress and questions too, to stderr.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from activations.errors import ToolkitError, UsageError, ignore
from activations.terminal import is_terminal
from activations.tokens import printable

INTERRUPTED = 130
_SECONDS_TO_LEAVE = 1.0  # by itself, once it is interrupted


class Talk:
    """Where lines for the user go. `quiet` leaves results, warnings and errors."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet

    def result(self, line: str) -> None:
        print(line, flush=True)

    def note(self, line: str) -> None:
        if not self.quiet:
            self._say(line)

    def warn(self, line: str) -> None:
        self._say(f"warning: {line}")

    def error(self, line: str) -> None:
        self._say(f"error: {line}")

    def interrupted(self) -> None:
        if self.shows_progress:
            # What is left of others' bars is wiped out, and their hidden cursor shown again.
            print("\r\x1b[J\x1b[?25h", end="", file=sys.stderr)
        self.error("interrupted.")

    @property
    def shows_progress(self) -> bool:
        """Progress is for people: on a terminal, and not with --quiet."""
        return not self.quiet and is_terminal(sys.stderr)

    @contextmanager
    def watching(
        self, what: str, total: int = 0, first: str = ""
    ) -> Iterator[Callable[[str], None]]:
        """On a terminal, say what takes a while, and how far it is; `first` before anything is.

        The result takes the name of each thing that is done, of `total` in all; a name that comes
        again counts once. No other bar can be shown in the meantime.
        """
        if not self.shows_progress:
            yield ignore
            return
        from rich.console import Console
        from rich.text import Text

        status = Console(stderr=True).status(Text(f"{what} {first}".rstrip()))
        seen: set[str] = set()

        def update(name: str) -> None:
            seen.add(name)
            so_far = f"{what} {len(seen)}/{total} " if total else f"{what} "
            room = status.console.width - 3 - len(so_far)  # on one line, behind the wheel
            shown = name if len(name) <= room else "…" + name[len(name) - max(room, 1) + 1 :]
            status.update(Text(so_far + shown))

        with status:
            yield update

    def _say(self, line: str) -> None:
        # One line, and no escape codes out of other people's names and files.
        print(printable(line), file=sys.stderr, flush=True)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as everything else here does."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}. See --help.")


Work = Callable[[argparse.Namespace, Talk], Any]


def run_command(parser: Parser, argv: list[str] | None, work: Work) -> int:
    """Parse, work, and answer with the exit code: 0, 1, 2, or 130 when interrupted."""
    asked = sys.argv[1:] if argv is None else argv
    debug, talk = "--debug" in asked, Talk()
    try:
        with _sigterm_as_exit():
            args = parser.parse_args(asked)
            debug, talk = args.debug, Talk(args.quiet)
            work(args, talk)
            sys.stdout.flush()
    except SystemExit as stop:  # --help, --version, SIGTERM
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        talk.interrupted()
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of stdout went away; what is left to flush at exit goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except ToolkitError as error:
        return _failed(error, str(error), error.exit_code, debug, talk)
    except MemoryError as error:
        line = "out of memory. Choose fewer modules, --layers or --tokens."
        return _failed(error, line, 1, debug, talk)
    except Exception as error:
        line = f"unexpected: {type(error).__name__}: {error}. With --debug you see where."
        return _failed(error, line, 1, debug, talk)
    return 0


def _failed(error: BaseException, line: str, code: int, debug: bool, talk: Talk) -> int:
    if debug:
        traceback.print_exception(error)
    talk.error(line)
    return code


@contextmanager
def leaving_in_time(talk: Talk, at_once: bool = False) -> Iterator[None]:
    """End the process a moment after Ctrl-C or SIGTERM, whatever libraries do with it.

    huggingface_hub downloads in threads, and waits for all of them before it lets a
    `KeyboardInterrupt` through, which may take an hour; what is downloaded so far is kept, and
    taken up by the next run. torch goes on without numpy if that is interrupted while it is
    imported, and fails later: imports are ended `at_once`. For work that leaves no file of ours
    unfinished.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    timers: list[threading.Timer] = []

    def leave(number: int) -> None:
        if number == signal.SIGINT:
            sys.stderr = sys.__stderr__  # not through a wheel that may be turning
            talk.interrupted()
        os._exit(128 + number)

    def on_signal(number: int, frame: Any) -> None:
        if at_once:
            leave(number)
        timer = threading.Timer(_SECONDS_TO_LEAVE, leave, [number])
        timer.daemon = True
        timer.start()
        timers.append(timer)
        handler = handlers[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    try:
        for number, handler in handlers.items():
            if callable(handler):  # not where it is ignored (nohup)
                signal.signal(number, on_signal)
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for timer in timers:
            timer.cancel()


@contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """Let a SIGTERM unwind the stack, so that hooks and temporary files are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: Any) -> NoReturn:
        raise SystemExit(128 + signum)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
