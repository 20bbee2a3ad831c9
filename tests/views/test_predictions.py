"""The predictions of a page and its lens, in Chromium, against numbers computed here."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Layer, Tab, make_pages, random_weights
from conftest import Open
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

K = 5
HOSTILE = ["<script>alert(1)</script>", "\u202egnp.exe", "x" * 10_000, "</style>"]
TEXT = "#predictions .surprise-text button"
CARD = "#predictions .expected"
Numbers = dict[str, Any]


def texts_of(count: int, seed: int = 0) -> list[str]:
    return [f"w{i}" for i in np.random.default_rng(seed).permutation(count)]


def made(
    seed: int, tokens: list[str], layers: int = 0, of: str = "next_token", k: int = K
) -> dict[str, Any]:
    """The keys of a document: a vocabulary of random logits, its softmax, the ranks within it."""
    rng = np.random.default_rng(seed)
    vocabulary = [*dict.fromkeys(tokens), *(f"v{i}" for i in range(60))]
    logits = rng.normal(0, 3, (layers or 1, len(tokens), len(vocabulary)))
    chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    ids = np.argsort(-logits, axis=-1)[..., :k]
    came = [vocabulary.index(token) for token in (tokens[1:] if of == "next_token" else tokens)]

    def top(layer: int) -> Numbers:
        return {
            "ids": ids[layer].tolist(),
            "tokens": [[vocabulary[i] for i in row] for row in ids[layer]],
            "probabilities": np.take_along_axis(chances[layer], ids[layer], -1).tolist(),
        }

    def ranked(layer: int, row: int, one: int) -> tuple[float, int]:
        chance = chances[layer, row]
        return float(chance[one]), int((chance > chance[one]).sum()) + 1

    def actual(layer: int) -> Numbers:
        found = [ranked(layer, row, one) for row, one in enumerate(came)]
        missing = [None] * (len(tokens) - len(found))
        return {
            "probability": [*(p for p, _ in found), *missing],
            "rank": [*(r for _, r in found), *missing],
        }

    predictions = {"of": of, "text": "tokens", **top(-1), "actual": actual(-1)}
    if not layers:
        return {"predictions": predictions}
    each = range(layers)
    predicted = [
        [[ranked(layer, row, one) for one in ids[-1, row]] for row in range(len(tokens))]
        for layer in each
    ]
    lens = {key: [top(layer)[key] for layer in each] for key in ("ids", "tokens", "probabilities")}
    lens |= {
        "kind": "logit",
        "layers": [f"model.layers.{layer}" for layer in each],
        "positions": list(range(len(tokens))),
        "predicted": {
            "probability": [[[p for p, _ in row] for row in layer] for layer in predicted],
            "rank": [[[r for _, r in row] for row in layer] for layer in predicted],
        },
        "actual": {key: [actual(layer)[key] for layer in each] for key in ("probability", "rank")},
    }
    return {"predictions": predictions, "lens": lens}


def pages(folder: Path, keys: dict[str, Any], *flags: str, **header: Any) -> dict[str, Path]:
    count = len(header["tokens"])
    return make_pages(folder, [Layer(0, random_weights(0, 2, count))], *flags, **keys, **header)


def number(value: float) -> str:
    return "<.01" if 0 < value < 0.005 else f"{value:.2f}"


def card(tab: Tab) -> list[tuple[str, str, str]]:
    """Its rows: text, mark, number."""
    return [
        tuple(row)
        for row in tab.page.evaluate(
            f"""() => Array.from(document.querySelectorAll('{CARD} li'), li => [
                li.querySelector('bdi').textContent,
                li.querySelector('bdi').nextSibling?.data ?? '',
                li.lastElementChild.textContent])"""
        )
    ]


def expected_card(found: Numbers, actual: Numbers, row: int, came: str | None) -> list[Any]:
    rows = [
        (token, " ●" if token == came else "", number(p))
        for token, p in zip(found["tokens"][row], found["probabilities"][row], strict=True)
    ]
    if came is not None and not any(mark for _, mark, _ in rows):
        rows.append((came, " ●", number(actual["probability"][row])))
    return rows


def of_layer(lens: Numbers, layer: int) -> tuple[Numbers, Numbers]:
    return (
        {key: lens[key][layer] for key in ("tokens", "probabilities")},
        {key: lens["actual"][key][layer] for key in ("probability", "rank")},
    )


@pytest.mark.parametrize("view", ["head", "model"])
def test_text_card_lens_and_chart(view: str, tmp_path: Path, open_page: Open) -> None:
    tokens = texts_of(12)
    keys = made(1, tokens, layers=4)
    predictions, lens = keys["predictions"], keys["lens"]
    tab = open_page(pages(tmp_path, keys, tokens=tokens)[view], "#layer=0&head=0")
    bits = [-math.log2(p) for p in predictions["actual"]["probability"][:-1]]
    labels = [label for (label,) in tab.attributes(TEXT, "aria-label")]
    assert labels[0] == f"{tokens[0]}, token 0"
    assert [float(re.findall(r": (.*) bits", label)[0]) for label in labels[1:-1]] == pytest.approx(
        bits, abs=0.06
    )
    last = predictions["tokens"][-1][0], number(predictions["probabilities"][-1][0])
    assert labels[-1] == f"Expected next: {' '.join(last)}"
    assert f"{np.mean(bits):.1f} bits a token on average" in tab.read("#predictions .surprise")
    strongest = np.argsort(bits)[::-1][:4]
    assert tab.read(".most-surprising").split("\n")[1:] == [
        f"{tokens[i + 1]} {bits[i]:.1f}" for i in strongest
    ]
    # How strong the tint is follows the bits.
    light = tab.page.evaluate(
        "s => Array.from(document.querySelectorAll(s), b => getComputedStyle(b).backgroundColor)",
        TEXT,
    )
    blues = [int(re.findall(r"\d+", colour)[2]) for colour in light[1:-1]]
    assert np.argsort(blues, kind="stable")[0] == np.argmax(bits)

    # Choosing a token: what was expected there, and the same token in the picture of attention.
    tab.page.locator(TEXT).nth(4).click()
    assert tab.read(f"{CARD} b") == f"Expected after {tokens[3]}"
    rank = predictions["actual"]["rank"][3]
    assert f"{bits[3]:.1f} bits, rank {rank}" in tab.read(CARD)
    assert card(tab) == expected_card(predictions, predictions["actual"], 3, tokens[4])
    assert "token=4" in tab.hash()
    if view == "head":
        assert tab.texts("#vis .kept text") == [tokens[4]]
        assert f"{tokens[4]} (token 4) attends to" in tab.read("#readout")
        assert f"Expected next {predictions['tokens'][4][0]} " in tab.read("#readout")

    # A cell of the lens: the list of that layer, and where it is in the chart.
    cells = dict(tab.attributes(".lens button", "aria-label", "data-cell"))
    for layer in range(4):
        for row in range(12):
            name = f"Layer {layer}" if layer < 3 else "Output"
            found, _ = of_layer(lens, layer)
            came = tokens[row + 1] if row < 11 else None
            first, p = found["tokens"][row][0], found["probabilities"][row][0]
            said = f"{name} after {tokens[row]}: {first} {number(p)}"
            assert cells[said + (", what came" if first == came else "")] == f"{layer} {row}"
    tab.page.locator('[data-cell="1 6"]').click()
    assert tab.read(f"{CARD} b") == f"Layer 1 after {tokens[6]}"
    assert card(tab) == expected_card(*of_layer(lens, 1), 6, tokens[7])
    assert "token=7&lens=1" in tab.hash()
    said = str(tab.page.locator(".ranks svg").get_attribute("aria-label"))
    for k, token in enumerate(predictions["tokens"][6]):
        ranks = [lens["predicted"]["rank"][layer][6][k] for layer in range(4)]
        assert re.search(rf"{token}(, which came,)? rank {', '.join(map(str, ranks))}(;|$)", said)
    actual = [lens["actual"]["rank"][layer][6] for layer in range(4)]
    assert f"{tokens[7]}, which came, rank {', '.join(map(str, actual))}" in said
    heights = [float(y or 0) for (y,) in tab.attributes(".ranks .hit circle", "cy")]
    assert np.corrcoef(heights, np.log(actual))[0, 1] > 0.999

    # Back, another address, Esc.
    tab.page.go_back()
    expect(tab.page.locator(f"{CARD} b")).to_have_text(f"Expected after {tokens[3]}")
    tab.page.keyboard.press("Escape")
    assert "token" not in tab.hash()
    assert tab.read(f"{CARD} b") == f"Expected after {tokens[-1]}"


def test_pointing_in_the_attention_and_by_keyboard(tmp_path: Path, open_page: Open) -> None:
    tokens = texts_of(10)
    keys = made(2, tokens, layers=3)
    tab = open_page(pages(tmp_path, keys, tokens=tokens)["head"], "#layer=0&head=1&token=5&lens=1")
    assert tab.read(f"{CARD} b") == f"Layer 1 after {tokens[4]}"
    assert tab.attributes(".lens button[aria-pressed=true]", "data-cell") == [["1 4"]]
    tab.page.locator("#left g[role=option]").nth(7).hover()
    expect(tab.page.locator(f"{CARD} b")).to_have_text(f"Expected after {tokens[6]}")
    assert tab.attributes(".surprise-text .lit", "data-place") == [["7"]]
    tab.page.locator("#left g[role=option]").nth(2).click()
    assert "token=2" in tab.hash()
    assert tab.attributes(f"{TEXT}[aria-pressed=true]", "data-place") == [["2"]]
    # One tab stop each; arrows, Home, End.
    stops = "#predictions .surprise-text [tabindex='0'], #predictions .lens [tabindex='0']"
    assert tab.page.locator(stops).count() == 2
    tab.page.locator("#predictions .surprise-text [tabindex='0']").focus()
    for key, place in (("Home", 0), ("ArrowRight", 1), ("End", 10), ("ArrowLeft", 9)):
        tab.page.keyboard.press(key)
        assert tab.page.evaluate("document.activeElement.dataset.place") == str(place)
    tab.page.keyboard.press("Enter")
    assert "token=9" in tab.hash()
    tab.page.keyboard.press("Escape")
    assert "token" not in tab.hash()
    tab.page.locator("#predictions .lens [tabindex='0']").focus()
    for key, cell in (("Home", "2 0"), ("ArrowUp", "1 0"), ("End", "1 9"), ("ArrowDown", "2 9")):
        tab.page.keyboard.press(key)
        assert tab.page.evaluate("document.activeElement.dataset.cell") == cell
    name, svg = tab.saved("Save the lens as SVG")
    assert name.endswith("_lens.svg")
    drawn = re.findall(r">([^<>]+)</text>", svg.decode())
    firsts = [row[0] for layer in keys["lens"]["tokens"] for row in layer]
    assert sorted(text for text in drawn if text in firsts and text.startswith("v")) == sorted(
        text for text in firsts if text.startswith("v")
    )
    tab.page.get_by_role("link", name="Predictions").click()
    assert tab.page.evaluate("document.activeElement.id") == "predictions"


def masked(tokens: list[str]) -> dict[str, Any]:
    keys = made(3, tokens, layers=2, of="masked_token", k=1)
    for key in ("probability", "rank"):
        keys["predictions"]["actual"][key][2] = None
        for layer in keys["lens"]["actual"][key]:
            layer[2] = None
    return keys


def test_masks_labels_parts_and_odd_numbers(tmp_path: Path, open_page: Open) -> None:
    """Each kind in a page of its own, one after the other in one tab."""
    tokens = texts_of(8)
    tab = open_page(pages(tmp_path / "masked", masked(tokens), tokens=tokens)["head"])
    assert tab.read(f"{CARD} b") == f"Expected at {tokens[2]}"  # its mask
    assert "what came" not in tab.read(CARD)
    tab.page.locator(TEXT).nth(0).click()
    assert tab.read(f"{CARD} b") == f"Expected at {tokens[0]}"

    keys = made(4, tokens, layers=3, k=2)
    whole = {"of": "label", "text": None, "ids": [[1, 0]], "tokens": [["good news", "bad"]]}
    lens = {**keys["lens"], "positions": [0], "ids": [[[1, 0]]] * 3, "actual": None}
    lens |= {"tokens": [[["good news", "bad"]]] * 3, "probabilities": [[[0.75, 0.25]]] * 3}
    lens["predicted"] = {"probability": [[[0.75, 0.25]]] * 3, "rank": [[[1, 2]]] * 3}
    labels = {"predictions": {**whole, "probabilities": [[0.75, 0.25]]}, "lens": lens}
    tab = open_page(pages(tmp_path / "whole", labels, tokens=tokens)["head"])
    assert card(tab) == [("good news", "", "0.75"), ("bad", "", "0.25")]
    assert tab.page.locator(".surprise-text").count() == 0
    assert tab.page.locator(".lens-column").count() == 1

    of_each = made(5, tokens, k=3)["predictions"] | {"of": "label", "actual": None}
    tab = open_page(pages(tmp_path / "each", {"predictions": of_each}, tokens=tokens)["head"])
    tab.page.locator(TEXT).nth(3).click()
    assert tab.read(f"{CARD} b") == f"Labels of {tokens[3]}"
    assert [row[0] for row in card(tab)] == of_each["tokens"][3]

    # Numbers that are none, a surprise without an end; only some positions; part of the text.
    predictions, lens = keys["predictions"], keys["lens"]
    predictions["probabilities"][1] = [None, None]
    predictions["actual"]["probability"][1] = None
    predictions["actual"]["probability"][4] = 0.0
    at = [1, 4, 6]
    for key in ("ids", "tokens", "probabilities"):
        lens[key] = [[layer[i] for i in at] for layer in lens[key]]
    for part in ("predicted", "actual"):
        lens[part] = {k: [[layer[i] for i in at] for layer in v] for k, v in lens[part].items()}
    lens["positions"] = at
    odd = pages(tmp_path / "odd", keys, "--tokens", "1:7", tokens=tokens)["head"]
    tab = open_page(odd, "#layer=0&head=0&token=2")
    assert {row[2] for row in card(tab)} == {"–"}
    assert "NaN" not in tab.read("#predictions")
    assert "3 of 6 positions" in tab.read("#predictions")
    assert tab.page.locator(TEXT).all_inner_texts()[:6] == tokens[1:7]
    tab.page.locator(TEXT).nth(4).click()  # token 5
    assert "over 100 bits" in tab.read(CARD)
    assert "over" in tab.read("#predictions .surprise p >> nth=0")
    tab.page.locator(TEXT).nth(3).click()
    assert "does not cover" in tab.read(".ranks")


def test_hostile_tokens_and_long_texts(tmp_path: Path, open_page: Open) -> None:
    """Nothing runs, nothing widens the page; of 600 tokens only the columns in view are made."""
    tokens = [*HOSTILE, *texts_of(5)]
    keys = made(6, tokens, layers=2, k=50)
    tab = open_page(pages(tmp_path / "hostile", keys, tokens=tokens)["head"])
    wide = "document.scrollingElement.scrollWidth <= innerWidth"
    for width in (390, 1000, 1280):
        tab.resize(width)
        assert tab.page.evaluate(wide)
    assert tab.page.evaluate("document.querySelectorAll('#predictions script').length") == 0
    shown = tab.page.locator(TEXT).all_inner_texts()
    assert shown[0] == "<script>alert(1)</script>"
    assert "\\u202e" in shown[1]
    assert max(map(len, shown)) < 60
    tab.page.locator(TEXT).nth(6).click()
    assert len(card(tab)) in (50, 51)

    tokens = texts_of(600)
    keys = made(7, tokens, layers=3, k=2)
    tab = open_page(
        pages(tmp_path / "long", keys, tokens=tokens)["head"], "#layer=0&head=0&token=500"
    )
    assert tab.page.locator(TEXT).count() == 601
    assert tab.page.locator(".lens-column").count() < 60
    assert tab.read(f"{CARD} b") == f"Expected after {tokens[499]}"
    assert tab.attributes(".lens button[aria-pressed=true]", "data-cell") == [["2 499"]]
    assert tab.page.evaluate(wide)


def test_without_predictions_there_is_nothing_of_them(tmp_path: Path, open_page: Open) -> None:
    tokens = texts_of(5)
    page = pages(tmp_path, {}, tokens=tokens)["head"]
    data = re.findall(r'id="page-data">(.*?)</script>', page.read_text(encoding="utf-8"))[0]
    assert "predictions" not in json.loads(data)
    tab = open_page(page)
    expect(tab.page.locator("#predictions")).to_be_hidden()
    assert "Predictions" not in tab.read("#views")
    assert "Lens" not in str(tab.page.locator("#save").text_content())
