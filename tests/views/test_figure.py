"""`--figure`: what is read back from the files is what the document holds, in every form."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from browser import MODEL, Layer, Open, make_pages, random_weights, stack_of, write_capture
from conftest import Run
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.font_manager import fontManager
from PIL import Image

from activations.attention.heads import HeadName
from activations.attention.spelling import readable
from activations.attention.stack import Stack
from activations.document.format import FORMAT
from activations.document.writer import write_document
from activations.outputs.tensor import Tensor
from activations.text import printable
from activations.views.choices import FIGURE_FORMATS
from activations.views.colours import DARK, LIGHT, STRONG, STRONG_DARK
from activations.views.content import Caption
from activations.views.figure import build_figures, head_map
from activations.views.fonts import families_for
from activations.views.heat_map import draw

EVERY_FORMAT = pytest.mark.parametrize("form", FIGURE_FORMATS)
ROOT = Path(__file__).parent.parent.parent
SVG = "{http://www.w3.org/2000/svg}"
NAME = "attention_figure_Family_Tiny-1_x"  # of x.json
BOTH_SIDES = [
    Layer(0, random_weights(1, 2, 6, causal=False), "encoder"),
    Layer(1, random_weights(2, 2, 6, causal=False), "encoder"),
    Layer(0, random_weights(3, 2, 4), "decoder"),
    Layer(0, random_weights(4, 2, 4, 6), "cross"),
]


def figure_of(stack: Stack, form: str = "svg", model: str = MODEL) -> bytes:
    """The only figure of a stack of one head; there is no warning."""
    warnings: list[str] = []
    found = build_figures([HeadName(0, 0)], Caption(model, "p"), [stack], form, warnings.append)
    assert warnings == []
    (content,) = found.values()
    return content


# -------------------------------------------------------------------------------- reading an SVG


@dataclass(frozen=True)
class Read:
    """What an SVG figure shows, read from its shapes: texts, and each cell's colour and place."""

    texts: list[str]
    cells: list[tuple[float, float, str]]  # x and y of the middle, colour
    bar: list[str]  # the colours from the least to the most

    def weights(self, rows: int, columns: int) -> np.ndarray:
        """The cells' values by the colour bar, placed by where the cells are drawn."""
        assert len(self.cells) == rows * columns
        xs = sorted({round(x, 1) for x, _, _ in self.cells})
        ys = sorted({round(y, 1) for _, y, _ in self.cells})
        assert (len(ys), len(xs)) == (rows, columns)
        found = np.full((rows, columns), np.nan)
        for x, y, colour in self.cells:
            steps = [step for step, other in enumerate(self.bar) if other == colour]
            found[ys.index(round(y, 1)), xs.index(round(x, 1))] = (
                (np.mean(steps) + 0.5) / 256
            ) ** 2
        return found


def read_svg(content: bytes) -> Read:
    root = ElementTree.fromstring(content)
    meshes = [g for g in root.iter(f"{SVG}g") if g.get("id", "").startswith("QuadMesh")]
    shapes = [
        [
            _shape(path)
            for path in mesh.iter(f"{SVG}path")
            if "fill: none" not in path.get("style", "")
        ]
        for mesh in meshes
    ]
    bar = sorted(shapes.pop(), key=lambda shape: -shape[1])
    texts = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    return Read(texts, shapes[0] if shapes else [], [colour for _, _, colour in bar])


def _shape(path: ElementTree.Element) -> tuple[float, float, str]:
    numbers = [float(n) for n in re.findall(r"-?[\d.]+", path.get("d", ""))]
    fill = re.search(r"fill: (#[0-9a-f]{6})", path.get("style", ""))
    xs, ys = numbers[0::2], numbers[1::2]
    assert fill
    return (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2, fill[1]


# --------------------------------------------------------------------------------- what is drawn


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 9), (24, 24), (40, 5)])
def test_colours_are_the_weights(rows: int, columns: int) -> None:
    """By the colour bar of the same figure, which goes from 0 to 1 by the root of the weight."""
    weights = random_weights(rows, 1, rows, columns, causal=rows == columns)
    read = read_svg(figure_of(stack_of(weights)))
    np.testing.assert_allclose(read.weights(rows, columns), weights[0], atol=2 / 256)
    assert len(read.bar) == 256
    assert {"Attending token", "Attended token", "Attention weight"} <= set(read.texts)


def test_lightness_falls_evenly() -> None:
    """Figures are printed in grey too: luma as pillow computes it, from light to dark."""
    bar = read_svg(figure_of(stack_of(random_weights(1, 1, 3)))).bar
    strip = Image.new("RGB", (256, 1))
    strip.putdata([tuple(bytes.fromhex(colour[1:])) for colour in bar])
    grey = np.asarray(strip.convert("L"), int)[0]
    assert grey[0] == 255  # no attention is the paper's colour
    assert grey[-1] < 60
    assert (np.diff(grey) <= 0).all()
    assert (np.diff(grey[::16]) < -7).all()  # no part of the range looks all alike


def test_the_colour_bar_tells_the_weights() -> None:
    stack = stack_of(random_weights(1, 1, 9))
    figure = draw(head_map(HeadName(0, 0), Caption("m", "p"), stack, [stack]))
    FigureCanvasAgg(figure).draw()
    bar = figure.axes[1]
    assert [label.get_text() for label in bar.get_yticklabels()] == ["0", "0.1", "0.3", "0.6", "1"]
    for tick in bar.get_yticks():
        place = bar.transData.transform((0, tick))
        assert bar.transAxes.inverted().transform(place)[1] == pytest.approx(tick**0.5, abs=1e-6)


@pytest.mark.browser
def test_the_page_has_the_same_colours(tmp_path: Path, open_page: Open) -> None:
    weights = random_weights(8, 1, 9)
    pages = make_pages(tmp_path, [Layer(0, weights)])
    tab = open_page(pages["head"], "#layer=0&head=0")
    paths = tab.page.evaluate(
        "Array.from(document.querySelectorAll('#heat svg > rect:first-child, #heat svg > path'),"
        " e => [e.getAttribute('d') ?? '', getComputedStyle(e).fill])"
    )
    paper = "rgb(255, 255, 255)"
    assert paths[0] == ["", paper]
    fills = {
        (float(y), float(x)): fill
        for data, fill in paths
        for x, y in re.findall(r"M([\d.e-]+) ([\d.e-]+)", data)
    }
    theirs = [fills[place] for place in sorted(fills)]
    cells = sorted(read_svg(figure_of(stack_of(weights))).cells, key=lambda cell: cell[1::-1])
    # Its faintest shades the page draws as none: it has 48.
    seen = np.sqrt(weights[0].ravel()) * 48 >= 0.5
    ours = [colour for (_, _, colour), there in zip(cells, seen, strict=True) if there]
    assert len(ours) == len(theirs) > 20
    for one, other in zip(ours, theirs, strict=True):
        step = np.array([*bytes.fromhex(one[1:])]) - [int(n) for n in re.findall(r"\d+", other)]
        assert abs(step).max() <= 5


@pytest.mark.parametrize(
    ("colours", "strong", "inks"),
    [(LIGHT, STRONG, (0, 255)), (DARK, STRONG_DARK, (255, 0))],
)
def test_numbers_are_readable_on_every_colour(
    colours: list[str], strong: float, inks: tuple[int, int]
) -> None:
    rgb = np.array([[*bytes.fromhex(colour[1:])] for colour in colours])
    shares = np.linspace(0, 1, 1001)
    at = np.linspace(0, 1, len(colours))
    shown = np.stack([np.interp(shares, at, channel) for channel in rgb.T], axis=1)
    light = luminance(shown)
    ink = np.where(shares > strong, *(luminance(np.full(3, ink)) for ink in inks[::-1]))
    high, low = np.maximum(light, ink), np.minimum(light, ink)
    assert ((high + 0.05) / (low + 0.05)).min() > 4.5  # WCAG AA


def luminance(rgb: np.ndarray) -> np.ndarray:
    """As WCAG 2 has it, of sRGB from 0 to 255."""
    part = rgb / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    found: np.ndarray = linear @ np.array([0.2126, 0.7152, 0.0722])
    return found


def test_png_cells_lie_where_rows_and_columns_are() -> None:
    """Two figures of one strong cell each differ in these two cells, and nowhere else."""
    size, cell = 16, 4.5 / 25.4 * 600  # dots
    places = [(3, 5), (11, 9)]
    pictures = []
    for place in places:
        weights = np.zeros((1, size, size), np.float32)
        weights[0][place] = 1
        picture = Image.open(BytesIO(figure_of(stack_of(weights), "png")))
        assert picture.info["dpi"] == pytest.approx((600, 600), abs=0.1)
        pictures.append(np.asarray(picture.convert("L"), int))
    change = pictures[1] - pictures[0]
    lighter, darker = np.argwhere(change > 100), np.argwhere(change < -100)
    assert np.count_nonzero(change) < 2.1 * cell**2
    for changed in (lighter, darker):
        assert len(changed) == pytest.approx(cell**2, rel=0.1)
    step = darker.mean(axis=0) - lighter.mean(axis=0)
    assert step == pytest.approx(np.subtract(places[1], places[0]) * cell, abs=1.5)


def test_values_are_written_into_few_cells() -> None:
    weights = random_weights(1, 1, 12)
    texts = read_svg(figure_of(stack_of(weights))).texts
    written = [text for text in texts if re.fullmatch(r"[01]\.\d\d", text)]
    assert written == [f"{weight:.2f}" for weight in weights.ravel() if weight]
    assert texts.count("0") == np.count_nonzero(weights == 0) + 1  # and one at the colour bar
    more = read_svg(figure_of(stack_of(random_weights(1, 1, 13)))).texts
    assert not any(re.fullmatch(r"\d\.\d\d", text) for text in more)


def test_what_is_no_number_is_left_hatched(workplace: Path, view: Run) -> None:
    weights = random_weights(5, 1, 6)
    weights[0, 4, 2] = np.nan
    write_capture(Path("x.json"), [Layer(0, weights)])
    done = view("--input", "x.json", "--figure", "0.0")
    content = Path(done.out[0]).read_bytes()
    read = read_svg(content)
    assert len(read.cells) == 35
    assert b"<pattern" in content
    assert b"<pattern" not in figure_of(stack_of(random_weights(5, 1, 6)))
    assert done.err == ["warning: 1 attention weights are not finite: neither drawn nor scored."]
    read = read_svg(figure_of(stack_of(np.full((1, 3, 3), np.nan))))  # still a figure
    assert (read.cells, read.texts[0]) == ([], "t0")


def test_raw_scores_have_a_range_of_their_own() -> None:
    scores = np.linspace(-7.5, 31.5, 16 * 16).reshape(16, 16).astype(np.float32)
    scores[0, 1:] = -1e9  # a mask
    read = read_svg(figure_of(stack_of(scores[None])))
    assert "Raw attention score" in read.texts
    assert len(read.cells) == 16 * 16 - 15
    colours = [colour for _, _, colour in read.cells]
    assert (colours[0], colours[-1]) == (read.bar[0], read.bar[-1])
    few = read_svg(figure_of(stack_of(np.array([[[-3.26, -0.01], [2.5, 0.125]]]))))
    assert {"−3.3", "0.0", "2.5", "0.1"} <= set(few.texts)


def test_more_cells_than_can_be_shapes_are_one_picture() -> None:
    content = figure_of(stack_of(random_weights(1, 1, 150)))
    assert read_svg(content).cells == []
    assert content.count(b"<image") == 1
    assert len(content) < 300_000


# ---------------------------------------------------------------------------------------- tokens

TRICKY = [
    *("$x^2$", "\\alpha", "$", "&amp;", "<b>", "]]>", '"', "'", "naïve", "Ωμέγα", "שלום", "_{a}"),
    *("{}", "%s", "-->", "ﬁ", "é", "١٢"),
]


@EVERY_FORMAT
def test_tokens_are_taken_as_typed(form: str) -> None:
    """And the same bytes every time."""
    stack = stack_of(random_weights(1, 1, len(TRICKY)), rows=TRICKY, columns=TRICKY)
    content = figure_of(stack, form, "a $model$ & <more>")
    assert content == figure_of(stack, form, "a $model$ & <more>")
    if form == "svg":
        texts = read_svg(content).texts
        assert texts[: len(TRICKY)] == TRICKY
        assert [text for text in texts if text in TRICKY] == TRICKY * 2
        assert "a $model$ & <more>" in texts


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text(max_size=12), min_size=1, max_size=6), st.text(max_size=70))
def test_any_text_makes_a_sound_svg(tokens: list[str], model: str) -> None:
    stack = stack_of(np.full((1, len(tokens), len(tokens)), 0.25), rows=tokens, columns=tokens)
    texts = read_svg(figure_of(stack, model=model)).texts
    labels = [printable(token) for token in readable(tokens)]
    for found, label in zip(texts, labels, strict=False):
        assert found == label or (found.endswith("…") and label.startswith(found[:-1]))
    for text in texts:
        assert text.isprintable()


def test_texts_are_cut_short_to_fit() -> None:
    tokens = ["x" * 20, "y" * 21, "猫" * 10, "犬" * 11]
    stack = stack_of(np.full((1, 4, 4), 0.25), rows=tokens, columns=tokens)
    texts = read_svg(figure_of(stack, model="m" * 99)).texts
    assert texts[:4] == ["x" * 20, "y" * 19 + "…", "猫" * 10, "犬" * 9 + "…"]
    assert "m" * 59 + "…" in texts


@pytest.mark.parametrize("count", [1, 13, 40, 59, 390, 3000])
def test_labels_never_overlap_and_the_figure_fits_a_page(count: int) -> None:
    tokens = ["Ånghöjgq" * 3] * count
    stack = stack_of(np.zeros((1, count, count), np.float32), rows=tokens, columns=tokens)
    figure = draw(head_map(HeadName(0, 0), Caption("m", "p"), stack, [stack]))
    figure.dpi = 100
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    axes = figure.axes[0]
    for axis, low, high in ((axes.xaxis, "x0", "x1"), (axes.yaxis, "y0", "y1")):
        boxes = [label.get_window_extent() for label in axis.get_ticklabels()]
        assert len(boxes) >= min(count, 20)
        boxes.sort(key=lambda box: getattr(box, low))
        for before, after in pairwise(boxes):
            assert getattr(before, high) <= getattr(after, low)
        position = axis.get_ticklocs()
        numbers = [label.get_text().partition(":")[0] for label in axis.get_ticklabels()]
        if len(boxes) < count:  # thinned: each says which token it is
            assert [str(int(place)) for place in position] == numbers
    size = figure.get_tightbbox()
    assert size.width <= 180 / 25.4
    assert size.height <= 240 / 25.4


def test_part_of_a_text(workplace: Path, view: Run) -> None:
    weights = random_weights(1, 1, 200)
    write_capture(Path("x.json"), [Layer(0, weights)])
    done = view("--input", "x.json", "--figure", "0.0", "--tokens", "3:8")
    read = read_svg(Path(done.out[0]).read_bytes())
    part = weights[0, 3:8, 3:8]
    np.testing.assert_allclose(read.weights(5, 5), part, atol=2 / 256)
    assert read.texts[:5] == ["t3", "t4", "t5", "t6", "t7"]
    done = view("--input", "x.json", "--figure", "0.0", "--tokens", "50:180")
    assert "50: t50" in Path(done.out[0]).read_text()


# ----------------------------------------------------------------------------------------- fonts


@pytest.fixture
def new_font(tmp_path: Path) -> Iterator[Any]:
    """Makes fonts of given characters and installs them meanwhile."""
    before = list(fontManager.ttflist)

    def install(family: str, characters: str) -> None:
        names = [".notdef", *(f"u{ord(c):x}" for c in characters)]
        pen = TTGlyphPen(None)
        pen.moveTo((50, 0))
        for point in ((50, 700), (900, 700), (900, 0)):
            pen.lineTo(point)
        pen.closePath()
        builder = FontBuilder(1000, isTTF=True)
        builder.setupGlyphOrder(names)
        builder.setupCharacterMap({ord(c): f"u{ord(c):x}" for c in characters})
        builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
        builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 50)))
        builder.setupHorizontalHeader(ascent=800, descent=-200)
        spelled = {"familyName": family, "styleName": "Regular", "psName": family.replace(" ", "")}
        builder.setupNameTable(spelled)
        builder.setupOS2(usWeightClass=400)
        builder.setupPost()
        builder.save(tmp_path / f"{family}.ttf")
        fontManager.addfont(tmp_path / f"{family}.ttf")

    yield install
    fontManager.ttflist[:] = before


def test_installed_fonts_are_asked_for_what_the_first_lacks(new_font: Any) -> None:
    new_font("A Color Emoji", "猫犬🙂")  # holds pictures, which matplotlib leaves out
    new_font("B", "猫犬")
    new_font("Noto Sans C", "猫")
    assert families_for("naïve Ωμέγα слово שלום ١٢ ·↵∅…−") == (["DejaVu Sans"], "")
    assert families_for("a猫") == (["DejaVu Sans", "Noto Sans C"], "")
    assert families_for("a猫犬🙂鳥") == (["DejaVu Sans", "Noto Sans C", "B"], "鳥🙂")


@pytest.mark.parametrize("form", ["pdf", "png"])
def test_a_token_in_a_second_font_is_drawn_without_a_word(
    form: str, new_font: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    new_font("Toolkit Many", "猫犬")
    weights = np.full((1, 2, 2), 0.5)
    content = figure_of(stack_of(weights, rows="猫犬", columns=["a猫", "b"]), form)
    assert content != figure_of(stack_of(weights, rows="猫猫", columns="bb"), form)
    if form == "pdf":
        assert b"+ToolkitMany" in content
        assert b"/FontFile2" in content  # TrueType outlines, no bitmaps
        assert b"/Type3" not in content
    assert capsys.readouterr() == ("", "")


@EVERY_FORMAT
def test_one_warning_for_characters_that_no_font_has(form: str, workplace: Path, view: Run) -> None:
    """An SVG leaves them to the fonts of whoever opens it."""
    odd = "\U00013000"  # a hieroglyph
    write_capture(Path("x.json"), [Layer(0, random_weights(1, 2, 3))], tokens=["a", odd, "b"])
    done = view("--input", "x.json", "--figure", "0.0,0.1", "--output-format", form)
    assert (done.code, len(done.out)) == (0, 2)
    assert (
        done.err
        == [
            f"warning: no installed font has {odd}; boxes are drawn instead. Install a font that "
            "does, or use --output-format svg."
        ][: form != "svg"]
    )


# -------------------------------------------------------------------------------- files and names


def figures(view: Run, *argv: str) -> list[str]:
    """The file names that such a command prints, without what they have in common."""
    done = view("--input", "x.json", "--figure", *argv)
    assert (done.code, done.err) == (0, [])
    assert all(Path(path).is_file() for path in done.out)
    return [path.removeprefix(f"bertviz/{NAME}_") for path in done.out]


def test_a_figure_for_each_head_and_kind(workplace: Path, view: Run) -> None:
    write_capture(Path("x.json"), BOTH_SIDES, tokens=list("abcdef"), decoder_tokens=list("wxyz"))
    assert figures(view, "1.0") == ["layer_1_head_0.svg"]  # only the encoder has it
    expected = [f"{kind}_layer_0_head_1.svg" for kind in ("encoder", "decoder", "cross")]
    assert figures(view, "0.1") == expected
    assert figures(view, "cross:0.1,encoder:1.1, cross:0.1") == [
        "cross_layer_0_head_1.svg",
        "layer_1_head_1.svg",
    ]
    assert figures(view, "cross:0.0", "--output-format", "pdf") == ["cross_layer_0_head_0.pdf"]
    read = read_svg(Path(f"bertviz/{NAME}_cross_layer_0_head_1.svg").read_bytes())
    assert "Layer 0, Head 1" in read.texts
    assert "Family/Tiny-1, cross attention" in read.texts
    weights = BOTH_SIDES[3].weights[1]
    np.testing.assert_allclose(read.weights(4, 6), weights, atol=2 / 256)
    assert read.texts[:6] == list("abcdef")  # columns are attended to
    start = read.texts.index("w")
    assert read.texts[start : start + 4] == list("wxyz")


def test_two_modules_of_a_kind_in_a_layer_get_two_figures(workplace: Path, view: Run) -> None:
    """Two encoders, say: the second is numbered, and each says which module it shows."""
    parts = [("a", Layer(0, random_weights(1, 1, 3))), ("b", Layer(0, random_weights(2, 1, 3)))]
    modules = {f"m.0.{name}": layer.weights[None] for name, layer in parts}
    places = [{"module": m, "element": [], "layer": 0, "kind": "self"} for m in modules]
    header = {"format": FORMAT, "model": MODEL, "prompt": "p", "tokens": list("abc")}
    tensors = {m: Tensor("float32", w.shape, w) for m, w in modules.items()}
    write_document(Path("x.json"), {**header, "attention_weights": places}, {"attention": tensors})
    assert figures(view, "0.0") == ["self_layer_0_head_0.svg", "self_2_layer_0_head_0.svg"]
    second = Path(f"bertviz/{NAME}_self_2_layer_0_head_0.svg").read_bytes()
    assert "Family/Tiny-1, Self, m.{layer}.b" in read_svg(second).texts


def test_a_model_called_like_a_path(workplace: Path, view: Run) -> None:
    write_capture(Path("x.json"), [Layer(0, random_weights(1, 1, 2))], model="../a b\x1b[1m/模型")
    done = view("--input", "x.json", "--figure", "0.0")
    assert done.out == ["bertviz/attention_figure___x_layer_0_head_0.svg"]
    assert "\x1b" not in Path(done.out[0]).read_text()


def test_all_figures_or_none(workplace: Path, view: Run) -> None:
    write_capture(Path("x.json"), [Layer(0, random_weights(1, 2, 3))])
    Path(f"bertviz/{NAME}_layer_0_head_1.svg").mkdir(parents=True)
    done = view("--input", "x.json", "--figure", "0.0,0.1", "--view", "head", "--summary")
    assert (done.code, done.out) == (1, [])
    assert os.listdir("bertviz") == [f"{NAME}_layer_0_head_1.svg"]


def test_pages_only_when_asked_for(workplace: Path, view: Run) -> None:
    write_capture(Path("x.json"), [Layer(0, random_weights(1, 2, 3))])
    figure, page = f"bertviz/{NAME}_layer_0_head_0.svg", "bertviz/attention_head_view_Family_Tiny"
    assert view("--input", "x.json", "--figure", "0.0").out == [figure]
    both = view("--input", "x.json", "--figure", "0.0", "--view", "head", "--min-weight", "0.2")
    assert both.out == [f"{page}-1_x.html", figure]
    after = view("--input", "x.json", "--figure", "0.0", "--summary").out
    assert after[-1] == figure
    assert after[0].startswith("attention  layer  head")
    assert view("--input", "x.json", "--summary", "--view", "head").out[-1] == f"{page}-1_x.html"
    assert len(view("--input", "x.json").out) == 2


def test_open_opens_figures(workplace: Path, view: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: not opened.append(url))
    write_capture(Path("x.json"), [Layer(0, random_weights(1, 2, 3))])
    done = view("--input", "x.json", "--figure", "0.0,0.1", "--open")
    assert opened == [Path(path).resolve().as_uri() for path in done.out]
    assert len(opened) == 2


# -------------------------------------------------------------------------------- by the machine


def test_neither_settings_nor_a_missing_home_change_a_figure(workplace: Path) -> None:
    """matplotlib would read a file of settings here, and write of its font cache."""
    write_capture(Path("x.json"), [Layer(0, random_weights(1, 1, 14))])
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import bertviz_head_model_view as view\n"
        f"for form in {FIGURE_FORMATS}:\n"
        "    view.main(['--input', 'x.json', '--figure', '0.0', '--output-format', form])\n"
    )
    paths = [Path(f"bertviz/{NAME}_layer_0_head_0.{form}") for form in FIGURE_FORMATS]
    contents = []
    for odd in ({}, {"MPLCONFIGDIR": "/proc/nowhere", "SOURCE_DATE_EPOCH": "1"}):
        environment = {**os.environ, "PYTHONHASHSEED": str(len(odd)), **odd}
        if odd:
            Path("matplotlibrc").write_text("axes.grid: True\nxtick.major.pad: 9\nnonsense: 1\n")
        done = run_python(code, environment)
        assert done.stdout == "".join(f"{path}\n" for path in paths)
        contents.append([path.read_bytes() for path in paths])
    assert contents[0] == contents[1]


def run_python(
    code: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A process of its own, which writes nothing to stderr."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done


def test_nothing_heavy_that_is_not_needed(workplace: Path) -> None:
    write_capture(Path("x.json"), [Layer(0, random_weights(1, 1, 4))])
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import bertviz_head_model_view as b\n"
        "assert b.main(['--input', 'x.json', '--summary']) == 0\n"
        "assert b.main(['--input', 'x.json']) == 0\n"
        "assert not {'matplotlib', 'rich', 'PIL'} & set(sys.modules)\n"
        "assert b.main(['--input', 'x.json', '--figure', '0.0']) == 0\n"
        "assert not {'matplotlib.pyplot', 'torch', 'tkinter'} & set(sys.modules)\n"
    )
    run_python(code)
