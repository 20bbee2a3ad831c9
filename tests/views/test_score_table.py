"""`--summary`: the table, the CSV, the strongest heads; on a terminal, over a pipe, by itself."""

from __future__ import annotations

import csv
import io
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pexpect
import pytest
from browser import Layer, random_weights, write_capture
from conftest import Run
from hypothesis import given, settings
from hypothesis import strategies as st

from activations import load
from activations.attention import layer as attention_layer
from activations.attention.heads import HeadName
from activations.attention.scores import SCORES
from activations.attention.stack import Stack
from activations.errors import ToolkitError, UsageError
from activations.model.vocabulary import tokens_of
from activations.views.content import read_content
from activations.views.score_table import HeadScores, scored_heads, show_summary, strongest

ROOT = Path(__file__).parent.parent.parent
HEADER = ["attention", "layer", "head", *SCORES]
ENCODER, DECODER = list("xyzxyz"), list("abca")
LAYERS = [
    Layer(2, random_weights(1, 3, 6, causal=False), "encoder"),
    Layer(0, random_weights(2, 3, 6, causal=False), "encoder"),
    Layer(0, random_weights(3, 2, 4), "decoder"),
    Layer(0, random_weights(4, 2, 4, 6), "cross"),
]


@pytest.fixture
def both_sides(workplace: Path) -> Path:
    """A capture of an encoder with two layers, a decoder and the cross attention between them."""
    write_capture(workplace / "x.json", LAYERS, tokens=ENCODER, decoder_tokens=DECODER)
    return workplace


def printed(*argv: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own, its output a pipe."""
    return subprocess.run(
        [sys.executable, str(ROOT / "bertviz_head_model_view.py"), "--input", "x.json", *argv],
        capture_output=True,
        check=False,
        timeout=60,
        env={**os.environ, **environment},
    )


def shown_scores(**parts: list[int]) -> list[tuple[str, int, int, list[float]]]:
    with load("x.json") as document:
        stacks = read_content(document, tokens_of, **parts).stacks
    rows = []
    for stack in stacks:
        assert stack.scores is not None
        for i, layer in enumerate(stack.layers):
            for j, head in enumerate(stack.heads):
                rows.append((stack.name, layer, head, stack.scores[i, j].tolist()))
    return rows


def known_in(heads: list[tuple[str, int, int, list[float]]]) -> list[int]:
    """The places of the scores that some head has."""
    return [i for i in range(len(SCORES)) if not all(math.isnan(s[i]) for *_, s in heads)]


def test_csv_holds_every_head_in_order(both_sides: Path) -> None:
    done = printed("--summary", "csv")
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().split("\r\n")
    assert lines.pop() == ""
    assert not any("\n" in line for line in lines)
    assert lines[0] == ",".join(HEADER)
    rows = list(csv.reader(lines[1:]))
    expected = shown_scores()
    assert [(row[0], int(row[1]), int(row[2])) for row in rows] == [row[:3] for row in expected]
    assert [row[:3] for row in rows[::3]][:3] == [
        ["Encoder", "0", "0"],
        ["Encoder", "2", "0"],
        ["Decoder", "0", "0"],
    ]
    for row, (*_, scores) in zip(rows, expected, strict=True):
        assert all(re.fullmatch(r"-?\d+\.\d{6}", cell) or not cell for cell in row[3:])
        found = [float(cell) if cell else math.nan for cell in row[3:]]
        np.testing.assert_allclose(found, scores, atol=6e-7)
    cross = [row for row in rows if row[0] == "Cross"]
    assert [row[3:8] for row in cross] == [[""] * 5] * 2  # they need one text


def test_from_python(both_sides: Path) -> None:
    rows = load("x.json").scores()
    assert all(list(row) == HEADER for row in rows)
    for row, (kind, layer, head, scores) in zip(rows, shown_scores(), strict=True):
        assert (row["attention"], row["layer"], row["head"]) == (kind, layer, head)
        np.testing.assert_array_equal(list(row.values())[3:], scores)
    with pytest.raises(UsageError) as caught:
        load("x.json").scores(by="previous")
    assert str(caught.value) == (
        "by takes previous_token, next_token, self, duplicate_token, induction, first_token, "
        "special_tokens, punctuation, alignment or entropy, not 'previous'. "
        "Did you mean 'previous_token'?"
    )
    with pytest.raises(UsageError, match="not 'layer'"):
        load("x.json").scores(by="layer")
    with pytest.raises(UsageError, match="by takes the name of a score, not 3"):
        load("x.json").scores(by=3)
    with pytest.raises(ToolkitError, match="no attention weights"):
        Path("y.json").write_text('{"captured": {"mlp_outputs": {"m": {"output": [0.5]}}}}')
        load("y.json").scores()


@pytest.mark.parametrize("by", [score for score in SCORES if score != "alignment"])
def test_the_strongest_first(workplace: Path, by: str) -> None:
    """A head for which the score is not defined comes last, wherever it stands in the document."""
    layers = [Layer(i, random_weights(i, 4, 6, causal=False)) for i in range(2)]
    layers[0].weights[0] = np.nan
    write_capture(Path("x.json"), layers, tokens=["x", "y", ".", "x", "y", "[SEP]"])
    rows = load("x.json").scores(by=by)
    assert len(rows) == 8
    assert math.isnan(rows[-1][by])
    assert (rows[-1]["layer"], rows[-1]["head"]) == (0, 0)
    scores = [row[by] for row in rows[:-1]]
    assert scores == sorted(scores, reverse=by != "entropy")
    assert sorted(map(str, rows)) == sorted(map(str, load("x.json").scores()))


def test_heads_without_sound_rows(workplace: Path, view: Run) -> None:
    """A dash in the table, nothing in the CSV; the other heads as if they were alone."""
    sound = random_weights(1, 2, 6)
    odd = np.stack([sound[0], np.full((6, 6), np.nan, np.float32), sound[1]])
    write_capture(Path("x.json"), [Layer(0, odd)], tokens=ENCODER)
    write_capture(Path("sound.json"), [Layer(0, sound)], tokens=ENCODER)
    csv_rows = view("x.json", "--summary", "csv").out[1:]
    alone = view("sound.json", "--summary", "csv").out[1:]
    assert [row[9:] for row in (csv_rows[0], csv_rows[2])] == [row[9:] for row in alone]
    assert csv_rows[1] == "Self,0,1" + "," * len(SCORES)
    lines = view("x.json", "--summary").out
    assert lines[2].split() == ["Self", "0", "1", *"-" * (len(lines[1].split()) - 3)]


def test_the_document_as_an_argument(both_sides: Path, view: Run) -> None:
    """Before and after the options; of `--summary FILE`, FILE is no format."""
    expected = view("--input", "x.json", "--summary").out
    for argv in (
        ["x.json", "--summary"],
        ["--summary", "x.json"],
        ["--summary", "table", "x.json"],
    ):
        done = view(*argv)
        assert (done.code, done.out) == (0, expected)


def test_only_these_layers_and_heads(both_sides: Path, view: Run) -> None:
    done = view("--input", "x.json", "--summary", "csv", "--layers", "0", "--heads", "1")
    rows = [line.split(",")[:3] for line in done.out[1:]]
    assert rows == [[kind, "0", "1"] for kind in ("Encoder", "Decoder", "Cross")]


def test_a_pipe_gets_columns_and_the_strongest(both_sides: Path) -> None:
    done = printed("--summary", TERM="xterm-256color", FORCE_COLOR="")
    assert done.returncode == 0
    assert b"\x1b" not in done.stdout
    lines = done.stdout.decode().splitlines()
    table, block = lines[: lines.index("")], lines[lines.index("") + 1 :]
    assert len({len(line) for line in table}) == 1  # numbers end below each other
    expected = shown_scores()
    known = known_in(expected)
    assert table[0].split() == [*HEADER[:3], *(SCORES[i].split("_")[0] for i in known)]
    for line, (name, layer, head, scores) in zip(table[1:], expected, strict=True):
        cells = ["-" if math.isnan(scores[i]) else f"{scores[i]:.3f}" for i in known]
        assert line.split() == [name, str(layer), str(head), *cells]
    assert [line.partition(":")[0] for line in block] == [
        "Previous token",
        "Next token",
        "Self",
        "Duplicate token",
        "Induction",
        "First token",
        "Alignment",
        "Entropy (lowest, most focused)",
    ]
    for i, line in zip(known, block, strict=True):
        sign = 1 if SCORES[i] == "entropy" else -1
        ranked = sorted(
            (sign * scores[i], f"{name.lower()}:{layer}.{head}")
            for name, layer, head, scores in expected
            if not math.isnan(scores[i])
        )
        best = [f"{name} ({sign * score:.2f})" for score, name in ranked[:3]]
        assert line.partition(": ")[2] == ", ".join(best)


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"TERM": ""}])
def test_a_dumb_terminal_gets_what_a_pipe_gets(both_sides: Path, environment: dict) -> None:
    found = on_terminal(**environment)
    assert found.replace("\r\n", "\n") == printed("--summary").stdout.decode()


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}])
def test_a_terminal_gets_a_table(both_sides: Path, environment: dict) -> None:
    found = on_terminal(TERM="xterm-256color", **environment)
    assert "\x1b[1m" in found  # the header is bold
    assert not re.search(r"\x1b\[(3|4|9)\d", found)  # and nothing has a colour
    plain = re.sub(r"\x1b\[[0-9;]*m", "", found)
    for name, layer, head, scores in shown_scores():
        known = known_in(shown_scores())
        cells = ["-" if math.isnan(scores[i]) else f"{scores[i]:.3f}" for i in known]
        assert re.search(r"^ *" + r" +".join([name, str(layer), str(head), *cells]), plain, re.M)
    assert "Entropy (lowest, most focused): " in plain


def on_terminal(**environment: str) -> str:
    """What `--summary` prints on a terminal of 100 columns."""
    child = pexpect.spawn(
        sys.executable,
        [str(ROOT / "bertviz_head_model_view.py"), "--input", "x.json", "--summary", "table"],
        env={**os.environ, **environment},
        encoding="utf-8",
        dimensions=(60, 100),
        timeout=60,
    )
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    return child.before


# ----------------------------------------------------------------------------------- what it tells


def test_the_demo_models_heads(workplace: Path, capture: Run, view: Run) -> None:
    """On the prompt that is there to show them; the numbers are what the pages show."""
    assert capture("--auto-select", "attn:0", "--quiet").code == 0
    done = view("--summary")
    assert (done.code, done.err) == (0, [])
    scores, strongest, predictions = "\n".join(done.out).split("\n\n")
    assert len(scores.splitlines()) == 17
    assert predictions == (
        "Surprise: 4.8 bits a token on average; 12 of 23 tokens were the likeliest."
    )
    block = dict(line.split(": ") for line in strongest.splitlines())
    assert block["Previous token"].startswith("1.2 (0.96), ")
    induction = re.findall(r"(\d)\.\d \((0\.\d\d)\)", block["Induction"])
    assert [layer for layer, _ in induction] == ["3", "3", "2"]  # they need a layer before them
    assert all(float(score) > 0.5 for _, score in induction)
    assert not Path("bertviz").exists()


def test_it_needs_no_folder(both_sides: Path, view: Run) -> None:
    Path("bertviz").write_text("a file where the pages would go")
    done = view("--input", "x.json", "--summary")
    assert (done.code, done.err) == (0, [])
    assert len(done.out) > 12


def test_heads_are_named_by_kind_only_where_there_are_several(tmp_path: Path) -> None:
    write_capture(tmp_path / "x.json", LAYERS[2:3], decoder_tokens=DECODER)
    with load(tmp_path / "x.json") as document:
        heads = list(scored_heads(read_content(document, tokens_of).stacks))
    assert [str(head.name) for head in heads] == ["0.0", "0.1"]


def test_equal_heads_stay_in_order_and_undefined_ones_are_left_out() -> None:
    def head(number: int, **known: float) -> HeadScores:
        scores = tuple(known.get(name, math.nan) for name in SCORES)
        return HeadScores("Self", HeadName(0, number), scores)

    heads = [
        head(0, previous_token=0.5, alignment=-0.1, first_token=0.2, entropy=1.0),
        head(1, previous_token=0.5, alignment=0.3, first_token=0.2, entropy=0.5),
        head(2, alignment=0.2, first_token=0.2),
        head(3, previous_token=0.6, alignment=-0.3, first_token=0.2, entropy=0.5),
    ]
    assert strongest(heads) == [
        "Previous token: 0.3 (0.60), 0.0 (0.50), 0.1 (0.50)",
        "First token: 0.0 (0.20), 0.1 (0.20), 0.2 (0.20)",
        "Alignment: 0.1 (0.30), 0.2 (0.20), 0.0 (-0.10)",
        "Entropy (lowest, most focused): 0.1 (0.50), 0.3 (0.50), 0.0 (1.00)",
    ]


def test_raw_scores_have_no_scores(workplace: Path, view: Run) -> None:
    raw = np.random.default_rng(0).normal(0, 5, (2, 5, 5)).astype(np.float32)
    layers = [Layer(0, random_weights(1, 2, 5)), Layer(3, raw), Layer(4, raw)]
    write_capture(Path("x.json"), layers)
    done = view("--input", "x.json", "--summary")
    assert done.code == 0
    assert done.err == [
        "warning: Self: the values of layers 3-4 are not attention weights between 0 and 1, "
        "so they have no scores."
    ]
    assert done.out[3].split() == ["Self", "3", "0", *["-"] * (len(done.out[0].split()) - 3)]
    assert view("--input", "x.json", "--summary", "csv").out[3] == "Self,3,0" + "," * len(SCORES)


NAMES = st.text(min_size=1, max_size=30)
SCORE_ROWS = st.lists(
    st.lists(st.one_of(st.just(math.nan), st.floats(0, 12)), min_size=10, max_size=10),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(NAMES, SCORE_ROWS)
def test_any_name_and_any_score_parse_back(name: str, rows: list[list[float]]) -> None:
    """Names of modules come out of documents: commas, quotes, line breaks, escape codes."""
    heads = tuple(range(len(rows)))
    layer = attention_layer.Layer.of(np.ones((len(rows), 1, 1), np.float32))
    stack = Stack(name, "self", (7,), heads, (layer,), ("a",), ("a",), scores=np.array([rows]))
    file = io.StringIO(newline="")
    show_summary([stack], "csv", file)
    assert "\x1b" not in file.getvalue()
    header, *found = csv.reader(io.StringIO(file.getvalue(), newline=""), strict=True)
    assert header == HEADER
    assert [row[1:3] for row in found] == [["7", str(head)] for head in heads]
    for row, scores in zip(found, rows, strict=True):
        if name.isprintable():
            assert row[0] == name
        back = [float(cell) if cell else math.nan for cell in row[3:]]
        np.testing.assert_allclose(back, scores, atol=5.1e-7)
    plain = io.StringIO()
    show_summary([stack], "table", plain)
    assert "\x1b" not in plain.getvalue()
    defined = len(SCORES) - sum(map(all, zip(*(map(math.isnan, row) for row in rows), strict=True)))
    assert len(plain.getvalue().splitlines()) == 1 + len(rows) + bool(defined) + defined
