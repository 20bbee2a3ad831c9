"""What was changed, and what a sweep found: on the page, and in the summary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browser import Layer, make_pages, random_weights
from conftest import Open, Run

pytestmark = pytest.mark.browser
HOSTILE = "</section><img src=x onerror=alert(1)>"
SHOWN = HOSTILE.replace(" ", "·")
BEFORE = {"ids": [1, 2], "tokens": ["Ġfox", "Ġhen"], "probabilities": [0.75, 0.25]}
AFTER = {"ids": [2, 3], "tokens": ["Ġhen", HOSTILE], "probabilities": [0.5, 0.125]}
CHANGED = {
    "interventions": [
        {"what": "1.0", "module": "m", "with": "zero", "positions": None, "part": [-1, 0, 8]},
        {"what": "mlp:2", "module": "n", "with": "source", "positions": [3]},
    ],
    "effect": {"kl": 1.25, "position": 4, "before": BEFORE, "after": AFTER},
    "tokens": ["Ġa", "Ġb", "Ġc", "Ġd", "Ġe"],
}
SWEPT = {
    "sweep": {
        "of": "heads",
        "with": "zero",
        "layers": [0, 3],
        "kinds": ["self", "self"],
        "kl": [[0.25, 0.5], [None, 2.0]],
        "probability_of_top": [[0.5, 0.25], [None, 0.125]],
        "top": "Ġfox",
        "probability": 0.75,
    },
    "tokens": ["Ġa", "Ġb", "Ġc", "Ġd", "Ġe"],
}


@pytest.fixture
def layers() -> list[Layer]:
    return [Layer(i, random_weights(i, 2, 5)) for i in (0, 3)]


def test_what_was_changed(layers: list[Layer], tmp_path: Path, open_page: Open) -> None:
    tab = open_page(make_pages(tmp_path, layers, **CHANGED)["head"])
    assert tab.page.locator("#effect li").all_inner_texts() == [
        "1.0 was replaced by zeros.",
        "mlp:2 was replaced by its value on the source at position 3.",
    ]
    assert "The prediction at position 4 moved by 1.25 nats" in tab.read("#effect")
    rows = tab.page.locator("#effect tbody tr").all()
    cells = [row.locator("th, td").all_inner_texts() for row in rows]
    assert cells[:2] == [["·fox", "0.75", "–"], ["·hen", "0.25", "0.50"]]
    assert cells[2] == [SHOWN, "–", "0.12"]
    assert tab.page.locator("img").count() == 0


def test_a_page_of_an_unchanged_pass_says_nothing(
    layers: list[Layer], tmp_path: Path, open_page: Open
) -> None:
    tab = open_page(make_pages(tmp_path, layers)["head"])
    assert tab.page.locator("#effect").count() == 0
    assert "Effect if removed" not in tab.texts("#map-score option")


@pytest.mark.parametrize("view", ["head", "model"])
def test_the_effect_is_a_score_of_the_map(
    view: str, layers: list[Layer], tmp_path: Path, open_page: Open
) -> None:
    tab = open_page(make_pages(tmp_path, layers, **SWEPT)[view], "#layer=3&head=1")
    if view == "head":
        assert tab.texts("#map-score option:checked") == ["Effect if removed"]
        cells = tab.page.locator("#map-cells button").all_inner_texts()
        assert cells == [".25", ".50", "–", "2.00"]
    row = tab.page.locator("#head-scores > div", has_text="Effect if removed")
    assert row.inner_text().split("\n")[-2:] == ["2.00", "this"]


def test_the_summary(layers: list[Layer], tmp_path: Path, view: Run) -> None:
    made: dict[str, Any] = {**CHANGED, **SWEPT}
    make_pages(tmp_path, layers, **made)
    lines = view(tmp_path / "capture.json", "--summary").out
    start = lines.index("Effect: the prediction at position 4 moved by 1.25 nats (KL divergence).")
    assert lines[start + 1 : start + 7] == [
        "  before: ·fox 0.75, ·hen 0.25",
        f"  after:  ·hen 0.50, {SHOWN} 0.12",
        "Without each of 3 heads, the prediction ·fox (0.75) moves most without:",
        "  3.1: 2 nats, its probability then is 0.12",
        "  0.1: 0.5 nats, its probability then is 0.25",
        "  0.0: 0.25 nats, its probability then is 0.50",
    ]
