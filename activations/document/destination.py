"""What may be written where, checked before any work is done for it."""

from __future__ import annotations

import os
from pathlib import Path

from activations.document.format import FORMATS, leads_away, path_beside
from activations.errors import ToolkitError, UsageError, unknown_value
from activations.system.atomic import remove_leftovers
from activations.system.files import check_writable


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
    from activations.document.tensor_file import is_ours, other_owner

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
