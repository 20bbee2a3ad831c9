"""The picture in a document is what the model got, and its parts are the tokens it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pytest
import soundfile
import tiny_media
import torch
import transformers
from conftest import Run
from picture_files import decoded

from activations import capture as captured
from activations import load
from activations.document.picture import LARGEST
from activations.inputs.media import Places
from activations.inputs.pictures import picture_of
from activations.inputs.positions import name_positions
from activations.inputs.request import Inputs
from activations.selection.observation import Observation

Checkpoints = Callable[[str], Path]
DOCUMENT = "agnostic_activations.json"
FAR = 6  # levels of 255 by which a JPEG may miss


@pytest.fixture(autouse=True)
def files(workplace: Path) -> None:
    """Smooth, so that a JPEG is near; of other colours everywhere, so that nothing is turned."""
    down, right = np.mgrid[:42, :50]
    pixels = np.stack([down * 5, right * 4, 255 - down * 3 - right * 2], -1)
    PIL.Image.fromarray(pixels.astype(np.uint8)).save("cat.png")
    seconds = np.arange(12_800) / 16_000
    tone = np.sin(2 * np.pi * 2000 * seconds) * (seconds > 0.4)
    soundfile.write("speech.wav", 0.3 * tone, 16_000)


def the_picture(header: dict[str, Any]) -> dict[str, Any]:
    (picture,) = header["pictures"]
    return dict(picture)


# ------------------------------------------------------------------------------------------ images

IMAGES = {
    "vit": ("tokens", 1, []),
    "deit": ("tokens", 2, []),
    "dinov2_with_registers": ("tokens", 3, []),
    "clip": ("vision_tokens", 1, ["--prompt", "The cat sat"]),
    "blip": ("self_tokens", 1, ["--prompt", "The cat sat"]),
    "llava": ("tokens", 2, ["--prompt", "The <image> cat"]),
}


@pytest.mark.parametrize("family", IMAGES)
def test_an_image_as_the_model_got_it(family: str, checkpoints: Checkpoints, capture: Run) -> None:
    """Resized and cropped, in its own colours again."""
    tokens, start, words = IMAGES[family]
    argv = ["--model", checkpoints(family), "--image", "cat.png", *words, "--auto-select"]
    assert capture(*argv, "attn:weights").code == 0
    header = load(DOCUMENT).header
    picture = the_picture(header)
    assert (picture["kind"], picture["source"]) == ("image", "pixel_values")
    assert (picture["tokens"], picture["start"], picture["grid"]) == (tokens, start, [3, 3])
    assert len(header[tokens]) >= start + 9
    processor = transformers.AutoImageProcessor.from_pretrained(checkpoints(family))
    given = processor(images=PIL.Image.open("cat.png"), return_tensors="pt")["pixel_values"][0]
    mean, std = (np.array(by)[:, None, None] for by in (processor.image_mean, processor.image_std))
    expected = 255 * (given.numpy() * std + mean)
    assert np.abs(decoded(picture).transpose(2, 0, 1) - expected).max() < FAR


def test_the_same_command_writes_the_same_bytes(checkpoints: Checkpoints, capture: Run) -> None:
    argv = ["--model", checkpoints("vit"), "--image", "cat.png", "--auto-select", "attn:weights"]
    found = []
    for _ in range(2):
        assert capture(*argv).code == 0
        found.append(Path(DOCUMENT).read_bytes())
    assert found[0] == found[1]


def picture(pixels: Any, area: tuple[int, int] = (0, 0), **said: Any) -> Any:
    """Of (channels, height, width), whose patches cover `area` of it."""
    tensor = torch.as_tensor(np.asarray(pixels), dtype=torch.float32)[None]
    area = area if any(area) else (tensor.shape[2], tensor.shape[3])
    places = Places((), 0, (1, 1), area)
    return picture_of({"pixel_values": tensor}, "pixel_values", SimpleNamespace(**said), places)


def test_only_what_patches_cover() -> None:
    """A convolution leaves out what is less than a patch at the right and below."""
    pixels = np.zeros((3, 47, 35))
    pixels[:, :40, :30] = 1
    found = decoded(picture(pixels, (40, 30), do_rescale=True, rescale_factor=1 / 255).header())
    assert found.shape == (40, 30, 3)
    assert found.min() > 250


def test_what_another_processor_made_is_stretched() -> None:
    ramp = np.linspace(-1, 1, 64).reshape(1, 8, 8).repeat(3, 0)
    for said in ({}, {"do_normalize": True}, {"do_rescale": True, "rescale_factor": 1 / 127.5}):
        shown = decoded(picture(ramp, **said).header())
        assert np.abs(shown.mean(-1) - (ramp[0] + 1) * 127.5).max() < FAR, said


def test_grey_images_are_exact() -> None:
    levels = np.arange(64).reshape(1, 8, 8) * 4
    found = picture(levels / 255, do_rescale=True, rescale_factor=1 / 255).header()
    assert found["media_type"] == "image/png"
    assert (decoded(found) == levels[0]).all()


@pytest.mark.parametrize("channels", [2, 4])
def test_channels_that_are_no_colours(channels: int) -> None:
    assert picture(np.zeros((channels, 8, 8))) is None
    assert picture(np.full((3, 8, 8), np.nan)) is None


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_is_small(channels: int) -> None:
    noise = np.random.default_rng(0).random((channels, 1200, 1000))
    found = picture(noise, do_rescale=True, rescale_factor=1 / 255).header()
    assert len(found["data"]) <= 4 * -(-LARGEST // 3)
    height, width = decoded(found).shape[:2]
    assert abs(height / width - 1.2) < 0.01


# ---------------------------------------------------------------------------- patches inside a text


def inputs(tokens: int, before: int = 2, size: tuple[int, int] = (60, 60)) -> Inputs:
    """A text with so many tokens of an image, and the image's pixels."""
    ids = torch.tensor([[7] * before + [9] * tokens + [7]])
    names = ["x"] * before + ["<image>"] * tokens + ["x"]
    return Inputs({"input_ids": ids, "pixel_values": torch.zeros(1, 3, *size)}, names)


def grid_of(given: Inputs, **config: Any) -> tuple[int, int] | None:
    model, _ = tiny_media.build("llava")
    for name, value in config.items():
        setattr(model.config, name, value)
    name_positions(given, model, SimpleNamespace(image_token_id=9), Observation(()))
    assert len(given.pictures) <= 1
    return given.pictures[0].grid if given.pictures else None


def test_patches_in_a_text_are_counted() -> None:
    assert grid_of(inputs(36)) == (6, 6)
    assert grid_of(inputs(24, size=(40, 60))) == (4, 6)
    assert grid_of(inputs(35)) is None
    assert grid_of(inputs(37)) is None  # with a [CLS], or another at the end of each row
    assert grid_of(inputs(1)) is None
    assert grid_of(inputs(0)) is None


def test_merged_patches_need_the_configurations_word() -> None:
    assert grid_of(inputs(9)) is None
    assert grid_of(inputs(9), spatial_merge_size=2) == (3, 3)
    assert grid_of(inputs(9), downsample_ratio=0.5) == (3, 3)
    assert grid_of(inputs(9), mm_tokens_per_image=9) == (3, 3)
    assert grid_of(inputs(9), spatial_merge_size=3) is None
    assert grid_of(inputs(6, size=(40, 60)), scale_factor=2) == (2, 3)
    # 3 x 8 patches as 6 squares: no whole ones.
    assert grid_of(inputs(6, size=(30, 80)), scale_factor=2) is None


def test_an_image_in_two_places_has_no_picture() -> None:
    apart = inputs(36)
    apart.tensors["input_ids"] = torch.tensor([[7] + [9] * 18 + [7] + [9] * 18 + [7]])
    assert grid_of(apart) is None
    two = inputs(36)
    two.tensors["pixel_values"] = torch.zeros(2, 3, 60, 60)
    assert grid_of(two) is None


def test_patches_in_a_text_are_row_by_row(workplace: Path) -> None:
    """Of two images that differ in one patch, its own token's features differ most."""
    model, processor = tiny_media.build("llava")
    pixels = np.full((30, 30, 3), 90, np.uint8)
    found = []
    for value in (90, 200):
        pixels[10:20, 20:30] = value
        PIL.Image.fromarray(pixels).save("patch.png")
        given = {"image": "patch.png", "processor": processor, "select": "other:all"}
        document = captured(model, "The <image> cat", **given)
        found.append(document.tensor("model.multi_modal_projector")[0])
    header = document.header
    change = np.abs(found[0] - found[1]).sum(-1)
    assert header["pictures"][0]["grid"] == [3, 3]
    assert int(change.argmax()) == 1 * 3 + 2


# ------------------------------------------------------------------------------------------ sounds


def test_a_sound_as_the_model_got_it(checkpoints: Checkpoints, capture: Run) -> None:
    """Two steps of the features are a frame; low bands are at the bottom."""
    argv = ["--model", checkpoints("whisper"), "--audio", "speech.wav", "--target", "The cat"]
    done = capture(*argv, "--auto-select", "attn:weights")
    assert done.code == 0
    assert any(line.startswith("50 frames and 3 decoder tokens, ") for line in done.err)
    picture = the_picture(load(DOCUMENT).header)
    assert (picture["kind"], picture["source"]) == ("sound", "input_features")
    assert (picture["tokens"], picture["start"], picture["grid"]) == ("tokens", 0, [1, 50])
    assert (picture["seconds"], picture["media_type"]) == (0.02, "image/png")
    extractor = transformers.AutoFeatureExtractor.from_pretrained(checkpoints("whisper"))
    samples, _ = soundfile.read("speech.wav", dtype="float32")
    bands = extractor(samples, sampling_rate=16_000, return_tensors="np")["input_features"][0]
    frames = (bands[:, ::2] + bands[:, 1::2]) / 2
    expected = 255 * (frames - frames.min()) / (frames.max() - frames.min())
    assert np.abs(decoded(picture)[::-1] - expected).max() < 0.51


def test_a_spectrogram_of_samples(checkpoints: Checkpoints, capture: Run) -> None:
    """A tone of 2,000 Hz from 0.4 s on: there, and in the band of that tone."""
    argv = ["--model", checkpoints("wav2vec2"), "--audio", "speech.wav", "--auto-select"]
    done = capture(*argv, "attn:weights")
    assert done.code == 0
    assert any(line.startswith("39 frames, ") for line in done.err)
    header = load(DOCUMENT).header
    picture = the_picture(header)
    levels = decoded(picture)[::-1]
    assert picture["source"] == "input_values"
    assert levels.shape == (64, len(header["tokens"]))
    is_heard = [token >= "0.39s" for token in header["tokens"]]
    loudest = levels.max(0)
    assert loudest[is_heard].min() > 200
    # 25 ms before it is heard nothing is.
    assert loudest[: is_heard.index(True) - 1].max() < 100
    mels = 2595 * np.log10(1 + np.array([2000, 8000]) / 700)
    band = round(65 * mels[0] / mels[1])
    assert set(levels[:, is_heard].argmax(0)) <= {band, band - 1, band - 2}


def test_without_a_picture(checkpoints: Checkpoints, capture: Run) -> None:
    """YOLOS has tokens nobody can name; a text has nothing to show."""
    argv = ["--model", checkpoints("yolos"), "--image", "cat.png", "--auto-select"]
    assert capture(*argv, "attn:weights").code == 0
    assert "pictures" not in load(DOCUMENT).header
    argv = ["--model", checkpoints("llama"), "--prompt", "a", "--auto-select"]
    assert capture(*argv, "attn:weights").code == 0
    assert "pictures" not in load(DOCUMENT).header
