"""A head over the picture that the model read, in Chromium: what is bright is what gets attention.

Everything is read back from the pixels of the canvases, or from the words beside them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import picture_files
import pytest
from browser import Layer, Tab, make_pages, random_weights
from conftest import Open
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

ROWS, COLUMNS = 3, 4
PATCHES = [f"r{row}c{column}" for row in range(ROWS) for column in range(COLUMNS)]
IMAGE = "#picture canvas[role=application]"
SAID = "#picture p >> nth=0"  # what is shown
HEADS = "#picture .picture-heads button"
SHADOW, DARKEST = np.array([11, 13, 16]), 0.82
GREY = 200  # of the whole image
SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])


def attention(seed: int, heads: int, rows: int, columns: int | None = None) -> np.ndarray:
    return random_weights(seed, heads, rows, columns, causal=False)


def image_pages(
    folder: Path, layers: list[Layer], start: int = 1, **header: Any
) -> dict[str, Path]:
    pixels = np.full((ROWS * 20, COLUMNS * 20, 3), GREY)
    entry = picture_files.image(pixels, (ROWS, COLUMNS), start)
    tokens = {"tokens": ["[CLS]", *PATCHES], **header}
    return make_pages(folder, layers, **tokens, image="cat.png", pictures=[entry])


def ready(tab: Tab) -> Tab:
    expect(tab.page.locator("#picture h2").first).to_be_visible()
    return tab


def pixels(tab: Tab, selector: str, index: int = 0) -> np.ndarray:
    """The canvas as (height, width, 3) bytes."""
    url = tab.page.evaluate(
        "([selector, index]) => document.querySelectorAll(selector)[index].toDataURL()",
        [selector, index],
    )
    return picture_files.decoded({"media_type": "image/png", "data": url.partition(",")[2]})[
        ..., :3
    ]


def patches(tab: Tab, selector: str = IMAGE, index: int = 0) -> np.ndarray:
    """The middle of each patch, (rows, columns, 3)."""
    shown = pixels(tab, selector, index)
    down, right = (
        ((np.arange(count) + 0.5) * size / count).astype(int)
        for count, size in ((ROWS, shown.shape[0]), (COLUMNS, shown.shape[1]))
    )
    return shown[down][:, right]


def shaded(weights: np.ndarray) -> np.ndarray:
    """What a grey image looks like under the weights of its patches."""
    shown = weights.round(4).reshape(ROWS, COLUMNS, 1)
    dark = DARKEST * (1 - np.sqrt(shown / shown.max()))
    return GREY * (1 - dark) + SHADOW * dark


def centre(part: int, box: dict[str, float]) -> tuple[float, float]:
    row, column = divmod(part, COLUMNS)
    return (
        box["x"] + (column + 0.5) * box["width"] / COLUMNS,
        box["y"] + (row + 0.5) * box["height"] / ROWS,
    )


def box_of(tab: Tab, selector: str) -> dict[str, float]:
    found = tab.page.locator(selector).first.bounding_box()
    assert found is not None
    return dict(found)


# ------------------------------------------------------------------------------------------ images


@SCHEMES
def test_dark_where_the_weight_is_low(scheme: str, tmp_path: Path, open_page: Open) -> None:
    """[CLS] first; then each patch when it is clicked, with a frame of white around it."""
    layer = Layer(0, attention(0, 2, 13))
    page = image_pages(tmp_path, [layer])["head"]
    tab = ready(open_page(page, "#layer=0&head=1", color_scheme=scheme))
    assert np.abs(patches(tab) - shaded(layer.weights[1, 0, 1:])).max() < 4
    assert tab.read(SAID).startswith("From [CLS]. Bright")
    for part in (0, 6, 11):
        tab.page.mouse.click(*centre(part, box_of(tab, IMAGE)))
        tab.page.mouse.move(0, 0)  # it is kept
        assert tab.read(SAID).startswith(f"From patch {PATCHES[part]}.")
        assert np.abs(patches(tab) - shaded(layer.weights[1, 1 + part, 1:])).max() < 4
        whole = pixels(tab, IMAGE)
        row, column = divmod(part, COLUMNS)
        high, wide = whole.shape[0] // ROWS, whole.shape[1] // COLUMNS
        own = whole[row * high : (row + 1) * high, column * wide : (column + 1) * wide]
        assert (own == 255).all(-1).sum() > 2 * (high + wide)
        whole[row * high : (row + 1) * high, column * wide : (column + 1) * wide] = 0
        assert not (whole == 255).all(-1).any()


def test_pointing_is_let_go_of(tmp_path: Path, open_page: Open) -> None:
    layer = Layer(0, attention(0, 2, 13))
    tab = ready(open_page(image_pages(tmp_path, [layer])["head"], "#layer=0&head=0"))
    tab.page.mouse.move(*centre(5, box_of(tab, IMAGE)))
    assert np.abs(patches(tab) - shaded(layer.weights[0, 6, 1:])).max() < 4
    tab.page.mouse.move(0, 0)
    assert np.abs(patches(tab) - shaded(layer.weights[0, 0, 1:])).max() < 4


def test_arrow_keys_go_from_patch_to_patch(tmp_path: Path, open_page: Open) -> None:
    layer = Layer(0, attention(0, 2, 13))
    tab = ready(open_page(image_pages(tmp_path, [layer])["head"], "#layer=0&head=0"))
    tab.page.locator(IMAGE).focus()
    places = [("ArrowUp", "r1c2"), ("ArrowRight", "r1c3"), ("ArrowRight", "r1c3")]
    places += [("ArrowDown", "r2c3"), ("ArrowDown", "r2c3"), ("ArrowLeft", "r2c2")]
    for key, name in places:
        tab.page.keyboard.press(key)
        assert tab.read(SAID).startswith(f"From patch {name}.")
    weights = layer.weights[0, 1 + PATCHES.index("r2c2"), 1:]
    best = PATCHES[int(weights.argmax())]
    words = tab.read("#picture [role=status]")
    assert words.startswith(f"r2c2 looks most at {best}, ")
    assert abs(float(words.split()[-1]) - weights.max()) < 0.0006
    assert np.abs(patches(tab) - shaded(weights)).max() < 4
    tab.page.get_by_role("button", name="From [CLS]").press("Enter")
    assert tab.read(SAID).startswith("From [CLS].")


def test_what_a_patch_looks_at_most(tmp_path: Path, open_page: Open) -> None:
    """The strongest, what is left, and the token that is no patch: all of the row."""
    layer = Layer(0, attention(3, 2, 13))
    tab = ready(open_page(image_pages(tmp_path, [layer])["head"], "#layer=0&head=0"))
    part = 7
    tab.page.mouse.click(*centre(part, box_of(tab, IMAGE)))
    weights = layer.weights[0, 1 + part]
    order = np.argsort(-weights[1:], kind="stable")[:6]
    names = ["itself" if i == part else PATCHES[i] for i in order]
    tab.reads("#picture > div > div:last-child h2", f"{PATCHES[part]} looks at")
    lines = tab.read("#picture .picture-list").split("\n")
    assert lines[:12:2] == names
    assert lines[12:16:2] == ["6 other patches", "[CLS]"]
    shown = np.array(lines[1:16:2], float)
    assert np.abs(shown[:6] - weights[1 + order]).max() < 0.0006
    others = weights[1:].sum() - weights[1 + order].sum()
    assert np.abs(shown[6:] - [others, weights[0]]).max() < 0.0012
    widths = tab.page.evaluate(
        "Array.from(document.querySelectorAll('.picture-list i:not([hidden])'),"
        " e => parseFloat(e.style.getPropertyValue('--share')))"
    )
    assert widths == pytest.approx(100 * weights[1 + order] / weights[1:].max(), abs=0.2)


def test_the_same_patch_in_every_head(tmp_path: Path, open_page: Open) -> None:
    layer = Layer(0, attention(0, 3, 13))
    tab = ready(open_page(image_pages(tmp_path, [layer])["head"], "#layer=0&head=1"))
    tab.page.mouse.click(*centre(6, box_of(tab, IMAGE)))
    tab.page.mouse.move(0, 0)
    assert tab.texts(f"{HEADS} span") == ["Head 0", "Head 1", "Head 2"]
    for head in (0, 2):
        small = [patches(tab, f"{HEADS} canvas", head)[1, c] for c in (0, 1, 3)]
        expected = shaded(layer.weights[head, 7, 1:])[1, [0, 1, 3]]
        assert np.abs(np.array(small) - expected).max() < 6
    assert [v for (v,) in tab.attributes(HEADS, "aria-pressed")] == ["false", "true", "false"]
    tab.page.locator(HEADS).nth(2).click()
    tab.reads("#picture h2 >> nth=0", "Layer 0, Head 2")
    assert tab.read(SAID).startswith("From patch r1c2.")  # which was kept
    assert np.abs(patches(tab) - shaded(layer.weights[2, 7, 1:])).max() < 4


def test_words_look_at_an_image_inside_their_text(tmp_path: Path, open_page: Open) -> None:
    """Its tokens have one name, and are called by their places; the last word is shown first."""
    layer = Layer(0, attention(0, 2, 15))
    tokens = ["a", *["<image>"] * 12, "red", "cat"]
    page = image_pages(tmp_path, [layer], tokens=tokens)["head"]
    tab = ready(open_page(page, "#layer=0&head=0"))
    assert tab.read(SAID).startswith("From cat.")
    assert np.abs(patches(tab) - shaded(layer.weights[0, 14, 1:13])).max() < 4
    tab.page.get_by_role("button", name="From red").click()
    assert np.abs(patches(tab) - shaded(layer.weights[0, 13, 1:13])).max() < 4
    tab.page.mouse.click(*centre(3, box_of(tab, IMAGE)))
    assert tab.read(SAID).startswith("From patch r0c3.")


def test_words_of_several_tokens_before_an_image(tmp_path: Path, open_page: Open) -> None:
    """Merged, they move the patches to other columns, and the mean of their rows is shown."""
    layer = Layer(0, attention(0, 1, 15))
    tokens = ["ham", "##ster", *["<image>"] * 12, "red"]
    page = image_pages(tmp_path, [layer], start=2, tokens=tokens)["head"]
    tab = ready(open_page(page, "#layer=0&head=0&words=1"))
    assert np.abs(patches(tab) - shaded(layer.weights[0, 14, 2:14])).max() < 4
    tab.page.get_by_role("button", name="From hamster").click()
    assert np.abs(patches(tab) - shaded(layer.weights[0, :2, 2:14].mean(0))).max() < 4


def test_a_decoders_words_over_an_image(tmp_path: Path, open_page: Open) -> None:
    """No patch attends: pointing at one says its weight, arrow keys go through the words."""
    layers = [Layer(0, attention(0, 2, 13), "encoder"), Layer(0, attention(1, 2, 3, 13), "cross")]
    pages = image_pages(tmp_path, layers, decoder_tokens=["<s>", "A", "cat"])
    tab = ready(open_page(pages["head"], "#layer=0&head=1&attention=1"))
    assert tab.read(SAID).startswith("From cat.")
    tab.page.mouse.move(*centre(5, box_of(tab, IMAGE)))
    name, weight = str(tab.page.locator(IMAGE).get_attribute("title")).split(": ")
    assert name == "r1c1"
    assert abs(float(weight) - layers[1].weights[1, 2, 6]) < 0.0006
    assert tab.read(SAID).startswith("From cat.")
    tab.page.locator(IMAGE).press("ArrowUp")
    assert tab.read(SAID).startswith("From A.")
    assert np.abs(patches(tab) - shaded(layers[1].weights[1, 1, 1:])).max() < 4


def test_only_the_last_tokens_attend(tmp_path: Path, open_page: Open) -> None:
    """As in a step of a generation: only patches that are rows can be chosen."""
    layer = Layer(0, attention(0, 2, 3, 13))
    tab = ready(open_page(image_pages(tmp_path, [layer])["head"], "#layer=0&head=0"))
    assert tab.read(SAID).startswith("From patch r2c1.")
    tab.page.mouse.click(*centre(11, box_of(tab, IMAGE)))
    assert tab.read(SAID).startswith("From patch r2c3.")
    assert np.abs(patches(tab) - shaded(layer.weights[0, 2, 1:])).max() < 4
    tab.page.mouse.click(*centre(3, box_of(tab, IMAGE)))
    assert tab.read(SAID).startswith("From patch r2c3.")


def test_rows_that_are_no_numbers(tmp_path: Path, open_page: Open) -> None:
    weights = attention(0, 2, 13)
    weights[0, 0] = np.nan
    tab = ready(open_page(image_pages(tmp_path, [Layer(0, weights)])["head"], "#layer=0&head=0"))
    assert tab.read(SAID) == "From [CLS]. These weights are no numbers."
    assert tab.page.locator("#picture .picture-list div").count() == 0


def test_the_mean_and_without_the_first_token(tmp_path: Path, open_page: Open) -> None:
    layer = Layer(0, attention(0, 2, 13))
    tab = ready(open_page(image_pages(tmp_path, [layer])["head"], "#layer=0&head=average"))
    tab.reads("#picture h2 >> nth=0", "Layer 0, mean of the heads")
    assert tab.page.locator(HEADS).count() == 0
    assert np.abs(patches(tab) - shaded(layer.weights.mean(0)[0, 1:])).max() < 4
    tab.page.locator("#without-first").check()
    tab.drawn()
    expect(tab.page.locator("#picture p").first).to_contain_text("From patch")


# ------------------------------------------------------------------------------------------ sounds

FRAMES = 400
WORDS = ["<s>", "The", "cat", "</s>"]
OVER = "#picture .picture-sound > canvas >> nth=1"
MATRIX = "#picture canvas[role=application]"
STRIP = "#picture canvas[role=slider]"


def peaks(frames: list[int]) -> np.ndarray:
    """Rows each of which has half of its attention on one frame, and the rest around it."""
    apart = np.abs(np.subtract.outer(np.array(frames), np.arange(FRAMES)))
    weights = np.exp(-apart / 2.0)
    return np.asarray(weights / weights.sum(-1, keepdims=True), np.float32)


def sound_pages(folder: Path, frames: list[int] | None = None) -> dict[str, Path]:
    """Sound from frame 20 to 100 of 400; each is 20 ms."""
    bands = np.zeros((10, FRAMES))
    bands[5:, 20:100] = 255
    cross = np.stack([peaks(frames or [0, 30, 60, 90]), peaks([5, 6, 7, 8])])
    layers = [Layer(0, attention(0, 2, FRAMES), "encoder"), Layer(1, cross, "cross")]
    names = [f"{i / 50:.2f}s" for i in range(FRAMES)]
    sound = picture_files.sound(bands)
    return make_pages(
        folder, layers, tokens=names, decoder_tokens=WORDS, audio="a.wav", pictures=[sound]
    )


def window(tab: Tab) -> tuple[float, float]:
    """The seconds that are shown."""
    ((text,),) = tab.attributes(STRIP, "aria-valuetext")
    start, end = str(text).removesuffix(" s").split(" to ")
    return float(start), float(end)


def peak_of_curve(tab: Tab) -> float:
    """The second at which the curve over the sound is highest; head 0 is blue."""
    shown = pixels(tab, "#picture .picture-sound > canvas", 1).astype(int)
    is_curve = (np.abs(shown - (31, 119, 180)).sum(-1) < 40)[18:]
    height = np.where(is_curve.any(0), is_curve.argmax(0), 1000)
    start, end = window(tab)
    best = np.flatnonzero(height == height.min()).mean() + 0.5
    return float(start + best / len(height) * (end - start))


def test_a_window_on_the_part_with_sound(tmp_path: Path, open_page: Open) -> None:
    tab = ready(open_page(sound_pages(tmp_path)["head"], "#layer=1&head=0&attention=1"))
    start, end = window(tab)
    assert 0.2 < start <= 0.4
    assert 2.0 <= end < 3.0
    tab.page.get_by_role("button", name="All 8 s").click()
    assert window(tab) == (0, 8)
    tab.page.get_by_role("button", name="Zoom to sound").click()
    assert window(tab) == (start, end)
    strip = tab.page.locator(STRIP)
    strip.press("ArrowRight")
    assert window(tab)[0] == pytest.approx(start + (end - start) / 4, abs=0.01)
    strip.press("+")
    assert window(tab)[1] - window(tab)[0] == pytest.approx((end - start) / 1.5, abs=0.02)
    strip.press("Home")
    assert window(tab) == (0, 8)


def test_the_curve_peaks_where_the_row_looks(tmp_path: Path, open_page: Open) -> None:
    tab = ready(open_page(sound_pages(tmp_path)["head"], "#layer=1&head=0&attention=1"))
    for row, frame in ((1, 30), (2, 60), (3, 90)):
        tab.page.locator("#picture .picture-rows > div").nth(row).click()
        tab.page.mouse.move(0, 0)
        assert peak_of_curve(tab) == pytest.approx((frame + 0.5) * 0.02, abs=0.012)
        lines = tab.read("#picture .picture-facts").split("\n")
        assert lines[:2] == ["Looks most at", f"{frame * 0.02:.2f} s"]
        assert lines[2:4] == ["Weight there", f"{peaks([frame])[0, frame]:.2f}"]
        assert tab.read("#picture > h2") == WORDS[row]
        current = [v for (v,) in tab.attributes(".picture-rows > div", "aria-current")]
        assert current == [str(i == row).lower() for i in range(4)]


@SCHEMES
def test_rows_and_sound_on_one_axis(scheme: str, tmp_path: Path, open_page: Open) -> None:
    """The strongest pixel of each row, and the edges of the sound, are where their frames are."""
    page = sound_pages(tmp_path)["head"]
    tab = ready(open_page(page, "#layer=1&head=0&attention=1", color_scheme=scheme))
    tab.page.get_by_role("button", name="All 8 s").click()
    matrix = pixels(tab, MATRIX).astype(int)
    paper = np.array((255, 255, 255) if scheme == "light" else (22, 24, 28))
    width = matrix.shape[1]
    for row, frame in enumerate([0, 30, 60, 90]):
        line = np.abs(matrix[row * 24 + 12, 3 : width - 3] - paper).sum(-1)
        best = 3 + np.flatnonzero(line == line.max())
        assert frame - 1 <= best.mean() * FRAMES / width <= frame + 2
        assert line[width // 2 :].max() == 0  # no attention is the paper's own colour
    over, strip = (pixels(tab, ".picture-sound > canvas", i).astype(int) for i in (1, 0))
    for whole, low in ((over, 60), (strip, 20)):
        seen = np.abs(whole[:, 4:-4] - paper).sum(-1) > 200
        edges = (4 + np.flatnonzero(seen[low])[[0, -1]]) * FRAMES / width
        assert edges == pytest.approx([20, 100], abs=2)
    assert not seen[8].any()  # low bands are at the bottom


def test_keys_choose_a_row_of_a_sound(tmp_path: Path, open_page: Open) -> None:
    tab = ready(open_page(sound_pages(tmp_path)["head"], "#layer=1&head=0&attention=1"))
    tab.page.locator(MATRIX).focus()
    tab.page.keyboard.press("ArrowDown")
    tab.reads("#picture [role=status]", "cat looks most at 1.20 s")
    for _ in range(3):
        tab.page.keyboard.press("ArrowUp")
    tab.reads("#picture [role=status]", "<s> looks most at 0.00 s")
    before = window(tab)
    tab.page.keyboard.press("ArrowRight")
    assert window(tab)[0] > before[0]


def test_frames_that_look_at_frames(tmp_path: Path, open_page: Open) -> None:
    """24 rows at once; a click on the sound chooses the frame that is there."""
    tab = ready(open_page(sound_pages(tmp_path)["head"], "#layer=0&head=0"))
    tab.page.get_by_role("button", name="All 8 s").click()
    assert tab.page.locator(".picture-rows > div").count() == 24
    box = box_of(tab, OVER)
    tab.page.mouse.click(box["x"] + box["width"] * 300.5 / FRAMES, box["y"] + 60)
    tab.reads("#picture > h2", "6.00 s")
    assert "6.00 s" in tab.texts(".picture-rows bdi")
    tab.page.get_by_role("button", name="Later rows").last.click()
    assert "6.00 s" not in tab.texts(".picture-rows bdi")


# ------------------------------------------------------------------------------------- any picture


def test_where_there_is_none(tmp_path: Path, open_page: Open) -> None:
    """All heads at once, another attention, part of the patches, or a document without any."""
    pages = image_pages(tmp_path / "a", [Layer(0, attention(0, 2, 13))])
    tab = open_page(pages["head"], "#layer=0&head=all")
    expect(tab.page.locator("#picture")).to_be_hidden()
    tab.page.get_by_role("button", name="Head 1", exact=True).dblclick()
    expect(tab.page.locator("#picture")).to_be_visible()
    tab.page.locator("#all-heads").click()
    expect(tab.page.locator("#picture")).to_be_hidden()
    sound = open_page(sound_pages(tmp_path / "b")["head"], "#layer=1&head=0&attention=1")
    expect(sound.page.locator("#picture")).to_be_visible()
    plain = make_pages(tmp_path / "c", [Layer(0, attention(0, 2, 13))])
    tab = open_page(plain["head"], "#layer=0&head=0")
    expect(tab.page.locator("#picture")).to_be_hidden()
    part = make_pages(
        tmp_path / "d",
        [Layer(0, attention(0, 2, 12))],
        "--tokens",
        "0:11",
        tokens=PATCHES,
        pictures=[picture_files.image(np.zeros((30, 40, 3)), (ROWS, COLUMNS))],
    )
    tab = open_page(part["head"], "#layer=0&head=0")
    expect(tab.page.locator("#picture")).to_be_hidden()
    assert "data" not in tab.page.evaluate("JSON.stringify(Page.pictures)")


def test_the_model_view_has_it_too(tmp_path: Path, open_page: Open) -> None:
    layer = Layer(0, attention(0, 2, 13))
    tab = ready(open_page(image_pages(tmp_path, [layer])["model"], "#layer=0&head=1"))
    assert np.abs(patches(tab) - shaded(layer.weights[1, 0, 1:])).max() < 4


def test_a_damaged_picture(tmp_path: Path, open_page: Open) -> None:
    """Its first bytes are as they should be, the others not."""
    entry = picture_files.image(np.zeros((30, 40, 3)), (ROWS, COLUMNS))
    entry["data"] = entry["data"][: len(entry["data"]) // 8 * 4 // 4 * 4]
    page = make_pages(tmp_path, [Layer(0, attention(0, 2, 12))], tokens=PATCHES, pictures=[entry])[
        "head"
    ]
    tab = open_page(page, "#layer=0&head=0")
    expect(tab.page.locator("#picture")).to_be_visible()


@pytest.mark.parametrize("width", [390, 1280])
def test_fits_the_window(width: int, tmp_path: Path, open_page: Open) -> None:
    for name, pages, address in (
        ("image", image_pages(tmp_path / "a", [Layer(0, attention(0, 12, 13))]), "#layer=0&head=0"),
        ("sound", sound_pages(tmp_path / "b"), "#layer=1&head=0&attention=1"),
    ):
        tab = ready(open_page(pages["head"], address))
        tab.resize(width)
        box = box_of(tab, "#picture")
        assert box["x"] + box["width"] <= width, name
        sizes = tab.page.evaluate(
            "Array.from(document.querySelectorAll('#picture canvas'),"
            " e => e.getBoundingClientRect().right)"
        )
        assert max(sizes) <= width, name
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= width, name


@SCHEMES
@pytest.mark.parametrize("kind", ["image", "sound"])
def test_accessibility(kind: str, scheme: str, tmp_path: Path, open_page: Open) -> None:
    from axe_playwright_python.base import AXE_FILE_PATH

    if kind == "image":
        page, address = image_pages(tmp_path, [Layer(0, attention(0, 3, 13))]), "#layer=0&head=1"
    else:
        page, address = sound_pages(tmp_path), "#layer=1&head=0&attention=1"
    tab = ready(open_page(page["head"], address, color_scheme=scheme))
    tab.page.evaluate(AXE_FILE_PATH.read_text(encoding="utf-8"))
    violations = tab.page.evaluate("axe.run('#picture').then(r => r.violations)")
    found = [(rule["id"], [node["html"][:120] for node in rule["nodes"]]) for rule in violations]
    assert found == []
