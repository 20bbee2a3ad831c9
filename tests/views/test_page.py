"""What stands around bertviz's drawing, in Chromium: one head closely, scores, controls."""

from __future__ import annotations

import csv
import io
import re
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import (
    BOTH_VIEWS,
    TITLE,
    Layer,
    Open,
    Tab,
    expected_lines,
    expected_pictures,
    head_view_lines,
    luminance,
    make_pages,
    model_view_lines,
    random_weights,
    stack_of,
)
from PIL import Image
from playwright.sync_api import Browser, expect

from activations.attention.scores import SCORES, with_scores

pytestmark = pytest.mark.browser

SPACE = "{http://www.w3.org/2000/svg}"
OPENED = "body.one-head #head-detail-title"  # the name of the picture that is open


def two_layers(heads: int = 3, rows: int = 6) -> list[Layer]:
    return [Layer(i, random_weights(i, heads, rows)) for i in (2, 5)]


# ------------------------------------------------------------------------------ one head, closely


def heat_map(tab: Tab, rows: int, columns: int) -> np.ndarray:
    """How dark each cell is, 0 to 1, read from the picture: (rows, columns)."""
    frame, paths = tab.page.evaluate(
        """() => [
            ['x', 'y', 'width', 'height'].map(
                n => +document.querySelector('#heat rect').getAttribute(n)),
            Array.from(document.querySelectorAll('#heat path'),
                p => [p.getAttribute('d'), getComputedStyle(p).fill])]"""
    )
    left, top, width, height = frame
    found = np.zeros((rows, columns))
    for data, fill in paths:
        red, green, blue = map(int, re.findall(r"\d+", fill)[:3])
        for x, y in re.findall(r"M([\d.e-]+) ([\d.e-]+)", data):
            row, column = (float(y) - top) / height * rows, (float(x) - left) / width * columns
            assert abs(row - round(row)) + abs(column - round(column)) < 1e-6
            found[round(row), round(column)] = 1 - (0.3 * red + 0.59 * green + 0.11 * blue) / 255
    return found


@BOTH_VIEWS
def test_a_head_on_its_own_is_a_heat_map(tmp_path: Path, open_page: Open, view: str) -> None:
    layers = two_layers()
    tab = open_page(make_pages(tmp_path, layers)[view])
    assert tab.page.locator("#head-detail-body").is_hidden()
    assert tab.page.locator("#heat svg").count() == 0
    if view == "head":
        tab.choose("#layer", "5")
        tab.button("Head 1").click()
    else:
        tab.button("Layer 5, Head 1").click()
    tab.reads(TITLE, "Layer 5, Head 1")
    weights = layers[1].weights[1]
    darkness = heat_map(tab, 6, 6)
    # The heavier, the darker: to within a shade.
    order = np.argsort(weights.ravel())
    assert (np.diff(darkness.ravel()[order]) > -0.03).all()
    assert (darkness[weights == 0] == 0).all()
    assert darkness[0, 0] > 0.7 > darkness[weights < 0.2].max()  # row 0 has its one weight of 1
    tokens = [f"t{i}" for i in range(6)]
    assert tab.texts("#heat text")[:12] == tokens * 2
    # There is room for the values.
    shown = tab.texts("#heat text.value")
    assert shown == [f"{w:.2f}".removeprefix("0") for w in weights.round(4).ravel() if w >= 0.005]
    tab.page.get_by_label("Values").uncheck()
    assert tab.page.locator("#heat text.strong-strong").count() == 0


def test_the_cell_pointed_at_is_named(tmp_path: Path, open_page: Open) -> None:
    layers = two_layers()
    tab = open_page(make_pages(tmp_path, layers)["head"], "#layer=2&head=0")
    frame = tab.page.locator("#heat svg > rect").first
    frame.scroll_into_view_if_needed()
    box = frame.bounding_box()
    assert box
    cell = box["width"] / 6
    tab.page.mouse.move(box["x"] + 1.5 * cell, box["y"] + 4.5 * cell)
    weight = layers[0].weights[0, 4]
    assert tab.read("#cell") == f"t4 (4) to t1 (1): {round(float(weight[1]), 4):g}"
    tab.page.locator("#heat svg").focus()
    for key in ("ArrowRight", "ArrowUp", "ArrowUp"):
        tab.page.keyboard.press(key)
    assert tab.read("#cell") == f"t2 (2) to t2 (2): {layers[0].weights[0, 2, 2].round(4):g}"
    for _ in range(9):  # not beyond the edge
        tab.page.keyboard.press("ArrowLeft")
    assert tab.read("#cell").startswith("t2 (2) to t0 (0): ")


def test_rows_without_numbers(tmp_path: Path, open_page: Open) -> None:
    """Hatched in the matrix, also without the first token, and dashes as scores; never zeros."""
    weights = random_weights(0, 3, 6)
    weights[0] = np.nan
    weights[1, 4] = np.nan
    tab = open_page(make_pages(tmp_path, [Layer(0, weights)])["head"], "#layer=0&head=1")
    hatched = "#heat path[stroke]"
    for rows in (6, 5):
        (path,) = tab.attributes(hatched, "d")
        assert (path[0] or "").count("M") == rows
        tab.page.get_by_label("Hide first token").check()
        tab.drawn()
    tab.page.locator("#vis #left [role=option]").nth(3).hover()
    assert tab.read("#readout li") == "Head 1 no numbers"
    tab = open_page(make_pages(tmp_path, [Layer(0, weights)])["head"], "#layer=0&head=0")
    assert set(tab.texts("#head-scores div > span:nth-child(3)")) == {"–"}
    row = tab.row("Layer 0, Head 0").locator("xpath=ancestor::tr").locator("td")
    assert set(row.all_text_contents()) == {"–"}
    tab.page.get_by_label("Mean").check()
    tab.drawn()
    assert tab.page.locator("#head-scores").is_hidden()


def test_labels_are_cut_between_characters(tmp_path: Path, open_page: Open) -> None:
    family, word = "👨\u200d👩\u200d👧", "می\u200cخواهم"
    tokens = [family * 13, family * 14, word, "x" * 14]
    tab = open_page(
        make_pages(tmp_path, [Layer(0, random_weights(0, 1, 4))], tokens=tokens)["head"]
    )
    shown = tab.texts("#vis #left text")
    assert shown[2] == word
    for text, token, step in zip(shown, tokens, (len(family),) * 2 + (1, 1), strict=True):
        if text != token:
            assert text.endswith("…")
            assert token.startswith(text[:-1])
            assert (len(text) - 1) % step == 0
    assert sum(text.endswith("…") for text in shown) >= 2
    widths = tab.page.evaluate(
        "[...document.querySelectorAll('#vis #left text')].map(t => t.getComputedTextLength())"
    )
    assert max(widths) <= 104


def test_copying_as_csv(tmp_path: Path, open_page: Open) -> None:
    tokens = ["=1+1", 'say "x"', "a,b", "Ġsp", "line\nbreak", "@€"]
    layers = two_layers()
    tab = open_page(make_pages(tmp_path, layers, tokens=tokens)["model"], "#layer=5&head=2")
    tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])

    def check(text: str) -> None:
        header, *rows = csv.reader(io.StringIO(text, newline=""))
        shown = ["=1+1", 'say·"x"', "a,b", "·sp", "line↵break", "@€"]
        # No cell begins as a formula.
        assert header == ["", *(f"{i} {token}" for i, token in enumerate(shown))]
        assert [row[0] for row in rows] == header[1:]
        found = np.array([row[1:] for row in rows], float)
        assert np.array_equal(found, layers[1].weights[2].round(4).astype(float).round(4))

    tab.menu("Copy as CSV")
    expect(tab.page.locator("#head-detail-status")).to_contain_text("Copied: 6 x 6")
    check(tab.page.evaluate("navigator.clipboard.readText()"))
    # Where pages may not use the clipboard, as in a frame: by selection, else as a file.
    tab.page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    tab.page.evaluate("document.addEventListener('copy', () => { window.copied = true; })")
    tab.menu("Copy as CSV")
    tab.wait("() => window.copied")
    tab.page.evaluate("document.execCommand = () => false")
    name, content = tab.saved("Copy as CSV")
    assert name.endswith("_layer_5_head_2.csv")
    check(content.decode())
    expect(tab.page.locator("#head-detail-status")).to_contain_text("saved as a file")


# ------------------------------------------------------------------------------------- the scores


# Of each bar the share that is filled, and where its tick stands.
BARS = """() => [Array.from(document.querySelectorAll('.score-bar'), bar => {
    const [box, ...parts] = [bar, ...bar.children].map(e => e.getBoundingClientRect());
    return [parts[0].width / box.width, (parts[1].x + 1 - box.x) / box.width];
})]"""


def scores_of(layers: list[Layer], tokens: list[str]) -> np.ndarray:
    stack = stack_of(*(layer.weights for layer in layers), rows=tokens, columns=tokens)
    scores = with_scores([stack])[0].scores
    assert scores is not None
    return scores


def table(tab: Tab) -> list[list[str]]:
    rows = tab.page.locator("#scores-table tbody tr")
    return [row.locator("th, td").all_inner_texts() for row in rows.all()]


@BOTH_VIEWS
def test_scores_are_sorted_and_open_heads(tmp_path: Path, open_page: Open, view: str) -> None:
    tokens = ["a", "b", "c", "a", "b", "c"]
    layers = [Layer(i, random_weights(i, 4, 6)) for i in (1, 2, 7)]
    layers[0].weights[0] = np.eye(6)
    tab = open_page(make_pages(tmp_path, layers, tokens=tokens)[view])
    scores = scores_of(layers, tokens)
    known = [i for i in range(len(SCORES)) if not np.isnan(scores[..., i]).all()]
    named = [SCORES[i] for i in known]
    assert named == [
        *("previous_token", "self", "duplicate_token", "induction", "first_token", "entropy")
    ]
    scores = scores[..., known]
    rows = {
        f"Layer {layer.layer}, Head {head}": [f"{s:.3f}" for s in scores[i, head].round(6)]
        for i, layer in enumerate(layers)
        for head in range(4)
    }
    tab.unfold()
    shown = table(tab)
    assert len(shown) == 10
    tab.page.get_by_role("button", name="Show all 12 heads").click()
    assert {name: numbers for name, *numbers in table(tab)} == rows
    # First by induction, highest on top; a heading sorts, once more the other way round.
    flat = {name: scores[i // 4, i % 4] for i, name in enumerate(rows)}
    for column in sorted(range(len(named)), key=lambda i: named[i] != "induction"):
        heading = tab.page.locator("#scores-table thead th").nth(column + 1)
        if named[column] != "induction":
            heading.get_by_role("button").click()
        expect(heading).to_have_attribute("aria-sort", "descending")
        values = [flat[row[0]][column] for row in table(tab)]
        assert values == sorted(values, reverse=True)
    heading.get_by_role("button").click()
    expect(heading).to_have_attribute("aria-sort", "ascending")
    assert table(tab)[0][0] == min(flat, key=lambda name: flat[name][-1]) == "Layer 1, Head 0"
    tab.page.get_by_role("button", name="Head", exact=True).click()
    assert [row[0] for row in table(tab)] == list(rows)

    tab.row("Layer 7, Head 2").click()
    tab.reads(TITLE, "Layer 7, Head 2")
    tab.drawn()
    if view == "head":
        assert tab.page.input_value("#layer") == "7"
        assert tab.pressed() == [False, False, True, False]
    else:
        assert tab.texts(OPENED) == ["Layer 7, Head 2"]
    tab.wait("() => location.hash === '#layer=7&head=2'")
    # Beside each score the highest of all heads, which opens.
    listed = [
        row.split("\n")
        for row in map(str.strip, tab.page.locator("#head-scores > div").all_inner_texts())
    ]
    places = {name: scores[i // 4, i % 4] for i, name in enumerate(rows)}
    short = {"previous_token": "Previous", "duplicate_token": "Duplicate", "first_token": "First"}
    for k, (score, (name, number, highest)) in enumerate(zip(named, listed, strict=True)):
        best = max(places, key=lambda place: places[place][k])
        assert name == short.get(score, score.capitalize())
        assert number == f"{places['Layer 7, Head 2'][k]:.2f}"
        assert highest == (
            "this" if best == "Layer 7, Head 2" else ".".join(re.findall(r"\d+", best))
        )
    (bars,) = tab.page.evaluate(BARS)
    lead, (width, tick) = "induction", bars[named.index("induction")]
    assert width == pytest.approx(places["Layer 7, Head 2"][named.index(lead)], abs=0.02)
    assert tick == pytest.approx(scores[..., named.index(lead)].max(), abs=0.02)
    tab.page.get_by_role("button", name="the highest induction").click()
    best = max(places, key=lambda place: places[place][named.index("induction")])
    tab.reads(TITLE, best)
    # And one line names the strongest head for each score.
    strongest = tab.read("#strongest")
    for k, score in enumerate(named):
        best = max(places, key=lambda place: places[place][k])
        number = ".".join(re.findall(r"\d+", best))
        assert f"{score.replace('_', ' ')} {number} {places[best][k]:.3f}" in strongest


def test_scores_that_are_not_defined(tmp_path: Path, open_page: Open) -> None:
    tab = open_page(make_pages(tmp_path, two_layers())["head"])  # no token twice
    tab.unfold()
    headings = tab.texts("#scores-table thead th")
    assert not {"Induction", "Duplicate token", "Next token"} & set(headings)
    assert tab.read("#scores-table th[aria-sort]").startswith("Previous token")
    scores = np.random.default_rng(0).normal(0, 30, (2, 6, 6)).astype(np.float32)
    raw = open_page(make_pages(tmp_path / "raw", [Layer(0, scores)])["head"], "#layer=0&head=1")
    assert raw.page.locator("#scores").is_hidden()
    assert raw.page.locator("#without-first-label").is_hidden()
    assert raw.page.locator("#head-scores").is_hidden()


# ---------------------------------------------------------------------------------- ways of looking


def test_the_average_of_the_heads(tmp_path: Path, open_page: Open) -> None:
    layers = two_layers(heads=4)
    pages = make_pages(tmp_path, layers)
    mean = [Layer(layer.layer, layer.weights.round(4).mean(0, keepdims=True)) for layer in layers]
    head, model = open_page(pages["head"], "#layer=5"), open_page(pages["model"])
    for tab in (head, model):
        tab.page.get_by_label("Mean", exact=True).check()
        tab.drawn()
    close(head_view_lines(head), expected_lines(mean[1].weights))
    assert head.page.locator("#heads").is_hidden()
    assert head.read(TITLE) == "Layer 5, mean of the heads"
    assert head.hash() == "#layer=5&head=average"
    labels = model.attributes("#vis rect[role=button]", "aria-label")
    assert labels == [["Layer 2, mean of the heads"], ["Layer 5, mean of the heads"]]
    model.page.get_by_role("button", name="Layer 5, mean of the heads").click()
    model.reads(OPENED, "Layer 5, mean of the heads")
    model.wait("() => document.querySelector('#head-vis .detail title') !== null")
    drawn = model.attributes("#head-vis .detail line", "stroke-opacity")
    expected = list(expected_lines(mean[1].weights).values())
    assert np.allclose([float(o or 0) for (o,) in drawn], expected, atol=1.5e-4)
    # The link to the other view leads to the mean too; a row of the table back to a head.
    model.follow("#views a", "/*head_view*#layer=5&head=average")
    assert model.page.get_by_label("Mean", exact=True).is_checked()
    close(head_view_lines(model), expected_lines(mean[1].weights))
    model.row("Layer 2, Head 3").click()
    expect(model.page.get_by_label("Mean", exact=True)).not_to_be_checked()
    model.drawn()
    assert head_view_lines(model) == {
        place: w for place, w in expected_lines(layers[0].weights).items() if place[0] == 3
    }


@BOTH_VIEWS
def test_back_from_the_average(tmp_path: Path, open_page: Open, view: str) -> None:
    kinds = [Layer(i, random_weights(i, 4, 6), k) for i in (2, 5) for k in ("encoder", "decoder")]
    tab = open_page(make_pages(tmp_path, kinds)[view], "#layer=5&head=2")
    average = tab.page.get_by_label("Mean", exact=True)
    for _ in range(2):
        average.check()
        tab.reads(TITLE, "Layer 5, mean of the heads, Encoder")
        average.uncheck()
        tab.reads(TITLE, "Layer 5, Head 2, Encoder")
    average.check()
    if view == "head":  # another layer
        tab.choose("#layer", "2")
    else:
        tab.button("Layer 2, mean of the heads").click()
    tab.reads(TITLE, "Layer 2, mean of the heads, Encoder")
    average.uncheck()
    tab.reads(TITLE, "Layer 2, Head 2, Encoder")
    average.check()
    tab.drawn()
    tab.choose("#filter", "Decoder")  # whose heads are others
    average.uncheck()
    tab.drawn()
    tab.reads(TITLE, "Layer 2, Decoder" if view == "head" else "One head, Decoder")
    assert tab.texts(OPENED) == []
    if view == "head":  # of several heads, the same are on
        tab.button("Head 1").click(modifiers=["Shift"])
        tab.button("Head 2").click(modifiers=["Shift"])
        average.check()
        tab.drawn()
        average.uncheck()
        tab.drawn()
        assert tab.pressed() == [True, False, False, True]


@BOTH_VIEWS
def test_another_attention_keeps_the_head(tmp_path: Path, open_page: Open, view: str) -> None:
    layers = [Layer(i, random_weights(i, 4, 6, causal=False)) for i in (2, 5)]
    pair = {"tokens": list("abcdef"), "sentence_b_start": 4}
    tab = open_page(make_pages(tmp_path / "pair", layers, **pair)[view], "#layer=5&head=2")
    for part in ("Sentence A -> Sentence A", "Sentence A -> Sentence B"):
        tab.choose("#filter", part)
        tab.reads(TITLE, f"Layer 5, Head 2, {part}")
    tab.page.get_by_label("Mean", exact=True).check()
    tab.choose("#filter", "All")
    if view == "model":
        tab.reads(OPENED, "Layer 5, mean of the heads")
    tab.reads(TITLE, "Layer 5, mean of the heads")
    # Where it is not there, all are on.
    unlike = [Layer(2, random_weights(0, 2, 6)), Layer(5, random_weights(1, 4, 6))]
    unlike += [Layer(2, random_weights(2, 3, 6), "cross")]
    tab = open_page(make_pages(tmp_path / "unlike", unlike)[view], "#layer=2&head=1")
    tab.choose("#filter", "Cross")
    tab.reads(TITLE, "Layer 2, Head 1, Cross")
    tab.row("Layer 2, Head 2").click()
    for name in tab.texts("#filter option")[:2]:
        tab.choose("#filter", name)
        expect(tab.page.locator(TITLE)).to_have_text(re.compile(f"(Layer .|One head), {name}"))


def close(found: dict[tuple[int, ...], float], expected: dict[tuple[int, ...], float]) -> None:
    """The same lines, but for rounding twice to 4 decimals, and at the cut."""
    for place in found.keys() | expected.keys():
        assert abs(found.get(place, 0.01) - expected.get(place, 0.01)) < 2e-4


def without_first(weights: np.ndarray) -> np.ndarray:
    rest = weights.round(4)[..., 1:]
    sums = rest.sum(-1, keepdims=True)
    return np.where(sums < 0.001, 0, rest / np.where(sums == 0, 1, sums))


def test_hiding_the_first_token(tmp_path: Path, open_page: Open) -> None:
    layers = two_layers()
    layers[0].weights[0, 3] = [0.9996, 0.0004, 0, 0, 0, 0]  # hardly anything is left of this row
    pages = make_pages(tmp_path, layers)
    head, model = open_page(pages["head"]), open_page(pages["model"])
    hidden = [Layer(layer.layer, without_first(layer.weights)[:, 1:]) for layer in layers]
    for tab in (head, model):
        tab.page.get_by_label("Hide first token").check()
        tab.drawn()
    close(head_view_lines(head), expected_lines(hidden[0].weights))
    assert not any(place[:2] == (0, 2) for place in head_view_lines(head))
    assert (
        head.texts("#vis #left text")
        == head.texts("#vis #right text")
        == ["t1", "t2", "t3", "t4", "t5"]
    )
    drawn = model_view_lines(model)
    expected = expected_pictures(hidden)
    assert drawn.keys() == expected.keys()
    for place, lines in expected.items():
        close(drawn[place], lines)
    # And back.
    head.page.get_by_label("Hide first token").uncheck()
    head.drawn()
    assert head_view_lines(head) == expected_lines(layers[0].weights)


def test_where_the_first_token_can_be_hidden(tmp_path: Path, open_page: Open) -> None:
    label = "#without-first-label"
    # Of a causal text a part from the start has whole rows; of another text it has not.
    causal, both = two_layers(), [Layer(0, random_weights(0, 2, 6, causal=False))]
    for layers, part, can in ((causal, "0:4", True), (causal, "2:6", False), (both, "0:4", False)):
        folder = tmp_path / f"{part[0]}_{can}_{len(layers)}"
        tab = open_page(make_pages(folder, layers, "--tokens", part)["head"], "#first=hidden")
        tab.options()
        assert tab.page.locator(label).is_visible() == can
        if can:
            kept = without_first(layers[0].weights)[:, 1:4, :3]
            close(head_view_lines(tab), expected_lines(kept))
    # In cross attention it is the encoder's first.
    cross = Layer(0, random_weights(0, 2, 3, 5, causal=False), "cross")
    header = {"tokens": list("abcde"), "decoder_tokens": list("xyz")}
    tab = open_page(make_pages(tmp_path / "cross", [cross], **header)["head"], "#first=hidden")
    assert tab.texts("#vis #left text") == list("xyz")
    assert tab.texts("#vis #right text") == list("bcde")
    close(head_view_lines(tab), expected_lines(without_first(cross.weights)))
    # And not in a sentence that begins later.
    pair = {"tokens": list("abcdef"), "sentence_b_start": 3}
    tab = open_page(make_pages(tmp_path / "pair", causal, **pair)["head"])
    tab.options()
    assert tab.page.locator(label).is_visible()
    tab.choose("#filter", "Sentence B -> Sentence B")
    assert tab.page.locator(label).is_hidden()


def test_what_is_no_number(tmp_path: Path, open_page: Open) -> None:
    weights = random_weights(0, 1, 4, causal=False)
    weights[0, 1] = [np.nan, 0.5, 0.5, 0]
    tab = open_page(make_pages(tmp_path, [Layer(0, weights)])["head"])
    tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.page.locator("#heat svg").focus()
    tab.page.keyboard.press("ArrowDown")
    assert tab.read("#cell") == "t1 (1) to t0 (0): no number"
    tab.menu("Copy as CSV")
    expect(tab.page.locator("#head-detail-status")).to_contain_text("Copied")
    copied = tab.page.evaluate("navigator.clipboard.readText()")
    assert copied.splitlines()[2] == '"1 t1",,,,'  # the whole row


def test_raw_scores_have_colours_too(tmp_path: Path, open_page: Open) -> None:
    scores = -1 - np.arange(25, dtype=np.float32).reshape(1, 5, 5)
    tab = open_page(make_pages(tmp_path, [Layer(0, scores)])["head"])
    assert "raw scores" in tab.drawn()
    assert tab.page.locator("#threshold-part").is_hidden()
    darkness = heat_map(tab, 5, 5).ravel()
    assert (np.diff(darkness) < 0.03).all()
    assert darkness[0] > 0.7
    assert darkness[-1] == 0


@BOTH_VIEWS
def test_controls_do_not_scroll_the_page(tmp_path: Path, open_page: Open, view: str) -> None:
    layers = [Layer(i, random_weights(i, 2, 30)) for i in range(6)]
    tab = open_page(make_pages(tmp_path, layers)[view], "#layer=5&head=1")
    tab.page.evaluate("scrollTo(0, 0)")
    tab.options()
    tab.page.get_by_label("Lines above").fill("30")
    tab.wait("() => document.getElementById('status').textContent.includes('of 0.09 or less')")
    tab.page.get_by_label("Hide first token").check()
    tab.drawn()
    tab.choose("#theme", "dark")
    tab.reads(TITLE, "Layer 5, Head 1, without the first token")
    assert tab.page.evaluate("scrollY") == 0
    # All of it is in the address, and so in the link to the other view.
    ways = "#layer=5&head=1&first=hidden&above=0.09&theme=dark"
    assert tab.hash() == ways
    tab.follow("#views a", f"{ways}")
    assert tab.page.get_by_label("Hide first token").is_checked()
    assert tab.read("#threshold-value") == "0.09"


def test_a_head_chosen_while_lines_are_made_is_opened(tmp_path: Path, open_page: Open) -> None:
    layers = [Layer(i, random_weights(i, 6, 60)) for i in range(4)]
    tab = open_page(make_pages(tmp_path, layers, "--min-weight", "0")["model"])
    tab.page.evaluate(
        """() => new Promise(done => {
            document.getElementById('theme').value = 'dark';
            document.getElementById('theme').dispatchEvent(new Event('change'));
            (function wait() {  // until the lines are being made
                if (State.isDrawn || !document.querySelector('#vis line'))
                    return setTimeout(wait, 1);
                document.querySelectorAll('#scores-table a')[3].click();
                done();
            })();
        })"""
    )
    tab.drawn()
    tab.unfold()
    name = tab.page.locator("#scores-table a").nth(3).inner_text()
    tab.reads(TITLE, name)
    tab.wait("() => document.querySelectorAll('#head-vis .detail line').length > 500")


@BOTH_VIEWS
def test_the_threshold(tmp_path: Path, open_page: Open, view: str) -> None:
    layers = two_layers()
    tab = open_page(make_pages(tmp_path, layers, "--min-weight", "0.02")[view])
    assert tab.read("#threshold-value") == "0.02"
    for value, cut in ((50, 0.25), (0, 0.0), (10, 0.01), (20, 0.04)):
        tab.options()
        tab.page.get_by_label("Lines above").fill(str(value))
        tab.wait(
            f"() => document.getElementById('status').textContent.includes('of {cut:g} or less')"
        )
        assert tab.read("#threshold-value") == f"{cut:g}"
        if view == "head":
            assert head_view_lines(tab) == expected_lines(layers[0].weights, cut)
        else:
            assert model_view_lines(tab) == expected_pictures(layers, cut)


# ------------------------------------------------------------------------------------- the tokens


def test_pointing_at_a_token_shows_its_weights(tmp_path: Path, open_page: Open) -> None:
    layers = two_layers()
    pages = make_pages(tmp_path, layers)
    tab = open_page(pages["head"], "#layer=2")
    tab.page.locator("#vis #left text").nth(4).hover()
    weights = layers[0].weights[:, 4].round(4)

    def lines(rows: np.ndarray, names: list[str]) -> list[str]:
        found = []
        for name, row in zip(names, rows, strict=True):
            order = [i for i in np.argsort(-row, kind="stable") if row[i]]
            kept = [f"t{i} {row[i]:g}" for i in order[: 5 if len(rows) > 1 else 12]]
            rest = [f"and {len(order) - len(kept)} more"] if len(order) > len(kept) else []
            found.append(" ".join([name, *kept, *rest]))
        return found

    heads = ["Head 0", "Head 1", "Head 2"]
    assert tab.read("#readout").split("\n") == ["t4 (token 4) attends to", *lines(weights, heads)]
    tab.button("Head 1").click()
    tab.page.locator("#vis #right text").nth(1).hover()
    column = layers[0].weights[1:2, :, 1].round(4)
    assert tab.read("#readout").split("\n") == [
        "t1 (token 1) is attended to by",
        *lines(column, ["Head 1"]),
    ]
    # By keyboard, with what bertviz does when a token is pointed at.
    tab.page.mouse.move(0, 0)
    tab.page.locator("#vis #left [role=option]").first.focus()
    tab.page.keyboard.press("ArrowDown")
    tab.page.keyboard.press("ArrowDown")
    assert tab.read("#readout").startswith("t2 (token 2) attends to")
    marked = tab.attributes("#vis line[visibility='visible']", "left-token-index")
    assert {value for (value,) in marked} == {"2"}
    tab.page.keyboard.press("Tab")
    tab.page.keyboard.press("Tab")  # to the matrix, whose cell lights its row
    marked = tab.attributes("#vis line[visibility='visible']", "left-token-index")
    assert {value for (value,) in marked} == {"0"}
    tab.page.keyboard.press("Tab")
    assert tab.page.locator("#vis line[visibility='visible']").count() == 0

    model = open_page(pages["model"], "#layer=5&head=0")
    model.show_lines()
    model.page.locator("#head-vis .detail text.token").nth(3).hover()
    assert model.read("#readout").split("\n") == [
        "t3 (token 3) attends to",
        *lines(layers[1].weights[:1, 3].round(4), ["Head 0"]),
    ]


def test_long_tokens_are_whole_on_hover(tmp_path: Path, open_page: Open) -> None:
    tokens = ["x" * 30, "Ġ<b>", "a", "b", "c", "d"]
    tab = open_page(make_pages(tmp_path, two_layers(), tokens=tokens)["head"], "#layer=2&head=0")
    for place in ("#vis #left text", "#heat text"):
        text = tab.page.locator(place).first
        assert tab.texts(place)[0].endswith("…")
        assert text.locator("title").text_content() == "x" * 30
    assert tab.texts("#vis #left text")[1] == "·<b>"


def test_a_long_prompt_is_folded(tmp_path: Path, open_page: Open) -> None:
    prompt = "A long story. " * 100
    tab = open_page(make_pages(tmp_path, two_layers(), prompt=prompt)["head"])
    assert tab.page.locator("#prompt").is_hidden()
    tab.page.locator("#about > summary").click()
    summary = tab.page.locator("#about dd summary")
    assert tab.read("#about dd summary").endswith("… (1,400 characters)")
    assert len(tab.read("#about dd summary")) < 150
    summary.click()
    assert tab.page.locator("#prompt").is_visible()
    assert tab.page.locator("#prompt").text_content() == prompt


# -------------------------------------------------------------------------------------- what leaves


@pytest.mark.parametrize("scheme", ["light", "dark"])
@BOTH_VIEWS
def test_saving_pictures(tmp_path: Path, open_page: Open, view: str, scheme: str) -> None:
    """The drawing and the matrix: SVG and PNG show the same, in the page's colours."""
    tokens = ["<&>", "Ġb", "c", "d", "e", "f"]
    pages = make_pages(tmp_path, two_layers(), tokens=tokens)
    tab = open_page(pages[view], "#layer=5&head=1", color_scheme=scheme)
    lines = tab.page.locator("#vis line").count()
    paper = 255 if scheme == "light" else 24  # of #16181c, in grey
    for button, end, expected in (("the picture", "", lines), ("matrix", "_matrix", 0)):
        name, svg = tab.saved(f"Save {button} as SVG")
        place = "_layer_5_head_1" if view == "head" or end else ""  # a picture of all heads
        assert name == f"attention_{view}_view_Family_Tiny-1_capture{place}{end}.svg"
        root = ET.fromstring(svg)
        assert len(root.findall(f".//{SPACE}line")) == expected
        texts = {element.text for element in root.iter(f"{SPACE}text")}
        assert ({"<&>", "c", "f"} if place else {"0", "1", "2", "5"}) <= texts
        kept = {name for element in root.iter() for name in element.attrib}
        assert not kept & {"class", "style", "id"}
        name, png = tab.saved(f"Save {button} as PNG")
        assert name == f"attention_{view}_view_Family_Tiny-1_capture{place}{end}.png"
        assert_same_picture(open_page, tmp_path / "saved.svg", svg, png, paper)


def assert_same_picture(open_page: Open, path: Path, svg: bytes, png: bytes, paper: int) -> None:
    """As Chromium shows the saved SVG alone; the PNG has twice the size."""
    path.write_bytes(svg)
    tab = open_page(path, quiet=False)
    box = tab.page.evaluate(
        "(e => [e.width.baseVal.value, e.height.baseVal.value])(document.documentElement)"
    )
    tab.page.set_viewport_size({"width": int(box[0]), "height": int(box[1])})
    shot = Image.open(io.BytesIO(tab.page.screenshot()))
    pixels = np.asarray(shot.convert("L")).astype(int)
    picture = Image.open(io.BytesIO(png))
    assert picture.width == pytest.approx(2 * box[0], abs=2)
    small = np.asarray(picture.convert("L").resize(pixels.shape[::-1])).astype(int)
    assert np.median(small) == np.median(pixels) == paper
    assert (abs(pixels - paper) > 60).mean() > 0.005
    assert abs(small - pixels).mean() < 8
    assert tab.complaints == []


def test_names_of_pictures_of_several_kinds(tmp_path: Path, open_page: Open) -> None:
    layers = [
        Layer(0, random_weights(i, 2, 4), kind) for i, kind in enumerate(("encoder", "cross"))
    ]
    header = {"tokens": list("abcd"), "decoder_tokens": list("wxyz")}
    tab = open_page(make_pages(tmp_path, layers, **header)["head"], "#head=1&layer=0&attention=1")
    assert tab.read(TITLE) == "Layer 0, Head 1, Cross"
    name, svg = tab.saved("Save the picture as SVG")
    assert name == "attention_head_view_Family_Tiny-1_capture_cross_layer_0_head_1.svg"
    assert "Family/Tiny-1: Layer 0, Head 1, Cross; weights above 0.01" in svg.decode()
    link = tab.row("Layer 0, Head 0").get_attribute("href")
    assert link == "#layer=0&head=0&attention=1"


def test_pictures_of_choice(tmp_path: Path, open_page: Open) -> None:
    layers = [Layer(i, random_weights(i, 4, 24)) for i in range(4)]
    tab = open_page(make_pages(tmp_path, layers)["model"])
    choice = tab.page.get_by_label("Pictures")
    lines, matrices = (choice.get_by_role("button", name=name) for name in ("Lines", "Matrices"))
    pictures = tab.page.locator("#thumbnails canvas")
    expect(lines).to_have_attribute("aria-pressed", "true")
    assert pictures.count() == 0
    expect(tab.page.locator("#threshold-part")).to_be_visible()
    matrices.press("Enter")
    assert tab.drawn().startswith("Each picture shows the weights of a head as a matrix")
    assert pictures.count() == 16
    assert tab.page.locator("#vis").count() == 0
    expect(tab.page.locator("#threshold-part")).to_be_hidden()  # there are no lines
    box = tab.page.locator("#thumbnails").bounding_box()
    assert box
    assert box["height"] < 640  # all of them at a glance
    # It is in the address, and comes back from the other view.
    tab.button("Layer 2, Head 1").click()
    tab.wait("() => location.hash === '#layer=2&head=1&pictures=matrices'")
    tab.follow("#views a", "/*head_view*#layer=2&head=1&pictures=matrices")
    assert choice.is_hidden()
    tab.follow("#views a", "/*model_view*#layer=2&head=1&pictures=matrices")
    assert pictures.count() == 16
    tab.reads(TITLE, "Layer 2, Head 1")
    # And back to lines, on a narrow screen too.
    for width in (1280, 390):
        matrices.click()
        tab.drawn()
        tab.page.set_viewport_size({"width": width, "height": 900})
        lines.click()
        assert "lines are drawn." in tab.drawn()
        assert model_view_lines(tab) == expected_pictures(layers)


def test_saving_the_small_pictures(tmp_path: Path, open_page: Open) -> None:
    tab = open_page(make_pages(tmp_path, two_layers())["model"])
    tab.resize(390)
    name, svg = tab.saved("Save the picture as SVG")
    assert name == "attention_model_view_Family_Tiny-1_capture.svg"
    assert len(ET.fromstring(svg).findall(f".//{SPACE}image")) == 6
    _, png = tab.saved("Save the picture as PNG")
    assert_same_picture(open_page, tmp_path / "saved.svg", svg, png, 255)


# ------------------------------------------------------------------------- colours, sizes, printing


INKS = """() => [
    ...Array.from(document.querySelectorAll('#vis text'), e => getComputedStyle(e).fill),
    ...Array.from(document.querySelectorAll('h1, dt, dd, #how, #status, label'),
        e => getComputedStyle(e).color)]"""


@BOTH_VIEWS
@pytest.mark.parametrize("system", ["light", "dark"])
def test_the_colour_switch(tmp_path: Path, open_page: Open, view: str, system: str) -> None:
    layers = two_layers()
    pages = make_pages(tmp_path, layers)
    tab = open_page(pages[view], "#layer=5&head=1", color_scheme=system)
    other: Any = "dark" if system == "light" else "light"

    def now(scheme: str) -> None:
        tab.drawn()
        tab.reads(TITLE, "Layer 5, Head 1")  # still open
        if view == "model":
            assert tab.texts(OPENED) == ["Layer 5, Head 1"]
            paper = tab.luminance("#vis .attn_background", "fill")
            assert abs(paper - tab.luminance()) < 0.2
        else:
            assert tab.pressed() == [False, True, False]
        assert tab.luminance() == pytest.approx(1 if scheme == "light" else 0.094, abs=0.001)
        assert tab.luminance("#heat rect", "fill") == tab.luminance()
        inks = tab.page.evaluate(INKS)
        assert len(inks) > 15
        assert all(abs(luminance(ink) - tab.luminance()) > 0.5 for ink in inks)

    now(system)
    tab.page.emulate_media(color_scheme=other)  # the system's own switch
    tab.page.wait_for_selector(f":root{'[data-dark]' if other == 'dark' else ':not([data-dark])'}")
    now(other)
    tab.page.emulate_media(color_scheme=system)  # type: ignore[arg-type]
    for choice, scheme in ((other, other), ("as the system", system), (other, other)):
        tab.choose("#theme", choice)
        now(scheme)
    # The other view opens in the same colours.
    assert tab.hash() == f"#layer=5&head=1&theme={other}"
    tab.follow("#views a", f"#layer=5&head=1&theme={other}")
    assert tab.page.input_value("#theme") == other
    assert tab.luminance() == pytest.approx(1 if other == "light" else 0.094, abs=0.001)


@pytest.mark.parametrize("width", [390, 1600])
@BOTH_VIEWS
def test_narrow_and_wide_screens(tmp_path: Path, open_page: Open, view: str, width: int) -> None:
    layers = [Layer(i, random_weights(i, 14, 20)) for i in (0, 1, 23)]
    tab = open_page(make_pages(tmp_path, layers, prompt="word " * 60)[view])
    tab.resize(width)
    tab.unfold()
    tab.page.locator("#scores-table a").first.click()
    expect(tab.page.locator("#head-detail-body")).to_be_visible()
    tab.drawn()
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    out = tab.page.evaluate(
        """() => Array.from(document.querySelectorAll('h1, h2, dd, #how, #controls > *, #status, '
                + '#panel, #heat, #head-scores > *, #map-cells, #scores th, #scores td'),
            e => [e.id || e.tagName, e.getBoundingClientRect().right])
            .filter(([, right]) => right > innerWidth)"""
    )
    assert out == []
    small = tab.page.evaluate(
        """() => Array.from(document.querySelectorAll('body *')).filter(e =>
            !e.closest('svg') && e.childNodes.length && getComputedStyle(e).display !== 'none' &&
            parseFloat(getComputedStyle(e).fontSize) < 11 && e.innerText?.trim()).length"""
    )
    assert small == 0
    if width == 1600:  # beside each other
        drawing, side = (tab.page.locator(s).bounding_box() for s in ("#scroll", "#head-detail"))
        assert drawing
        assert side
        assert side["x"] >= drawing["x"] + drawing["width"]


def test_by_touch(tmp_path: Path, chromium: Browser) -> None:
    size = {"width": 390, "height": 844}
    tab = Tab(chromium, viewport=size, has_touch=True, is_mobile=True)
    tab.open(make_pages(tmp_path, two_layers())["head"].as_uri() + "#head=all")
    tab.page.locator("#vis #left [role=option]").nth(3).tap()
    expect(tab.page.locator("#readout")).to_contain_text("t3 (token 3) attends to")
    tab.button("Head 1").tap()
    tab.reads(TITLE, "Layer 2, Head 1")
    # Held long, another one is added; the click that ends it is not another one.
    hold = "e => { e.dispatchEvent(new TouchEvent('touchstart')); }"
    tab.button("Head 0").evaluate(hold)
    expect(tab.button("Head 0")).to_have_attribute("aria-pressed", "true")
    tab.button("Head 0").evaluate("e => e.click()")
    assert tab.pressed() == [True, True, False]
    tab.button("Head 0").evaluate("e => e.click()")
    expect(tab.button("Head 1")).to_have_attribute("aria-pressed", "false")
    assert tab.pressed() == [True, False, False]
    tab.context.close()
    assert (tab.complaints, tab.requests) == ([], [])


@BOTH_VIEWS
def test_printing(tmp_path: Path, open_page: Open, view: str) -> None:
    """On white paper, no wider than a sheet; the model view layer by layer, each on one sheet."""
    layers = [Layer(i, random_weights(i, 4, 24)) for i in (1, 2, 4, 7)]
    pages = make_pages(tmp_path, layers, prompt="A long story. " * 100)
    tab = open_page(pages[view], "#layer=2&head=1", color_scheme="dark")
    tab.page.set_viewport_size({"width": 718, "height": 1047})  # A4 without margins
    tab.drawn()
    tab.page.emulate_media(media="print", color_scheme="dark")
    tab.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    tab.page.evaluate("scrollTo(0, 0)")
    assert tab.luminance() == tab.luminance("#heat rect", "fill") == 1
    assert tab.luminance("#vis text", "fill") == 0
    for hidden in ("#controls", "#theme-label", "#views", "#help", "#panel-kind", "#readout"):
        assert tab.page.locator(hidden).is_hidden()
    assert tab.page.locator("#prompt").is_visible()  # which is folded on the screen
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 718
    boxes = tab.page.evaluate(
        "Array.from(document.querySelectorAll('#heat svg, #vis > svg'), e => "
        "[e.className.baseVal, getComputedStyle(e).breakInside, e.getBoundingClientRect()])"
    )
    pictures = [box for name, avoid, box in boxes if name == "layer" and avoid == "avoid"]
    assert all(box["right"] <= 718 for _, _, box in boxes)
    if view == "model":
        assert boxes[0][2]["height"] == 0  # the whole picture
        assert all(0 < box["height"] < 500 for box in pictures)
        assert all(a["bottom"] <= b["top"] for a, b in pairwise(pictures))
        assert pictures[0]["bottom"] < 1047  # on the first sheet
        for i, picture in enumerate(tab.page.locator("#vis > svg.layer").all()):
            texts = picture.locator("text").all_text_contents()
            above = ["0", "1", "2", "3"] if i == 0 else []
            assert texts == [*above, str(layers[i].layer)]
            lines = [len(expected_lines(weights)) for weights in layers[i].weights]
            assert picture.locator("line").count() == sum(lines)
    assert len(tab.page.pdf()) > 10_000  # which fires both events
    tab.page.emulate_media(media="screen")
    tab.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert len(pictures) == (4 if view == "model" else 0)
    assert tab.page.locator("#vis > svg").count() == 1
    tab.reads(TITLE, "Layer 2, Head 1")


# -------------------------------------------------------------------------- the address, and people


@BOTH_VIEWS
def test_back_and_forth(tmp_path: Path, open_page: Open, view: str) -> None:
    layers = [Layer(i, random_weights(i, 2, 6, causal=False)) for i in (2, 5)]
    pair = {"tokens": list("abcdef"), "sentence_b_start": 4}
    tab = open_page(make_pages(tmp_path, layers, **pair)[view], "#attention=7")

    def now(address: str, title: str) -> None:
        tab.wait(f"() => location.hash === '{address}'")
        tab.drawn()
        assert tab.hash() == address
        tab.reads(TITLE, title)

    every = "layer=2&head=all&" if view == "head" else "head=all&"
    none = "Layer 2" if view == "head" else "One head"
    now(f"#{every}".removesuffix("&"), none)
    tab.options()
    tab.page.get_by_label("Lines above").fill("30")  # is no step
    now(f"#{every}above=0.09", none)
    if view == "head":
        tab.button("Head 1").click()  # is one
    else:
        tab.button("Layer 2, Head 1").click()
    now("#layer=2&head=1&above=0.09", "Layer 2, Head 1")
    tab.row("Layer 5, Head 0").click()
    now("#layer=5&head=0&above=0.09", "Layer 5, Head 0")
    tab.options()
    tab.page.get_by_label("Lines above").fill("20")
    now("#layer=5&head=0&above=0.04", "Layer 5, Head 0")
    tab.choose("#filter", "Sentence A -> Sentence B")
    part = "Layer 5, Head 0, Sentence A -> Sentence B"
    now("#layer=5&head=0&attention=3&above=0.04", part)
    for _ in range(2):
        tab.page.go_back()
        now("#layer=5&head=0&above=0.04", "Layer 5, Head 0")
        tab.page.go_back()
        now("#layer=2&head=1&above=0.09", "Layer 2, Head 1")
        tab.page.go_back()
        now(f"#{every}above=0.09", none)
        for _ in range(3):
            tab.page.go_forward()
        now("#layer=5&head=0&attention=3&above=0.04", part)
    tab.page.go_back()
    now("#layer=5&head=0&above=0.04", "Layer 5, Head 0")
    if view == "head":  # a double click is one step, and so is another layer
        tab.button("Head 1").click()
        now("#layer=5&head=1&above=0.04", "Layer 5, Head 1")
        tab.choose("#layer", "2")
        now("#layer=2&head=1&above=0.04", "Layer 2, Head 1")
        tab.button("All").click()
        now("#layer=2&head=all&above=0.04", "Layer 2")
        assert tab.pressed() == [True, True]
        tab.choose("#layer", "5")
        now("#layer=5&head=all&above=0.04", "Layer 5")
        for _ in range(4):
            tab.page.go_back()
    else:  # to close a picture is a step
        tab.button("Layer 5, Head 0").click()
        now("#head=all&above=0.04", "One head")
        tab.page.go_back()
    now("#layer=5&head=0&above=0.04", "Layer 5, Head 0")
    for _ in range(3):  # to load the page was none
        tab.page.go_back()
    assert tab.page.url == "about:blank"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@BOTH_VIEWS
def test_accessibility(tmp_path: Path, open_page: Open, view: str, width: int, scheme: str) -> None:
    from axe_playwright_python.base import AXE_FILE_PATH

    layers = [Layer(i, random_weights(i, 3, 6, causal=False)) for i in range(2)]
    tokens = ["[CLS]", "a", "b", "[SEP]", "a", "[SEP]"]
    header = {"tokens": tokens, "sentence_b_start": 4, "prompt": "word " * 200}
    tab = open_page(make_pages(tmp_path, layers, **header)[view], color_scheme=scheme)
    tab.resize(width)
    tab.row("Layer 1, Head 2").click()
    if view == "model":
        tab.show_lines()
    tab.wait("() => document.querySelector('[role=option]') !== null")
    tab.page.locator("[role=option]").first.focus()
    tab.page.evaluate(AXE_FILE_PATH.read_text(encoding="utf-8"))
    found = tab.page.evaluate("axe.run().then(r => [r.violations, r.passes.length])")
    violations, passes = found
    serious = [
        (rule["id"], rule["help"], [node["html"][:120] for node in rule["nodes"]])
        for rule in violations
        if rule["impact"] in ("serious", "critical")
    ]
    assert serious == []
    assert passes > 20
