"""`pictures` of a document: what is believed of it, and which tokens its parts are."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import picture_files
import pytest
from browser import Layer, make_pages, random_weights, write_capture
from conftest import Run

from activations import ToolkitError, load
from activations.attention.stack import Stack, take
from activations.attention.weights import read_attention
from activations.document.picture import LARGEST

PATCHES = [f"r{row}c{column}" for row in range(2) for column in range(3)]
PIXELS = np.arange(4 * 6 * 3).reshape(4, 6, 3)
Change = Callable[[dict[str, Any]], Any]


def file_of(entry: dict[str, Any]) -> bytes:
    return base64.b64decode(entry["data"])


def text_of(data: bytes) -> dict[str, str]:
    return {"data": base64.b64encode(data).decode()}


def with_size(entry: dict[str, Any], width: int, height: int) -> dict[str, Any]:
    """A PNG file that says another size, as one that unfolds to gigabytes would."""
    data = file_of(entry)
    return {**entry, **text_of(data[:16] + struct.pack(">II", width, height) + data[24:])}


def frame_of(data: bytes) -> tuple[int, int]:
    """Where the part of a JPEG file that has its size begins and ends."""
    at = data.index(b"\xff\xc0")
    return at, at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def with_two_sizes(entry: dict[str, Any]) -> dict[str, Any]:
    data = file_of(entry)
    begin, end = frame_of(data)
    return {**entry, **text_of(data[:end] + data[begin:])}


def with_large_frame(entry: dict[str, Any]) -> dict[str, Any]:
    data = file_of(entry)
    begin, _ = frame_of(data)
    return {**entry, **text_of(data[: begin + 5] + b"\xff" * 4 + data[begin + 9 :])}


IMAGE: dict[str, Change] = {
    "another kind": lambda it: {**it, "kind": "video"},
    "another type": lambda it: {**it, "media_type": "image/svg+xml"},
    "the other type": lambda it: {**it, "media_type": "image/png"},
    "no file": lambda it: {**it, **text_of(b"<svg onload='hacked()'>")},
    "nothing": lambda it: {**it, "data": ""},
    "no base64": lambda it: {**it, "data": "<script>"},
    "no text": lambda it: {**it, "data": "é"},
    "a URL": lambda it: {**it, "data": "https://example.com/x.png"},
    "a large file": lambda it: {**it, **text_of(file_of(it) + b"\0" * LARGEST)},
    "cut short": lambda it: {**it, **text_of(file_of(it)[:20])},
    "two sizes": with_two_sizes,
    "many pixels": with_large_frame,
    "no start": lambda it: {k: v for k, v in it.items() if k != "start"},
    "before the start": lambda it: {**it, "start": -1},
    "true": lambda it: {**it, "start": True},
    "far away": lambda it: {**it, "start": 10**12},
    "no grid": lambda it: {**it, "grid": None},
    "an empty grid": lambda it: {**it, "grid": [0, 3]},
    "three sizes": lambda it: {**it, "grid": [1, 2, 3]},
    "half a patch": lambda it: {**it, "grid": [2.5, 3]},
    "seconds": lambda it: {**it, "seconds": 1},
    "no object": lambda it: [it],
}
SOUND: dict[str, Change] = {
    "no seconds": lambda it: {k: v for k, v in it.items() if k != "seconds"},
    "0 seconds": lambda it: {**it, "seconds": 0},
    "backwards": lambda it: {**it, "seconds": -0.02},
    "a text": lambda it: {**it, "seconds": "1"},
    "two rows": lambda it: {**it, "grid": [2, 3]},
    "wide": lambda it: with_size(it, 100_000, 100_000),
    "no width": lambda it: with_size(it, 0, 4),
}
ODD = [(picture_files.image(PIXELS, (2, 3)), change) for change in IMAGE.values()]
ODD += [(picture_files.sound(PIXELS[..., 0]), change) for change in SOUND.values()]


@pytest.mark.parametrize(("entry", "change"), ODD, ids=[*IMAGE, *SOUND])
def test_what_is_no_picture(
    entry: dict[str, Any], change: Change, workplace: Path, view: Run
) -> None:
    layers = [Layer(0, random_weights(0, 2, 6, 6))]
    write_capture(workplace / "d.json", layers, tokens=PATCHES, pictures=[entry])
    assert load("d.json").header["pictures"] == [entry]
    write_capture(workplace / "d.json", layers, tokens=PATCHES, pictures=[change(entry)])
    with pytest.raises(ToolkitError, match=r"'pictures'.*it must be a list of small JPEG or PNG"):
        load("d.json")
    done = view("--input", "d.json")
    assert done.code == 1
    assert len(done.err) == 1


def test_not_too_many(workplace: Path) -> None:
    entry = picture_files.image(PIXELS, (2, 3))
    layers = [Layer(0, random_weights(0, 2, 6, 6))]
    write_capture(workplace / "d.json", layers, tokens=PATCHES, pictures=[entry] * 9)
    with pytest.raises(ToolkitError, match="'pictures'"):
        load("d.json")


def test_keys_of_later_versions_are_let_be(workplace: Path) -> None:
    entry = {**picture_files.image(PIXELS, (2, 3)), "later": 1}
    layers = [Layer(0, random_weights(0, 2, 6, 6))]
    write_capture(workplace / "d.json", layers, tokens=PATCHES, pictures=[entry])
    (stack,) = read_attention(load("d.json"))
    assert stack.picture is not None


# -------------------------------------------------------------------------- which tokens it shows


def stacks(folder: Path, *layers: Layer, **header: Any) -> list[Stack]:
    write_capture(folder / "d.json", layers, **header)
    return read_attention(load(folder / "d.json"))


def test_patches_of_a_text(workplace: Path) -> None:
    entry = picture_files.image(PIXELS, (2, 3), start=1)
    weights = Layer(0, random_weights(0, 2, 9, 9))
    (stack,) = stacks(workplace, weights, tokens=["[CLS]", *PATCHES, "a", "b"], pictures=[entry])
    assert stack.first_part == 1
    assert stack.size == "9 tokens: 3 of text and 2 × 3 patches"
    for tokens, first in (((0, 7), 1), ((1, 9), 0), ((2, 9), None), ((0, 6), None)):
        (part,) = take([stack], tokens=tokens)
        assert part.first_part == first
    assert part.size == "6 tokens"


@pytest.mark.parametrize(
    ("special", "after", "words"),
    [
        (["[CLS]"], [], "7 tokens: [CLS] and 2 × 3 patches"),
        (["[CLS]", "[DIST]"], [], "8 tokens: [CLS], [DIST] and 2 × 3 patches"),
        ([], [], "2 × 3 patches"),
        (["[A]" * 20], [], "7 tokens: 1 of text and 2 × 3 patches"),
    ],
)
def test_in_words(special: list[str], after: list[str], words: str, workplace: Path) -> None:
    entry = picture_files.image(PIXELS, (2, 3), start=len(special))
    tokens = [*special, *PATCHES, *after]
    pages = make_pages(
        workplace / "made",
        [Layer(0, random_weights(0, 2, len(tokens)))],
        tokens=tokens,
        pictures=[entry],
    )
    assert f"Self: layer 0, 2 heads, {words}</dd>" in pages["head"].read_text("utf-8")


def test_a_sound_beside_a_text(workplace: Path) -> None:
    """Of an encoder, and of what attends to it from another text; not of that text itself."""
    layers = [
        Layer(0, random_weights(0, 2, 6, 6), "encoder"),
        Layer(0, random_weights(1, 2, 4, 6), "cross"),
        Layer(0, random_weights(2, 2, 4, 4), "decoder"),
    ]
    found = stacks(
        workplace,
        *layers,
        tokens=[f"{i / 50:.2f}s" for i in range(6)],
        decoder_tokens=list("abcd"),
        pictures=[picture_files.sound(PIXELS[..., 0])],
    )
    sizes = {stack.kind: (stack.first_part, stack.size) for stack in found}
    assert sizes == {
        "encoder": (0, "6 frames"),
        "cross": (0, "4 tokens × 6 frames"),
        "decoder": (None, "4 tokens"),
    }


def test_of_a_tower(workplace: Path) -> None:
    layers = [
        Layer(0, random_weights(0, 2, 3), "text"),
        Layer(0, random_weights(1, 2, 7), "vision"),
    ]
    entry = picture_files.image(PIXELS, (2, 3), 1, tokens="vision_tokens")
    tokens = {"tokens": list("abc"), "vision_tokens": ["[CLS]", *PATCHES]}
    found = stacks(workplace, *layers, **tokens, pictures=[entry])
    assert {s.kind: s.first_part for s in found} == {"text": None, "vision": 1}


@pytest.mark.parametrize("count", [5, 7])
def test_a_picture_of_other_tokens(count: int, workplace: Path) -> None:
    """Where the document's tokens are not the columns, or too few, nothing is shown over it."""
    entry = picture_files.image(PIXELS, (2, 3), start=0)
    names = PATCHES if count == 7 else PATCHES[:5]
    (stack,) = stacks(
        workplace, Layer(0, random_weights(0, 2, count)), tokens=names, pictures=[entry]
    )
    assert stack.first_part is None
    assert stack.size == f"{count} tokens"


def test_pages_carry_a_picture_once(workplace: Path) -> None:
    layers = [Layer(i, random_weights(i, 2, 6), kind) for i, kind in enumerate(("self", "text"))]
    entry = picture_files.image(PIXELS, (2, 3))
    pages = make_pages(workplace / "made", layers, tokens=PATCHES, pictures=[entry])
    for page in pages.values():
        text = page.read_text("utf-8")
        assert text.count(json.dumps(entry["data"])) == 1
        assert text.count('"picture":{"index":0,"first":0}') == 2
