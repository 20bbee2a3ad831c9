"""Pages of long texts: the matrix to zoom into, the window of lines, and where the rest went."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import (
    TITLE,
    Layer,
    Open,
    Tab,
    expected_lines,
    head_view_lines,
    make_pages,
    random_weights,
    write_capture,
)
from playwright.sync_api import expect

import bertviz_head_model_view
from activations.document.format import FORMAT
from activations.document.writer import write_document
from activations.outputs.sparse import keep_above

pytestmark = pytest.mark.browser

LEFT, RIGHT, CANVAS = "#vis #left text", "#vis #right text", "#heat canvas"
MARGINS = {"left": 84, "top": 8, "right": 4, "bottom": 66}  # of the matrix, in pixels
OPENED = "() => Weights && document.querySelector('#head-vis .detail title') !== null"
Part = tuple[float, float, float, float]  # top, bottom, left, right


def peaked(seed: int, heads: int, rows: int, columns: int | None = None) -> np.ndarray:
    """Weights of which few are large, and head 1 looks at the token before."""
    scores = np.random.default_rng(seed).normal(0, 4, (heads, rows, columns or rows))
    if columns is None:
        scores[1 % heads] += 12 * np.eye(rows, k=-1)
        scores[:, *np.triu_indices(rows, 1)] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)


def sparse_pages(folder: Path, weights: np.ndarray, above: float, *flags: str) -> dict[str, Path]:
    """The pages of one layer captured with --keep-above, made by the command."""
    name, tokens = "model.layers.0.attn", [f"t{i}" for i in range(weights.shape[1])]
    place = {"module": name, "element": [1], "layer": 0, "kind": "self"}
    header = {"format": FORMAT, "model": "m", "prompt": "p", "tokens": tokens}
    header |= {"attention_weights": [place], "keep_above": above}
    outputs = {"attention": {name: [None, keep_above(weights[None], above)]}}
    write_document(folder / "capture.json", header, outputs)
    command = ["--input", str(folder / "capture.json"), "--output-dir", str(folder / "pages")]
    assert bertviz_head_model_view.main([*command, "--quiet", *flags]) == 0
    return {page.name.split("_")[1]: page for page in (folder / "pages").iterdir()}


# ---------------------------------------------------------------------------------- what is in view


def in_view(tab: Tab) -> Part:
    top, bottom, left, right = map(float, str(tab.attributes(CANVAS, "data-view")[0][0]).split(","))
    return top, bottom, left, right


def place_of(tab: Tab, row: int, column: int) -> tuple[float, float]:
    """Where in the window a cell of the matrix is."""
    tab.page.locator(CANVAS).scroll_into_view_if_needed()
    box = tab.page.locator(CANVAS).bounding_box()
    assert box
    wide = box["width"] - MARGINS["left"] - MARGINS["right"]
    high = box["height"] - MARGINS["top"] - MARGINS["bottom"]
    top, bottom, left, right = in_view(tab)
    return (
        box["x"] + MARGINS["left"] + (column + 0.5 - left) / (right - left) * wide,
        box["y"] + MARGINS["top"] + (row + 0.5 - top) / (bottom - top) * high,
    )


def cell(tab: Tab, row: int, column: int) -> str:
    """What the page says of a cell that is pointed at."""
    tab.page.mouse.move(*place_of(tab, row, column))
    return tab.read("#cell")


def zoom_to(tab: Tab, row: int, column: int, times: int = 12) -> None:
    """Turn the wheel over a cell, until only a few are seen."""
    for _ in range(times):
        tab.page.mouse.move(*place_of(tab, row, column))
        tab.page.mouse.wheel(0, -300)
        tab.wait(f"() => true && {_painted()}")


def _painted() -> str:
    return "new Promise(done => requestAnimationFrame(() => setTimeout(() => done(true))))"


def lines_of(weights: np.ndarray, head: int, rows: range, columns: range) -> dict[object, float]:
    part = weights[head : head + 1, rows.start : rows.stop, columns.start : columns.stop]
    return {(head, r, c): weight for (_, r, c), weight in expected_lines(part).items()}


# ------------------------------------------------------------------------------------------- tests


@pytest.fixture
def weights() -> np.ndarray:
    return peaked(0, 3, 300)


def test_lines_of_the_rows_in_view(weights: np.ndarray, tmp_path: Path, open_page: Open) -> None:
    tab = open_page(make_pages(tmp_path, [Layer(0, weights)])["head"], "#")
    assert tab.pressed() == [False, True, False]  # the head that looks at the token before

    def shows(first: int, count: int) -> None:
        rows = range(first, first + count)
        tab.reads("#window-range", f"{first}–{rows.stop - 1} of 300")
        tab.drawn()
        assert tab.texts(LEFT) == tab.texts(RIGHT) == [f"t{i}" for i in rows]
        assert head_view_lines(tab) == lines_of(weights, 1, rows, rows)

    shows(0, 32)
    assert tab.hash() == "#layer=0&head=1"
    tab.button("Later rows").click()
    shows(16, 32)
    tab.button("Later rows").click()
    shows(32, 32)
    assert tab.hash() == "#layer=0&head=1&row=48"  # in the middle
    tab.button("Earlier rows").click()
    shows(16, 32)
    tab.choose("#window-rows", "48")
    shows(16, 48)
    assert tab.hash() == "#layer=0&head=1&row=40&rows=48"
    tab.page.reload()
    shows(16, 48)
    for address, first, count in (("row=200", 184, 32), ("row=299&rows=16", 284, 16)):
        tab.page.evaluate("to => { location.hash = to; }", f"#layer=0&head=1&{address}")
        shows(first, count)
    expect(tab.button("Later rows")).to_be_disabled()
    tab.page.evaluate("location.hash = '#row=300'")
    tab.reads("#address-note", "The address names row 300, which this page does not have.")
    shows(0, 32)
    expect(tab.button("Earlier rows")).to_be_disabled()


@pytest.mark.parametrize("above", [None, 0.01])
def test_where_each_row_goes(
    above: float | None, weights: np.ndarray, tmp_path: Path, open_page: Open
) -> None:
    if above is None:
        pages = make_pages(tmp_path, [Layer(0, weights)])
    else:
        pages = sparse_pages(tmp_path, weights, above)
    tab = open_page(pages["head"], "#layer=0&head=2&row=116")
    said = tab.page.evaluate(
        "[...document.querySelectorAll('#row-bars title')].map(e => e.textContent)"
    )
    parts = [[float(n) for n in re.findall(r"[\d.]+", each)] for each in said]
    least = above or 0.00005
    kept = np.where(weights[2] > least, weights[2], 0)
    rows = slice(100, 132)
    shown = kept[rows, rows].sum(1)
    expected = [shown, kept[rows].sum(1) - shown, weights[2, rows].sum(1) - kept[rows].sum(1)]
    assert np.allclose(parts, np.transpose(expected), atol=0.002)
    names = [re.sub(r"[\d.]+", "N", each) for each in said]
    assert names == ["in view N, elsewhere N, left out N"] * 32
    # The same as numbers, with the tokens that are out of view as ways to them.
    tab.page.locator(LEFT).nth(20).hover()
    assert tab.read("#readout p") == "t120 (token 120) attends to"
    strongest = np.sort(weights[2, 120])[::-1][:12].round(4)
    read = [int(name.removeprefix("t")) for name in tab.texts("#readout .token")[1:]]
    assert np.allclose(weights[2, 120, read], strongest[strongest > least], atol=6e-5)
    assert "in view" in tab.read("#readout .rest")
    assert ("left out" in tab.read("#readout .rest")) == (above is not None)
    far = next(c for c in read if c < 100)
    tab.page.locator("#readout").get_by_role("button", name=f"t{far}", exact=True).click()
    tab.wait(
        f"() => [...document.querySelectorAll('{LEFT}')].some(e => e.firstChild.data === 't{far}')"
    )


@pytest.mark.parametrize("above", [None, 0.01])
def test_any_cell_can_be_read(
    above: float | None, weights: np.ndarray, tmp_path: Path, open_page: Open
) -> None:
    if above is None:
        pages = make_pages(tmp_path, [Layer(0, weights)])
    else:
        pages = sparse_pages(tmp_path, weights, above)
    tab = open_page(pages["model"], "#layer=0&head=0")
    tab.wait(OPENED)
    assert in_view(tab) == (0, 300, 0, 300)
    row = 250
    large, small = int(weights[0, row].argmax()), int(weights[0, row, : row + 1].argmin())
    zoom_to(tab, row, large)
    top, bottom, left, right = in_view(tab)
    assert bottom - top == pytest.approx(right - left) == 8
    assert top < row < bottom
    assert left < large < right
    number = re.fullmatch(
        rf"t{row} \({row}\) to t{large} \({large}\): ([\d.]+)", cell(tab, row, large)
    )
    assert number
    assert float(number[1]) == pytest.approx(float(weights[0, row, large]), abs=6e-5)
    tab.page.keyboard.press("Home")  # the focus is not there: nothing happens
    tab.page.locator(CANVAS).focus()
    tab.page.keyboard.press("Home")
    tab.wait(f"() => document.querySelector('{CANVAS}').dataset.view.startsWith('0.00,300.00')")
    zoom_to(tab, row, small)
    said = cell(tab, row, small)
    assert said == f"t{row} ({row}) to t{small} ({small}): {'0.01 or less' if above else '0'}"


def test_ways_of_moving_in_the_matrix(weights: np.ndarray, tmp_path: Path, open_page: Open) -> None:
    tab = open_page(make_pages(tmp_path, [Layer(0, weights)])["head"], "#")
    canvas = tab.page.locator(CANVAS)
    canvas.focus()
    tab.page.keyboard.press("+")
    top, bottom, left, right = in_view(tab)
    assert (top, bottom, left, right) == (50, 250, 50, 250)  # 200 of 300, about the middle
    for key, moved in (
        ("ArrowDown", (100, 300, 50, 250)),
        ("ArrowDown", (100, 300, 50, 250)),  # it ends there
        ("ArrowRight", (100, 300, 100, 300)),
        ("ArrowUp", (50, 250, 100, 300)),
        ("ArrowLeft", (50, 250, 50, 250)),
        ("-", (0, 300, 0, 300)),
        ("-", (0, 300, 0, 300)),
    ):
        tab.page.keyboard.press(key)
        assert in_view(tab) == moved, key
    tab.button("Zoom in").click()
    x, y = place_of(tab, 150, 150)
    wide = (place_of(tab, 150, 200)[0] - x) / 50  # pixels a token
    tab.page.mouse.move(x, y)
    tab.page.mouse.down()
    tab.page.mouse.move(x + 40 * wide, y - 20 * wide, steps=8)
    tab.page.mouse.up()
    assert np.allclose(in_view(tab), (70, 270, 10, 210), atol=1.5)
    before = tab.hash()
    tab.button("All of it").click()
    assert in_view(tab) == (0, 300, 0, 300)
    # Two fingers that part from each other.
    x, y = place_of(tab, 150, 150)
    canvas.evaluate(
        """(canvas, [x, y]) => {
            const send = (type, pointerId, dx) => canvas.dispatchEvent(new PointerEvent(type, {
                pointerId, clientX: x + dx, clientY: y, bubbles: true, pointerType: 'touch' }));
            canvas.setPointerCapture = () => {};  // no finger is really down
            send('pointerdown', 1, -20); send('pointerdown', 2, 20);
            send('pointermove', 1, -30); send('pointermove', 2, 30);
            send('pointerup', 1, -30); send('pointerup', 2, 30);
        }""",
        [x, y],
    )
    assert np.allclose(in_view(tab), (50, 250, 50, 250), atol=3)
    assert tab.hash() == before  # none of this moved the lines
    # A click does: they are of the rows there.
    tab.page.mouse.click(*place_of(tab, 200, 190))
    tab.reads("#window-range", "184–215 of 300")
    tab.drawn()
    assert tab.read("#readout p") == "t200 (token 200) attends to"


def shades_at(tab: Tab, places: list[tuple[float, float]]) -> Iterator[float]:
    """How far the colour of the canvas is from its paper, at these places of the window."""
    got = tab.page.locator(CANVAS).evaluate(
        """(canvas, places) => {
            const box = canvas.getBoundingClientRect(), scale = canvas.width / box.width;
            const copy = new OffscreenCanvas(canvas.width, canvas.height);
            const context = copy.getContext('2d', { willReadFrequently: true });
            context.drawImage(canvas, 0, 0);
            return places.map(([x, y]) => [...context.getImageData(
                Math.round((x - box.x) * scale), Math.round((y - box.y) * scale), 1, 1).data]);
        }""",
        places,
    )
    for red, green, blue, _ in got:
        yield 255 - (red + green + blue) / 3


def test_the_matrix_is_shaded_by_the_weights(tmp_path: Path, open_page: Open) -> None:
    weights = np.zeros((1, 200, 200), np.float32)
    for i, weight in enumerate((0.02, 0.1, 0.3, 0.6, 1)):
        weights[0, 40 + i, 30 + i] = weight
    tab = open_page(make_pages(tmp_path, [Layer(0, weights)])["head"])
    zoom_to(tab, 42, 32, times=2)
    cells = [(40 + i, 30 + i) for i in range(5)] + [(41, 30), (42, 33)]
    places = [place_of(tab, *cell) for cell in cells]
    *seen, none, other = shades_at(tab, places)
    assert seen == sorted(seen)
    assert len(set(seen)) == 5
    assert none == other < seen[0]


def test_a_few_rows_over_many_columns(tmp_path: Path, open_page: Open) -> None:
    """13 tokens over 1,500 frames: rows have room, lines are those around the strongest weight."""
    weights = np.random.default_rng(0).random((2, 13, 1500)).astype(np.float32) * 0.001
    weights[0, :, 900] = 0.5
    weights[1, 5, 40] = 0.9
    weights /= weights.sum(-1, keepdims=True)
    layer = Layer(0, weights, "cross")
    header = {"tokens": ["x"] * 1500, "decoder_tokens": [f"d{i}" for i in range(13)]}
    tab = open_page(make_pages(tmp_path, [layer], **header)["head"], "#layer=0&head=0")
    box = tab.page.locator(CANVAS).bounding_box()
    assert box
    assert (box["height"] - MARGINS["top"] - MARGINS["bottom"]) / 13 >= 14
    assert box["width"] > 1200  # the long side runs across the whole page
    assert tab.texts(LEFT) == [f"d{i}" for i in range(13)]
    assert tab.page.locator("#window").is_hidden()
    found = head_view_lines(tab)
    (column,) = {column for _, _, column in found}
    assert found == {(0, r, column): round(float(weights[0, r, 900]), 4) for r in range(13)}
    # Elsewhere by a click into the matrix.
    tab.page.evaluate("location.hash = '#layer=0&head=1'")
    tab.reads(TITLE, "Layer 0, Head 1")
    tab.drawn()
    assert [row for _, row, _ in head_view_lines(tab)] == [5]
    tab.page.mouse.click(*place_of(tab, 3, 1200))
    tab.wait("() => document.querySelector('#row-bars title').textContent.startsWith('in view 0')")
    assert tab.read("#readout p") == "d3 (token 3) attends to"
    assert tab.page.evaluate("document.documentElement.scrollHeight") < 3 * 720


def test_what_is_no_number(weights: np.ndarray, tmp_path: Path, open_page: Open) -> None:
    weights[0, 150, 3] = np.nan
    tab = open_page(make_pages(tmp_path, [Layer(0, weights)])["head"], "#layer=0&head=0&row=150")
    assert cell(tab, 150, 20).endswith(": no number")
    assert "no number" not in cell(tab, 140, 20)
    tab.page.locator(LEFT).nth(16).hover()
    assert tab.read("#readout li").endswith("no numbers")
    bars = tab.page.evaluate("document.querySelectorAll('#row-bars title')[16].textContent")
    assert bars == "no numbers"
    assert not any(row == 16 for _, row, _ in head_view_lines(tab))
    # The mean is that of the other heads.
    tab.options()
    tab.page.get_by_label("Mean").check()
    tab.reads(TITLE, "Layer 0, mean of the heads")
    tab.drawn()
    column = int(weights[1:, 150].mean(0).argmax())
    said = float(cell(tab, 150, column).rpartition(" ")[2])
    tab.page.mouse.move(0, 0)
    near = weights[1:, 148:153, column - 3 : column + 4].mean(0)
    assert np.abs(near - said).min() < 2e-4  # a pixel is more than one cell


@pytest.mark.parametrize("view", ["head", "model"])
def test_ways_of_looking(view: str, weights: np.ndarray, tmp_path: Path, open_page: Open) -> None:
    """The mean of the heads, and the first token hidden, against numpy."""
    tab = open_page(make_pages(tmp_path, [Layer(0, weights)])[view], "#layer=0&head=2&row=60")
    selector = "#vis line" if view == "head" else "#head-vis .detail line"
    if view == "model":
        tab.wait(OPENED)
    rows = slice(44, 76)
    attribute = "stroke-opacity"

    def drawn() -> list[float]:
        found = tab.attributes(selector, attribute)
        return [round(float(value or 0), 4) for (value,) in found if float(value or 0)]

    def expected(matrix: np.ndarray) -> list[float]:
        kept = np.where(matrix > 0.00005, matrix, 0)[rows, rows]
        return [float(w) for w in kept.ravel() if w > 0.01]

    assert np.allclose(drawn(), expected(weights[2]), atol=1e-4)
    tab.options()
    tab.page.get_by_label("Hide first token").check()
    hidden = weights[2].copy()
    hidden[:, 0] = 0
    hidden /= np.maximum(hidden.sum(-1, keepdims=True), 1e-9)
    tab.wait("() => location.hash.includes('first=hidden')")
    if view == "model":
        tab.wait(OPENED)
    found, wanted = drawn(), expected(hidden)
    assert abs(len(found) - len(wanted)) <= 1  # one at the cut may be rounded up or down
    assert len(found) != len(wanted) or np.allclose(found, wanted, atol=4e-4)
    tab.options()
    tab.page.get_by_label("Hide first token").uncheck()
    tab.options()
    tab.page.get_by_label("Mean").check()
    tab.wait("() => location.hash.includes('head=average')")
    if view == "model":
        tab.wait(OPENED)
    found, wanted = drawn(), expected(weights.mean(0))
    assert abs(len(found) - len(wanted)) <= 1
    assert len(found) != len(wanted) or np.allclose(found, wanted, atol=2e-4)


def test_raw_scores(tmp_path: Path, open_page: Open) -> None:
    scores = np.random.default_rng(0).normal(0, 30, (1, 150, 150)).astype(np.float32)
    tab = open_page(make_pages(tmp_path, [Layer(0, scores)])["head"])
    assert "raw scores" in tab.drawn()
    assert tab.page.locator("#row-bars").count() == 0  # they sum to nothing in particular
    zoom_to(tab, 70, 90)
    step = float(scores.max() - scores.min()) / 65534
    said = float(cell(tab, 70, 90).rpartition(" ")[2])
    assert abs(said - scores[0, 70, 90]) < step + 1e-3


@pytest.mark.parametrize("above", [None, 0.01])
def test_a_long_text_as_csv(above: float | None, tmp_path: Path, open_page: Open) -> None:
    """One line for each weight there is: a table of 600 x 600 would be mostly zeros."""
    weights = peaked(1, 1, 600)
    pages = (
        make_pages(tmp_path, [Layer(0, weights)])
        if above is None
        else sparse_pages(tmp_path, weights, above)
    )
    tab = open_page(pages["head"])
    tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.menu("Copy as CSV")
    least = above or 0.00005
    kept = weights[0] > least
    count, shown = f"{kept.sum():,}", "0.01" if above else "0.00005"
    tab.reads(
        "#head-detail-status", f"Copied: the {count} weights above {shown} of Layer 0, Head 0."
    )
    text = tab.page.evaluate("navigator.clipboard.readText()")
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    assert header == ["from", "to", "weight"]
    assert rows[0][0] == "0 t0"  # no cell begins as a formula
    found = np.zeros((600, 600))
    for source, to, weight in rows:
        found[int(source.split()[0]), int(to.split()[0])] = float(weight)
    assert np.abs(found - np.where(kept, weights[0], 0)).max() < 6e-5


def test_no_head_is_unpacked_before_it_is_opened(
    weights: np.ndarray, tmp_path: Path, open_page: Open
) -> None:
    """The pictures are there although every head in the page is damaged."""
    path = make_pages(tmp_path, [Layer(0, weights)])["model"]
    path.write_text(re.sub(r'(id="head-[\d-]+">).{8}', r"\1????????", path.read_text()))
    tab = open_page(path)
    assert tab.drawn().startswith("300 tokens are too many for lines of all heads")
    assert tab.page.locator("#thumbnails canvas").count() == 3
    tab.button("Layer 0, Head 1").click()
    tab.wait("() => document.getElementById('status').textContent.includes('are damaged')")


def test_what_was_left_out_is_said(tmp_path: Path, open_page: Open) -> None:
    weights = random_weights(0, 2, 120)
    tab = open_page(sparse_pages(tmp_path, weights, 0.05)["head"])
    left = np.where(weights > 0.05, 0, weights).sum(-1).mean(-1)
    assert tab.texts("#notes li") == [
        f"Weights up to 0.05 were left out when this was captured: {left.mean():.0%} of the "
        f"attention, {left.max():.0%} of one head's."
    ]
    legend = tab.read("#row-bars-legend")
    assert legend.endswith("left out (weights up to 0.05)")


def test_a_row_that_is_spread_over_all(tmp_path: Path, open_page: Open) -> None:
    weights = np.full((1, 200, 200), 1 / 200, np.float32)
    weights[0, 0] = np.eye(200)[0]
    tab = open_page(sparse_pages(tmp_path, weights, 0.01)["head"])
    tab.page.locator(LEFT).nth(5).hover()
    assert "spread over all: no weight above 0.01" in tab.read("#readout li")
    assert cell(tab, 100, 100).endswith(": 0.01 or less")


def test_pictures_are_saved(weights: np.ndarray, tmp_path: Path, open_page: Open) -> None:
    tab = open_page(make_pages(tmp_path, [Layer(0, weights)])["head"], "#")
    name, svg = tab.saved("Save matrix as SVG")
    assert name.endswith("_layer_0_head_1_matrix.svg")
    assert b"data:image/png;base64," in svg
    assert b"Layer 0, Head 1" in svg
    name, png = tab.saved("Save matrix as PNG")
    assert png.startswith(b"\x89PNG")


def test_a_document_of_many_tokens_is_one_page(tmp_path: Path) -> None:
    write_capture(tmp_path / "a.json", [Layer(0, peaked(0, 2, 700))])
    assert (
        bertviz_head_model_view.main(
            [
                "--input",
                str(tmp_path / "a.json"),
                "--output-dir",
                str(tmp_path / "pages"),
                "--quiet",
            ]
        )
        == 0
    )
    sizes = [page.stat().st_size for page in (tmp_path / "pages").iterdir()]
    assert len(sizes) == 2
    assert max(sizes) < (tmp_path / "a.json").stat().st_size
