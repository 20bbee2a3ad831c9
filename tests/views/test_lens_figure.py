"""`--figure lens` and the lines of `--summary`, against the document's own JSON."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import predicted
import pytest
from conftest import Run
from PIL import Image
from predicted import change, header_of, write_predicted

NAME = "bertviz/attention_figure_Family_Tiny-1_d_lens"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def bertviz(workplace: Path) -> Path:
    (workplace / "bertviz").mkdir()
    return workplace


def texts_of(path: str) -> list[str]:
    root = ElementTree.fromstring(Path(path).read_text())
    return ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]


def colours_of(path: str) -> list[str]:
    """Of the cells, row by row, band by band; the bar of colours comes last."""
    root = ElementTree.fromstring(Path(path).read_text())
    meshes = [g for g in root.iter(f"{SVG}g") if g.get("id", "").startswith("QuadMesh")]
    return [
        re.findall(r"fill: (#[0-9a-f]{6})", path.get("style", ""))[0]
        for mesh in meshes[:-1]
        for path in mesh.iter(f"{SVG}path")
        if "fill: #" in path.get("style", "")
    ]


def shown(token: str) -> str:
    return token.replace("Ġ", "·")


def test_cells_dots_and_labels(bertviz: Path, view: Run) -> None:
    header = write_predicted(bertviz / "d.json", tokens=5, words=predicted.VOCABULARY[:3])
    done = view("--input", "d.json", "--figure", "lens")
    assert (done.code, done.out, done.err) == (0, [f"{NAME}.svg"], [])
    lens, tokens = header["lens"], header["tokens"]
    columns = [
        [shown(tokens[i]), *[shown(layer[i][0]) for layer in lens["tokens"]], came]
        for i, came in enumerate([*map(shown, tokens[1:]), "–"])
    ]
    for i, column in enumerate(columns):  # a column: after, what came, and the layers
        columns[i] = [column[0], column[-1], *column[1:-1]]
    texts = texts_of(f"{NAME}.svg")
    rows = ["Layer 0", "Layer 1", "Output", "After", "What came"]
    assert texts[: len(rows)] == rows
    cells = [text for column in columns for text in column]
    assert texts[len(rows) : len(rows) + 25] == cells
    assert "Family/Tiny-1, what each layer would predict" in texts
    hits = sum(rank == 1 for layer in lens["actual"]["rank"] for rank in layer)
    assert hits
    assert Path(f"{NAME}.svg").read_text().count('<g id="line2d_') - 3 == hits  # 3 ticks of the bar


def test_the_stronger_the_likelier(bertviz: Path, view: Run) -> None:
    header = write_predicted(bertviz / "d.json", tokens=5)
    assert view("--input", "d.json", "--figure", "lens").code == 0
    likely = [row[0] for layer in header["lens"]["probabilities"] for row in layer]
    red = [int(colour[1:3], 16) for colour in colours_of(f"{NAME}.svg")]
    assert len(red) == len(likely)
    assert np.corrcoef(likely, red)[0, 1] < -0.9
    order = [red[i] for i in np.argsort(likely)]
    assert order == sorted(order, reverse=True)


@pytest.mark.parametrize("form", ["png", "pdf"])
def test_other_formats(form: str, bertviz: Path, view: Run) -> None:
    write_predicted(bertviz / "d.json")
    made = []
    for _ in range(2):
        assert view("--input", "d.json", "--figure", "lens", "--output-format", form).code == 0
        made.append(Path(f"{NAME}.{form}").read_bytes())
    assert made[0] == made[1]
    if form == "png":
        assert min(Image.open(f"{NAME}.png").size) > 500


def test_a_part_of_it(bertviz: Path, view: Run) -> None:
    header = write_predicted(bertviz / "d.json", tokens=40, layers=6)
    done = view("--input", "d.json", "--figure", "lens", "--tokens", "3:5", "--layers", "1,-1")
    assert done.code == 0
    texts = texts_of(f"{NAME}.svg")
    assert texts[:2] == ["Layer 1", "Output"]
    cells = [shown(header["lens"]["tokens"][layer][i][0]) for i in (3, 4) for layer in (1, 5)]
    assert [texts[6], texts[7], texts[10], texts[11]] == cells
    assert view("--input", "d.json", "--figure", "lens").code == 0  # three bands
    assert texts_of(f"{NAME}.svg").count("After") == 3


def test_positions_labels_and_what_is_no_number(bertviz: Path, view: Run) -> None:
    header = write_predicted(bertviz / "d.json", at=[2, 5], of="masked_token")
    header["lens"]["probabilities"][0][0] = [None] * 5
    change(bertviz / "d.json", lens=header["lens"])
    assert view("--input", "d.json", "--figure", "lens").code == 0
    texts = texts_of(f"{NAME}.svg")
    assert texts[3:7] == ["At", "In the text", "·sat", "·sat"]
    assert len(colours_of(f"{NAME}.svg")) == 5
    write_predicted(bertviz / "d.json", of="label", words=("good", "bad <b>"), most=2)
    assert view("--input", "d.json", "--figure", "lens").code == 0
    texts = texts_of(f"{NAME}.svg")
    assert "What came" not in texts
    assert {"good", "bad <b>", "Of"} <= set(texts)


def test_tokens_of_all_kinds(bertviz: Path, view: Run) -> None:
    words = ("猫" * 30, "\u202eabc", "<script>", "🙂", "a" * 10_000, "\x00", "$x$", "·")
    write_predicted(bertviz / "d.json", words=words)
    done = view("--input", "d.json", "--figure", "lens")
    assert (done.code, done.err) == (0, [])
    texts = texts_of(f"{NAME}.svg")
    assert max(map(len, texts)) < 60
    assert {"猫猫猫…", "\\u202ea…", "🙂", "aaaaaaa…", "$x$"} <= set(texts)


def without_attention(path: Path) -> None:
    """A capture of nothing but an MLP."""
    header = header_of(path)
    change(path, attention_weights=[])
    text = path.read_text().replace("attention_outputs", "mlp_outputs", 1)
    path.write_text(text.replace('"mlp_outputs": {}', '"attention_outputs": {}', 1))
    assert header["predictions"]


def test_without_attention(bertviz: Path, view: Run) -> None:
    write_predicted(bertviz / "d.json")
    lines = view("--input", "d.json", "--summary").out[-2:]
    without_attention(bertviz / "d.json")
    done = view("--input", "d.json", "--figure", "lens", "--summary")
    assert (done.code, done.err, done.out) == (0, [], [*lines, f"{NAME}.svg"])
    for flags in (["--summary", "csv"], ["--figure", "0.0,lens"], []):
        done = view("--input", "d.json", *flags)
        assert done.code == 1
        assert "no attention weights" in done.err[0]


def said(header: dict[str, Any]) -> list[str]:
    """The lines of the summary, in plain Python."""
    actual, lens = header["predictions"]["actual"], header["lens"]
    known = [p for p in actual["probability"] if p is not None]
    bits = sum(-math.log2(p) for p in known) / len(known)
    firsts = sum(rank == 1 for rank in actual["rank"])
    stays = []
    for place in range(len(lens["positions"])):
        top = [layer[place][0] for layer in lens["ids"]]
        stays.append(max([k + 1 for k, id in enumerate(top) if id != top[-1]], default=0))
    return [
        f"Surprise: {bits:.1f} bits a token on average; {firsts} of {len(known)} tokens were the "
        "likeliest.",
        f"Lens: the final prediction stays from layer {sum(stays) / len(stays):.1f} of "
        f"{len(lens['layers']) - 1} on, on average (at position {lens['positions'][-1]}, from "
        f"layer {stays[-1]}).",
    ]


@pytest.mark.parametrize("of", ["next_token", "masked_token"])
def test_the_summary(of: str, bertviz: Path, view: Run) -> None:
    header = write_predicted(bertviz / "d.json", tokens=30, layers=5, of=of)
    done = view("--input", "d.json", "--summary")
    assert (done.code, done.err) == (0, [])
    assert done.out[-3:] == ["", *said(header)]
    columns = view("--input", "d.json", "--summary", "csv").out
    assert len(columns) == 3  # a line a head, for programs
    write_predicted(bertviz / "d.json", tokens=1, of="label", words=("good", "bad"), lens=False)
    likely = predicted.header_of(bertviz / "d.json")["predictions"]
    line = f"Label: {likely['tokens'][0][0]} ({likely['probabilities'][0][0]:.2f})"
    assert view("--input", "d.json", "--summary").out[-1] == line
