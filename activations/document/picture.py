"""Pictures in a document: an image as the model saw it, a sound as it heard it.

They are small, and in the document itself, so that a page needs no other file. A stranger's are
checked before anything shows them: how large they are, and that they are what they claim to be.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from activations.text import counted, printable

LARGEST = 200_000  # bytes of one picture
_MOST = 8  # pictures of one document
_MOST_PIXELS = 8_000_000  # few bytes may unfold to gigabytes
_MOST_PLACES = 10_000_000  # of a grid, and the position of its first place
_LONGEST_NAMES = 40  # characters of special tokens
_JPEG, _PNG = "image/jpeg", "image/png"
_PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"


@dataclass(frozen=True)
class Picture:
    """A picture, and which of a document's tokens are its parts.

    `kind` is "image" or "sound", `source` the name of the tensor that it was made of. `data` is the
    file as base64 text, of the type `media_type`. Its parts are the tokens from position `start`
    on in the list `tokens` ("tokens", "vision_tokens"): `grid` rows of columns, row by row, which
    cover the whole picture. A sound is one row of frames, of `seconds` each: the picture has how
    strong each band of tones is, low ones at the bottom, in levels of grey.
    """

    kind: str
    source: str
    media_type: str
    data: str
    tokens: str
    start: int
    grid: tuple[int, int]
    seconds: float | None = None

    @property
    def parts(self) -> int:
        """How many patches or frames there are."""
        return self.grid[0] * self.grid[1]

    @property
    def part(self) -> str:
        """What one of them is called."""
        return "patch" if self.kind == "image" else "frame"

    def header(self) -> dict[str, Any]:
        """The picture as a document has it."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def pictures_of(header: Mapping[str, Any]) -> tuple[Picture, ...]:
    """The pictures of a header that was checked."""
    keys = Picture.__dataclass_fields__
    found = ({k: v for k, v in entry.items() if k in keys} for entry in header.get("pictures", ()))
    return tuple(Picture(**{**entry, "grid": tuple(entry["grid"])}) for entry in found)


def parts_in_words(tokens: Sequence[str], picture: Picture, start: int) -> str:
    """`197 tokens: [CLS] and 14 × 14 patches`, `1,500 frames`: what tokens with a picture are.

    `start` is the first of its parts among the tokens.
    """
    rows, columns = picture.grid
    parts = f"{rows:,} × {columns:,} patches"
    if picture.kind == "sound":
        parts = counted(columns, "frame")
    if len(tokens) == picture.parts:
        return parts
    others = [*tokens[:start], *tokens[start + picture.parts :]]
    names = ", ".join(others)
    are_special = all(name.startswith("[") and name.endswith("]") for name in others)
    if not are_special or len(names) > _LONGEST_NAMES:
        names = f"{len(others):,} of text"
    return f"{counted(len(tokens), 'token')}: {printable(names)} and {parts}"


def picture_file(data: bytes) -> str:
    """The bytes of a file as a document has them."""
    return base64.b64encode(data).decode("ascii")


# ------------------------------------------------------------------------------- those of strangers


def are_pictures(value: Any) -> bool:
    """Whether it is a list of pictures that can be shown."""
    return isinstance(value, list) and len(value) <= _MOST and all(map(_is_picture, value))


def _is_picture(value: Any) -> bool:
    match value:
        case {
            "kind": "image" | "sound" as kind,
            "source": str(),
            "media_type": "image/jpeg" | "image/png" as media_type,
            "data": str(data),
            "tokens": str(),
            "start": start,
            "grid": [rows, columns],
        }:
            numbers = all(map(_is_place, (start, rows, columns))) and rows > 0 and columns > 0
            seconds = value.get("seconds")
            is_whole = seconds is None if kind == "image" else rows == 1 and _are_seconds(seconds)
            return numbers and is_whole and _is_file(data, media_type)
    return False


def _is_place(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_PLACES


def _are_seconds(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and 0 < value <= 3600


def _is_file(text: str, media_type: str) -> bool:
    """Whether it is base64 text of a small file that begins as this type does."""
    if len(text) > 4 * -(-LARGEST // 3):
        return False
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        return False
    width, height = (_jpeg_size if media_type == _JPEG else _png_size)(data)
    return len(data) <= LARGEST and 0 < width * height <= _MOST_PIXELS


def _png_size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels; 0 where it is no PNG file."""
    if not data.startswith(_PNG_START) or len(data) < 24:
        return 0, 0
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels; 0 where it is no JPEG file, or says so twice."""
    sizes = []
    at = 2 if data.startswith(b"\xff\xd8\xff") else len(data)
    while at + 9 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:  # the pixels follow
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            sizes.append((width, height))
        at += 2 + length
    return sizes[0] if len(sizes) == 1 else (0, 0)
