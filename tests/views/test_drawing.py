"""The pages in headless Chromium: what they draw, and that they do nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import (
    BOTH_VIEWS,
    REQUIRE,
    STAND_IN,
    TITLE,
    Layer,
    Open,
    Tab,
    expected_lines,
    expected_pictures,
    head_view_lines,
    make_pages,
    model_view_lines,
    random_weights,
    stack_of,
)
from playwright.sync_api import expect

from activations import load
from activations.document.reader import Document
from activations.views import assets
from activations.views.colours import LIGHT
from activations.views.content import Caption
from activations.views.page import build_pages

pytestmark = pytest.mark.browser

LEFT, RIGHT = "#vis #left text", "#vis #right text"
TOKENS = "#head-vis .detail text.token"
OPENED = "body.one-head #head-detail-title"  # the name of the picture that is open
DRESSED = "() => document.querySelector('#head-vis .detail title') !== null"


def of_head(layer: Layer, head: int) -> dict[tuple[int, ...], float]:
    return {p: w for p, w in expected_lines(layer.weights).items() if p[0] == head}


def test_head_view_draws_every_weight_above_the_cut(tmp_path: Path, open_page: Open) -> None:
    layers = [Layer(i, random_weights(i, heads=3, rows=7)) for i in (2, 5)]
    layers[0].weights[1, 6] = [0.01, 0.0101, 0.00999, 0.5, 0.01004, 0.01006, 0.4588]  # at the cut
    tab = open_page(make_pages(tmp_path, layers)["head"])
    tokens = [f"t{i}" for i in range(7)]
    assert tab.texts(LEFT) == tokens
    assert tab.texts(RIGHT) == tokens
    assert tab.texts("#layer option") == ["2", "5"]
    assert tab.page.locator("#vis > svg > g:last-of-type > rect").count() == 3
    assert tab.page.locator("#filter-label").is_hidden()
    expected = expected_lines(layers[0].weights)
    assert (1, 6, 1) in expected
    assert (1, 6, 0) not in expected
    assert (1, 6, 4) not in expected  # 0.01004 is 0.0100 to 4 decimals
    assert (1, 6, 5) in expected
    assert head_view_lines(tab) == expected

    status = tab.choose("#layer", "5")
    expected = expected_lines(layers[1].weights)
    assert head_view_lines(tab) == expected
    assert status == (
        f"{len(expected)} lines are drawn. Lines with a weight of 0.01 or less are not drawn."
    )
    assert tab.choose("#layer", "2")
    assert head_view_lines(tab) == expected_lines(layers[0].weights)


def test_model_view_draws_every_weight_above_the_cut(tmp_path: Path, open_page: Open) -> None:
    layers = [Layer(i, random_weights(i, heads=3, rows=6)) for i in (0, 1, 4)]
    tab = open_page(make_pages(tmp_path, layers, "--min-weight", "0.05")["model"])
    assert model_view_lines(tab) == expected_pictures(layers, 0.05)
    assert "0.05 or less" in tab.drawn()
    axes = tab.texts("#vis > svg > text")
    assert axes == ["Heads", "0", "1", "2", "Layers", "0", "1", "4"]

    # Its tokens, on a click.
    tab.page.locator("[aria-label='Layer 4, Head 1']").click()
    tab.page.locator(TOKENS).last.wait_for(state="attached")
    assert tab.texts(TOKENS) == [f"t{i}" for i in range(6)] * 2
    detail = tab.attributes("#head-vis .detail line", "stroke-opacity")
    drawn = expected_pictures(layers, 0.05)[4, 1]
    assert [round(float(o or 0), 4) for (o,) in detail] == list(drawn.values())


def test_heads_switch_on_and_off(tmp_path: Path, open_page: Open) -> None:
    layers = [Layer(i, random_weights(i, heads=3, rows=5)) for i in range(2)]
    tab = open_page(make_pages(tmp_path, layers)["head"])
    switches = tab.page.locator("#heads button")
    expect(tab.page.locator("#vis > svg > g:last-of-type > rect").first).to_be_hidden()

    def now(*on: bool) -> None:
        for button, is_on in zip(tab.page.locator("#heads button").all(), on, strict=True):
            expect(button).to_have_attribute("aria-pressed", str(is_on).lower())
        shown = {p: w for p, w in expected_lines(layers[layer].weights).items() if on[p[0]]}
        assert head_view_lines(tab) == shown
        # Only lines that are visible are counted.
        rest = "Lines with a weight of 0.01 or less are not drawn."
        tab.reads("#status", f"{len(shown)} lines are drawn. {rest}")

    layer = 0
    now(True, True, True)
    switches.nth(1).click(modifiers=["Shift"])  # taken away
    now(True, False, True)
    tab.choose("#layer", "1")  # another layer keeps the choice of heads
    layer = 1
    now(True, False, True)
    switches.nth(1).click(modifiers=["Shift"])  # added
    now(True, True, True)
    switches.nth(2).click()  # alone
    now(False, False, True)
    switches.nth(2).click()
    now(False, False, True)
    switches.nth(2).click(modifiers=["Shift"])  # one stays on
    now(False, False, True)
    tab.button("All").click()
    now(True, True, True)


@pytest.mark.parametrize(("side", "other", "at"), [("#left", "#right", 1), ("#right", "#left", 2)])
def test_pointing_at_a_token_shows_its_lines_alone(
    tmp_path: Path, open_page: Open, side: str, other: str, at: int
) -> None:
    weights = random_weights(3, heads=2, rows=6)
    tab = open_page(make_pages(tmp_path, [Layer(0, weights)])["head"])
    tab.page.locator(f"#vis {side} text").nth(3).hover()
    ends = ("left-token-index", "right-token-index")
    marked = tab.attributes("#vis line[visibility='visible']", *ends)
    there = [[str(p[1]), str(p[2])] for p in expected_lines(weights) if p[at] == 3]
    assert sorted(marked) == sorted(there)  # type: ignore[type-var]
    # On the other side, every token is shaded by the weight of each head.
    assert np.allclose(shades(tab, other), weights.take(3, axis=at).ravel(), atol=6e-5)


def shades(tab: Tab, side: str) -> list[float]:
    """The opacities of the boxes over the tokens of one side, head by head."""
    return list(
        tab.page.evaluate(
            "s => Array.from(document.querySelectorAll(s), e => +e.style.opacity)",
            f"#vis {side} .attentionBoxes rect",
        )
    )


# ----------------------------------------------------------------------------------- like bertviz's

MARKS = """() => Array.from(document.querySelectorAll('#vis line'), line => [
    ...['x1', 'y1', 'x2', 'y2'].map(n => (+line.getAttribute(n)).toFixed(6)),
    line.getAttribute('stroke'), line.getAttribute('stroke-width'),
    +line.getAttribute('stroke-opacity')])"""
TEXTS = """() => Array.from(document.querySelectorAll('#vis text'), text => [
    text.firstChild?.data ?? '', text.style.textAnchor || text.getAttribute('text-anchor'),
    text.getAttribute('font-size'),
    ...['x', 'y', 'dx', 'dy'].map(n => (+text.getAttribute(n)).toFixed(6))])"""


# Of the head that is open: its tokens and its lines, from the corner of its frame.
DETAIL = """() => {
    const frame = document.querySelector('rect.detail');
    const [left, top] = ['x', 'y'].map(n => +frame.getAttribute(n));
    const at = (e, x, y) =>
        [+e.getAttribute(x) - left, +e.getAttribute(y) - top].map(v => v.toFixed(3));
    return [...document.querySelectorAll('text.token')]
        .map(text => [text.firstChild.data, ...at(text, 'x', 'y')])
        .concat([...document.querySelectorAll('.detail line')]
            .filter(line => +line.getAttribute('stroke-opacity') > 0)
            .map(line => [...at(line, 'x1', 'y1'), ...at(line, 'x2', 'y2'),
                line.getAttribute('stroke'), (+line.getAttribute('stroke-opacity')).toFixed(4)]));
}"""


@BOTH_VIEWS
def test_same_marks_as_bertviz(tmp_path: Path, open_page: Open, view: str) -> None:
    import torch

    import bertviz

    # Weights of 4 decimals: what our page keeps, so that nothing is lost to rounding.
    layers = [Layer(i, random_weights(i, heads=4, rows=9).round(4)) for i in range(3)]
    tokens = [f"t{i}" for i in range(9)]
    attention = [torch.tensor(layer.weights)[None] for layer in layers]
    options: dict[str, Any] = {"layer": 1} if view == "head" else {"display_mode": "light"}
    draw = getattr(bertviz, f"{view}_view")
    theirs = tmp_path / "bertviz.html"
    html = draw(attention, tokens, html_action="return", **options).data
    theirs.write_text(f"<!doctype html><meta charset=utf-8>{html}")
    libraries = {REQUIRE: assets.d3() + "\n" + assets.jquery() + STAND_IN}
    their_tab = open_page(theirs, quiet=False, answers=libraries)

    pages = make_pages(tmp_path, layers, "--min-weight", "0", tokens=tokens)
    our_tab = open_page(pages[view], "#layer=1" if view == "head" else "")

    def marks(tab: Tab) -> list[list[Any]]:
        """Each line's place, colour and strength, as bertviz wrote them."""
        found = tab.page.evaluate(MARKS)
        return sorted([*mark[:-1], round(mark[-1], 6)] for mark in found if mark[-1] > 0)

    their_marks = marks(their_tab)
    assert marks(our_tab) == their_marks
    drawn = layers[1:2] if view == "head" else layers
    assert len(their_marks) == sum(int((layer.weights > 0).sum()) for layer in drawn)
    assert our_tab.page.evaluate(TEXTS) == their_tab.page.evaluate(TEXTS)
    if view == "model":  # and the detail of a picture, wherever it stands
        details = []
        for tab in (our_tab, their_tab):
            tab.page.evaluate(
                "document.querySelectorAll('#vis > svg > g > rect:last-child')[6]"
                ".dispatchEvent(new MouseEvent('click'))"
            )
            tab.wait("() => document.querySelector('.detail line') !== null")
            details.append(tab.page.evaluate(DETAIL))
        assert details[0] == details[1]
        assert len(details[0]) == 18 + int((layers[1].weights[2] > 0).sum())
    assert [line for line in their_tab.complaints if not line.startswith("log:")] == []


# ----------------------------------------------------------------------------- kinds of attention

SOURCE = ["<s>", "The", "Ġcat", "Ġsat", "</s>"]
SPOKEN = ["<s>", "The", "·cat", "·sat", "</s>"]
TARGET = ["<s>", "Die", "ĠKatze"]
WRITTEN = ["<s>", "Die", "·Katze"]


def encoder_decoder(encoder: list[int], decoder: list[int]) -> dict[str, list[Layer]]:
    def layers(kind: str, numbers: list[int], rows: int, columns: int | None) -> list[Layer]:
        causal = kind == "decoder"
        seed = len(kind) * 100
        return [Layer(i, random_weights(seed + i, 2, rows, columns, causal), kind) for i in numbers]

    return {
        "Encoder": layers("encoder", encoder, 5, None),
        "Decoder": layers("decoder", decoder, 3, None),
        "Cross": layers("cross", decoder, 3, 5),
    }


def test_encoder_decoder(tmp_path: Path, open_page: Open) -> None:
    kinds = encoder_decoder([3, 7], [5, 6, 11])
    every = [layer for layers in kinds.values() for layer in layers]
    # In whatever order the modules were captured.
    pages = make_pages(tmp_path, every[::-1], tokens=SOURCE, decoder_tokens=TARGET)
    head, model = open_page(pages["head"]), open_page(pages["model"])
    sides = {"Encoder": (SPOKEN, SPOKEN), "Decoder": (WRITTEN,) * 2, "Cross": (WRITTEN, SPOKEN)}
    assert head.texts("#filter option") == model.texts("#filter option") == list(sides)
    for kind in ("Encoder", "Cross", "Decoder", "Encoder"):
        rows, columns = sides[kind]
        head.choose("#filter", kind)
        assert (head.texts(LEFT), head.texts(RIGHT)) == (rows, columns)
        assert head.texts("#layer option") == [str(layer.layer) for layer in kinds[kind]]
        for layer in reversed(kinds[kind]):
            head.choose("#layer", str(layer.layer))
            assert head_view_lines(head) == expected_lines(layer.weights)
        model.choose("#filter", kind)
        assert model_view_lines(model) == expected_pictures(kinds[kind])
        last = kinds[kind][-1].layer
        picture = model.page.locator(f"[aria-label='Layer {last}, Head 1']")
        picture.click()
        model.wait(DRESSED)
        assert model.texts(TOKENS) == rows + columns
        picture.click()  # or it stays open in the next kind


NAMES = ["Ġa", "b", "c", "d", "e", "f"]
SHOWN = ["·a", *"bcdef"]
PREFIXED = ["prefix 0", "prefix 1", *SHOWN]


@pytest.mark.parametrize(
    ("columns", "left", "right"),
    [(8, SHOWN, PREFIXED), (6, ["e", "f"], SHOWN)],
    ids=["prefix tuning", "one step of a generation"],
)
def test_fewer_rows_than_columns(
    columns: int, left: list[str], right: list[str], tmp_path: Path, open_page: Open
) -> None:
    """Tokens, lines, numbers of tokens, marks of the second text and its filters."""
    layers = [Layer(i, random_weights(i, 2, len(left), columns, causal=False)) for i in (0, 1)]
    pages = make_pages(tmp_path, layers, tokens=NAMES, sentence_b_start=4)
    head, model = open_page(pages["head"]), open_page(pages["model"])
    assert (head.texts(LEFT), head.texts(RIGHT)) == (left, right)
    assert head_view_lines(head) == expected_lines(layers[0].weights)
    assert model_view_lines(model) == expected_pictures(layers)
    for side, names in ((LEFT, left), (RIGHT, right)):
        classes = head.attributes(side, "class")
        marked = [name for name, (kind,) in zip(names, classes, strict=True) if kind]
        assert marked == ["e", "f"]
        for i, name in enumerate(names):
            head.page.locator(side).nth(i).hover()
            number = f" (token {SHOWN.index(name)})" if name in SHOWN else ""
            said = "attends to" if side == LEFT else "is attended to by"
            assert head.read("#readout p").startswith(f"{name}{number} {said}")
    second = [["Sentence A -> Sentence A", "Sentence A -> Sentence B"], []][columns == 6]
    filters = head.texts("#filter option")
    assert [name for name in filters if name.startswith("Sentence A")] == second
    head.choose("#filter", "Sentence B -> Sentence A")
    assert (head.texts(LEFT), head.texts(RIGHT)) == (["e", "f"], SHOWN[:4])
    rows, first = len(left) - 2, columns - 6
    assert head_view_lines(head) == expected_lines(layers[0].weights[:, rows:, first : first + 4])


def test_sentence_pairs(tmp_path: Path, open_page: Open) -> None:
    layers = [Layer(i, random_weights(i, 2, 7, causal=False)) for i in range(2)]
    tokens = ["[CLS]", "a", "b", "[SEP]", "c", "##d", "[SEP]"]
    pages = make_pages(tmp_path, layers, tokens=tokens, sentence_b_start=4)
    head, model = open_page(pages["head"], "#layer=1"), open_page(pages["model"])
    a, b = slice(0, 4), slice(4, 7)
    parts = {
        "All": (slice(0, 7), slice(0, 7)),
        "Sentence A -> Sentence A": (a, a),
        "Sentence B -> Sentence B": (b, b),
        "Sentence A -> Sentence B": (a, b),
        "Sentence B -> Sentence A": (b, a),
    }
    assert head.texts("#filter option") == model.texts("#filter option") == list(parts)
    for name, (rows, columns) in parts.items():
        head.choose("#filter", name)
        assert (head.texts(LEFT), head.texts(RIGHT)) == (tokens[rows], tokens[columns])
        assert head.page.input_value("#layer") == "1"  # the layer stays
        assert head_view_lines(head) == expected_lines(layers[1].weights[:, rows, columns])
        model.choose("#filter", name)
        assert model_view_lines(model) == expected_pictures(layers, part=(rows, columns))


def test_layers_with_unlike_head_counts(tmp_path: Path, open_page: Open) -> None:
    layers = [Layer(i, random_weights(i, 4 if i % 2 else 2, 5)) for i in range(4)]
    pages = make_pages(tmp_path, layers)
    head, model = open_page(pages["head"]), open_page(pages["model"])
    entries = {
        "Self, layers 0,2, 2 heads of 5 x 5": layers[0::2],
        "Self, layers 1,3, 4 heads of 5 x 5": layers[1::2],
    }
    assert head.texts("#filter option") == list(entries)
    for name, members in reversed(entries.items()):
        head.choose("#filter", name)
        model.choose("#filter", name)
        assert len(head.pressed()) == len(members[0].weights)
        for layer in members:
            head.choose("#layer", str(layer.layer))
            assert head_view_lines(head) == expected_lines(layer.weights)
        assert model_view_lines(model) == expected_pictures(members)


def test_only_the_chosen_heads_and_tokens(tmp_path: Path, open_page: Open) -> None:
    layers = [Layer(i, random_weights(i, 4, 8)) for i in range(3)]
    flags = ("--layers", "1-2", "--heads", "1,3", "--tokens", "2:6")
    pages = make_pages(tmp_path, layers, *flags)
    head, model = open_page(pages["head"]), open_page(pages["model"])
    assert head.texts(LEFT) == ["t2", "t3", "t4", "t5"]
    assert head.texts("#heads button") == ["1", "3"]
    part = [layer.weights[[1, 3], 2:6, 2:6] for layer in layers]
    assert head_view_lines(head) == expected_lines(part[1])
    assert model_view_lines(model) == {
        (layer, head): expected_lines(part[layer][i])
        for layer in (1, 2)
        for i, head in enumerate((1, 3))
    }
    assert "tokens 2 to 5" in head.page.inner_text("#notes")
    head.page.locator(LEFT).first.hover()
    assert head.read("#readout").startswith("t2 (token 2) attends to")


def test_kinds_that_are_left_out_are_noted(
    tmp_path: Path, open_page: Open, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = encoder_decoder([0, 1], [0])
    every = [layer for layers in kinds.values() for layer in layers]
    header = {"tokens": SOURCE, "decoder_tokens": TARGET}
    pages = make_pages(tmp_path, every, "--tokens", "3:5", **header)
    notes = [
        "--tokens leaves out 'Decoder', which has 3 tokens.",
        "--tokens leaves out 'Cross', which has 3 x 5 tokens.",
    ]
    assert capsys.readouterr().err.splitlines() == [f"warning: {note}" for note in notes]
    tab = open_page(pages["head"])
    assert tab.texts("#notes li") == [*notes, "Only the tokens 3 to 4 are shown."]
    assert tab.page.text_content("#facts") == "Encoder: layers 0-1, 2 heads, 2 tokens"


def test_non_finite_weights_are_not_drawn(tmp_path: Path, open_page: Open) -> None:
    layer = Layer(0, random_weights(0, 2, 5, causal=False))
    layer.weights[0, 1, :3] = [np.nan, np.inf, -np.inf]
    layer.weights[1, 4] = np.nan
    pages = make_pages(tmp_path, [layer])
    # Of a row with such a value nothing is known.
    finite = Layer(0, np.where(np.isfinite(layer.weights).all(-1, keepdims=True), layer.weights, 0))
    head = open_page(pages["head"])
    assert head_view_lines(head) == expected_lines(finite.weights)
    # Nor do they shade: not even as the token pointed at before did.
    for row in (0, 1, 4):
        head.page.locator(LEFT).nth(row).hover()
        assert np.allclose(shades(head, "#right"), finite.weights[:, row].ravel(), atol=6e-5)
    assert model_view_lines(open_page(pages["model"])) == expected_pictures([finite])


def test_raw_scores_survive(tmp_path: Path, open_page: Open) -> None:
    # Scores that are no probabilities: negative ones and large ones.
    scores = np.random.default_rng(0).normal(0, 30, (2, 6, 6)).astype(np.float32)
    tab = open_page(make_pages(tmp_path, [Layer(0, scores)])["head"])
    step = float(scores.max() - scores.min()) / 65534
    found = head_view_lines(tab)
    assert {p for p, s in np.ndenumerate(scores) if s > 0.01 + step} <= set(found)
    assert all(abs(weight - scores[place]) <= step for place, weight in found.items())


# ------------------------------------------------------------------------------------- large ones


def large_page(path: Path, view: str, weights: np.ndarray, min_weight: float = 0) -> Path:
    stacks = [stack_of(weights)]
    pages = build_pages([view], Caption("model", "prompt"), stacks, min_weight)
    path.write_bytes(b"".join(pages[view]))
    return path


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of 2,500 lines instead of 250,000: a hundredth of the work for the browser."""
    own = assets.own_script().replace("atOnce: 250000,", "atOnce: 2500,")
    monkeypatch.setattr(assets, "own_script", lambda: own)


@pytest.mark.usefixtures("small_limit")
def test_only_the_strongest_of_too_many_lines(tmp_path: Path, open_page: Open) -> None:
    weights = random_weights(0, heads=4, rows=40, causal=False)
    weights[1] = np.eye(40)
    every = len(expected_lines(weights, 0))
    tab = open_page(large_page(tmp_path / "page.html", "head", weights), "#head=all")
    status = tab.drawn()
    cut = float(re.search(r"weight of ([\d.]+) or less", status)[1])  # type: ignore[index]
    drawn = expected_lines(weights, cut)
    assert head_view_lines(tab) == drawn
    # As many as the limit allows: the next fainter weight would be too many.
    assert len(drawn) <= 2500 < len(expected_lines(weights, cut - 0.0001)) < every
    assert status.startswith(f"The {len(drawn):,} strongest of {every:,} lines are drawn.")
    tab.button("Head 1").click()
    expect(tab.page.locator("#status")).to_contain_text("40 lines are drawn.")  # all of this one


def test_the_real_limit(tmp_path: Path, open_page: Open) -> None:
    # Nearly all weights alike, so that few are drawn.
    weights = np.full((26, 99, 99), 0.0101, np.float32)
    weights[:, 0, 0] = 0.01
    weights[:, 0, 1] = 0.0102
    tab = open_page(large_page(tmp_path / "page.html", "head", weights, 0.01), "#head=all")
    assert tab.drawn().startswith("The 26 strongest of 254,800 lines are drawn.")
    assert tab.page.locator("#vis line").count() == 26


@pytest.mark.usefixtures("small_limit")
def test_too_many_lines_that_are_all_alike(tmp_path: Path, open_page: Open) -> None:
    layers = [Layer(0, np.full((2, 51, 51), 1 / 51, np.float32))]  # 2,601 lines a head
    pages = make_pages(tmp_path, layers)
    for tab in (open_page(pages["head"]), open_page(pages["model"])):
        assert tab.drawn().startswith("0 of 5,202 lines are drawn. ")
        assert tab.page.locator("#vis line").count() == 0
    assert len(open_page(pages["head"]).texts(LEFT)) == 51


_PIXELS = """canvas => {
    const {width, height} = canvas;
    const {data} = canvas.getContext('2d').getImageData(0, 0, width, height);
    return [width, height, Array.from(data).filter((_, i) => i % 4 !== 3)];
}"""


@pytest.mark.parametrize("rows", [65, 130])
def test_pictures_where_lines_of_all_heads_are_too_many(
    rows: int, tmp_path: Path, open_page: Open
) -> None:
    layers = [Layer(i, random_weights(i, heads=3, rows=rows, causal=False)) for i in (2, 5)]
    tab = open_page(make_pages(tmp_path, layers, "--min-weight", "0")["model"])
    assert tab.drawn().startswith(f"{rows} tokens are too many for lines of all heads, so each")
    assert tab.page.locator("line").count() == 0
    assert tab.page.locator("#thumbnails canvas").count() == 6

    channels = np.array([[int(c[i : i + 2], 16) for c in LIGHT] for i in (1, 3, 5)])
    # A picture is the head's matrix, of weights sharing a pixel the strongest, by its root.
    step = -(-rows // 128)
    side = -(-rows // step)
    for layer in layers:
        for head, weights in enumerate(layer.weights):
            padded = np.zeros((side * step, side * step))
            padded[:rows, :rows] = weights
            strongest = padded.reshape(side, step, side, step).max(axis=(1, 3))
            button = tab.page.get_by_role("button", name=f"Layer {layer.layer}, Head {head}")
            width, height, shades = button.locator("canvas").evaluate(_PIXELS)
            assert (width, height) == (side, side)
            # In the colours of every matrix: a step of 63 is at most 6 of 255.
            share = np.sqrt(strongest).flatten()
            expected = [np.interp(share, np.linspace(0, 1, len(LIGHT)), c) for c in channels]
            np.testing.assert_allclose(np.reshape(shades, (-1, 3)).T, expected, atol=6)

    tab.button("Layer 5, Head 1").press("Enter")
    tab.reads(OPENED, "Layer 5, Head 1")
    tab.wait(DRESSED)
    in_view = slice(0, 32 if rows > 100 else rows)
    assert tab.texts(TOKENS) == [f"t{i}" for i in range(rows)][in_view] * 2
    shown = tab.attributes("#head-vis .detail line", "stroke-opacity")
    lines = expected_lines(layers[1].weights[1, in_view, in_view], 0)
    assert [round(float(o or 0), 4) for (o,) in shown] == list(lines.values())
    pressed = tab.page.locator("#thumbnails button[aria-pressed=true]")
    assert pressed.get_attribute("aria-label") == "Layer 5, Head 1"

    tab.button("Layer 2, Head 0").press("Enter")
    tab.reads(OPENED, "Layer 2, Head 0")
    tab.button("Layer 2, Head 0").press("Enter")  # again closes it
    tab.wait("() => document.querySelector('#head-vis') === null")
    assert tab.texts(OPENED) == []
    assert pressed.count() == 0


@pytest.mark.usefixtures("small_limit")
def test_an_address_opens_a_head_among_pictures(tmp_path: Path, open_page: Open) -> None:
    layers = [Layer(i, random_weights(i, heads=3, rows=70)) for i in range(2)]
    pages = make_pages(tmp_path, layers, "--min-weight", "0")
    tab = open_page(pages["model"], "#layer=1&head=2")
    tab.wait(DRESSED)
    assert tab.texts(OPENED) == ["Layer 1, Head 2"]
    tab.button("Lines").first.click()
    every = sum(len(expected_lines(layer.weights, 0)) for layer in layers)
    assert f"strongest of {every:,} lines are drawn." in tab.drawn()
    assert 0 < tab.page.locator("#vis > svg > g:not(.detail) line").count() <= 2500
    assert tab.texts(OPENED) == ["Layer 1, Head 2"]  # still open


# ---------------------------------------------------------------------------------- what was read


@pytest.mark.parametrize(
    ("key", "style", "shown", "note"),
    [
        ("continuation_start", "text-decoration-line", "underline", "were generated by the model"),
        ("sentence_b_start", "font-style", "italic", "belong to the second text"),
    ],
)
@pytest.mark.parametrize("part", [(0, 6), (3, 6), (0, 4)])
def test_marked_tokens(
    key: str,
    style: str,
    shown: str,
    note: str,
    part: tuple[int, int],
    tmp_path: Path,
    open_page: Open,
) -> None:
    first, end = part
    layer = Layer(0, random_weights(0, heads=2, rows=6))
    pages = make_pages(tmp_path, [layer], f"--tokens={first}:{end}", **{key: 4})
    for view, tokens in (("head", f"{LEFT}, {RIGHT}"), ("model", TOKENS)):
        tab = open_page(pages[view], "#layer=0&head=1")
        if view == "model":
            tab.wait(DRESSED)
        styles = tab.page.evaluate(
            "([s, p]) => [...document.querySelectorAll(s)].map(e => getComputedStyle(e)[p])",
            [tokens, style],
        )
        assert [found == shown for found in styles] == [i >= 4 for i in range(first, end)] * 2
        assert (note in tab.page.inner_text("#notes")) == (end > 4)


# ------------------------------------------------------------------------------- from view to view


def test_a_view_made_alone_links_to_no_other(tmp_path: Path, open_page: Open) -> None:
    layers = [Layer(0, random_weights(0, heads=2, rows=4))]
    tab = open_page(make_pages(tmp_path, layers, "--view", "model")["model"])
    tab.button("Layer 0, Head 1").click()
    tab.reads(OPENED, "Layer 0, Head 1")
    assert tab.page.locator("#views a").count() == 0


def test_links_between_the_views(tmp_path: Path, open_page: Open) -> None:
    layers = [Layer(i, random_weights(i, 4, 5)) for i in (3, 8)]
    pages = make_pages(tmp_path, layers, "--heads", "1,3", model="a b/c#d?e%f")
    assert pages["head"].name == "attention_head_view_a_b_c_d_e_f_capture.html"
    tab = open_page(pages["model"])
    link = tab.page.locator("#to-head a")
    expect(link).to_be_hidden()
    for is_open in (True, False, True):  # opened, closed again, opened
        tab.button("Layer 8, Head 3").click()
        expect(link).to_be_visible(visible=is_open)
    capture = tab.page.evaluate("Page.capture")
    expect(link).to_have_attribute("href", f"{pages['head'].name}#layer=8&head=3&of={capture}")
    expect(tab.page.locator("#views a")).to_have_attribute("href", str(link.get_attribute("href")))
    tab.follow("#to-head a", "/attention_head_view_a_b_c_d_e_f_capture.html#layer=8&head=3")
    assert tab.page.input_value("#layer") == "8"
    assert tab.pressed() == [False, True]
    assert head_view_lines(tab) == of_head(Layer(8, layers[1].weights[[1, 3]]), 1)

    tab.choose("#layer", "3")
    tab.button("Head 1").click()
    link = tab.page.locator("#views a")
    expect(link).to_have_attribute("href", f"{pages['model'].name}#layer=3&head=1&of={capture}")
    tab.follow("#views a", "/attention_model_view_a_b_c_d_e_f_capture.html#layer=3&head=1")
    assert tab.texts(OPENED) == ["Layer 3, Head 1"]


def test_a_link_from_a_page_of_another_capture(tmp_path: Path, open_page: Open) -> None:
    layers = [Layer(i, random_weights(i, 4, 5)) for i in (3, 8)]
    pages = make_pages(tmp_path, layers)
    note = "The link came from a page of another capture."
    for changes, said in (({}, ""), ({"prompt": "Another."}, note)):
        make_pages(tmp_path, layers, "--view", "model", "--layers", "8", **changes)
        tab = open_page(pages["head"], "#layer=8&head=1")
        expect(tab.page.locator("#address-note")).to_have_text("")
        tab.follow("#views a", f"{pages['model'].name}#layer=8&head=1")
        assert tab.texts(OPENED) == ["Layer 8, Head 1"]
        assert tab.page.inner_text("#address-note").startswith(said)
        if said:  # wherever the page was scrolled to
            expect(tab.page.locator("#address-note")).to_be_in_viewport()
        else:
            tab.reads("#address-note", "")


def test_links_lead_to_the_same_attention(tmp_path: Path, open_page: Open) -> None:
    kinds = encoder_decoder([0, 1], [0, 1, 2])
    every = [layer for layers in kinds.values() for layer in layers]
    tab = open_page(make_pages(tmp_path, every, tokens=SOURCE, decoder_tokens=TARGET)["model"])
    tab.choose("#filter", "Cross")
    tab.button("Layer 2, Head 1").click()
    tab.follow("#views a", "#layer=2&head=1&attention=2")
    assert (tab.texts(LEFT), tab.texts(RIGHT)) == (WRITTEN, SPOKEN)
    assert tab.page.locator("#filter option:checked").inner_text() == "Cross"
    assert head_view_lines(tab) == of_head(kinds["Cross"][2], 1)


def strongest(document: Document, kind: str, layer: int | None) -> tuple[int, set[int]]:
    """The layer and the head with the highest score that says what a head does."""
    names = ("previous_token", "next_token", "duplicate_token", "induction", "alignment")
    rows = [row for row in document.scores() if row["attention"] == kind]
    among = [row for row in rows if layer in (None, row["layer"])]
    best = max(among, key=lambda row: np.nanmax([0, *(row[name] for name in names)]))
    return best["layer"], {best["head"]}


def test_addresses(tmp_path: Path, open_page: Open) -> None:
    kinds = encoder_decoder([0, 1], [0, 1, 2])
    every = [layer for layers in kinds.values() for layer in layers]
    tab = open_page(make_pages(tmp_path, every)["head"], "#layer=2&head=1&attention=1")
    document = load(tmp_path / "capture.json")
    for address, kind, layer, heads, missing in (
        ("#", "Encoder", None, None, ""),
        ("#head=all", "Encoder", 0, {0, 1}, ""),
        ("#layer=1&head=all&attention=2", "Cross", 1, {0, 1}, ""),
        ("#layer=2&head=0&attention=2", "Cross", 2, {0}, ""),
        ("#layer=1&attention=2", "Cross", 1, None, ""),
        ("#layer=1&head=1", "Encoder", 1, {1}, ""),
        ("#layer=0&attention=0", "Encoder", 0, None, ""),
        ("#head=1&__proto__=1&%ff", "Encoder", None, None, ""),
        ("#layer=99&head=1", "Encoder", None, None, "layer 99"),
        ("#layer=0&head=7", "Encoder", 0, None, "head 7"),
        ("#layer=9&head=7", "Encoder", None, None, "layer 9 and head 7"),
        ("#attention=7&layer=x", "Encoder", None, None, "attention 7 and layer x"),
        ("#layer=%E2%80%AE%3Cb%3E", "Encoder", None, None, "layer %E2%80%AE%3Cb%3E"),
        (f"#layer={'9' * 100}", "Encoder", None, None, f"layer {'9' * 19}…"),
    ):
        tab.page.evaluate("address => { location.hash = address; }", address)
        missed = f"The address names {missing}, which this page does not have." if missing else ""
        tab.reads("#address-note", missed)
        tab.drawn()
        if heads is None:  # the head with the highest score, of this layer if one is asked for
            layer, heads = strongest(document, kind, layer)
            assert tab.page.input_value("#layer") == str(layer)
        shown = expected_lines(kinds[kind][layer].weights)
        assert head_view_lines(tab) == {p: w for p, w in shown.items() if p[0] in heads}
    layer, (head,) = strongest(document, "Encoder", None)
    tab.row(f"Layer {layer}, Head {1 - head}").click()  # what was missing is of no more interest
    tab.reads("#address-note", "")


# ------------------------------------------------------------------------ keyboard, colours, state


def tab_stops(tab: Tab, count: int) -> list[str]:
    stops = []
    for _ in range(count):
        tab.page.keyboard.press("Tab")
        stops.append(
            tab.page.evaluate(
                "(e => e.getAttribute('aria-label') || e.id || e.tagName)(document.activeElement)"
            )
        )
    return stops


def test_everything_is_reached_by_keyboard(tmp_path: Path, open_page: Open) -> None:
    layers = [Layer(i, random_weights(i, 2, 4, causal=False)) for i in range(3)]
    header = {"tokens": list("abcd"), "sentence_b_start": 2}
    pages = make_pages(tmp_path, layers, **header)
    head = open_page(pages["head"])
    stops = tab_stops(head, 17)
    start = ["SUMMARY", "A", "theme", "How to read this", "filter"]
    options = ["average", "without-first", "threshold", "SUMMARY"]  # the last one: Save
    heads = ["layer", "Next layer", "Head 0", "Head 1", "all-heads"]
    # One stop for the tokens of each side, then what stands beside; the shift key leads back.
    assert stops == [*start, *heads, *options, "Drawing", "a, token 0", "a, token 0"]
    rest = ["Score of the map", "Layer 0, Head 0: next token 0.490", "open-table", "scores-title"]
    assert tab_stops(head, 4) == rest
    for _ in range(15):
        head.page.keyboard.press("Shift+Tab")
    # The layer, twice by arrow key: the list keeps the focus although it is made anew.
    for layer in (1, 2):
        head.page.keyboard.press("ArrowDown")
        head.drawn()
        assert head_view_lines(head) == expected_lines(layers[layer].weights)
    head.button("Head 1").press("Enter")
    assert head.pressed() == [False, True]
    # Keys of their own: to the next layer and head, and back.
    for key, name in (("[", "Layer 1, Head 1"), (",", "Layer 1, Head 0"), (".", "Layer 1, Head 1")):
        head.page.keyboard.press(key)
        head.reads(TITLE, name)
    head.page.keyboard.press("?")
    expect(head.page.locator("#how")).to_be_visible()
    head.page.keyboard.press("Escape")
    expect(head.page.locator("#how")).to_be_hidden()

    model = open_page(pages["model"])
    model.resize(1600)
    stops = tab_stops(model, 14)
    options.insert(3, "bars")
    pictures = ["BUTTON"] * 2  # Lines, Matrices
    assert stops == [*start, *pictures, *options, "Drawing", "Layer 0, Head 0"]
    # One stop for all pictures; the arrow keys go from one to the other, and not beyond the last.
    for key in ("ArrowLeft", "ArrowUp", "ArrowRight", "ArrowRight"):
        model.page.keyboard.press(key)
    model.page.keyboard.press("Enter")
    model.reads(OPENED, "Layer 0, Head 1")
    for key in ("ArrowDown", "Home", "Space"):
        model.page.keyboard.press(key)
    model.reads(OPENED, "Layer 1, Head 0")
    unhandled = "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {0}))"
    space = "{ key: ' ', bubbles: true, cancelable: true }"
    assert not model.page.evaluate(unhandled.format(space))  # or the page would scroll
    assert model.texts(OPENED) == []
    model.page.keyboard.press("Space")
    model.reads(OPENED, "Layer 1, Head 0")
    # With the focus on a picture, the mouse works as before.
    model.page.locator("[aria-label='Layer 0, Head 0']").click()
    model.reads(OPENED, "Layer 0, Head 0")


def test_two_changes_in_a_row_keep_the_last(tmp_path: Path, open_page: Open) -> None:
    layers = [Layer(i, random_weights(i, 3, 4)) for i in range(3)]
    tab = open_page(make_pages(tmp_path, layers)["head"])
    tab.button("Head 1").click()
    # Faster than the page paints, as a held arrow key or a turned mouse wheel is.
    tab.page.evaluate(
        """() => {
            for (const layer of ['1', '2']) {
                const select = document.getElementById('layer');
                select.value = layer;
                select.dispatchEvent(new Event('change'));
            }
            // The page draws after the next frame, and this comes after both drawings.
            return new Promise(done => requestAnimationFrame(() => setTimeout(done, 0)));
        }"""
    )
    tab.drawn()
    assert tab.page.input_value("#layer") == "2"
    shown = expected_lines(layers[2].weights)
    assert head_view_lines(tab) == {p: w for p, w in shown.items() if p[0] == 1}


def test_many_heads(tmp_path: Path, open_page: Open) -> None:
    # bertviz has ten colours; heads beyond them share one, and differ by their numbers.
    layer = Layer(0, random_weights(0, 23, 4))
    pages = make_pages(tmp_path, [layer])
    tab = open_page(pages["head"])
    assert tab.texts("#head option") == [str(i) for i in range(23)]  # a chip each would be too many
    assert len({place[0] for place in head_view_lines(tab)}) == 23
    tab.choose("#head", "12")
    tab.reads(TITLE, "Layer 0, Head 12")
    assert {place[0] for place in head_view_lines(tab)} == {12}
    tab.button("Next head").click()
    tab.reads(TITLE, "Layer 0, Head 13")
    # Another one is added from the map.
    tab.page.locator("#map-cells button").nth(20).click(modifiers=["Shift"])
    assert {place[0] for place in head_view_lines(tab)} == {13, 20}
    assert model_view_lines(open_page(pages["model"])) == expected_pictures([layer])


def test_one_token_one_head(tmp_path: Path, open_page: Open) -> None:
    layer = Layer(0, np.ones((1, 1, 1), np.float32))
    pages = make_pages(tmp_path, [layer])
    assert head_view_lines(open_page(pages["head"])) == {(0, 0, 0): 1.0}
    model = open_page(pages["model"])
    assert model_view_lines(model) == {(0, 0): {(0, 0): 1.0}}
    model.page.locator("[aria-label='Layer 0, Head 0']").click()
    model.page.locator("#panel-kind").get_by_role("button", name="Lines").click()
    model.wait(DRESSED)
    assert model.texts(TOKENS) == ["t0", "t0"]
    for token in model.page.locator(TOKENS).all():  # to be seen, not beside it
        box, drawing = token.bounding_box(), model.page.locator("#panel").bounding_box()
        assert box
        assert drawing
        assert drawing["x"] < box["x"] < drawing["x"] + drawing["width"] - box["width"]


@pytest.mark.parametrize("blob", ["overview-0", "head-0-0-0"])
def test_a_damaged_page_says_so(blob: str, tmp_path: Path, open_page: Open) -> None:
    path = make_pages(tmp_path, [Layer(0, random_weights(0, 1, 4))])["head"]
    text = path.read_text()
    start = text.index(">", text.index(f'id="{blob}"')) + 1
    path.write_text(text[: start + 8] + "????" + text[start + 12 :])
    tab = open_page(path)
    assert "damaged" in tab.page.inner_text("#status")
