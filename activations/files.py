"""The files that are written: their names, and what can be told of them beforehand."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path

from activations.errors import ToolkitError, UsageError, unknown_value
from activations.leftovers import remove_leftovers

FORMATS = ("json", "safetensors")  # of a document


def check_room(path: str | os.PathLike[str], needed: int) -> None:
    """Raise `ToolkitError` where a file of about `needed` bytes has no room on the disk."""
    try:
        room = shutil.disk_usage(Path(os.path.realpath(path)).parent).free
    except OSError as error:  # the folder went away
        raise cannot_be_written(path, error) from None
    if needed > room:
        raise ToolkitError(
            f"no room on the disk for '{path}': about {size_text(needed)} are needed and "
            f"{size_text(room)} are free. Free some, choose fewer modules or layers, or write "
            "elsewhere."
        )


def cannot_be_written(path: str | os.PathLike[str], error: Exception) -> ToolkitError:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ToolkitError(
            f"no room on the disk for '{path}'. Free some, choose fewer modules or layers, or "
            "write elsewhere."
        )
    why = getattr(error, "strerror", None) or error
    return ToolkitError(f"'{path}' cannot be written: {why}. Write elsewhere.")


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
    # Not before it is needed: it imports numpy.
    from activations.tensor_file import is_ours, other_owner

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
    other = other_owner(Path(document))
    if other is not None:
        raise ToolkitError(
            f"'{beside}' holds the tensors of '{other}', which would be lost. Name another "
            "--output."
        )


def check_writable(path: str | os.PathLike[str]) -> None:
    """Refuse a path that cannot be written, before any work is done for it."""
    try:
        _check_writable(path, Path(os.path.realpath(path)))
    except (OSError, ValueError) as error:  # too long, or not to be looked at; a NUL in it
        raise cannot_be_written(path, error) from None


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


def check_output_folder(name: str) -> None:
    """Refuse an `--output-dir` that could not be made, before any work is done for it."""
    try:
        _check_output_folder(name, Path(os.path.realpath(name)))
    except (OSError, ValueError) as error:
        raise cannot_be_made(name, error) from None


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


def cannot_be_made(name: str | os.PathLike[str], error: Exception) -> ToolkitError:
    why = getattr(error, "strerror", None) or error
    return ToolkitError(f"--output-dir: '{name}' cannot be made ({why}). Name another.")


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
