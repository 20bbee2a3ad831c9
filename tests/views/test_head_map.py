"""The map of heads: a cell a head, tinted by a score, in Chromium."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Layer, Tab, make_pages, random_weights
from conftest import Open
from playwright.sync_api import expect

from activations import load
from activations.attention.scores import SCORES

pytestmark = pytest.mark.browser
BOTH_VIEWS = pytest.mark.parametrize("view", ["head", "model"])
TOKENS = ["a", "b", ".", "a", "b", "c"]
SHADES = """() => Array.from(document.querySelectorAll('#map-cells button'), cell => {
    const [r, g, b] = getComputedStyle(cell).backgroundColor.match(/[\\d.]+/g).map(Number);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; })"""


@pytest.fixture
def layers() -> list[Layer]:
    found = [Layer(i, random_weights(i, 3, 6)) for i in (1, 4)]
    found[1].weights[2] = np.eye(6, k=-1)  # a previous-token head
    found[1].weights[2, 0, 0] = 1
    return found


def cells(tab: Tab) -> list[str]:
    return [
        str(cell.get_attribute("title")) for cell in tab.page.locator("#map-cells button").all()
    ]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return load(folder / "capture.json").scores()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_cell_for_each_head(
    layers: list[Layer], scheme: str, tmp_path: Path, open_page: Open
) -> None:
    tab = open_page(make_pages(tmp_path, layers, tokens=TOKENS)["head"], color_scheme=scheme)
    rows = rows_of(tmp_path)
    # It opens on the score that separates the heads best.
    assert tab.texts("#map-score option:checked") == ["Previous"]
    options = tab.texts("#map-score option")
    known = [name for name in SCORES if any(row[name] == row[name] for row in rows)]
    short = {"previous_token": "Previous", "duplicate_token": "Duplicate", "first_token": "First"}
    assert options == [short.get(name, name.capitalize()) for name in known]
    for name, option in zip(known, options, strict=True):
        tab.choose("#map-score", option)
        said = name.replace("_", " ")
        assert cells(tab) == [
            f"Layer {row['layer']}, Head {row['head']}: {said} {row[name]:.3f}" for row in rows
        ]
        # The higher the score, the darker the cell; on a dark page, the lighter.
        values = np.array([row[name] for row in rows])
        shades = np.array(tab.page.evaluate(SHADES))
        order = np.argsort(values, kind="stable")
        steps = np.diff(shades[order]) * (1 if scheme == "dark" else -1)
        assert (steps >= -1).all()
        assert np.ptp(shades) > 50
        assert tab.read("#map-highest") == f"{values.max():.2f}"


def test_a_cell_opens_its_head(layers: list[Layer], tmp_path: Path, open_page: Open) -> None:
    tab = open_page(make_pages(tmp_path, layers, tokens=TOKENS)["head"])
    chosen = tab.page.locator("#map-cells button[aria-pressed=true]")
    expect(chosen).to_have_count(0)
    tab.page.get_by_title("Layer 4, Head 1: previous token").click()
    tab.reads("#head-detail-title", "Layer 4, Head 1")
    expect(chosen).to_have_count(1)
    assert str(chosen.get_attribute("title")).startswith("Layer 4, Head 1:")
    tab.choose("#map-score", "Entropy")  # the mark stays
    assert str(chosen.get_attribute("title")).startswith("Layer 4, Head 1: entropy")
    # One stop for all cells; the arrow keys go from one to the other.
    tab.page.locator("#map-cells button").first.focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "Enter"):
        tab.page.keyboard.press(key)
    tab.reads("#head-detail-title", "Layer 4, Head 0")
    tab.page.get_by_label("Mean").check()
    expect(chosen).to_have_count(0)


def test_a_token_pointed_at_while_another_head_opens(
    layers: list[Layer], tmp_path: Path, open_page: Open
) -> None:
    """The drawing is still the old one, and the weights of the new one are not there yet."""
    tab = open_page(make_pages(tmp_path, layers, tokens=TOKENS)["head"], "#layer=1&head=0")
    tab.page.evaluate(
        """() => {
            document.querySelector('#map-cells button:last-child').click();
            document.querySelector('#vis [role=option]').focus();
        }"""
    )
    tab.reads("#head-detail-title", "Layer 4, Head 2")
    tab.drawn()
    tab.page.locator("#vis [role=option]").nth(2).focus()
    expect(tab.page.locator("#readout")).to_contain_text("Head 2")


def test_the_page_opens_on_the_strongest_head(
    layers: list[Layer], tmp_path: Path, open_page: Open
) -> None:
    tab = open_page(make_pages(tmp_path, layers, tokens=TOKENS)["head"], "#")
    tab.reads("#head-detail-title", "Layer 4, Head 2")
    assert tab.hash() == "#layer=4&head=2"
    (title,) = (
        cell.get_attribute("title")
        for cell in tab.page.locator("[title][aria-pressed=true][data-place]").all()
    )
    assert title == "Layer 4, Head 2: previous token 1.000"
    tab.page.go_back()  # that was no step
    assert tab.page.url == "about:blank"


@pytest.mark.parametrize(("width", "is_beside"), [(390, False), (1099, False), (1280, True)])
def test_where_it_stands(
    layers: list[Layer], width: int, is_beside: bool, tmp_path: Path, open_page: Open
) -> None:
    """Beside the pictures where there is room; the first picture is high up on the page."""
    tab = open_page(make_pages(tmp_path, layers, tokens=TOKENS)["head"], "#layer=4&head=2")
    tab.resize(width)
    lines, matrix, found = tab.page.evaluate(
        "['#attention', '#heat .paper', '#map']"
        ".map(s => document.querySelector(s).getBoundingClientRect())"
    )
    assert (found["left"] >= matrix["right"] - 2) == is_beside
    assert (found["top"] < matrix["bottom"]) == is_beside
    assert found["right"] <= width
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    if width == 1280:
        assert lines["top"] <= 180


@pytest.mark.parametrize("kind", ["Lines", "Matrices"])
def test_bars_in_the_model_view(
    layers: list[Layer], kind: str, tmp_path: Path, open_page: Open
) -> None:
    """There all heads are seen already: each picture has a bar, its share of the highest score."""
    tab = open_page(make_pages(tmp_path, layers, tokens=TOKENS)["model"])
    expect(tab.page.locator("#map")).to_be_hidden()
    tab.page.locator("#pictures").get_by_role("button", name=kind).click()
    tab.drawn()
    assert tab.texts("#bars option:checked") == ["Previous"]
    for name, option in (("previous_token", "Previous"), ("first_token", "First")):
        tab.choose("#bars", option)
        scores = np.array([row[name] for row in rows_of(tmp_path)])
        shares = scores / scores.max()
        if kind == "Lines":
            (path,) = tab.page.locator("#score-bars").all()
            bars = re.findall(r"h([\d.]+)v", str(path.get_attribute("d")))
            (picture,) = tab.page.evaluate(
                "[document.querySelector('#vis g rect').getBoundingClientRect().width]"
            )
            found = [float(bar) / picture for bar in bars]
        else:
            styles = tab.page.locator("#thumbnails button > i").all()
            found = [float(str(i.get_attribute("style"))[7:-2]) / 100 for i in styles]
        assert found == pytest.approx(shares[shares >= 0.05], abs=0.02)


def test_many_heads_take_the_whole_width(tmp_path: Path, open_page: Open) -> None:
    many = [Layer(i, random_weights(i, 32, 4)) for i in range(3)]
    tab = open_page(make_pages(tmp_path, many)["head"], "#")
    tab.resize(1280)
    box = tab.page.evaluate("document.querySelector('#map-cells').getBoundingClientRect()")
    below = tab.page.evaluate("document.querySelector('#vis').getBoundingClientRect().bottom")
    assert box["top"] > below
    assert tab.page.locator("#map-cells button").count() == 96
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_no_map_without_scores(tmp_path: Path, open_page: Open) -> None:
    raw = np.random.default_rng(0).normal(0, 30, (2, 6, 6)).astype(np.float32)
    tab = open_page(make_pages(tmp_path, [Layer(0, raw)])["head"])
    expect(tab.page.locator("#map")).to_be_hidden()
