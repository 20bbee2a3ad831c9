"""An image or audio file -> what a checkpoint's processor takes; the names of patches and frames.

No torch here: a file that cannot be read is refused before torch is imported.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from activations.errors import ToolkitError, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels


@dataclass(frozen=True, eq=False)
class Image:
    """An image in RGB, the right way up. `name` is the file's, as the user gave it."""

    name: str
    pixels: Pixels


@dataclass(frozen=True, eq=False)
class Audio:
    """A recording in mono: float32 `samples`, `rate` of them a second."""

    name: str
    samples: np.ndarray
    rate: int

    def at_rate(self, rate: int) -> np.ndarray:
        """The samples at another rate."""
        if rate == self.rate:
            return self.samples
        import soxr

        return np.asarray(soxr.resample(self.samples, self.rate, rate), dtype=np.float32)


def read_image(name: str) -> Image:
    """Read an image file. Raises `ToolkitError` (`UsageError` where it is no image)."""
    import PIL.Image
    import PIL.ImageOps

    _check_readable(name, "--image")
    try:
        with PIL.Image.open(name) as file:
            upright = PIL.ImageOps.exif_transpose(file)
            if upright.mode.startswith("I;16"):  # Pillow would clip: 16 bits to the upper 8
                upright = PIL.Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            return Image(name, upright.convert("RGB"))
    # Pillow raises many errors for broken files, also SyntaxError.
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        raise UsageError(
            f"--image: '{name}' is not an image that can be read ({type(error).__name__}). "
            "Give a PNG or JPEG file."
        ) from error


def read_audio(name: str) -> Audio:
    """Read an audio file, as mono. Raises `ToolkitError` (`UsageError` where it is no audio)."""
    import soundfile

    _check_readable(name, "--audio")
    try:
        samples, rate = soundfile.read(name, dtype="float32", always_2d=True)
    except (RuntimeError, TypeError) as error:  # soundfile's own errors are RuntimeErrors
        raise UsageError(
            f"--audio: '{name}' is not audio that can be read ({type(error).__name__}). "
            "Give a WAV, FLAC, OGG or MP3 file."
        ) from error
    if not len(samples):
        raise UsageError(f"--audio: '{name}' holds no sound. Give another file.")
    return Audio(name, samples.mean(axis=1), int(rate))


def _check_readable(name: str, flag: str) -> None:
    try:
        mode = Path(name).stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # reading a pipe would wait
            raise ToolkitError(f"{flag}: '{name}' is not an ordinary file. Name another.")
        with open(name, "rb"):
            pass
    except (OSError, ValueError) as error:  # a NUL in the name
        why = getattr(error, "strerror", None) or error
        raise ToolkitError(f"{flag}: '{name}' cannot be read: {why}. Check the path.") from None


def blank_image() -> Image:
    """A stand-in where a model is only listed. Processors resize any image for the model."""
    import PIL.Image

    return Image("", PIL.Image.new("RGB", (224, 224)))


def silence() -> Audio:
    """A second of silence, the stand-in for audio."""
    return Audio("", np.zeros(16_000, dtype=np.float32), 16_000)


# ---------------------------------------------------------------------------- patches and frames


@dataclass(frozen=True)
class Places:
    """What the positions of a model of images or audio are: their names, and which show what.

    From position `start` on they are the patches of an image, `grid` rows of columns, row by row,
    which cover the first `area` pixels (height, width) of it; or the frames of a sound, a row of
    them, each of `seconds`.
    """

    names: tuple[str, ...]
    start: int
    grid: tuple[int, int]
    area: tuple[int, int] = (0, 0)
    seconds: float | None = None


def patch_places(
    count: int, pixels: Sequence[int], patch: Any, special: Sequence[str]
) -> Places | None:
    """`[CLS]`, `r0c0`, `r0c1`, ...: the special tokens, then an image's patches row by row.

    `pixels` are height and width, `patch` the sides of a patch, one number or two. None where that
    does not make `count` positions.
    """
    sides = sides_of(patch)
    if sides is None:
        return None
    rows, columns = pixels[0] // sides[0], pixels[1] // sides[1]
    names = (*special, *(f"r{row}c{column}" for row in range(rows) for column in range(columns)))
    area = rows * sides[0], columns * sides[1]
    fits = len(names) == count and rows and columns
    return Places(names, len(special), (rows, columns), area) if fits else None


def sides_of(patch: Any) -> tuple[int, int] | None:
    """Height and width of a patch, as a configuration has them: a number or two."""
    sides = patch if isinstance(patch, (list, tuple)) else (patch, patch)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        return None
    return sides[0], sides[1]


def frame_places(count: int, seconds: float) -> Places:
    """`0.00s`, `0.02s`, ...: when each frame of `seconds` begins."""
    names = tuple(f"{i * seconds:.2f}s" for i in range(count))
    return Places(names, 0, (1, count), seconds=seconds)
