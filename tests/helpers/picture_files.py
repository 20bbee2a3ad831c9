"""Pictures as a document has them, of arrays, and back."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import PIL.Image


def encoded(pixels: np.ndarray, format: str = "PNG") -> str:
    """An image file of (height, width[, 3]) bytes, as base64 text."""
    file = io.BytesIO()
    PIL.Image.fromarray(np.ascontiguousarray(pixels, np.uint8)).save(file, format, quality=95)
    return base64.b64encode(file.getvalue()).decode()


def decoded(picture: dict[str, Any]) -> np.ndarray:
    """The pixels of a picture, (height, width[, 3])."""
    file = io.BytesIO(base64.b64decode(picture["data"], validate=True))
    with PIL.Image.open(file) as image:
        assert PIL.Image.MIME[str(image.format)] == picture["media_type"]
        return np.asarray(image).astype(float)


def image(pixels: np.ndarray, grid: tuple[int, int], start: int = 0, **more: Any) -> dict[str, Any]:
    entry = {"kind": "image", "source": "pixel_values", "media_type": "image/jpeg"}
    data = {"data": encoded(pixels, "JPEG"), "tokens": "tokens", "start": start, "grid": list(grid)}
    return {**entry, **data, **more}


def sound(bands: np.ndarray, seconds: float = 0.02, **more: Any) -> dict[str, Any]:
    """Of grey levels (bands, frames), low bands last."""
    entry = {"kind": "sound", "source": "input_features", "media_type": "image/png"}
    where = {"tokens": "tokens", "start": 0, "grid": [1, bands.shape[1]], "seconds": seconds}
    return {**entry, "data": encoded(bands), **where, **more}
