"""What may be written where, checked before any work is done for it."""

from __future__ import annotations

import os
from pathlib import Path

from activations.document.format import FORMATS, leads_away, path_beside
from activations.errors import ToolkitError, UsageError, unknown_value
from activations.system.atomic import remove_leftovers
from activations.system.files import cannot_be_written, check_writable


def prepare_output(path: str | os.PathLike[str], format: str) -> None:
    """Refuse what cannot be written there, then remove what killed runs left there."""
    check_output(path, format)
    for file in (path, path_beside(path)):
        remove_leftovers(file)


def check_output(path: str | os.PathLike[str], format: str) -> None:
    """Refuse what cannot be written there: at the start, and again at the moment of writing.

    Raises `UsageError` for a wrong name, `ToolkitError` for a file that must stay.
    """
    if format not in FORMATS:
        raise unknown_value("--format", format, FORMATS)
    check_writable(path)
    if Path(path).suffix == ".safetensors" or (
        format == "safetensors" and Path(path).suffix != ".json"
    ):
        with_tensors = "" if format == "json" else "; the tensors go beside it"
        raise UsageError(
            "--output names the document, which is JSON. Write "
            f"{Path(path).with_suffix('.json')}{with_tensors}."
        )
    if format == "safetensors":
        try:
            _check_beside(Path(path))
        except OSError as error:  # the folder went away
            raise cannot_be_written(path, error) from None


def _check_beside(document: Path) -> None:
    """Refuse to replace a safetensors file that is not a document's: a checkpoint's weights."""
    beside = path_beside(document)
    check_writable(beside)
    if leads_away(beside, document):
        raise ToolkitError(
            f"'{beside}' is a link that leads out of its folder, and the reader would not follow "
            "it. Remove it, or name another --output."
        )
    if beside.exists() and not _is_ours(beside):
        raise ToolkitError(
            f"'{beside}' would be replaced by the tensors of '{document}', and was not written by "
            "this toolkit. Name another --output."
        )


def obsolete_tensors(document: str | os.PathLike[str]) -> Path | None:
    """The tensors beside a document that is replaced by text: they belong to nothing then."""
    beside = path_beside(document)
    has_tensors = Path(document).suffix == ".json" and os.path.isfile(beside)
    return beside if has_tensors and _is_ours(beside) else None


def _is_ours(path: Path) -> bool:
    # Not before it is needed: it imports numpy.
    from activations.document.tensor_file import is_ours

    return is_ours(path)
