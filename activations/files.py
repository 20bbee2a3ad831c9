"""Writing a file so that a reader sees the old one or the whole new one, never a part."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from activations.errors import ToolkitError, UsageError

_PARTIAL = ".partial"
FORMATS = ("json", "safetensors")  # of a document


@contextmanager
def replacing(path: str | os.PathLike[str], needed: int = 0) -> Iterator[BinaryIO]:
    """A temporary file beside `path` that takes its place when the block ends well.

    It is flushed to the disk before it is renamed. When the block raises, the temporary file is
    removed and `path` stays as it was. `needed` is the room wanted, in bytes.

    Raises `ToolkitError` where the folder is missing or not writable, the path is a folder, or
    there is no room on the disk.
    """
    target = Path(os.path.realpath(path))  # a symbolic link stays one: what it points to changes
    check_writable(path)
    check_room(path, needed)
    handle, name = tempfile.mkstemp(
        dir=target.parent, prefix=f".{target.name[:100]}.", suffix=_PARTIAL
    )
    os.close(handle)
    try:
        with open(name, "wb") as file:  # by name, so that file.name tells others where to write
            yield file
        _settle(name, _mode(target))
        os.replace(name, target)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise ToolkitError(
                f"no room on the disk for '{path}'. Free some, choose fewer modules or layers, "
                "or write elsewhere."
            ) from error
        raise


def check_room(path: str | os.PathLike[str], needed: int) -> None:
    """Raise `ToolkitError` where a file of about `needed` bytes has no room on the disk."""
    room = shutil.disk_usage(Path(os.path.realpath(path)).parent).free
    if needed > room:
        raise ToolkitError(
            f"no room on the disk for '{path}': about {size_text(needed)} are needed and "
            f"{size_text(room)} are free. Free some, choose fewer modules or layers, or write "
            "elsewhere."
        )


def check_output(path: str | os.PathLike[str], format: str) -> None:
    """Refuse what cannot be written there, before any work is done for it."""
    if format not in FORMATS:
        raise UsageError(f"--format does not know '{format}'. Write {' or '.join(FORMATS)}.")
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
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise ToolkitError(f"'{path}' is a folder. Name a file.")
    if not target.parent.is_dir():
        raise ToolkitError(f"the folder of '{path}' does not exist. Make it, or write elsewhere.")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise ToolkitError(f"the folder of '{path}' is not writable. Write elsewhere.")
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
    folder = Path(name)
    if folder.exists() and not folder.is_dir():
        raise ToolkitError(f"--output-dir: '{name}' is a file. Name a folder.")
    if not folder.exists() and not folder.resolve().parent.is_dir():
        raise ToolkitError(
            f"--output-dir: the folder above '{name}' does not exist. Make it, or name another."
        )


def write_together(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write these files (by their names) into a folder, made if need be: all of them or none.

    Returns their paths. Raises `ToolkitError` where that cannot be done.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ToolkitError(
            f"--output-dir: '{folder}' cannot be made ({error.strerror}). Name another."
        ) from None
    paths = [folder / name for name in files]
    for path in paths:
        _check_inside(path, folder)
    with ExitStack() as all_of_them:  # each is written whole before the first takes its place
        for path, content in zip(paths, files.values(), strict=True):
            all_of_them.enter_context(replacing(path, needed=len(content))).write(content)
    return paths


def safe_name(name: str) -> str:
    """`Qwen/Qwen2.5-0.5B` -> `Qwen_Qwen2.5-0.5B`: runs of other characters become `_`.

    For a part of a file's name: never a path, never too long.
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:180]


def _settle(name: str, mode: int) -> None:
    """Flush a file to the disk. By its name: safetensors may have put another file in its place."""
    handle = os.open(name, os.O_RDONLY)
    try:
        os.fchmod(handle, mode)  # mkstemp makes private files
        os.fsync(handle)
    finally:
        os.close(handle)


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
