"""Writing files so that a reader sees the old one or the whole new one, never a part."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from activations.errors import ToolkitError
from activations.system.files import cannot_be_made, cannot_be_written, check_room, check_writable
from activations.system.signals import signals_deferred

if sys.platform != "win32":
    import fcntl

PARTIAL = ".partial"  # how the name of a temporary file ends
_LONGEST_START = 200  # bytes of it
_TRIES = 100  # in a second


@contextmanager
def replacing(path: str | os.PathLike[str], needed: int = 0) -> Iterator[BinaryIO]:
    """A temporary file beside `path` that takes its place when the block ends well.

    See `replacing_together` for what is promised. `needed` is the room wanted, in bytes.
    """
    with replacing_together({path: needed}) as (file,):
        yield file


@contextmanager
def replacing_together(
    needed: Mapping[str | os.PathLike[str], int], obsolete: Path | None = None
) -> Iterator[list[BinaryIO]]:
    """A temporary file beside each path, which take their places when the block ends well.

    `needed` maps the paths to the room wanted, in bytes. All are whole and flushed to the disk
    before the first is renamed, in the order given, and `obsolete` is removed with them; signals
    wait meanwhile. So there are all the old files or all the new, but for a SIGKILL (or a failing
    disk) in the instant between two renames: then each is whole, and the first are new. When the
    block raises, the temporary files are removed and the paths stay as they were. What a killed
    run left beside these paths is removed.

    Raises `ToolkitError` where a folder is missing or not writable, a path is a folder, or there
    is no room on the disk.
    """
    partials: list[_Partial] = []
    for path in needed:
        check_writable(path)
        remove_leftovers(path)
    for path in needed:
        check_room(path, sum(needed.values()))
    with signals_deferred() as gate:
        try:
            for path in needed:
                partials.append(_Partial(path))
            gate.open()
            yield [partial.file for partial in partials]
            for partial in partials:
                partial.settle()
            gate.shut = True
            with one_at_a_time(partials[0].target.parent):
                for partial in partials:
                    partial.take_its_place()
                if obsolete is not None:
                    obsolete.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_be_written(list(needed)[-1], error) from error
        finally:
            gate.shut = True
            for partial in partials:
                partial.discard()


def write_together(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write these files (by their names) into a folder, made if need be: all of them or none.

    Returns their paths. Raises `ToolkitError` where that cannot be done.
    """
    paths = {folder / name: content for name, content in files.items()}
    sizes: dict[str | os.PathLike[str], int] = {
        path: len(content) for path, content in paths.items()
    }
    for path in paths:
        _check_inside(path, folder)
    with _made_if_need_be(folder), replacing_together(sizes) as opened:
        for file, content in zip(opened, paths.values(), strict=True):
            file.write(content)
    return list(paths)


@contextmanager
def _made_if_need_be(folder: Path) -> Iterator[None]:
    """A folder, which goes again when the block raises and it was made for it."""
    made: list[Path] = []
    with signals_deferred() as gate:
        try:
            real = Path(os.path.realpath(folder))  # also where a link leads to nothing yet
            if not real.is_dir():
                real.mkdir()
                made.append(real)
            gate.open()
            yield
            made.clear()  # it stays
        except OSError as error:
            raise cannot_be_made(folder, error) from None
        finally:
            gate.shut = True
            for path in made:
                with suppress(OSError):  # somebody else put something there
                    path.rmdir()


def _check_inside(path: Path, folder: Path) -> None:
    """Refuse a link that leads out of the folder: the file's name came out of a document."""
    if path.is_symlink() and Path(os.path.realpath(path)).parent != Path(os.path.realpath(folder)):
        raise ToolkitError(
            f"'{path}' is a link that leads out of its folder. Remove it, or name another "
            "--output-dir."
        )


class _Partial:
    """A file being written beside the one whose place it is to take.

    It is locked while it is written, which tells it from one that a killed run left.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # A symbolic link stays one: what it points to changes.
        self.target = Path(os.path.realpath(path))
        self.file = self._opened()

    def _opened(self) -> BinaryIO:
        while True:
            handle, name = tempfile.mkstemp(
                dir=self.target.parent, prefix=start_of_name(self.target), suffix=PARTIAL
            )
            self.name = Path(name)
            file = os.fdopen(handle, "wb")
            # Another run may have taken it for a leftover before it was locked.
            if not locked(handle, wait=True) or os.fstat(handle).st_nlink:
                return file
            file.close()

    def settle(self) -> None:
        """Flush it to the disk."""
        self.file.flush()
        os.fchmod(self.file.fileno(), _mode(self.target))  # mkstemp makes private files
        os.fsync(self.file.fileno())

    def take_its_place(self) -> None:
        os.replace(self.name, self.target)
        self.file.close()

    def discard(self) -> None:
        """Remove it, unless it has taken its place."""
        if not self.file.closed:
            self.name.unlink(missing_ok=True)
            with suppress(OSError):  # what is still to be flushed has no room
                self.file.close()


def _mode(target: Path) -> int:
    """The permissions of the file that is replaced, else those of any new file."""
    if target.exists():
        return target.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def start_of_name(target: Path) -> str:
    """How the names of temporary files for `target` start; a name takes up to 255 bytes."""
    name = target.name
    while len(os.fsencode(name)) > _LONGEST_START:
        name = name[:-1]
    return f".{name}."


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove the temporary files beside `path` that were to take its place and nobody writes.

    A run that is killed by SIGKILL, or by a power cut, cannot do it itself. Those of other paths
    are left to the next run that writes these.
    """
    with suppress(OSError):  # then there they stay
        target = Path(os.path.realpath(path))
        ours = re.compile(re.escape(start_of_name(target)) + r"[a-z0-9_]{8}" + re.escape(PARTIAL))
        for path_there in target.parent.iterdir():
            if ours.fullmatch(path_there.name):
                _remove_unlocked(path_there)


def _remove_unlocked(path: Path) -> None:
    with suppress(OSError):  # taken its place or removed meanwhile; or of another user
        handle = os.open(path, os.O_RDWR)
        try:
            if locked(handle, wait=False):
                path.unlink()
        finally:
            os.close(handle)


def locked(handle: int, wait: bool) -> bool:
    """Lock an open file, for as long as it is open. False where that cannot be done.

    Where locks are unknown (Windows, some network disks) none is ever had, and so no leftover
    removed.
    """
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Of the runs that put files into this folder, so that those that belong together stay so.

    Where that cannot be had in a second (a run was stopped here), or not at all (nothing can be
    locked, or the folder not be read), go on.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        yield
        return
    try:
        _wait_for(handle)
        yield
    finally:
        os.close(handle)


def _wait_for(handle: int) -> None:
    if sys.platform == "win32":
        return
    for _ in range(_TRIES):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(1 / _TRIES)
        except OSError:
            return
        else:
            return
