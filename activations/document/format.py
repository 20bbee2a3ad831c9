"""The document's format: its keys, where its tensors are, about how many bytes it takes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

DOCUMENT = "agnostic_activations.json"  # a document's name, unless the user gives another
FORMAT = "agnostic-activations/1"
FORMATS = ("json", "safetensors")  # of a document
SECTIONS = {
    "attention": "attention_outputs",
    "mlp": "mlp_outputs",
    "other": "other_outputs",
}


def path_beside(document: str | os.PathLike[str]) -> Path:
    """Where a document's tensors are: `x.json` -> `x.safetensors`, in the same folder."""
    path = Path(document)
    stem = path.stem if path.suffix == ".json" else path.name
    return path.with_name(f"{stem}.safetensors")


def leads_away(beside: Path, document: Path) -> bool:
    """Whether the tensors are a link to a file that is not in the document's folder.

    A document may be a link too (the hub's cache is made of links): both may lead to the same
    folder.
    """
    folders = {document.parent.resolve(), document.resolve().parent}
    return beside.resolve().parent not in folders


def document_size(path: str | os.PathLike[str], format: str) -> int:
    """The bytes of a document, with its file of tensors."""
    files = [Path(path), *([path_beside(path)] if format == "safetensors" else [])]
    return sum(file.stat().st_size for file in files)


# The average bytes of a number as text: sign, digits, point, comma. The shortest text of a float32
# has 10 to 14, more for smaller numbers.
_TEXT = {"float64": 21, "float32": 12, "bfloat16": 12, "float16": 12, "bool": 6}
_TEXT |= {"complex64": 26, "complex128": 44}
_TEXT_OTHER = 5  # whole numbers, mostly small ones; 8-bit floats
_TEXT_ZERO = 4  # `0.0,`
# And in their own dtype. 8-bit floats are widened to float32.
_BINARY = {"bool": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "float16": 2, "bfloat16": 2}
_BINARY |= {"int64": 8, "float64": 8, "complex64": 8, "complex128": 16}
_BINARY_OTHER = 4
_TENSOR_NAME = 200
_MODULE_LINE = 230  # its name, here and in the header, shapes and dtypes
_HEADER = 800


@dataclass(frozen=True)
class Numbers:
    """How many numbers a tensor has, their dtype, and how many of them are zero."""

    count: int
    dtype: str
    zeros: int = 0


def document_bytes(modules: Iterable[Iterable[Numbers]], format: str = "json") -> int:
    """About how many bytes a document of these modules' tensors takes, with its file of tensors."""
    size = _HEADER
    for tensors in modules:
        size += _MODULE_LINE + sum(_tensor_bytes(tensor, format) for tensor in tensors)
    return size


def _tensor_bytes(tensor: Numbers, format: str) -> int:
    if format == "safetensors":
        return _TENSOR_NAME + tensor.count * _BINARY.get(tensor.dtype, _BINARY_OTHER)
    each = _TEXT.get(tensor.dtype, _TEXT_OTHER)
    return (tensor.count - tensor.zeros) * each + tensor.zeros * _TEXT_ZERO
