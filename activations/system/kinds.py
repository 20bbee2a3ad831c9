"""What a file is, by how it begins: to name it where another kind of file is expected."""

from __future__ import annotations

import re
from pathlib import Path

_BEGINNING = 512  # bytes; tar's mark stands at 257
_KINDS = {  # in this order
    rb"GGUF": "weights in GGUF (of llama.cpp)",
    rb"PK\x03\x04.{26}[^/]+/(data\.pkl|version|byteorder|\.format_version)": "PyTorch weights",
    rb"PK\x03\x04.{26}[\w./-]+\.npy": "an archive of NumPy arrays",
    rb"PK\x03\x04": "a zip archive",
    rb"\x93NUMPY": "a NumPy array",
    rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd": "a compressed file",
    rb".{257}ustar": "a tar archive",
    rb"\x89HDF": "weights in HDF5 (of Keras)",
    rb"\x80[\x02-\x05]": "a pickle file",
    rb".{5}\0\0\0\{": "weights in safetensors",
    rb"version https://git-lfs": "a pointer to a file in Git LFS, not the file itself",
    rb"(?i)\s*<(!doctype html|html|!--|head|body)": "an HTML page",
    rb"%PDF": "a PDF",
    rb"\x89PNG|\xff\xd8\xff|GIF8": "an image",
    rb"PAR1": "a Parquet table",
    rb"\xff\xfe|\xfe\xff": "text in UTF-16",
}


def kind_of(path: Path) -> str | None:
    """As in `weights in safetensors`; None for what is not known, is empty or cannot be read."""
    try:
        if not path.is_file():  # opening a pipe would wait
            return None
        with path.open("rb") as file:
            start = file.read(_BEGINNING)
    except OSError:
        return None
    return next((kind for mark, kind in _KINDS.items() if re.match(mark, start, re.DOTALL)), None)
