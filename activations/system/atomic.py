"""Writing files so that a reader sees the old one or the whole new one, never a part."""

from __future__ import annotations

import glob
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from activations.errors import ToolkitError
from activations.system.files import cannot_be_made, cannot_be_written, check_room, check_writable
from activations.system.signals import signals_deferred

_OLD = 3600  # seconds without a change


@contextmanager
def replacing_together(
    needed: Mapping[str | os.PathLike[str], int], obsolete: Path | None = None
) -> Iterator[list[BinaryIO]]:
    """A temporary file next to each path, renamed to it when the block ends without an error.

    `needed` maps the paths, which the caller has checked, to the bytes they will take. All files
    are flushed to the disk before the first is renamed, in the order given, and `obsolete` is
    removed; signals wait meanwhile. So all files are old or all are new, except after a SIGKILL (or
    a failing disk) between two renames: then each is whole, and the first are new. When the block
    raises, the temporary files are removed and the paths stay as they were.

    Raises `ToolkitError` where that cannot be done, or there is no room on the disk.
    """
    partials: list[_Partial] = []
    for path in needed:
        check_room(path, sum(needed.values()))
    with signals_deferred() as gate:
        try:
            for path in needed:
                partials.append(_Partial(path))
            gate.open()
            yield [partial.file for partial in partials]
            for partial in partials:
                partial.flush()
            gate.shut = True
            for partial in partials:
                partial.rename()
            if obsolete is not None:
                obsolete.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_be_written(list(needed)[-1], error) from error
        finally:
            gate.shut = True
            for partial in partials:
                partial.discard()


Pieces = Sequence[bytes]  # of a file, in order


def write_file(path: str | os.PathLike[str], content: Pieces) -> None:
    """Write a file, whole or not at all. Raises `ToolkitError` where that cannot be done."""
    check_writable(path)
    remove_leftovers(path)
    with replacing_together({path: sum(map(len, content))}) as (file,):
        file.writelines(content)


def write_together(folder: Path, files: Mapping[str, Pieces]) -> list[Path]:
    """Write these files (by their names) into a folder, made if needed: all of them or none.

    Returns their paths. Raises `ToolkitError` where that cannot be done.
    """
    paths = {folder / name: content for name, content in files.items()}
    made: Path | None = None
    try:
        real = Path(os.path.realpath(folder))  # also where a link leads to nothing yet
        if not real.is_dir():
            made = real
            real.mkdir(exist_ok=True)
        for path in paths:
            # The file's name came out of a document.
            if path.is_symlink() and Path(os.path.realpath(path)).parent != real:
                raise ToolkitError(
                    f"'{path}' is a link that leads out of its folder. Remove it, or name another "
                    "--output-dir."
                )
            check_writable(path)
            remove_leftovers(path)
        with replacing_together(
            {path: sum(map(len, content)) for path, content in paths.items()}
        ) as opened:
            for file, content in zip(opened, paths.values(), strict=True):
                file.writelines(content)
    except BaseException as error:
        if made:
            with suppress(OSError):  # somebody else put something there
                made.rmdir()
        if isinstance(error, OSError):
            raise cannot_be_made(folder, error) from None
        raise
    return list(paths)


class _Partial:
    """A temporary file next to the one that it will replace."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.target = Path(os.path.realpath(path))  # a link stays one: what it points to changes
        start = self.target.name[:50]  # a name takes up to 255 bytes
        self.name = self.target.with_name(f".{start}.{os.urandom(4).hex()}.partial")
        mode = 0o600 if self.target.exists() else 0o666  # private, as the target may be
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        self.file = os.fdopen(os.open(self.name, flags, mode), "wb")

    def flush(self) -> None:
        """Flush it to the disk, with the permissions of the file it replaces."""
        self.file.flush()
        if self.target.exists():
            os.fchmod(self.file.fileno(), stat.S_IMODE(self.target.stat().st_mode))
        os.fsync(self.file.fileno())

    def rename(self) -> None:
        os.replace(self.name, self.target)
        self.file.close()

    def discard(self) -> None:
        """Remove it, unless it was renamed."""
        if not self.file.closed:
            self.name.unlink(missing_ok=True)
            with suppress(OSError):  # what is still to be flushed has no room
                self.file.close()


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove the temporary files for `path` that have not changed for an hour.

    A run that was killed by SIGKILL, or by a power cut, could not remove them itself. Those for
    other paths are left to the next run that writes these.
    """
    with suppress(OSError):
        target = Path(os.path.realpath(path))
        for left in target.parent.glob(f".{glob.escape(target.name[:50])}.????????.partial"):
            if left.stat().st_mtime < time.time() - _OLD:
                left.unlink()
