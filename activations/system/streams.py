"""Standard input, output and error, whatever state the shell or a service hands them over in."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from activations.errors import ToolkitError

_WRITTEN_SOMEHOW = "as bytes, else spelled out"


@contextmanager
def standard_streams() -> Iterator[None]:
    """Streams that can be used: what is closed is empty, or takes what nobody will read.

    Python has None in place of a closed one. Its number would go to the next file that is opened,
    and a library that prints would print into the document.
    """
    before = {name: getattr(sys, name) for name in ("stdin", "stdout", "stderr")}
    closed = [name for name, stream in before.items() if stream is None]
    if closed:
        _fill_numbers()
    opened = {name: open(os.devnull, "r" if name == "stdin" else "w") for name in closed}  # noqa: SIM115
    for name, stream in opened.items():
        setattr(sys, name, stream)
    with suppress(io.UnsupportedOperation):  # after the first read nothing can be set
        _set_errors(sys.stdin, "replace")
    stdout = sys.stdout
    errors = _set_errors(stdout, _WRITTEN_SOMEHOW)
    sys.stdout = _Watched(stdout)
    try:
        yield
    finally:
        _set_errors(stdout, errors)
        for name, stream in before.items():
            setattr(sys, name, stream)
        for stream in opened.values():
            stream.close()


class _Watched:
    """A stream that remembers what went wrong, whoever wrote and whatever they made of it.

    argparse passes over it; unbuffered (python -u), what was not written is not tried again.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.failure: OSError | None = None

    def write(self, text: str) -> Any:
        with self._remembering():
            return self.stream.write(text)

    def flush(self) -> None:
        with self._remembering():
            self.stream.flush()

    @contextmanager
    def _remembering(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failure = error
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def check_standard_output() -> None:
    """Refuse a closed standard output before any work is done for it."""
    if sys.stdout is None:
        raise ToolkitError("standard output is closed. Give it a place, as in > /dev/null.")


def standard_output_fails() -> OSError | None:
    """What went wrong when standard output was written, within `standard_streams`.

    From then on it goes nowhere: Python would try to write the rest at its end.
    """
    with suppress(OSError):
        sys.stdout.flush()
    failure = sys.stdout.failure if isinstance(sys.stdout, _Watched) else None
    if failure is not None:
        send_nowhere(sys.stdout)
    return failure


def send_nowhere(stream: Any) -> None:
    """What is still to be written to it, and what will be."""
    with suppress(OSError):  # it is no file
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def _fill_numbers() -> None:
    """Open the null device under those of the numbers 0 to 2 that are free."""
    number = os.open(os.devnull, os.O_RDWR)
    while number <= 2:
        os.set_inheritable(number, True)
        number = os.open(os.devnull, os.O_RDWR)
    os.close(number)


def _set_errors(stream: Any, errors: str) -> str:
    """What is done with text that a stream's encoding lacks; returns what was done so far."""
    if not isinstance(stream, io.TextIOWrapper):
        return errors
    before = stream.errors or "strict"
    stream.reconfigure(errors=errors)
    return before


def _somehow(error: UnicodeError) -> tuple[str | bytes, int]:
    """Bytes of a file's name as they were; characters that the encoding lacks as `\\xe9`."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


codecs.register_error(_WRITTEN_SOMEHOW, _somehow)


def is_terminal(file: TextIO) -> bool:
    """Whether tables, bars and other things that are more than lines of text may go there."""
    return file.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")
