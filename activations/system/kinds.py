"""What a file is, by how it begins: to name it where another kind of file is expected."""

from __future__ import annotations

import re
from pathlib import Path

BEGINNING = 512  # bytes; tar's mark stands at 257
_KINDS = {  # in this order
    rb"GGUF": "a GGUF file (of llama.cpp)",
    rb"PK\x03\x04.{26}[^/]+/(data\.pkl|version|byteorder|\.format_version)": "a PyTorch file",
    rb"PK\x03\x04.{26}[\w./-]+\.npy": "a NumPy archive",
    rb"PK\x03\x04": "a zip archive",
    rb"\x93NUMPY": "a NumPy file",
    rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd": "a compressed file",
    rb".{257}ustar": "a tar archive",
    rb"\x89HDF": "an HDF5 file (of Keras)",
    rb"\x80[\x02-\x05]": "a pickle file",
    rb".{5}\0\0\0\{": "a safetensors file",
    rb"version https://git-lfs": "a pointer of Git LFS",
    rb"(?i)\s*<(!doctype html|html|!--|head|body)": "an HTML page",
    rb"%PDF": "a PDF",
    rb"\x89PNG|\xff\xd8\xff|GIF8": "an image",
    rb"PAR1": "a Parquet table",
    rb"\xff\xfe|\xfe\xff": "a text in UTF-16",
}


def kind_of(path: Path) -> str | None:
    """As in `a safetensors file`; None for what is not known, is empty or cannot be read."""
    try:
        if not path.is_file():  # opening a pipe would wait
            return None
        with path.open("rb") as file:
            return kind_of_bytes(file.read(BEGINNING))
    except OSError:
        return None


def kind_of_bytes(start: bytes) -> str | None:
    """The same for the first `BEGINNING` bytes of a file."""
    return next((kind for mark, kind in _KINDS.items() if re.match(mark, start, re.DOTALL)), None)
