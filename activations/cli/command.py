"""What both commands share: talking to the user, and turning errors into one line and a code.

Results go to stdout; everything else, progress and questions too, to stderr.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from activations.errors import ToolkitError, UsageError, ignore, nearest, quoted_list, unknown_value
from activations.program import as_called, program
from activations.system.signals import raise_interruption, signals_raised
from activations.system.streams import is_terminal, prepare_streams, send_nowhere, standard_output
from activations.text import printable
from activations.version import __version__

INTERRUPTED = 130
_LONGEST_LINE = 2000  # characters; of a longer one the start and the end are shown
_SECONDS_TO_TELL = 5.0  # of work, after which it is told how long the rest takes
_SECONDS_TO_LEAVE = 1.0  # for libraries, after Ctrl-C


class Console:
    """Where lines for the user go. `quiet` leaves results, warnings and errors."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet

    def result(self, line: str) -> None:
        with standard_output() as file:
            print(line, file=file)

    def note(self, line: str) -> None:
        if not self.quiet:
            self._say(line)

    def warn(self, line: str) -> None:
        self._say(f"warning: {line}")

    def error(self, line: str) -> None:
        self._say(f"error: {line}")

    def interrupted(self) -> None:
        if self.shows_progress:
            # Clear what is left of libraries' bars, and show the cursor that they hid.
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
        """On a terminal, show what takes a while and how far it is; at first, `first`.

        The result is called with the name of each thing that is done, of `total` in all; a name
        that comes again counts once. No other bar can be shown in the meantime.
        """
        if not self.shows_progress:
            yield ignore
            return
        from rich.console import Console as RichConsole
        from rich.text import Text

        status = RichConsole(stderr=True).status(Text(f"{what} {first}".rstrip()))
        seen: set[str] = set()
        began = time.monotonic()

        def update(name: str) -> None:
            seen.add(name)
            so_far = f"{what} {len(seen)}/{total} " if total else f"{what} "
            spent = time.monotonic() - began
            if spent > _SECONDS_TO_TELL and total > len(seen):
                so_far += f"({_time_left(spent * (total / len(seen) - 1))} left) "
            line = Text(so_far + name)
            line.truncate(status.console.width - 3, overflow="ellipsis")  # after the spinner
            status.update(line)

        with status:
            yield update

    def _say(self, line: str) -> None:
        # One line, without escape codes from other people's names and files.
        if len(line) > _LONGEST_LINE:
            line = f"{line[: _LONGEST_LINE // 2]} ... {line[-_LONGEST_LINE // 2 :]}"
        try:
            print(printable(line), file=sys.stderr, flush=True)
        except OSError:  # nobody reads it; the work goes on
            send_nowhere(sys.stderr)


def _time_left(seconds: float) -> str:
    """`40 s`, `3 min`, `2 h`: rounded up."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{math.ceil(seconds / size)} {unit}"
    return f"{math.ceil(seconds)} s"


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line each, as all errors of the commands are."""

    def __init__(self, script: str, description: str | None) -> None:
        super().__init__(
            prog=program(script),
            description=as_called(description or ""),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        # argparse knows -1 for a number, and takes -1,0 for an option
        self._negative_number_matcher = re.compile(r"-[\d.][\d.,-]*$")

    def add_common_options(self) -> None:
        """Add the options that both commands have, which come last."""
        add = self.add_argument
        add("--quiet", action="store_true", help="print only results, warnings and errors")
        add("--debug", action="store_true", help="show the traceback of an error")
        add("--version", action="version", version=f"%(prog)s {__version__}")

    def error(self, message: str) -> NoReturn:
        match = re.fullmatch(r"argument (--[a-z-]+): (.*)", message)
        flag, what = (match[1], match[2]) if match else ("", message)
        if what == "expected one argument":
            raise UsageError(
                f"{flag} needs a value. One that begins with - is written with =, as in {flag}=-1."
            )
        if other := re.fullmatch(r"not allowed with argument (--[a-z-]+)", what):
            raise UsageError(f"{other[1]} and {flag} cannot be combined. Give one of them.")
        if value := re.fullmatch(r"invalid (int|float) value: (.*)", what):
            kind = "a whole number" if value[1] == "int" else "a number"
            raise UsageError(f"{flag} takes {kind}, not {value[2]}.")
        raise UsageError(f"{message}. See --help.")

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            raise UsageError(self._unknown(unknown[0]))
        return found

    def _print_message(self, message: str, file: Any = None) -> None:
        with standard_output() as out:  # argparse itself ignores a full disk
            out.write(message)

    def _unknown(self, text: str) -> str:
        if not text.startswith("-") and self._get_positional_actions():
            return f"'{text}' is a second FILE. Give one; put quotes around a name with spaces."
        if not text.startswith("-"):
            return (
                f"'{text}' does not belong to an option. Put quotes around a text of several words."
            )
        flag = text.partition("=")[0]
        known = (name[2:] for name in self._option_string_actions if name.startswith("--"))
        close = nearest(flag.lstrip("-"), known)
        hint = f"Did you mean {quoted_list(f'--{name}' for name in close)}?" if close else ""
        return f"there is no option '{flag}'. {hint or 'See --help.'}"

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        # argparse's own message differs from one version of Python to the next
        if action.choices is not None and value not in action.choices:
            raise unknown_value(action.option_strings[0], value, list(action.choices))


Work = Callable[[argparse.Namespace, Console], Any]


@signals_raised()
def run_command(parser: Parser, argv: list[str] | None, work: Work) -> int:
    """Parse, work, and return the exit code: 0, 1, 2, or 130 when interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    console, debug = Console(), "--debug" in argv
    try:
        prepare_streams()
        args = parser.parse_args(argv)
        debug, console = args.debug, Console(args.quiet)
        _check_current_folder()
        try:
            work(args, console)
        except Exception as error:
            raise_interruption(error)
            raise
        with standard_output():
            pass  # what libraries printed
    except SystemExit as stop:  # --help, a SIGTERM, nobody reads the output
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        console.interrupted()
        return INTERRUPTED
    except Exception as error:
        if debug:
            traceback.print_exception(error)
        console.error(_line(error))
        return error.exit_code if isinstance(error, ToolkitError) else 1
    return 0


def _line(error: Exception) -> str:
    if isinstance(error, ToolkitError):
        return str(error)
    if isinstance(error, MemoryError):
        return "out of memory. Choose fewer modules, --layers or --tokens."
    if isinstance(error, ModuleNotFoundError) and error.name:
        return (
            f"the package '{error.name.partition('.')[0]}' is not installed for this Python. "
            "Activate the environment (source .venv/bin/activate), or install requirements.txt."
        )
    return f"unexpected: {type(error).__name__}: {error}. Pass --debug to see where."


def _check_current_folder() -> None:
    try:
        Path.cwd()
    except OSError:
        raise ToolkitError("the current folder is gone. Change into another.") from None


@contextmanager
def exit_on_signal(console: Console, at_once: bool = False) -> Iterator[None]:
    """End the process a moment after Ctrl-C or SIGTERM, even where a library delays it.

    huggingface_hub downloads in threads, and waits for all of them before it lets a
    `KeyboardInterrupt` through, which may take an hour; the next run continues the download. torch
    goes on without numpy if that is interrupted while it is imported, and fails later: imports are
    ended `at_once`. For work that leaves no file of ours unfinished.
    """
    in_main = threading.current_thread() is threading.main_thread()  # others get no signals
    handlers = {
        number: handler
        for number in (signal.SIGINT, signal.SIGTERM)
        if callable(handler := signal.getsignal(number)) and in_main  # not if ignored (nohup)
    }
    timers: list[threading.Timer] = []

    def leave(number: int) -> None:
        if number == signal.SIGINT:
            sys.stderr = sys.__stderr__  # rich may have replaced it
            console.interrupted()
        os._exit(128 + number)

    def on_signal(number: int, frame: Any) -> None:
        if at_once:
            leave(number)
        timer = threading.Timer(_SECONDS_TO_LEAVE, leave, [number])
        timer.daemon = True
        timer.start()
        timers.append(timer)
        handlers[signal.Signals(number)](number, frame)

    try:
        for number in handlers:
            signal.signal(number, on_signal)
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for timer in timers:
            timer.cancel()
