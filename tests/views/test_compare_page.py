"""Two captures on one page: A, B and A - B, in Chromium, against numpy on the raw weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import BOTH_VIEWS, Layer, random_weights, write_capture
from conftest import Open, Run
from playwright.sync_api import expect
from predicted import write_predicted

from activations import load
from activations.attention.compare import compare
from activations.attention.weights import read_attention
from activations.views.content import read_content
from activations.views.page import build_pages

pytestmark = pytest.mark.browser
TOKENS = ["Ġone", "Ġday", "Ġa", "Ġfox", "Ġmet", "Ġme"]
OTHERS = ["Ġone", "Ġday", "Ġa", "Ġbear", "Ġmet", "Ġme"]


def write(path: Path, seed: int, tokens: list[str] = TOKENS, **header: Any) -> list[np.ndarray]:
    weights = [random_weights(seed + layer, 3, len(tokens)) for layer in range(2)]
    layers = [Layer(i, each) for i, each in enumerate(weights)]
    write_capture(path, layers, tokens=tokens, prompt="".join(tokens).replace("Ġ", " "), **header)
    return weights


def pages(folder: Path, view: Run, *options: str) -> dict[str, Path]:
    outcome = view(
        folder / "a.json", "--compare", folder / "b.json", "--output-dir", folder, *options
    )
    assert outcome.code == 0, outcome.err
    return {re.findall("head|model", Path(line).name)[0]: Path(line) for line in outcome.out}


@pytest.fixture
def both(tmp_path: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    return write(tmp_path / "a.json", 0), write(tmp_path / "b.json", 20, OTHERS)


def test_it_opens_on_the_head_that_changed_most(
    both: Any, tmp_path: Path, view: Run, open_page: Open
) -> None:
    tab = open_page(pages(tmp_path, view)["head"], "#")
    best = load(tmp_path / "a.json").compare(load(tmp_path / "b.json"))[0]
    assert tab.read("#head-detail-title") == f"Layer {best['layer']}, Head {best['head']}, A − B"
    assert tab.read("#opened") == f"Change {best['change']:.2f}, the highest of 6 heads"
    assert tab.read("#map-title") == "Change by head"
    changes = {
        (row["layer"], row["head"]): f"{row['change']:.2f}".lstrip("0")
        for row in load(tmp_path / "a.json").compare(load(tmp_path / "b.json"))
    }
    cells = tab.page.locator("#map-cells button").all_inner_texts()
    assert cells == [changes[layer, head] for layer in range(2) for head in range(3)]
    rows = tab.page.locator("#most-changed > div").all_inner_texts()
    assert len(rows) == 4
    assert rows[0].split() == [f"{best['layer']}.{best['head']}", f"{best['change']:.2f}"]


def test_cells_and_lines_are_the_differences(
    both: Any, tmp_path: Path, view: Run, open_page: Open
) -> None:
    tab = open_page(pages(tmp_path, view)["head"], "#layer=1&head=2")
    a, b = (np.round(weights[1][2].astype(float), 4) for weights in both)
    change = np.round(a - b, 4)
    tab.page.locator("#heat svg").focus()
    for row in range(6):
        for column in range(6):
            told = re.findall(r"A ([\d.]+), B ([\d.]+), A − B (-?[\d.]+)$", tab.read("#cell"))
            expected = a[row, column], b[row, column], change[row, column]
            assert [float(number) for number in told[0]] == pytest.approx(expected, abs=1e-9)
            tab.page.keyboard.press("ArrowRight")
        for _ in range(5):
            tab.page.keyboard.press("ArrowLeft")
        tab.page.keyboard.press("ArrowDown")
    drawn = [  # those of the heads that are off are there too
        (name, float(str(opacity)))
        for name, opacity in tab.attributes("#attention line", "class", "stroke-opacity")
        if float(str(opacity))
    ]
    sizes = np.abs(change)[np.abs(change) > 0.01]
    assert len(drawn) == sizes.size
    assert sum(name == "less" for name, _ in drawn) == int((change < -0.01).sum())
    opacities = sorted(opacity for _, opacity in drawn)
    np.testing.assert_allclose(opacities, np.sort(sizes), atol=1e-9)
    colours = {
        name: tab.page.locator(f"#attention line.{name}").first.evaluate(
            "line => getComputedStyle(line).stroke"
        )
        for name in ("more", "less")
    }
    assert colours == {"more": "rgb(43, 107, 167)", "less": "rgb(173, 76, 36)"}


@BOTH_VIEWS
def test_the_switch_shows_each_capture_alone(
    view: str, both: Any, tmp_path: Path, open_page: Open, request: pytest.FixtureRequest
) -> None:
    run: Run = request.getfixturevalue("view_command")
    tab = open_page(pages(tmp_path, run)[view], "#layer=1&head=2")
    for side, weights in (("A", both[0]), ("B", both[1])):
        tab.page.locator("#sides").get_by_role("button", name=side, exact=True).click()
        tab.drawn()
        assert tab.read("#head-detail-title").endswith(f"Layer 1, Head 2, {side}")
        strongest = np.round(weights[1][2].astype(float), 4).max()
        tab.page.locator("#heat svg").focus()
        row, column = np.unravel_index(np.argmax(weights[1][2]), (6, 6))
        for key, times in (("ArrowDown", row), ("ArrowRight", column)):
            for _ in range(int(times)):
                tab.page.keyboard.press(key)
        assert float(tab.read("#cell").rpartition(": ")[2]) == pytest.approx(strongest)
        assert f"attention={1 if side == 'A' else 2}" in tab.hash()
    tab.page.go_back()
    tab.drawn()
    assert tab.read("#head-detail-title").endswith("Layer 1, Head 2, A")
    tab.page.locator("#sides").get_by_role("button", name="A − B").click()
    tab.drawn()
    assert "attention" not in tab.hash()


@pytest.fixture
def view_command(view: str, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command, in a test whose `view` is the name of a page."""
    from conftest import _runner

    import bertviz_head_model_view

    return _runner(bertviz_head_model_view.main, capsys)


def test_tokens_that_differ_have_both_names(
    both: Any, tmp_path: Path, view: Run, open_page: Open
) -> None:
    tab = open_page(pages(tmp_path, view)["head"], "#")
    names = [
        tab.page.locator(f"#{side} > g:last-of-type text").all_text_contents()
        for side in ("left", "right")
    ]
    for found in names:
        assert any(name.startswith("·fox ·bear") for name in found)
    heat = tab.page.locator("#heat text[data-side='0']").all_text_contents()
    assert heat[3].startswith("·fox ·bear")
    expect(tab.page.locator("#about summary")).to_have_text("one day a fox bear met me")
    assert tab.page.locator("#about summary .of-a").all_inner_texts() == ["fox"]
    assert tab.page.locator("#about summary .of-b").all_inner_texts() == ["bear"]


def test_longer_texts(tmp_path: Path, view: Run, open_page: Open) -> None:
    """What stands for nothing is left out of A - B, and told."""
    a = write(tmp_path / "a.json", 0)
    longer = [*TOKENS[:3], "Ġbig", "Ġold", *TOKENS[3:]]
    b = write(tmp_path / "b.json", 40, longer)
    tab = open_page(pages(tmp_path, view)["head"], "#layer=0&head=1")
    assert "0 tokens of A and 2 of B stand for none" in tab.read("#notes")
    kept = [0, 1, 2, 5, 6, 7]
    own, other = (np.round(w.astype(float), 4) for w in (a[0][1], b[0][1][np.ix_(kept, kept)]))
    change = own - other
    tab.page.locator("#heat svg").focus()
    for _ in range(4):
        tab.page.keyboard.press("ArrowDown")
    told = tab.read("#cell").rpartition("A − B ")[2]
    assert float(told) == pytest.approx(change[4, 0], abs=1e-9)
    tab.page.locator("#sides").get_by_role("button", name="B", exact=True).click()
    tab.drawn()
    assert len(tab.page.locator("#heat text[data-side='0']").all()) == 8


def test_predictions(tmp_path: Path, view: Run, open_page: Open) -> None:
    for name, tokens in (("a", 6), ("b", 7)):
        write_predicted(tmp_path / f"{name}.json", tokens=tokens, lens=False)
    tab = open_page(pages(tmp_path, view)["head"], "#")
    first, second = (load(tmp_path / f"{name}.json") for name in "ab")
    found = compare(
        (first.header, second.header),
        (read_attention(first), read_attention(second)),
        (first.predictions, second.predictions),
    )
    assert found.kl is not None
    bars = tab.attributes("#moved .bars i", "title")
    told = [float(re.findall(r"([\d.]+) nats", str(title))[0]) for (title,) in bars]
    np.testing.assert_allclose(told, found.kl, atol=0.006)
    assert f"{found.kl.max():.2f} nats" in tab.read("#moved")


def test_the_mean_of_the_heads_and_small_pictures(
    both: Any, tmp_path: Path, view: Run, open_page: Open
) -> None:
    tab = open_page(pages(tmp_path, view)["model"], "#layer=1&head=average&pictures=matrices")
    a, b = (np.round(weights[1].astype(float), 4) for weights in both)
    mean = (a - b).mean(0)
    tab.page.locator("#heat svg").focus()
    tab.page.keyboard.press("ArrowDown")
    assert float(tab.read("#cell").rpartition(": ")[2]) == pytest.approx(mean[1, 0], abs=1e-4)
    tab.page.uncheck("#average")
    tab.drawn()
    colours = tab.page.evaluate(
        """() => { const canvas = document.querySelectorAll('#thumbnails canvas')[5];
            return Array.from(canvas.getContext('2d').getImageData(0, 0, 6, 6).data); }"""
    )
    red, _, blue, _ = np.array(colours).reshape(6, 6, 4).transpose(2, 0, 1)
    change = a[2] - b[2]
    strong = np.abs(change) > 0.05
    np.testing.assert_array_equal((blue > red)[strong], (change > 0)[strong])


def test_hostile_texts_do_nothing(tmp_path: Path, view: Run, open_page: Open) -> None:
    bad = "</script><script>document.title='hit'</script>"
    write(tmp_path / "a.json", 0, [*TOKENS[:5], bad])
    write(tmp_path / "b.json", 0, [*TOKENS[:4], "<img src=x onerror=alert(1)>", bad])
    tab = open_page(pages(tmp_path, view)["head"], "#")
    assert "hit" not in tab.page.title()
    assert tab.page.locator("img").count() == 0


def test_its_name_and_size(tmp_path: Path, view: Run) -> None:
    for name, seed in (("a", 0), ("b", 9)):
        weights = [random_weights(seed + layer, 4, 96) for layer in range(6)]
        write_capture(tmp_path / f"{name}.json", [Layer(i, w) for i, w in enumerate(weights)])
    made = pages(tmp_path, view)
    assert made["head"].name == "attention_head_view_Family_Tiny-1_a_vs_b.html"
    alone = view(tmp_path / "a.json", "--output-dir", tmp_path)
    own = {re.findall("head|model", Path(line).name)[0]: Path(line) for line in alone.out}
    for kind in ("head", "model"):
        assert made[kind].stat().st_size <= 2 * own[kind].stat().st_size


@pytest.mark.parametrize("width", [390, 1280, 1600])
def test_it_fits_every_width(
    both: Any, width: int, tmp_path: Path, view: Run, open_page: Open
) -> None:
    tab = open_page(pages(tmp_path, view)["head"], "#")
    tab.resize(width)
    assert tab.page.evaluate("document.scrollingElement.scrollWidth") <= width
    for selector in ("#sides", "#map", "#most-changed"):
        expect(tab.page.locator(selector)).to_be_visible()


def test_what_is_saved_has_the_colours_of_the_signs(
    both: Any, tmp_path: Path, view: Run, open_page: Open
) -> None:
    tab = open_page(pages(tmp_path, view)["head"], "#")
    name, svg = tab.saved("Save the picture as SVG")
    assert "a_vs_b" in name
    strokes = set(re.findall(r'<line[^>]* stroke="(rgb[^"]+)"', svg.decode()))
    assert strokes == {"rgb(43, 107, 167)", "rgb(173, 76, 36)"}
    assert "differences above 0.01" in svg.decode()


def test_one_capture_is_shown_as_before(tmp_path: Path) -> None:
    """A page of one capture has nothing of a comparison."""
    write(tmp_path / "a.json", 0)
    content = read_content(load(tmp_path / "a.json"), lambda model, ids: [])
    page = b"".join(build_pages(["head"], content.caption, content.stacks)["head"]).decode()
    data = page.partition('id="page-data">')[2].partition("</script>")[0]
    assert "difference-" not in data
    assert '"side"' not in data
