"""What a model saw or heard, from the tensors that it got -> a small picture for the document.

Not from the user's file: a processor resizes and crops an image, and what it cut off no patch can
attend to.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from activations.document.picture import LARGEST, Picture, picture_file
from activations.inputs.media import Places
from activations.inputs.processor import extractor_of

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

_QUALITIES = (90, 80, 65, 50)  # of a JPEG, the best that fits
_OUTSIDE = 2.0  # levels of 255 by which bfloat16 may miss the ends
_RANGE = 8.0  # powers of ten that are seen below the loudest
_BANDS = 64  # of the spectrogram of samples
_WINDOW = 0.025  # seconds of a window of it


def picture_of(
    tensors: Mapping[str, torch.Tensor], source: str, processor: Any, places: Places
) -> Picture | None:
    """The picture of the tensor `source`, whose positions are `places`.

    None where it is none: several images, or channels that are no colours. `tokens` is left empty.
    """
    given = tensors[source].detach().to("cpu", torch.float32).numpy()
    if len(given) != 1 or not np.isfinite(given).all():
        return None
    if places.seconds is None:
        made = _image(given[0], getattr(processor, "image_processor", processor), places.area)
    else:
        made = _sound(given[0], extractor_of(processor), places)
    if made is None:
        return None
    media_type, data = _small_file(made)
    kind = "image" if places.seconds is None else "sound"
    text = picture_file(data)
    return Picture(kind, source, media_type, text, "", places.start, places.grid, places.seconds)


# ------------------------------------------------------------------------------------------ images


def _image(pixels: np.ndarray, said: Any, area: tuple[int, int]) -> Pixels | None:
    """The part of an image (channels, height, width) that patches cover, in its own colours."""
    import PIL.Image

    if len(pixels) not in (1, 3):
        return None
    shown = pixels[:, : area[0], : area[1]]
    levels = _levels_before(shown, said)
    if levels is None:  # the processor did something else to them
        levels = 255 * _stretched(shown)
    in_bytes = np.rint(np.clip(levels, 0, 255)).astype(np.uint8)
    return PIL.Image.fromarray(in_bytes[0] if len(in_bytes) == 1 else in_bytes.transpose(1, 2, 0))


def _levels_before(pixels: np.ndarray, said: Any) -> np.ndarray | None:
    """The levels, 0 to 255, that an image processor made these of; None where it is not known."""
    if not getattr(said, "do_rescale", None):
        return None
    levels = pixels.astype(np.float64)
    if getattr(said, "do_normalize", None):
        mean, std = (_by_channel(getattr(said, f"image_{name}", None)) for name in ("mean", "std"))
        if not {len(mean), len(std)} <= {1, len(pixels)}:
            return None
        levels = levels * std + mean
    levels = levels / (getattr(said, "rescale_factor", None) or 1 / 255)
    inside = levels.min() >= -_OUTSIDE and levels.max() <= 255 + _OUTSIDE
    return levels if inside else None


def _by_channel(numbers: Any) -> np.ndarray:
    """A number for each channel, or one for all, as (channels, 1, 1); none where it is not said."""
    return np.reshape(np.asarray([] if numbers is None else numbers, float), (-1, 1, 1))


def _stretched(values: np.ndarray) -> np.ndarray:
    """The same from the least, 0, to the most, 1."""
    low, high = float(values.min()), float(values.max())
    return (values - low) / ((high - low) or 1.0)


# ------------------------------------------------------------------------------------------ sounds


def _sound(given: np.ndarray, extractor: Any, places: Places) -> Pixels:
    """How strong each band of tones is in each frame; low tones are at the bottom."""
    import PIL.Image

    if given.ndim == 1:
        bands = _spectrogram(given, extractor.sampling_rate, places)
    else:
        bands = given if len(given) == extractor.feature_size else given.T  # (bands, steps)
        steps = bands.shape[1] // places.grid[1]
        bands = bands.reshape(len(bands), -1, steps).mean(-1)
    levels = np.rint(255 * _stretched(bands)).astype(np.uint8)
    return PIL.Image.fromarray(np.ascontiguousarray(levels[::-1]))


def _spectrogram(samples: np.ndarray, rate: int, places: Places) -> np.ndarray:
    """The log-mel spectrogram (bands, frames) of samples, of which the model gets nothing else."""
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    assert places.seconds is not None, "these are frames"
    hop = round(places.seconds * rate)
    length = max(round(_WINDOW * rate), hop)
    transform = 1 << (2 * length - 1).bit_length()  # fine enough for the lowest bands
    missing = (places.grid[1] - 1) * hop + length - len(samples)
    heard = spectrogram(
        np.pad(samples, (0, max(missing, 0))),
        window_function(length),
        frame_length=length,
        hop_length=hop,
        fft_length=transform,
        power=2.0,
        center=False,
        mel_filters=mel_filter_bank(transform // 2 + 1, _BANDS, 0.0, rate / 2, rate),
        log_mel="log10",
    )[:, : places.grid[1]]
    quietest: np.ndarray = np.maximum(heard, heard.max() - _RANGE)
    return quietest


# ------------------------------------------------------------------------------------------- files


def _small_file(picture: Pixels) -> tuple[str, bytes]:
    """The media type and the bytes of a file that a document takes."""
    return next(found for found in _files(picture) if len(found[1]) <= LARGEST)


def _files(picture: Pixels) -> Iterator[tuple[str, bytes]]:
    """Smaller and smaller files of a picture. One of grey levels is exact, if that is small."""
    if picture.mode == "L":
        yield "image/png", _encoded(picture, "PNG", optimize=True)
    while True:
        for quality in _QUALITIES:
            yield "image/jpeg", _encoded(picture, "JPEG", quality=quality, subsampling=0)
        picture = picture.reduce(2)


def _encoded(picture: Pixels, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()
