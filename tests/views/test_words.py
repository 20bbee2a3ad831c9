"""Words instead of tokens: in the pages, in Chromium, and in figures."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import (
    BOTH_VIEWS,
    Layer,
    Open,
    Tab,
    expected_lines,
    head_view_lines,
    make_pages,
    random_weights,
    write_capture,
)
from conftest import Run

from activations import UsageError, load

pytestmark = pytest.mark.browser

TOKENS = ["[CLS]", "pl", "##ay", "##ing", "[SEP]", "un", "##do", "[SEP]"]
STARTS = [0, 1, 4, 5, 7]
LABELS = ["[CLS]", "playing", "[SEP]", "undo", "[SEP]"]
# Read from what the page draws with; the drawn lines and cells are compared with it elsewhere.
MATRIX = "([l, h]) => Weights.matrix(State.whole, l, h, NaN)"


def between_words(
    weights: np.ndarray, rows: list[int] | None = None, columns: list[int] | None = None
) -> np.ndarray:
    """(..., rows, columns) -> between words that begin so: sums to them, means from them."""
    rows, columns = rows or STARTS, columns or STARTS
    height, width = weights.shape[-2:]
    sums = [weights[..., a:b].sum(axis=-1) for a, b in pairwise([*columns, width])]
    to_words = np.stack(sums, axis=-1)
    means = [to_words[..., a:b, :].mean(axis=-2) for a, b in pairwise([*rows, height])]
    return np.stack(means, axis=-2)


def as_carried(weights: np.ndarray) -> np.ndarray:
    """To 4 decimals, as a page has them."""
    return weights.astype(np.float64).round(4)


def matrix(tab: Tab, layer: int = 0, head: int = 0) -> np.ndarray:
    tab.page.evaluate(
        "async ([l, h]) => { await Weights.open(State.whole, [l], [h]); }", [layer, head]
    )
    return np.array(tab.page.evaluate(MATRIX, [layer, head]), float)


def switch(tab: Tab) -> None:
    tab.page.get_by_label("Words", exact=True).click()
    tab.drawn()


@pytest.fixture
def layers() -> list[Layer]:
    return [Layer(i, random_weights(i, 3, 8, causal=False)) for i in (1, 4)]


# ----------------------------------------------------------------------------- the pages


@BOTH_VIEWS
def test_the_matrix_between_words(
    layers: list[Layer], view: str, tmp_path: Path, open_page: Open
) -> None:
    pages = make_pages(tmp_path, layers, "--words", tokens=TOKENS)
    tab = open_page(pages[view], "#layer=4&head=2")
    expected = between_words(as_carried(layers[1].weights[2]))
    np.testing.assert_allclose(matrix(tab, 1, 2), expected, atol=5.1e-5)
    np.testing.assert_allclose(matrix(tab, 1, 2), between_words(layers[1].weights[2]), atol=2e-4)
    assert tab.texts("#heat text")[:10] == LABELS * 2
    shown = [float(value) for value in tab.texts("#heat text.value")]
    np.testing.assert_allclose(shown, expected[expected >= 0.005].ravel(), atol=0.0051)
    assert tab.read("#head-detail-title") == "Layer 4, Head 2, words"
    assert tab.hash() == "#layer=4&head=2"


def test_lines_and_tokens_are_those_of_words(
    layers: list[Layer], tmp_path: Path, open_page: Open
) -> None:
    tab = open_page(
        make_pages(tmp_path, layers, "--words", tokens=TOKENS)["head"], "#layer=1&head=0"
    )
    expected = expected_lines(between_words(as_carried(layers[0].weights[:1])))
    found = head_view_lines(tab)
    assert found.keys() == expected.keys()
    assert all(abs(found[place] - expected[place]) < 1.1e-4 for place in found)
    tab.page.locator("#vis #left [role=option]").nth(3).hover()
    assert "undo (word 3) attends to" in tab.read("#readout")


def test_switched_on_and_off(layers: list[Layer], tmp_path: Path, open_page: Open) -> None:
    tab = open_page(make_pages(tmp_path, layers, tokens=TOKENS)["head"], "#layer=1&head=1")
    weights = layers[0].weights[1]
    for times in range(2):
        np.testing.assert_allclose(matrix(tab, 0, 1), weights, atol=5.1e-5)
        assert tab.hash() == "#layer=1&head=1"
        switch(tab)
        assert matrix(tab, 0, 1).shape == (5, 5), times
        assert tab.hash() == "#layer=1&head=1&words=1"
        switch(tab)


@pytest.mark.parametrize(
    ("made", "address", "shown"),
    [
        ("--words", "words=0", 8),
        ("--words", "", 5),
        ("--quiet", "words=1", 5),
        ("--quiet", "", 8),
    ],
)
def test_the_address(
    layers: list[Layer], made: str, address: str, shown: int, tmp_path: Path, open_page: Open
) -> None:
    pages = make_pages(tmp_path, layers, made, tokens=TOKENS)
    start = "#layer=1&head=1" + (f"&{address}" if address else "")
    tab = open_page(pages["model"], start)
    assert matrix(tab).shape == (shown, shown)
    assert tab.hash() == start
    assert tab.page.get_by_label("Words", exact=True).is_checked() == (shown == 5)
    other = tab.page.locator("#views a").get_attribute("href") or ""
    assert ("words=" in other) == ("words=" in start)


def test_the_average_and_without_the_first(
    layers: list[Layer], tmp_path: Path, open_page: Open
) -> None:
    pages = make_pages(tmp_path, layers, "--words", tokens=TOKENS)
    tab = open_page(pages["head"], "#layer=4&head=average&first=hidden")
    merged = between_words(layers[1].weights.mean(axis=0))
    expected = merged[1:, 1:] / merged[1:, 1:].sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(matrix(tab, 1), expected, atol=5e-4)
    assert tab.texts("#heat text")[:4] == LABELS[1:]
    tab.page.get_by_label("Hide first token").uncheck()
    tab.drawn()
    np.testing.assert_allclose(matrix(tab, 1), merged, atol=2e-4)
    switch(tab)
    np.testing.assert_allclose(matrix(tab, 1), layers[1].weights.mean(axis=0), atol=1.1e-4)


def test_a_pair(layers: list[Layer], tmp_path: Path, open_page: Open) -> None:
    pages = make_pages(tmp_path, layers, "--words", tokens=TOKENS, sentence_b_start=5)
    tab = open_page(pages["head"], "#layer=1&head=1")
    assert [tab.texts(f"#vis #{side} .second") for side in ("left", "right")] == [LABELS[3:]] * 2
    tab.choose("#filter", "Sentence B -> Sentence A")
    expected = between_words(layers[0].weights[1])[3:, :3]
    np.testing.assert_allclose(matrix(tab, 0, 1), expected, atol=2e-4)
    assert tab.page.evaluate("Weights.positionOf(State.whole, 'row', State.whole.rows[0])") == 3


def test_generated_words(layers: list[Layer], tmp_path: Path, open_page: Open) -> None:
    pages = make_pages(tmp_path, layers, "--words", tokens=TOKENS, continuation_start=6)
    tab = open_page(pages["head"], "#layer=1&head=1")
    assert tab.texts("#vis #left .generated") == ["##do", "[SEP]"]  # no word goes over the start


@pytest.mark.parametrize("shape", [(8, 10), (5, 5), (5, 8)])
def test_places_of_rows_and_columns(
    shape: tuple[int, int], tmp_path: Path, open_page: Open
) -> None:
    """Virtual tokens before the text; a part of it, which cuts a word; its last tokens alone."""
    is_part = shape == (5, 5)
    weights = random_weights(0, 2, 8, 8, causal=False) if is_part else random_weights(0, 2, *shape)
    flags = ["--tokens", "2:7"] if is_part else []
    pages = make_pages(tmp_path, [Layer(0, weights)], "--words", *flags, tokens=TOKENS)
    tab = open_page(pages["head"], "#layer=0&head=0")
    rows, columns, names, places = {
        (8, 10): (STARTS, [0, 1, 2, 3, 6, 7, 9], ["prefix 0", "prefix 1", *LABELS], (0, -2)),
        (5, 5): ([0, 2, 3], [0, 2, 3], ["##aying", "[SEP]", "undo"], (1, 1)),
        (5, 8): ([0, 1, 2, 4], STARTS, LABELS, (1, 0)),
    }[shape]
    part = weights[0, 2:7, 2:7] if is_part else weights[0]
    np.testing.assert_allclose(matrix(tab), between_words(part, rows, columns), atol=3e-4)
    assert tab.texts("#vis #right text") == names
    position = "s => Weights.positionOf(State.whole, s, 0)"
    assert tuple(tab.page.evaluate(position, side) for side in ("row", "column")) == places
    assert tab.page.evaluate("State.whole.offset") == places[0] - places[1]


def test_cross_attention(tmp_path: Path, open_page: Open) -> None:
    weights = random_weights(0, 2, 4, 8, causal=False)
    header: dict[str, Any] = {"tokens": TOKENS, "decoder_tokens": ["</s>", "▁ein", "e", "▁a"]}
    pages = make_pages(tmp_path, [Layer(0, weights, "cross")], "--words", **header)
    tab = open_page(pages["head"], "#layer=0&head=1")
    expected = between_words(weights[1], [0, 1, 3])
    np.testing.assert_allclose(matrix(tab, 0, 1), expected, atol=3e-4)
    assert tab.texts("#vis #left text") == ["</s>", "·eine", "·a"]
    part = make_pages(
        tmp_path / "part", [Layer(0, weights, "cross")], "--words", "--tokens", "2:4", **header
    )
    tab = open_page(part["head"], "#layer=0&head=1")
    position = "s => Weights.positionOf(State.whole, s, 0)"
    assert [tab.page.evaluate(position, side) for side in ("row", "column")] == [1, 1]


def test_rows_that_are_no_numbers(tmp_path: Path, open_page: Open) -> None:
    weights = random_weights(0, 2, 8, causal=False)
    weights[0, 2] = weights[0, 4] = np.nan
    pages = make_pages(tmp_path, [Layer(0, weights)], "--words", tokens=TOKENS)
    found = matrix(open_page(pages["head"], "#layer=0&head=0"))
    kept = weights[0, [0, 1, 3, 5, 6, 7]]
    expected = between_words(kept, [0, 1, 3, 5])
    np.testing.assert_allclose(found[[0, 1, 3, 4]], expected, atol=3e-4)
    assert np.isnan(found[2]).all()


def test_small_pictures(layers: list[Layer], tmp_path: Path, open_page: Open) -> None:
    pages = make_pages(tmp_path, layers, "--words", tokens=TOKENS)
    tab = open_page(pages["model"], "#pictures=matrices")
    found = tab.page.evaluate("Array.from(Weights.overview(State.whole, 1, 2).shades)")
    expected = 63 * np.sqrt(between_words(layers[1].weights[2])).ravel()
    np.testing.assert_allclose(found, expected, atol=1)
    size = "[document.querySelector('#thumbnails canvas')].map(c => [c.width, c.height])"
    assert tab.page.evaluate(size) == [[5, 5]]


# ----------------------------------------------------------------------------- nothing to merge


@pytest.mark.parametrize("raw", [False, True])
def test_where_tokens_stay(raw: bool, tmp_path: Path, open_page: Open, view: Run) -> None:
    weights = random_weights(0, 2, 8, causal=False)
    tokens = TOKENS if raw else [f"t{i}" for i in range(8)]
    write_capture(tmp_path / "x.json", [Layer(0, weights - 4 * raw)], tokens=tokens)
    outcome = view(tmp_path / "x.json", "--output-dir", tmp_path / "pages", "--words")
    line = (
        "Self: only attention weights can be merged to words, so tokens are shown."
        if raw
        else "Self: no word has several tokens, so tokens are shown."
    )
    assert f"warning: {line}" in outcome.err
    tab = open_page(Path(outcome.out[0]), "#layer=0&head=0")
    assert line in tab.read("#notes")
    assert tab.page.locator("#words-label").is_hidden()
    assert matrix(tab).shape == (8, 8)
    figures = ["--figure", "0.1", "--output-dir", tmp_path / "pages"]
    (figure,) = view(tmp_path / "x.json", *figures, "--words").out
    assert "_words" not in figure


# ----------------------------------------------------------------------------- long texts


def long_tokens(count: int) -> list[str]:
    """Words of one, two and three tokens."""
    return [f"{'' if i % 6 in (0, 1, 3) else '##'}{chr(97 + i % 26)}" for i in range(count)]


def test_a_long_text(tmp_path: Path, open_page: Open) -> None:
    weights = random_weights(3, 1, 300)
    pages = make_pages(tmp_path, [Layer(0, weights)], tokens=long_tokens(300))
    tab = open_page(pages["head"], "#layer=0&head=0&row=150")
    switch(tab)
    starts = [i for i, token in enumerate(long_tokens(300)) if token[0] != "#"]
    expected = between_words(weights[0], starts, starts)
    np.testing.assert_allclose(matrix(tab), expected, atol=3e-4)
    assert tab.hash() == "#layer=0&head=0&words=1&row=75"  # the same place
    rows = tab.page.evaluate("State.stack.rows")
    assert rows == [59, 91]
    shades = tab.page.evaluate("Weights.overview(State.whole, 0, 0)")
    assert (shades["rows"], shades["columns"]) == (100, 100)  # of tokens: a cell is three of them
    switch(tab)
    assert tab.hash() == "#layer=0&head=0&row=150"


def test_cross_attention_to_a_long_text_begins_at_its_strongest(
    tmp_path: Path, open_page: Open
) -> None:
    weights = np.full((1, 2, 600), 1e-6, np.float32)
    weights[:, :, 450] = 0.9
    header: dict[str, Any] = {"tokens": long_tokens(600), "decoder_tokens": ["a", "b"]}
    pages = make_pages(tmp_path, [Layer(0, weights, "cross")], "--words", **header)
    tab = open_page(pages["head"], "#layer=0&head=0")
    first, end = tab.page.evaluate("State.stack.columns")
    assert first <= 225 < end


# ----------------------------------------------------------------------------- figures


def test_a_figure(layers: list[Layer], tmp_path: Path, view: Run) -> None:
    write_capture(tmp_path / "x.json", layers, tokens=TOKENS)
    (path,) = view(
        tmp_path / "x.json", "--figure", "4.2", "--words", "--output-dir", tmp_path / "figures"
    ).out
    assert path.endswith("_layer_4_head_2_words.svg")
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", Path(path).read_text())
    assert {"Attended word", "Attending word"} < set(texts)
    assert [text for text in texts if text in LABELS] == LABELS * 2
    expected = between_words(layers[1].weights[2])
    cells = [float(text) for text in texts if re.fullmatch(r"0\.\d\d|1\.00", text)]
    np.testing.assert_allclose(cells[: expected.size], expected.ravel(), atol=0.0051)


def test_from_python(layers: list[Layer], tmp_path: Path, open_page: Open) -> None:
    write_capture(tmp_path / "x.json", layers, tokens=TOKENS)
    document = load(tmp_path / "x.json")
    document.view(words=True).save(tmp_path / "attention_head_view_x.html")
    tab = open_page(tmp_path / "attention_head_view_x.html", "#layer=1&head=0")
    expected = between_words(layers[0].weights[0])
    np.testing.assert_allclose(matrix(tab), expected, atol=2e-4)
    with pytest.raises(UsageError, match="words takes True or False"):
        document.view(words="yes")  # type: ignore[arg-type]


def test_scores_stay_those_of_tokens(layers: list[Layer], tmp_path: Path, view: Run) -> None:
    write_capture(tmp_path / "x.json", layers, tokens=TOKENS)
    alone = view(tmp_path / "x.json", "--summary")
    folder = tmp_path / "pages"
    both = view(
        tmp_path / "x.json", "--summary", "--view", "head", "--words", "--output-dir", folder
    )
    assert both.out[:-1] == alone.out
