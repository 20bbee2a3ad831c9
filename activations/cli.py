"""What both commands share: talking to the user, and turning errors into one line and a code.

Results go to stdout; everything else, progress and questions too, to stderr.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, TextIO

from activations.errors import (
    ToolkitError,
    UsageError,
    ignore,
    nearest,
    quoted_list,
    unknown_value,
)
from activations.signals import Terminated, signals_raised
from activations.streams import check_standard_output, standard_output_fails, standard_streams
from activations.tokens import printable

INTERRUPTED = 130


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

    @property
    def shows_progress(self) -> bool:
        """Progress is for people: on a terminal, and not with --quiet."""
        return not self.quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    @contextmanager
    def watching(self, what: str) -> Iterator[Callable[[str], None]]:
        """On a terminal, say what takes a while: `what`, and the name last given to the result.

        Shown from the first name on, so that other people's progress bars can come before.
        """
        if not self.shows_progress:
            yield ignore
            return
        from rich.console import Console
        from rich.markup import escape

        status = Console(stderr=True).status(what)

        def update(name: str) -> None:
            status.start()
            status.update(f"{what} {escape(name)}")

        try:
            yield update
        finally:
            status.stop()

    def _say(self, line: str) -> None:
        # One line, and no escape codes out of other people's names and files.
        with suppress(OSError):  # nobody reads it; the work goes on, and the exit code tells
            print(printable(line), file=sys.stderr, flush=True)


def draws_tables(file: TextIO) -> bool:
    """Whether it is a terminal that understands escape codes; all else gets plain text."""
    return file.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as everything else here does."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}. See --help.")

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            raise UsageError(self._unknown(unknown[0]))
        return found

    def _unknown(self, text: str) -> str:
        if not text.startswith("-"):
            return f"'{text}' belongs to no option. Put quotes around a text of several words."
        flag = text.partition("=")[0]
        known = (name[2:] for name in self._option_string_actions if name.startswith("--"))
        close = nearest(flag.lstrip("-"), known)
        hint = f"Did you mean {quoted_list(f'--{name}' for name in close)}?" if close else ""
        return f"there is no option '{flag}'. {hint or 'See --help.'}"

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        # argparse's own words differ from one version of Python to the next
        if action.choices is not None and value not in action.choices:
            raise unknown_value(action.option_strings[0], value, list(action.choices))


Work = Callable[[argparse.Namespace, Talk], Any]


def run_command(parser: Parser, argv: list[str] | None, work: Work) -> int:
    """Parse, work, and answer with the exit code: 0, 1, 2, or 130 when interrupted."""
    talk = Talk()
    try:
        check_standard_output()
    except ToolkitError as error:
        return _failed(error, str(error), error.exit_code, False, talk)
    with standard_streams(), signals_raised():
        return _run(parser, sys.argv[1:] if argv is None else argv, work, talk)


def _run(parser: Parser, argv: list[str], work: Work, talk: Talk) -> int:
    debug = "--debug" in argv
    try:
        args = parser.parse_args(argv)
        debug, talk = args.debug, Talk(args.quiet)
        _check_current_folder()
        work(args, talk)
        sys.stdout.flush()
    except SystemExit as stop:  # --help, --version
        lost = standard_output_fails()
        return stop.code if isinstance(stop.code, int) and not lost else int(lost is not None)
    except Terminated as stop:
        return stop.exit_code
    except KeyboardInterrupt:
        talk.error("interrupted.")
        return INTERRUPTED
    except ToolkitError as error:
        return _failed(error, str(error), error.exit_code, debug, talk)
    except MemoryError as error:
        line = "out of memory. Choose fewer modules, --layers or --tokens."
        return _failed(error, line, 1, debug, talk)
    except Exception as error:
        lost = standard_output_fails() if isinstance(error, OSError) else None
        if isinstance(lost, BrokenPipeError):
            return 1  # its reader went away, and knows why
        return _failed(error, _lost(lost) if lost else _unexpected(error), 1, debug, talk)
    return 0


def _check_current_folder() -> None:
    try:
        Path.cwd()
    except OSError:
        raise ToolkitError("the current folder is gone. Change into another.") from None


def _lost(error: OSError) -> str:
    return (
        f"standard output cannot be written: {error.strerror}. Send it elsewhere; files that were "
        "to be written are there."
    )


def _unexpected(error: Exception) -> str:
    return f"unexpected: {type(error).__name__}: {error}. With --debug you see where."


def _failed(error: BaseException, line: str, code: int, debug: bool, talk: Talk) -> int:
    if debug:
        traceback.print_exception(error)
    talk.error(line)
    return code
