"""Lines and matrix share their rows: where they stand, and what is lit when one is pointed at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from browser import TITLE, Layer, Open, Tab, make_pages, random_weights
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

TOKENS = ["One", "day", "a", "fox", "met", "a", "bear", "."]


@pytest.fixture
def weights() -> np.ndarray:
    return random_weights(7, 2, 8)


@pytest.fixture
def tab(weights: np.ndarray, tmp_path: Path, open_page: Open) -> Tab:
    pages = make_pages(tmp_path, [Layer(3, weights)], tokens=TOKENS)
    return open_page(pages["head"], "#layer=3&head=1")


MIDDLES = """() => [
    [...document.querySelectorAll('#left [role=option] rect')],
    [...document.querySelectorAll('#right [role=option] rect')],
    [...document.querySelectorAll('#heat text[data-side="0"]')],
].map(found => found.map(e => e.getBoundingClientRect()).map(({y, height}) => y + height / 2))"""
ENDS = """() => [...document.querySelectorAll('#attention line')].map(line => {
    const {top, bottom} = line.getBoundingClientRect();
    const ends = ['left', 'right'].map(side => line.getAttribute(`${side}-token-index`));
    return [...ends, top, bottom];
})"""


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (1600, 900), (800, 600)])
def test_a_token_stands_at_the_same_height_in_both(tab: Tab, width: int, height: int) -> None:
    tab.resize(width, height)
    left, right, rows = tab.page.evaluate(MIDDLES)
    assert len(left) == len(right) == len(rows) == 8
    assert left == right
    np.testing.assert_allclose(rows, left, atol=3)
    steps = np.diff(left)
    np.testing.assert_allclose(steps, steps[0])
    assert 16 <= steps[0] <= 30
    # And bertviz's lines end there.
    for row, column, top, bottom in tab.page.evaluate(ENDS):
        ends = sorted((left[int(row)], right[int(column)]))
        np.testing.assert_allclose([top, bottom], ends, atol=2)


def test_the_lines_have_the_room_there_is(tab: Tab) -> None:
    for width, least, most in ((1280, 160, 320), (1600, 300, 320), (390, 80, 320)):
        tab.resize(width)
        band = tab.page.evaluate("HeadView.geometry().band")
        assert least <= band <= most
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= width


def lit(tab: Tab) -> list[str]:
    """The labels of the matrix that are lit."""
    return tab.texts("#heat text.lit")


def test_one_band_through_lines_and_matrix(tab: Tab, weights: np.ndarray) -> None:
    band = tab.page.locator("#heat .band")
    expect(band).to_have_count(0)
    token = tab.page.locator("#left [role=option]").nth(6)
    token.hover()
    assert lit(tab) == ["bear"]
    box, row = band.bounding_box(), token.locator("rect").bounding_box()
    assert box
    assert row
    assert abs(box["y"] + box["height"] / 2 - row["y"] - row["height"] / 2) < 3
    # Its weights stand beside the tokens it attends to.
    shown = [w for w in weights[1, 6].round(4) if w >= 0.005]
    assert tab.texts("#numbers text") == [f"{w:.2f}".removeprefix("0") for w in shown]
    tab.page.locator("#right [role=option]").nth(2).hover()
    assert lit(tab) == ["a"]
    tab.page.mouse.move(5, 5)
    expect(band).to_have_count(0)
    expect(tab.page.locator("#numbers")).to_have_count(0)
    # From a cell of the matrix, the row is lit in the lines.
    paper = tab.page.locator("#heat .paper").bounding_box()
    assert paper
    tab.page.mouse.move(paper["x"] + 3, paper["y"] + paper["height"] * 4.5 / 8)
    marked = tab.attributes("#vis line[visibility='visible']", "left-token-index")
    assert {value for (value,) in marked} == {"4"}
    assert tab.read("#readout").startswith("met (token 4) attends to")
    tab.page.mouse.move(5, 5)
    assert tab.page.locator("#vis line[visibility='visible']").count() == 0


def test_a_click_keeps_a_token(tab: Tab) -> None:
    tokens = tab.page.locator("#left [role=option]")
    tokens.nth(3).click()
    tab.page.mouse.move(5, 5)
    assert lit(tab) == ["fox"]
    tokens.nth(5).hover()  # others are shown while they are pointed at
    assert lit(tab) == ["a"]
    tab.page.mouse.move(5, 5)
    assert lit(tab) == ["fox"]
    assert tab.read("#readout").startswith("fox (token 3)")
    # In another head, and in another drawing, it is still the same token.
    tab.button("Head 0").click()
    tab.reads(TITLE, "Layer 3, Head 0")
    expect(tab.page.locator("#readout li")).to_contain_text("Head 0")
    assert lit(tab) == ["fox"]
    tab.page.get_by_label("Lines above").fill("20")
    tab.wait("() => document.getElementById('status').textContent.includes('of 0.04 or less')")
    assert lit(tab) == ["fox"]
    tab.page.keyboard.press("Escape")
    assert lit(tab) == []
    assert tab.read("#readout") == ""
    assert tab.page.locator("#vis line[visibility='visible']").count() == 0
    # So does a click in the matrix, and a key.
    paper = tab.page.locator("#heat .paper").bounding_box()
    assert paper
    tab.page.mouse.click(paper["x"] + 3, paper["y"] + paper["height"] * 6.5 / 8)
    tab.page.mouse.move(5, 5)
    assert lit(tab) == ["bear"]
    tab.page.keyboard.press("Escape")
    tokens.nth(1).focus()
    tab.page.keyboard.press("Enter")
    tab.page.evaluate("document.activeElement.blur()")
    assert lit(tab) == ["day"]


def test_finding_a_token(tmp_path: Path, open_page: Open) -> None:
    """Of a long text: the next one that has these letters, or the one at a position."""
    tokens = [f"t{i}" for i in range(400)]
    tokens[120], tokens[310] = "Ġfound", "Ġfound"
    pages = make_pages(tmp_path, [Layer(0, random_weights(0, 1, 400))], tokens=tokens)
    tab = open_page(pages["head"], "#layer=0&head=0")
    tab.page.keyboard.press("/")
    tab.page.keyboard.type("FOUND")
    for row in (120, 310, 120):
        tab.page.keyboard.press("Enter")
        expect(tab.page.locator("#readout p")).to_have_text(f"·found (token {row}) attends to")
        first, last = map(int, tab.read("#window-range").split(" of ")[0].split("–"))
        assert first <= row <= last
    for wanted, is_there in (("250", True), ("nowhere", False), ("400", False)):
        tab.page.fill("#find", wanted)
        tab.page.keyboard.press("Enter")
        expect(tab.page.locator("#find")).to_have_attribute(
            "aria-invalid", str(not is_there).lower()
        )
    assert tab.read("#window-range").startswith("234–265")


def test_the_longest_jumps(tmp_path: Path, open_page: Open) -> None:
    weights = np.tri(300, dtype=np.float32)[None] * 0.001
    far = {(290, 10): 0.6, (250, 30): 0.5, (200, 20): 0.7, (280, 140): 0.4, (299, 200): 0.9}
    for (row, column), weight in far.items():
        weights[0, row, column] = weight
    weights[0, 295, 0] = 0.9  # the first token, where heads rest
    weights[0, 296, 2] = 0.2  # too faint
    pages = make_pages(tmp_path, [Layer(0, weights)], tokens=[f"t{i}" for i in range(300)])
    tab = open_page(pages["head"], "#layer=0&head=0")
    links = tab.page.locator("#jumps button")
    expect(links).to_have_text(["t290 290 → t10 10", "t250 250 → t30 30", "t200 200 → t20 20"])
    links.first.click()
    tab.wait("() => document.getElementById('window-range').textContent.startsWith('268')")
    tab.reads(TITLE, "Layer 0, Head 0")
