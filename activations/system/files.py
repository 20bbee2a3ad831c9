"""The files that are written: their names, and what can be checked before any work is done."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path

from activations.errors import ToolkitError, UsageError
from activations.system.sizes import size_text


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


def check_writable(path: str | os.PathLike[str]) -> None:
    """Refuse a path that cannot be written, before any work is done for it."""
    if not os.fspath(path):
        raise UsageError("the name of the file to write is empty. Name one with --output.")
    try:
        target = Path(os.path.realpath(path))
        if target.is_dir():
            why = f"'{path}' is a folder. Name a file."
        elif not target.parent.is_dir():
            why = f"the folder of '{path}' does not exist. Make it, or write elsewhere."
        elif not os.access(target.parent, os.W_OK | os.X_OK):
            why = f"the folder of '{path}' is not writable. Write elsewhere."
        elif target.is_symlink():  # though links are followed
            why = f"'{path}' is a symbolic link that leads to itself. Name another."
        elif target.exists() and not target.is_file():
            why = f"'{path}' is not an ordinary file. Name another."
        else:
            return
    except (OSError, ValueError) as error:  # too long, or not accessible; a NUL in it
        raise cannot_be_written(path, error) from None
    raise ToolkitError(why)


def check_output_folder(name: str) -> None:
    """Refuse an `--output-dir` that could not be made, before any work is done for it."""
    try:
        folder = Path(os.path.realpath(name))
        if folder.is_symlink():
            why = "is a symbolic link that leads to itself. Name another."
        elif folder.exists() and not folder.is_dir():
            why = "is a file. Name a folder."
        elif not folder.parent.is_dir():
            why = "is in a folder that does not exist. Make it, or name another."
        elif not os.access(folder if folder.exists() else folder.parent, os.W_OK | os.X_OK):
            why = "is not writable. Name another."
        else:
            return
    except (OSError, ValueError) as error:
        raise cannot_be_made(name, error) from None
    raise ToolkitError(f"--output-dir: '{name}' {why}")


def cannot_be_made(name: str | os.PathLike[str], error: Exception) -> ToolkitError:
    why = getattr(error, "strerror", None) or error
    return ToolkitError(f"--output-dir: '{name}' cannot be made ({why}). Name another.")


def safe_name(name: str) -> str:
    """`Qwen/Qwen2.5-0.5B` -> `Qwen_Qwen2.5-0.5B`: runs of other characters become `_`.

    For a part of a file's name: never a path, never too long.
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:180]
