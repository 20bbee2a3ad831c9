"""The predictions in the pages, in a browser, against the document's own JSON."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from browser import Layer as Head
from browser import Open, Tab, make_pages, random_weights
from predicted import change, write_predicted

import bertviz_head_model_view

Made = tuple[Path, dict[str, Any]]


def made(folder: Path, view: str = "head", whole: bool = False, **options: Any) -> Made:
    """A page of such a document, and what the document says."""
    header = write_predicted(folder / "d.json", **options)
    if whole:  # one label for all of the text
        header["predictions"]["text"] = None
        change(folder / "d.json", predictions=header["predictions"])
    command = ["--input", str(folder / "d.json"), "--output-dir", str(folder / "pages")]
    assert bertviz_head_model_view.main([*command, "--quiet"]) == 0
    return folder / "pages" / f"attention_{view}_view_Family_Tiny-1_d.html", header


def shown(token: str) -> str:
    return token.replace("Ġ", "·")


def said(probability: float) -> str:
    return "<.01" if probability < 0.005 else f"{probability:.2f}"


def bits(header: dict[str, Any], row: int) -> float:
    return -math.log2(header["predictions"]["actual"]["probability"][row])


def read_all(tab: Tab, selector: str) -> list[str]:
    """All of the text of each, with what is inside."""
    return tab.page.locator(selector).all_text_contents()


def card(tab: Tab) -> list[tuple[str, str]]:
    """What is expected: names and numbers, what came with its dot."""
    return [
        (name, number)
        for name, number in zip(
            read_all(tab, ".expected-bar > :first-child"),
            read_all(tab, ".expected-bar > :last-child"),
            strict=True,
        )
    ]


def expected(source: dict[str, Any], place: Any, came: str | None) -> list[tuple[str, str]]:
    """The same out of the JSON; `place` leads to a row of its arrays."""

    def at(table: Any) -> Any:
        for step in place:
            table = table[step]
        return table

    names, likely = map(shown, at(source["tokens"])), at(source["probabilities"])
    rows = [(name, said(p)) for name, p in zip(names, likely, strict=True)]
    if came is None:
        return rows
    rank, probability = (at(source["actual"][key]) for key in ("rank", "probability"))
    if rank <= len(rows):
        return [(f"{n} ●", p) if k == rank - 1 else (n, p) for k, (n, p) in enumerate(rows)]
    return [*rows, (f"{came} ●", said(probability))]


def redness(colour: str) -> int:
    red, _, blue = map(int, re.findall(r"\d+", colour)[:3])
    return red - blue


def test_the_text_tinted_by_surprise(tmp_path: Path, open_page: Open) -> None:
    page, header = made(tmp_path, tokens=12)
    tab = open_page(page)
    surprise = [bits(header, row) for row in range(11)]
    tokens = [shown(token) for token in header["tokens"]]
    first, *others = tab.page.locator(".surprise-token:not(.next)").evaluate_all(
        "all => all.map(each => [each.textContent, getComputedStyle(each).backgroundColor])"
    )
    assert [first[0], *(text for text, _ in others)] == tokens
    assert first[1] == "rgba(0, 0, 0, 0)"  # nothing stands before it
    tints = [redness(colour) for _, colour in others]
    assert [tints[i] for i in sorted(range(11), key=lambda i: surprise[i])] == sorted(tints)
    assert tab.read("#surprise-mean") == f"{sum(surprise) / 11:.1f} bits a token on average"
    most = sorted(range(11), key=lambda row: -surprise[row])[:4]
    links = [f"{tokens[row + 1]} {surprise[row]:.1f}" for row in most]
    assert read_all(tab, "#most-surprising button") == links
    likeliest = (
        header["predictions"]["tokens"][-1][0],
        header["predictions"]["probabilities"][-1][0],
    )
    assert tab.read(".surprise-token.next") == f"{shown(likeliest[0])} {said(likeliest[1])}"
    assert tab.read(".expected-title b").strip() == "Expected next"
    assert card(tab) == expected(header["predictions"], [11], None)


def test_a_token_shows_what_was_expected_there(tmp_path: Path, open_page: Open) -> None:
    page, header = made(tmp_path, tokens=12, most=3)
    tab = open_page(page)
    tokens = [shown(token) for token in header["tokens"]]
    options = tab.page.locator('.surprise-token[role="option"]')
    rows = range(11)
    inside = next(r for r in rows if header["predictions"]["actual"]["rank"][r] <= 3)
    outside = next(r for r in rows if header["predictions"]["actual"]["rank"][r] > 3)
    for row in (inside, outside):
        options.nth(row).click()
        assert tab.read(".expected-title b") == f"Expected after {tokens[row]}"
        rank = header["predictions"]["actual"]["rank"][row]
        assert tab.read(".expected-title span") == f"{bits(header, row):.1f} bits, rank {rank}"
        assert card(tab) == expected(header["predictions"], [row], tokens[row + 1])
        assert f"expected={row}" in tab.hash()
        assert tab.attributes('.surprise-token[aria-selected="true"] bdi') == [[]]
        assert read_all(tab, '.surprise-token[aria-selected="true"]') == [tokens[row + 1]]
    options.nth(inside).hover()  # another one is only looked at
    assert tab.read(".expected-title b") == f"Expected after {tokens[inside]}"
    tab.page.mouse.move(5, 5)
    assert tab.read(".expected-title b") == f"Expected after {tokens[outside]}"
    tab.page.keyboard.press("Escape")
    assert tab.read(".expected-title b").strip() == "Expected next"
    assert "expected" not in tab.hash()
    tab.page.locator("#most-surprising button").first.click()
    most = max(rows, key=lambda row: bits(header, row))
    assert tab.read(".expected-title b") == f"Expected after {tokens[most]}"


def test_the_lens(tmp_path: Path, open_page: Open) -> None:
    page, header = made(tmp_path, tokens=12, layers=4)
    tab = open_page(page, "#expected=3&lens=1")
    lens, tokens = header["lens"], [shown(token) for token in header["tokens"]]
    assert read_all(tab, ".lens-names > *") == [
        "After",
        *(f"Layer {k}" for k in range(3)),
        "Output",
        "What came",
    ]
    columns = tab.page.locator(".lens-column").evaluate_all(
        """all => all.map(column => [...column.children].map(cell =>
            cell.textContent + (cell.querySelector('i') ? ' ●' : '')))"""
    )
    for i, column in enumerate(columns):
        cells = [
            shown(lens["tokens"][k][i][0]) + (" ●" if lens["actual"]["rank"][k][i] == 1 else "")
            for k in range(4)
        ]
        assert column == [tokens[i], *cells, tokens[i + 1] if i < 11 else "–"]
    assert len(columns) == 12
    assert tab.read(".expected-title b") == f"Layer 1 after {tokens[3]}"
    assert card(tab) == expected(lens, [1, 3], tokens[4])
    cell = tab.page.locator('.lens-column[data-place="5"] [data-layer="2"]')
    cell.click()
    assert tab.read(".expected-title b") == f"Layer 2 after {tokens[5]}"
    assert card(tab) == expected(lens, [2, 5], tokens[6])
    assert "expected=5&lens=2" in tab.hash()
    assert tab.attributes(".lens-cell.chosen", "data-layer") == [["2"]]
    said_of_ranks = tab.attributes("#ranks svg", "aria-label")[0][0] or ""
    ranks = [lens["predicted"]["rank"][k][5][0] for k in range(4)]
    best = shown(header["predictions"]["tokens"][5][0])
    assert f"{best}: {', '.join(map(str, ranks))}" in said_of_ranks
    came = [lens["actual"]["rank"][k][5] for k in range(4)]
    assert f"{tokens[6]}: {', '.join(map(str, came))}" in said_of_ranks
    reds = tab.page.locator(".lens-cell").evaluate_all(
        "all => all.map(each => getComputedStyle(each).backgroundColor)"
    )
    likely = [lens["probabilities"][k][i][0] for i in range(12) for k in range(4)]
    strength = [-int(re.findall(r"\d+", colour)[0]) for colour in reds]
    assert [strength[i] for i in sorted(range(48), key=lambda i: likely[i])] == sorted(strength)


def test_by_keyboard(tmp_path: Path, open_page: Open) -> None:
    page, header = made(tmp_path, tokens=12, layers=4)
    tab = open_page(page, "#")
    tokens = [shown(token) for token in header["tokens"]]
    tab.page.locator("#views button").click()
    box = tab.page.locator("#predictions").bounding_box()
    assert box is not None
    assert abs(box["y"]) < 200
    press = tab.page.keyboard.press
    press("Tab")
    assert tab.read(".expected-title b") == f"Expected after {tokens[0]}"
    for key, row in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1)):
        press(key)
        assert tab.read(".expected-title b") == f"Expected after {tokens[row]}"
    press("End")
    assert tab.read(".expected-title b").strip() == "Expected next"
    press("Home")
    for _ in range(5):  # past the four links: one stop for all of the text
        press("Tab")
    for keys, title in (
        ("ArrowRight ArrowUp", f"Layer 2 after {tokens[1]}"),
        ("ArrowUp ArrowUp ArrowUp", f"Layer 0 after {tokens[1]}"),  # and no further
        ("End ArrowDown", f"Layer 1 after {tokens[11]}"),
        ("Home", f"Layer 1 after {tokens[0]}"),
    ):
        for key in keys.split():
            press(key)
        assert tab.read(".expected-title b") == title


def test_a_long_text_is_drawn_where_it_is_in_view(tmp_path: Path, open_page: Open) -> None:
    page, header = made(tmp_path, tokens=300, layers=50)
    tab = open_page(page, "#")
    columns = tab.page.locator(".lens-column")
    assert columns.count() < 60
    tab.page.locator("#lens-scroll").evaluate("box => { box.scrollLeft = 1e6; }")
    tab.wait("() => document.querySelector('[data-place=\"299\"]')")
    assert columns.count() < 60
    last = read_all(tab, '[data-place="299"] > *')
    assert last[1:-1] == [shown(layer[299][0]) for layer in header["lens"]["tokens"]]
    tab.page.locator(".surprise-token").nth(1).click()
    tab.wait("() => document.querySelector('[data-place=\"0\"]')")


# what is predicted -> options of the document, the title of a token's card, what is said besides
KINDS: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    "masked": ({"of": "masked_token"}, "Expected at ·sat", ["●", "In the text"]),
    "labels": ({"of": "label", "words": ("N", "V", "X"), "tokens": 9}, "Label of X", ["Of"]),
    "label": (
        {"of": "label", "words": ("good", "bad"), "tokens": 1, "whole": True},
        "Label of the text",
        [],
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_other_predictions(kind: str, tmp_path: Path, open_page: Open) -> None:
    options, title, parts = KINDS[kind]
    page, header = made(tmp_path, "model", **options)
    tab = open_page(page, "#expected=" + ("0" if kind == "label" else "2"))
    assert tab.read(".expected-title b") == title
    row = 0 if kind == "label" else 2
    came = shown(header["tokens"][row]) if kind == "masked" else None
    assert card(tab) == expected(header["predictions"], [row], came)
    names = "".join(read_all(tab, ".lens-names > *") + read_all(tab, "#lens-about"))
    assert all(part in names for part in parts)
    assert tab.page.locator("#surprise-mean").is_visible() == (kind == "masked")
    assert tab.page.locator(".surprise-token.next").count() == 0


def test_some_positions_and_no_numbers(tmp_path: Path, open_page: Open) -> None:
    page, header = made(tmp_path, tokens=12, at=[2, 7])
    header["predictions"]["probabilities"][4] = [None] * 5
    header["predictions"]["actual"]["probability"][4] = None
    change(tmp_path / "d.json", predictions=header["predictions"])
    command = ["--input", str(tmp_path / "d.json"), "--output-dir", str(page.parent), "--quiet"]
    assert bertviz_head_model_view.main(command) == 0
    tab = open_page(page, "#expected=7")
    assert "2 of 12 positions" in tab.read("#lens-about")
    assert tab.page.locator(".lens-column").count() == 2
    assert tab.page.locator("#ranks svg").count() == 1
    tab.page.locator('.surprise-token[role="option"]').nth(4).click()
    assert tab.page.locator("#ranks svg").count() == 0
    assert {number for _, number in card(tab)[:5]} == {"–"}
    assert "NaN" not in tab.read("#predictions")
    tab = open_page(page, "#expected=99&lens=7")
    assert "expected 99 and lens 7, which this page does not have" in tab.read("#address-note")


def test_saved_and_narrow(tmp_path: Path, open_page: Open) -> None:
    page, header = made(tmp_path, tokens=12)
    tab = open_page(page, "#")
    name, content = tab.saved("Save the lens as SVG")
    assert name == "attention_head_view_Family_Tiny-1_d_lens.svg"
    root = ElementTree.fromstring(content)
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[:3] == ["Layer 0", "Layer 1", "Output"]
    for i in range(12):
        for layer in header["lens"]["tokens"]:
            assert shown(layer[i][0]) in texts
    dots = sum(rank == 1 for layer in header["lens"]["actual"]["rank"] for rank in layer)
    assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == dots
    name, content = tab.saved("Save the lens as PNG")
    assert content.startswith(b"\x89PNG")
    for width in (390, 700, 1280):
        tab.resize(width)
        assert tab.page.evaluate("document.scrollingElement.scrollWidth") == width
        assert tab.page.locator("#ranks").is_visible() == (width == 1280)


def test_beside_the_weights_of_a_token(tmp_path: Path, open_page: Open) -> None:
    page, header = made(tmp_path, tokens=12)
    tab = open_page(page, "#")
    tab.page.locator('#left g[role="option"]').nth(4).hover()
    line = tab.read("#readout .expected-line")
    best = header["predictions"]["tokens"][4][0], header["predictions"]["probabilities"][4][0]
    assert line.startswith(f"Expected after it {shown(best[0])} {said(best[1])}")
    assert line.endswith(f"came: rank {header['predictions']['actual']['rank'][4]}")


def test_hostile_tokens(tmp_path: Path, open_page: Open) -> None:
    words = (
        "<script>document.title='x'</script>",
        "\u202eabc",
        "a" * 10_000,
        "\x00",
        "</style>",
        "🙂",
    )
    page, _ = made(tmp_path, words=words, tokens=12)
    tab = open_page(page, "#expected=3")
    text = tab.read("#predictions")
    assert "<script>document" in text
    assert "\\u202eabc" in text
    assert tab.page.title() != "x"
    tab.saved("Save the lens as SVG")


def test_pages_without(tmp_path: Path, open_page: Open) -> None:
    pages = make_pages(tmp_path, [Head(0, random_weights(1, 2, 6))])
    tab = open_page(pages["head"], "#")
    assert tab.page.locator("#predictions").is_hidden()
    assert tab.page.locator("#views button").count() == 0
    tab.page.locator("#save > summary").click()
    assert not [label for label in read_all(tab, "#save button") if "Lens" in label]
