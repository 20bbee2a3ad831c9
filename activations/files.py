"""Writing a file so that a reader sees the old one or the whole new one, never a part."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from activations.errors import ToolkitError, UsageError, unknown_value
from activations.signals import undisturbed

if sys.platform != "win32":
    import fcntl

_PARTIAL = ".partial"
_LONGEST_START = 200  # bytes of a temporary file's name
_TRIES = 100  # in a second
FORMATS = ("json", "safetensors")  # of a document


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
                dir=self.target.parent, prefix=_start(self.target), suffix=_PARTIAL
            )
            self.name = Path(name)
            file = os.fdopen(handle, "wb")
            # Another run may have taken it for a leftover before it was locked.
            if not _locked(handle, wait=True) or os.fstat(handle).st_nlink:
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
            with _one_at_a_time(partials[0].target.parent):
                for partial in partials:
                    partial.take_its_place()
                if obsolete is not None:
                    obsolete.unlink(missing_ok=True)
        except OSError as error:
            raise _cannot_write(list(needed)[-1], error) from error
        finally:
            door.shut = True
            for partial in partials:
                partial.discard()


def check_room(path: str | os.PathLike[str], needed: int) -> None:
    """Raise `ToolkitError` where a file of about `needed` bytes has no room on the disk."""
    try:
        room = shutil.disk_usage(Path(os.path.realpath(path)).parent).free
    except OSError as error:  # the folder went away
        raise _cannot_write(path, error) from None
    if needed > room:
        raise ToolkitError(
            f"no room on the disk for '{path}': about {size_text(needed)} are needed and "
            f"{size_text(room)} are free. Free some, choose fewer modules or layers, or write "
            "elsewhere."
        )


def _cannot_write(path: str | os.PathLike[str], error: Exception) -> ToolkitError:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ToolkitError(
            f"no room on the disk for '{path}'. Free some, choose fewer modules or layers, or "
            "write elsewhere."
        )
    why = getattr(error, "strerror", None) or error
    return ToolkitError(f"'{path}' cannot be written: {why}. Write elsewhere.")


# ------------------------------------------------------------------------ what killed runs left


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove the temporary files beside `path` that were to take its place and nobody writes.

    A run that is killed by SIGKILL, or by a power cut, cannot do it itself. Those of other paths
    are left to the next run that writes these.
    """
    with suppress(OSError):  # then there they stay
        target = Path(os.path.realpath(path))
        ours = re.compile(re.escape(_start(target)) + r"[a-z0-9_]{8}" + re.escape(_PARTIAL))
        for path_there in target.parent.iterdir():
            if ours.fullmatch(path_there.name):
                _remove_unlocked(path_there)


def _remove_unlocked(path: Path) -> None:
    with suppress(OSError):  # taken its place or removed meanwhile; or of another user
        handle = os.open(path, os.O_RDWR)
        try:
            if _locked(handle, wait=False):
                path.unlink()
        finally:
            os.close(handle)


def _locked(handle: int, wait: bool) -> bool:
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
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Of the runs that put files into this folder, so that those that belong together stay so.

    Where that cannot be had in a second (a run was stopped here, or nothing can be locked), go on.
    """
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        for _ in range(_TRIES):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(1 / _TRIES)
            except OSError:
                break
        yield
    finally:
        os.close(handle)


def _start(target: Path) -> str:
    """How the names of temporary files for `target` start; a name takes up to 255 bytes."""
    name = target.name
    while len(os.fsencode(name)) > _LONGEST_START:
        name = name[:-1]
    return f".{name}."


# -------------------------------------------------------------------- what can be told beforehand


def check_output(path: str | os.PathLike[str], format: str) -> None:
    """Refuse what cannot be written there, before any work is done for it."""
    if format not in FORMATS:
        raise unknown_value("--format", format, FORMATS)
    if format == "safetensors" and Path(path).suffix == ".safetensors":
        raise UsageError(
            f"--output names the document, which is JSON. Write {Path(path).with_suffix('.json')}; "
            "the tensors go beside it."
        )
    if Path(path).suffix == ".safetensors":
        raise UsageError(
            f"--output names the document, which is JSON. Write {Path(path).with_suffix('.json')}, "
            "and --format safetensors for tensors beside it."
        )
    check_writable(path)
    if format == "safetensors":
        check_beside(path)
    for file in (path, path_beside(path)):  # before the room on the disk is looked at
        remove_leftovers(file)


def check_beside(document: str | os.PathLike[str]) -> None:
    """Refuse to replace a file of tensors that is not a document's: a checkpoint's weights, say."""
    from activations.tensor_file import is_ours  # not before it is needed: it imports numpy

    beside = path_beside(document)
    check_writable(beside)
    if leads_away(beside, Path(document)):
        raise ToolkitError(
            f"'{beside}' is a link that leads out of its folder, and would not be followed by who "
            "reads it. Remove it, or name another --output."
        )
    if beside.exists() and not is_ours(beside):
        raise ToolkitError(
            f"'{beside}' would be replaced by the tensors of '{document}', and is no file of this "
            "toolkit. Name another --output."
        )


def check_writable(path: str | os.PathLike[str]) -> None:
    """Refuse a path that cannot be written, before any work is done for it."""
    try:
        _check_writable(path, Path(os.path.realpath(path)))
    except (OSError, ValueError) as error:  # too long, or not to be looked at; a NUL in it
        raise _cannot_write(path, error) from None


def _check_writable(path: str | os.PathLike[str], target: Path) -> None:
    if not os.fspath(path):
        raise UsageError("the name of the file to write is empty. Name one with --output.")
    if target.is_dir():
        raise ToolkitError(f"'{path}' is a folder. Name a file.")
    if not target.parent.is_dir():
        raise ToolkitError(f"the folder of '{path}' does not exist. Make it, or write elsewhere.")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise ToolkitError(f"the folder of '{path}' is not writable. Write elsewhere.")
    if target.is_symlink():  # though links are followed
        raise ToolkitError(f"'{path}' is a symbolic link that leads to itself. Name another.")
    if target.exists() and not target.is_file():
        raise ToolkitError(f"'{path}' is not an ordinary file. Name another.")


def _check_inside(path: Path, folder: Path) -> None:
    """Refuse a link that leads out of the folder: the file's name came out of a document."""
    if path.is_symlink() and Path(os.path.realpath(path)).parent != Path(os.path.realpath(folder)):
        raise ToolkitError(
            f"'{path}' is a link that leads out of its folder. Remove it, or name another "
            "--output-dir."
        )


def check_output_folder(name: str) -> None:
    """Refuse an `--output-dir` that could not be made, before any work is done for it."""
    try:
        _check_output_folder(name, Path(os.path.realpath(name)))
    except (OSError, ValueError) as error:
        raise _cannot_make(name, error) from None


def _check_output_folder(name: str, folder: Path) -> None:
    if folder.is_symlink():
        raise ToolkitError(
            f"--output-dir: '{name}' is a symbolic link that leads to itself. Name another."
        )
    if folder.exists() and not folder.is_dir():
        raise ToolkitError(f"--output-dir: '{name}' is a file. Name a folder.")
    if not folder.exists() and not folder.parent.is_dir():
        raise ToolkitError(
            f"--output-dir: the folder above '{name}' does not exist. Make it, or name another."
        )
    if not os.access(folder if folder.exists() else folder.parent, os.W_OK | os.X_OK):
        raise ToolkitError(f"--output-dir: '{name}' is not writable. Name another.")


def _cannot_make(name: str | os.PathLike[str], error: Exception) -> ToolkitError:
    why = getattr(error, "strerror", None) or error
    return ToolkitError(f"--output-dir: '{name}' cannot be made ({why}). Name another.")


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
            raise _cannot_make(folder, error) from None
        finally:
            door.shut = True
            for path in made:
                with suppress(OSError):  # somebody else put something there
                    path.rmdir()


def safe_name(name: str) -> str:
    """`Qwen/Qwen2.5-0.5B` -> `Qwen_Qwen2.5-0.5B`: runs of other characters become `_`.

    For a part of a file's name: never a path, never too long.
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:180]


def path_beside(document: str | os.PathLike[str]) -> Path:
    """Where a document's tensors are: `x.json` -> `x.safetensors`, in the same folder."""
    path = Path(document)
    stem = path.stem if path.suffix == ".json" else path.name
    return path.with_name(f"{stem}.safetensors")


def is_folder(name: str) -> bool:
    """Whether there is a folder of this name; of one that no file can have, there is none."""
    return os.path.isdir(name)  # noqa: PTH112  Path.is_dir raises where a name is too long


def is_file(name: str) -> bool:
    """Whether there is a file of this name; of one that no file can have, there is none."""
    return os.path.isfile(name)  # noqa: PTH113  Path.is_file raises where a name is too long


def leads_away(beside: Path, document: Path) -> bool:
    """Whether the tensors are a link to a file that does not lie beside the document.

    A document may be a link too (the hub's cache is made of them): where both lead to one folder,
    they lie beside each other.
    """
    folders = {document.parent.resolve(), document.resolve().parent}
    return beside.resolve().parent not in folders


def document_size(path: str | os.PathLike[str], format: str) -> int:
    """The bytes a document takes, with the tensors beside it."""
    files = [Path(path), *([path_beside(path)] if format == "safetensors" else [])]
    return sum(file.stat().st_size for file in files)


def size_text(count: float) -> str:
    """1536 -> "1.5 kB" (decimal units)."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def _mode(target: Path) -> int:
    """The permissions of the file that is replaced, else those of any new file."""
    if target.exists():
        return target.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
