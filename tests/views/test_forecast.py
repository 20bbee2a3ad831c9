"""What the view says before it begins."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import MODEL, Layer, random_weights, write_capture
from conftest import Run

from activations.document.format import FORMAT
from activations.document.reader import Document
from activations.document.tensor_file import TensorFile
from activations.document.writer import write_document
from activations.outputs.sparse import keep_above
from activations.outputs.tensor import Tensor
from activations.views import forecast

LAYERS = [Layer(i, random_weights(i, 4, 40)) for i in range(3)]


@pytest.fixture
def json_document(workplace: Path) -> Path:
    write_capture(workplace / "a.json", LAYERS)
    return workplace / "a.json"


def in_a_file_of_tensors(path: Path, keep: bool = False) -> Path:
    """The same weights, in safetensors; those above 0.01 alone if `keep`."""
    outputs, places = {}, []
    for layer in LAYERS:
        name = f"model.layers.{layer.layer}.attn"
        batch = layer.weights[None]
        whole = Tensor("float32", batch.shape, batch)
        outputs[name] = [None, keep_above(batch, 0.01) if keep else whole]
        places.append({"module": name, "element": [1], "layer": layer.layer, "kind": "self"})
    header = {
        "format": FORMAT,
        "model": MODEL,
        "prompt": "A.",
        "tokens": [f"t{i}" for i in range(40)],
    }
    header |= {"attention_weights": places} | ({"keep_above": 0.01} if keep else {})
    write_document(path, header, {"attention": outputs}, format="safetensors")
    return path


def test_nothing_is_said_of_what_is_small(json_document: Path, view: Run) -> None:
    assert view("--input", json_document).err == []


def test_what_is_much_is_told_before_it_is_read(
    json_document: Path, view: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast, "_LARGE", 1000)
    size = json_document.stat().st_size
    for flags, part, ending in (
        ((), 1, "or --heads, or --tokens for smaller pages."),
        (("--layers", "1"), 1 / 3, "or --heads, or --tokens for smaller pages."),
        (("--summary",), 1, "or --heads."),
    ):
        told = view("--input", json_document, *flags, "--quiet").err
        assert len(told) == 1
        assert told[0].startswith("warning: this reads ")
        assert told[0].endswith(ending)
        assert ("makes pages of up to" in told[0]) == (not flags or flags[0] == "--layers")
        said = float(told[0].split()[3]) * 1000
        assert told[0].split()[4] == "kB"
        assert size * part * 0.9 < said < size * part * 1.1


@pytest.mark.parametrize("keep", [False, True])
def test_what_a_file_of_tensors_holds(keep: bool, tmp_path: Path) -> None:
    path = in_a_file_of_tensors(tmp_path / "a.json", keep)
    with Document(path) as document:
        costs = [document.cost(name, (1,)) for name in document.names]
    stored = sum(stored for stored, _ in costs)
    size = path.with_suffix(".safetensors").stat().st_size
    assert size - 4000 < stored < size  # but for its header
    assert all(memory == stored for stored, memory in costs)


def test_a_layer_that_the_memory_cannot_hold(
    json_document: Path, view: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = max(map(len, json_document.read_bytes().splitlines()))
    for free, refused in ((6 * line - 600, True), (6 * line + 600, False)):
        monkeypatch.setattr(forecast, "free_memory", lambda free=free: free)
        done = view("--input", json_document, "--output-dir", "pages", "--quiet")
        assert (done.code == 1) == refused
        if refused:
            (said,) = done.err
            assert said.startswith("error: reading a layer needs about")
            assert said.endswith("--keep-above 0.01, or with --format safetensors.")
            assert not Path("pages").exists()


def test_a_page_that_no_browser_opens(
    tmp_path: Path, view: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """32 heads of 32,768 tokens in 28 layers: refused before a weight is read."""

    def not_to_be_read(*_: object) -> None:
        raise AssertionError

    path = in_a_file_of_tensors(tmp_path / "a.json")
    monkeypatch.setattr(forecast, "_A_ROW", 45 * 28 * 32 * 32768 // (3 * 4 * 40))
    monkeypatch.setattr(TensorFile, "numbers", not_to_be_read)
    done = view("--input", path, "--quiet")
    assert done.err == [
        "error: the page would be too large to open: about 1.3 GB, and browsers open 400 MB. "
        "Show a part of it with --layers, --heads or --tokens."
    ]
    monkeypatch.undo()
    assert view("--input", path, "--summary", "--quiet").code == 0
