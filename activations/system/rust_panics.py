"""A panic of a library in Rust (tokenizers, safetensors) -> an exception like any other.

A panic is no `Exception`, so it would pass by all that is caught, and it writes to stderr itself.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class RustPanicError(Exception):
    """What a library in Rust said when it gave up."""


@contextmanager
def rust_panics_raised() -> Iterator[None]:
    """Raise a panic inside as a `RustPanicError`; of its own words on stderr nothing is seen."""
    with _stderr_held() as unwanted:
        try:
            yield
        except BaseException as error:
            if type(error).__name__ != "PanicException":
                raise
            unwanted.append(str(error))
            raise RustPanicError(str(error)) from error


@contextmanager
def _stderr_held() -> Iterator[list[str]]:
    """Keep back what libraries write to stderr, past Python's own `sys.stderr`, until the end.

    It is written then, unless the list given has been filled. Progress bars, which go through
    `sys.stderr`, show as ever. In the main thread alone: the file descriptor is the whole
    process's, and two threads would take each other's file for the terminal.
    """
    unwanted: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield unwanted
        return
    try:
        terminal = os.dup(2)
    except OSError:  # closed: nothing is seen anyway
        yield unwanted
        return
    with tempfile.TemporaryFile() as kept:
        try:
            with _python_writes_to(terminal):
                os.dup2(kept.fileno(), 2)
                yield unwanted
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            kept.seek(0)
            said = kept.read()
            if said and not unwanted:
                os.write(2, said)


@contextmanager
def _python_writes_to(handle: int) -> Iterator[None]:
    """`sys.stderr` on another file descriptor, where it is the ordinary one."""
    before: Any = sys.stderr
    if before is None or sys.stderr is not sys.__stderr__:
        yield
        return
    before.flush()
    with open(handle, "w", buffering=1, errors="backslashreplace", closefd=False) as sys.stderr:
        try:
            yield
        finally:
            sys.stderr = before
