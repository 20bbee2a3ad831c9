"""Children that are killed, interrupted or starved at a chosen point; and what they left.

A child is forked from the test's own process, which has torch imported already. Its points are the
lines (or the bytecodes) it executes in chosen files: a trace function counts them, and does the
harm at the one that was asked for.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from activations.cli import command
from agnostic_capture import build_parser

ROOT = Path(__file__).parent.parent.parent
CHILD_LIVES = 60  # seconds
AT_ONCE = 4  # children


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code, or minus the signal that killed it; lines on stderr."""

    code: int
    out: list[str]
    err: list[str]


def nothing() -> None:
    """Is done."""


class Child:
    """A forked child that runs `work` as a command would be run, in `folder`."""

    def __init__(
        self,
        folder: Path,
        work: Callable[[], Any],
        prepare: Callable[[], Any],
        name: str = "",
        after: Callable[[], Any] = nothing,
    ) -> None:
        beside = f"{folder.name}{name}"
        self.streams = [folder.with_name(f"{beside}.{stream}") for stream in ("out", "err")]
        self.pid = os.fork()
        if self.pid == 0:
            code = 99
            try:
                code = self._run(folder, work, prepare)
                after()
                sys.stdout.flush()
            finally:
                os._exit(code)

    def _run(self, folder: Path, work: Callable[[], Any], prepare: Callable[[], Any]) -> int:
        signal.alarm(CHILD_LIVES)
        signal.signal(signal.SIGINT, lambda number, frame: None)  # what comes late does no harm
        for number, path in enumerate(self.streams, 1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        os.chdir(folder)
        sys.unraisablehook = sys.__unraisablehook__  # not pytest's

        def prepared(args: Any, console: command.Console) -> None:
            prepare()
            try:
                work()
            finally:
                sys.settrace(None)

        return command.run_command(build_parser(), [], prepared)

    def end(self) -> Ended:
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        out, err = (path.read_text().splitlines() for path in self.streams)
        for path in self.streams:
            path.unlink()
        return Ended(code, out, err)


def run(folder: Path, work: Callable[[], Any], prepare: Callable[[], Any] = nothing) -> Ended:
    return Child(folder, work, prepare).end()


def at_once(child: Callable[[int], Child], points: list[int]) -> Iterator[tuple[int, Ended]]:
    """A child for each point, a few at a time; and how each ended."""
    for start in range(0, len(points), AT_ONCE):
        children = {point: child(point) for point in points[start : start + AT_ONCE]}
        for point, started in children.items():
            yield point, started.end()


# ------------------------------------------------------------------------------------------ points


def at_point(number: int | None, files: set[str], harm: Callable[[], Any], event: str) -> None:
    """Do harm at this point of what follows, counted from 0, or at every point.

    `event` is "line" or "opcode".
    """
    seen = -1

    def local(frame: FrameType, what: str, arg: Any) -> Any:
        nonlocal seen
        if what == event:
            seen += 1
            if number in (None, seen):
                harm()
        return local

    def trace(frame: FrameType, what: str, arg: Any) -> Any:
        if frame.f_code.co_filename not in names:
            return None
        frame.f_trace_opcodes = event == "opcode"
        return local

    names = {str(ROOT / "activations" / name) for name in files}
    sys.settrace(trace)


def count_points(folder: Path, work: Callable[[], Any], files: set[str], event: str) -> int:
    """How many points an undisturbed run passes; some, or the files are not those that run."""
    passed: list[int] = []

    def counted() -> None:
        work()
        print(len(passed))

    ended = run(folder, counted, lambda: at_point(None, files, lambda: passed.append(1), event))
    assert ended.code == 0, ended.err
    assert int(ended.out[0]) > 0, files
    return int(ended.out[0])


def spread(count: int, most: int) -> list[int]:
    """All of the points, or so many of them, evenly; the first and the last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


def kill(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def interrupt_after(seconds: float) -> None:
    """A Ctrl-C at this time from now.

    Not within a callback of the garbage collector, of which hypothesis has one: Python reports what
    is raised there, and goes on.
    """
    gc.callbacks.clear()
    signal.signal(signal.SIGALRM, lambda number, frame: os.kill(os.getpid(), signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, seconds)


# ---------------------------------------------------------------------------------- what was left


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every file with its bytes, links and folders with None."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        if path.is_file() and not path.is_symlink()
        else None
        for path in sorted(folder.rglob("*"))
    }


def partials(left: dict[str, bytes | None]) -> list[str]:
    return [name for name in left if name.endswith(".partial")]
