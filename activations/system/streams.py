"""Standard input, output and error, which a shell or a service may have closed."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from activations.errors import ToolkitError


def prepare_streams() -> None:
    """Make the standard streams usable: no encoding error, and the null device for a closed one.

    In place of a closed one Python has None. Its descriptor would go to the next file that is
    opened, and a library that prints would print into the document; the null device takes it.

    Raises `ToolkitError` where standard output is closed.
    """
    if sys.stdout is None:
        raise ToolkitError("standard output is closed. Give it a place, as in > /dev/null.")
    for name, mode in (("stdin", "r"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    for stream, errors in ((sys.stdin, "replace"), (sys.stdout, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            with suppress(io.UnsupportedOperation):  # it was read from already
                stream.reconfigure(errors=errors)


@contextmanager
def standard_output() -> Iterator[TextIO]:
    """Standard output, flushed at the end. Raises `ToolkitError` where it cannot be written.

    `SystemExit` where its reader has gone, and so needs no message.
    """
    try:
        yield sys.stdout
        sys.stdout.flush()
    except OSError as error:
        send_nowhere(sys.stdout)  # Python would try to write the rest at exit
        if isinstance(error, BrokenPipeError):
            raise SystemExit(1) from None
        raise ToolkitError(
            f"standard output cannot be written: {error.strerror}. Send it elsewhere; files that "
            "were to be written are there."
        ) from error


def send_nowhere(stream: Any) -> None:
    """Discard what was not written to the stream yet, and what will be."""
    with suppress(OSError):  # not a file
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def is_terminal(file: TextIO) -> bool:
    """Whether tables, progress bars and colours can be shown there."""
    return file.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")
