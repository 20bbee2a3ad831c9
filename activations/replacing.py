"""Writing files so that a reader sees the old one or the whole new one, never a part."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from activations.errors import ToolkitError
from activations.files import cannot_be_made, cannot_be_written, check_room, check_writable
from activations.leftovers import PARTIAL, locked, one_at_a_time, remove_leftovers, start_of_name
from activations.signals import undisturbed


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
    with undisturbed() as door:
        try:
            for path in needed:
                partials.append(_Partial(path))
            door.open()
            yield [partial.file for partial in partials]
            for partial in partials:
                partial.settle()
            door.shut = True
            with one_at_a_time(partials[0].target.parent):
                for partial in partials:
                    partial.take_its_place()
                if obsolete is not None:
                    obsolete.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_be_written(list(needed)[-1], error) from error
        finally:
            door.shut = True
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
    with undisturbed() as door:
        try:
            real = Path(os.path.realpath(folder))  # also where a link leads to nothing yet
            if not real.is_dir():
                real.mkdir()
                made.append(real)
            door.open()
            yield
            made.clear()  # it stays
        except OSError as error:
            raise cannot_be_made(folder, error) from None
        finally:
            door.shut = True
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
