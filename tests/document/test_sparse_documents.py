"""Documents of which only large attention weights were kept: by strangers, damaged, and in use.

The truth is a dense document of the same weights with zeros in place of the small ones.
"""

from __future__ import annotations

import copy
import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import random_weights
from conftest import Run

from activations import ToolkitError, load
from activations.attention.layer import are_same, sums_of
from activations.attention.scores import SCORES, Plans, RowScores
from activations.attention.weights import read_attention
from activations.document import json_arrays
from activations.document.format import FORMAT
from activations.document.writer import write_document
from activations.outputs.sparse import Sparse, keep_above
from activations.outputs.tensor import Tensor

NAME = "model.layers.0.attn"
ABOVE = 0.02
BOTH = pytest.mark.parametrize("format", ["json", "safetensors"])


def write(
    path: Path,
    weights: np.ndarray,
    keep: bool = True,
    format: str = "json",
    above: float = ABOVE,
    **header: Any,
) -> Path:
    """A capture of one layer, (heads, rows, columns); with its scores, as command 1 writes it."""
    kind = header.pop("kind", "self")
    place = {"module": NAME, "element": [1], "layer": 0, "kind": kind}
    tokens = [f"t{i % 7}" for i in range(weights.shape[2])]
    header = {"format": FORMAT, "model": "m", "prompt": "p", "tokens": tokens} | header
    header |= {"attention_weights": [place]}
    batch = np.ascontiguousarray(weights[None])
    whole = Tensor("float32", batch.shape, batch)
    if not keep:
        write_document(path, header, {"attention": {NAME: [None, whole]}}, format=format)
        return path
    write(path, weights, keep=False, **{k: v for k, v in header.items() if k != "format"})
    (stack,) = read_attention(load(path))
    scores = RowScores(len(stack.heads), Plans(stack.sides, stack.is_cross))
    for head, matrix in enumerate(weights):
        scores.add(head, 0, matrix)
    by_name = dict(zip(SCORES, scores.means().T.tolist(), strict=True))
    defined = {name: [v if v == v else None for v in values] for name, values in by_name.items()}
    header |= {"keep_above": above, "scores": [{"module": NAME, "element": [1], **defined}]}
    outputs = {"attention": {NAME: [None, keep_above(batch, above)]}}
    write_document(path, header, outputs, format=format)
    return path


@pytest.fixture
def weights() -> np.ndarray:
    return random_weights(0, 3, 30)


# --------------------------------------------------------------------------------------- in use


@BOTH
def test_what_python_gets(format: str, weights: np.ndarray, tmp_path: Path) -> None:
    with load(write(tmp_path / "a.json", weights, format=format)) as document:
        large = np.where(weights > ABOVE, weights, 0)[None]
        np.testing.assert_array_equal(document.tensor(NAME, 1), large)
        np.testing.assert_array_equal(document[NAME][1], large)
        assert document.shape(NAME) == [None, [1, 3, 30, 30]]
        assert document.dtype(NAME) == [None, "float32"]
        sparse = document.sparse(NAME, 1)
        assert sparse is not None
        assert sparse.above == ABOVE
        assert sparse.dropped == weights.size - np.count_nonzero(large)
        kept = weights > ABOVE
        np.testing.assert_array_equal(sparse.weights.numbers(), weights[kept])
        np.testing.assert_array_equal(sparse.columns, np.nonzero(kept)[2])
        np.testing.assert_array_equal(np.diff(sparse.row_starts), kept.sum(-1).ravel())
        left = np.where(kept, 0, weights).sum(-1)
        np.testing.assert_allclose(sparse.rest[0], left, atol=1e-6)
        with pytest.raises(ToolkitError, match="element 0 is not a tensor"):
            document.sparse(NAME, 0)
    with load(write(tmp_path / "b.json", weights, keep=False)) as document:
        assert document.sparse(NAME, 1) is None


@BOTH
def test_scores_are_those_of_all_weights(
    format: str, weights: np.ndarray, tmp_path: Path, view: Run
) -> None:
    dense = write(tmp_path / "dense.json", weights, keep=False)
    sparse = write(tmp_path / "sparse.json", weights, format=format)
    for flags in ((), ("--heads", "2,0"), ("--layers", "0")):
        assert view("--input", sparse, "--summary", *flags).out == (
            view("--input", dense, "--summary", *flags).out
        )
    assert json.dumps(load(sparse).scores()) == json.dumps(load(dense).scores())


def test_without_scores_there_are_none(weights: np.ndarray, tmp_path: Path, view: Run) -> None:
    path = write(tmp_path / "a.json", weights)
    content = json.loads(path.read_text())
    del content["scores"]
    path.write_text(json.dumps(content))
    done = view("--input", path, "--summary")
    assert done.code == 0
    assert "small weights" in " ".join(done.err)
    assert all(np.isnan(head["entropy"]) for head in load(path).scores())


@pytest.mark.parametrize(
    ("shape", "header"),
    [
        ((2, 9, 9), {}),
        ((2, 3, 9), {"kind": "cross", "decoder_tokens": ["a", "b", "c"]}),
        ((2, 9, 11), {"tokens": [f"t{i}" for i in range(9)]}),  # prefix tuning
        ((2, 2, 9), {}),  # one step of a generation
        ((2, 9, 9), {"sentence_b_start": 4}),
        ((2, 9, 9), {"continuation_start": 6, "written": "x"}),
    ],
)
@pytest.mark.parametrize("flags", [(), ("--tokens", "0:2"), ("--heads", "1")])
def test_figures_are_those_of_large_weights(
    shape: tuple[int, ...],
    header: dict[str, Any],
    flags: tuple[str, ...],
    workplace: Path,
    view: Run,
) -> None:
    """The same figure as of a dense document with zeros, but for what the subtitle says."""
    weights = random_weights(1, *shape, causal=False)
    write(Path("sparse.json"), weights, **dict(header))
    write(Path("dense.json"), np.where(weights > ABOVE, weights, 0), keep=False, **dict(header))
    found = {}
    for name in ("sparse", "dense"):
        done = view("--input", f"{name}.json", "--figure", "0.1", "--quiet", *flags)
        if shape[1] == 2 and "--tokens" in flags:
            assert done.code == 2  # these rows are other tokens
            return
        assert done.code == 0, done.err
        (path,) = Path("bertviz").glob(f"*_{name}_*.svg")
        found[name] = path.read_text()
    assert f"weights above {ABOVE}" in found["sparse"]
    assert "weights above" not in found["dense"]
    colours = [re.findall("fill: (#[0-9a-f]{6})", text) for text in found.values()]
    assert len(set(colours[0])) > 4
    assert colours[0] == colours[1]


def test_heads_read_like_dense_ones(weights: np.ndarray, tmp_path: Path) -> None:
    (stack,) = read_attention(load(write(tmp_path / "a.json", weights)))
    head, other = stack.weights[0].head(0), stack.weights[0].head(1)
    assert isinstance(head, Sparse)
    np.testing.assert_allclose(sums_of(head), weights[0].sum(-1), atol=1e-6)
    assert are_same(head, head)
    assert not are_same(head, other)
    assert not are_same(head, weights[0])


def test_a_part_knows_whether_rows_are_whole(tmp_path: Path, view: Run) -> None:
    """Where attention goes outside, dividing by what is left of a row would mislead."""
    causal = random_weights(0, 1, 20)
    both_ways = random_weights(0, 1, 20, causal=False)
    for weights, hides in ((causal, True), (both_ways, False)):
        path = write(tmp_path / "a.json", weights)
        done = view("--input", path, "--tokens", "0:8", "--output-dir", tmp_path, "--quiet")
        assert done.code == 0
        page = next(tmp_path.glob("attention_head*.html")).read_text()
        assert (f'"wholeRows":{str(hides).lower()}') in page


# -------------------------------------------------------------------------- damaged and hostile


def sparse_of(content: Any) -> Any:
    return content["captured"]["attention_outputs"][NAME]["output"][1]["sparse"]


DAMAGE: list[tuple[str, Any]] = [
    ("above", "x"),
    ("above", 1.5),
    ("above", None),
    ("shape", [1, 3, 30]),
    ("shape", [1, 3, 30, -1]),
    ("shape", [1, 3, 30, 10**14]),
    ("shape", [1, 3, 31, 30]),
    ("shape", [2, 3, 30, 30]),
    ("shape", "x"),
    ("axes", [0, 1, 2, 2]),
    ("axes", [0, 1, 2]),
    ("row_starts", lambda v: v[:-1]),
    ("row_starts", lambda v: [1, *v[1:]]),
    ("row_starts", lambda v: [*v[:-1], v[-1] + 1]),
    ("row_starts", lambda v: [v[0], *v[2:0:-1], *v[3:]]),
    ("row_starts", lambda v: [0, -5, *v[2:]]),
    ("row_starts", "x"),
    ("columns", lambda v: v[:-1]),
    ("columns", lambda v: [*v[:-1], 30]),
    ("columns", lambda v: [*v[:-1], -1]),
    ("columns", lambda v: [*v[:-2], v[-1], v[-2]]),
    ("columns", lambda v: [*v[:-1], v[-2]]),
    ("columns", lambda v: [0.5, *v[1:]]),
    ("weights", lambda v: v[:-1]),
    ("weights", lambda v: ["x", *v[1:]]),
    ("weights", None),
    ("rest", lambda v: [[[0.0]]]),
    ("overview", lambda v: [[[[0.0]]]]),
    ("overview", {}),
]


@pytest.mark.parametrize(("key", "change"), DAMAGE, ids=range(len(DAMAGE)))
def test_a_damaged_one_is_refused_in_one_line(
    key: str, change: Any, weights: np.ndarray, tmp_path: Path, view: Run
) -> None:
    path = write(tmp_path / "a.json", weights)
    content = json.loads(path.read_text())
    sparse = sparse_of(content)
    before = copy.deepcopy(sparse)
    sparse[key] = change(sparse[key]) if callable(change) else change
    assert sparse != before
    path.write_text(json.dumps(content))
    with pytest.raises(ToolkitError, match="damaged|shape|not a tensor"):
        load(path).tensor(NAME, 1)
    done = view("--input", path, "--output-dir", tmp_path / "pages", "--quiet")
    assert done.code == 1
    (line,) = done.err
    assert "unexpected" not in line
    assert not (tmp_path / "pages").exists()


@pytest.mark.parametrize("key", ["above", "shape", "row_starts", "columns", "weights", "rest"])
def test_a_part_that_is_missing(key: str, weights: np.ndarray, tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", weights)
    content = json.loads(path.read_text())
    del sparse_of(content)[key]
    path.write_text(json.dumps(content))
    with pytest.raises(ToolkitError, match="damaged"):
        load(path).tensor(NAME, 1)


@pytest.mark.parametrize("value", [1e30, -1.0, float("nan")])
def test_odd_weights_do_no_harm(
    value: float, weights: np.ndarray, tmp_path: Path, view: Run
) -> None:
    """Numbers that no softmax gives, by another program: pages are made, or one line says why."""
    path = write(tmp_path / "a.json", weights)
    content = json.loads(path.read_text())
    sparse_of(content)["weights"][3] = None if value != value else value
    path.write_text(json.dumps(content))
    done = view("--input", path, "--output-dir", tmp_path, "--quiet")
    assert done.code in (0, 1)
    assert not any("unexpected" in line for line in done.err)


def test_a_tensor_larger_than_the_memory(
    weights: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = load(write(tmp_path / "a.json", weights))
    monkeypatch.setattr(json_arrays, "free_memory", lambda: weights.nbytes - 1)
    with pytest.raises(ToolkitError, match=r"free\. Take what is there of it: Document\.sparse"):
        document.tensor(NAME, 1)
    assert document.sparse(NAME, 1)
    monkeypatch.setattr(json_arrays, "free_memory", lambda: weights.nbytes)
    assert document.tensor(NAME, 1).shape == (1, 3, 30, 30)


def test_a_shape_that_is_huge_takes_little(tmp_path: Path, view: Run) -> None:
    """A few rows over 300 million columns: whatever a file says, no such row is made."""
    columns = 300_000_000
    path = write(tmp_path / "a.json", random_weights(0, 2, 4, causal=False), kind="cross")
    content = json.loads(path.read_text())
    sparse = sparse_of(content)
    sparse["shape"] = [1, 2, 4, columns]
    content["captured"]["attention_outputs"][NAME]["shape"] = [None, sparse["shape"]]
    sparse["overview"] = np.zeros((1, 2, 4, 128)).tolist()
    path.write_text(json.dumps(content))
    tracemalloc.start()
    done = view("--input", path, "--summary", "--quiet")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert done.code == 1
    assert "'shape' is not possible" in " ".join(done.err)
    assert most < 1_000_000


# ------------------------------------------------------------------------------ memory of reading


@BOTH
def test_reading_takes_a_layer_at_a_time(format: str, tmp_path: Path, view: Run) -> None:
    """A dense document of 8 layers with 6 heads x 500: never two layers' numbers at once."""
    names = [f"model.layers.{i}.attn" for i in range(8)]
    weights = random_weights(0, 6, 500)[None]
    whole = Tensor("float32", weights.shape, weights)
    places = [
        {"module": name, "element": [1], "layer": i, "kind": "self"} for i, name in enumerate(names)
    ]
    header = {"format": FORMAT, "model": "m", "prompt": "p", "attention_weights": places}
    path = tmp_path / "a.json"
    outputs = {"attention": {name: [None, whole] for name in names}}
    write_document(path, header, outputs, format=format)
    view("--input", path, "--layers", "0", "--output-dir", tmp_path, "--quiet")  # all is imported
    pages = next(tmp_path.glob("*.html")).stat().st_size
    tracemalloc.start()
    assert view("--input", path, "--output-dir", tmp_path, "--quiet").code == 0
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    pages = max(page.stat().st_size for page in tmp_path.glob("*.html"))
    # numpy's numbers and the page are traced; simdjson's own memory is not.
    layer = weights.nbytes if format == "safetensors" else 3 * weights.nbytes + 40_000_000
    assert most < 2 * pages + layer
