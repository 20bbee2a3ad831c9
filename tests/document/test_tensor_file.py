"""--format safetensors: the same document with its numbers in a file beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save_file
from safetensors.torch import load_file

import activations
import bertviz_head_model_view
from activations import load
from activations.document.format import FORMAT, path_beside
from activations.document.writer import write_document
from activations.errors import ToolkitError, UsageError
from activations.outputs.tensor import Tensor

HEADER = {"format": FORMAT, "model": "m", "prompt": "p", "tokens": ["a", "b", "c"]}
NAME = "m.0.self_attn"


def tensor(values: Any, dtype: str = "float32") -> Tensor:
    data = np.asarray(values, dtype=dtype)
    return Tensor(dtype, data.shape, np.ascontiguousarray(data).reshape(data.shape))


def bfloat16(values: Any) -> Tensor:
    bits = np.asarray(values, dtype=np.float32).view(np.uint32) >> 16
    return Tensor("bfloat16", bits.shape, bits.astype(np.uint16))


WEIGHTS = np.tril(np.full((1, 2, 3, 3), 0.25, np.float32))
OUTPUT = [bfloat16(np.arange(12).reshape(1, 3, 4)), tensor(WEIGHTS), None]
PLACE = {"module": NAME, "element": [1], "layer": 0, "kind": "self"}


def write(path: Path, output: Any = OUTPUT, format: str = "safetensors", **header: Any) -> Path:
    known = {**HEADER, "attention_weights": [PLACE], **header}
    write_document(path, known, {"attention": {NAME: output}}, format=format)
    return path


def test_the_document_refers_to_tensors_in_their_own_dtype(tmp_path: Path) -> None:
    document = json.loads(write(tmp_path / "x.json").read_text())
    entry = document["captured"]["attention_outputs"][NAME]
    assert entry["shape"] == [[1, 3, 4], [1, 2, 3, 3], None]
    assert entry["dtype"] == ["bfloat16", "float32", None]
    assert entry["output"] == [{"tensor": f"{NAME}/0"}, {"tensor": f"{NAME}/1"}, None]
    tensors = load_file(tmp_path / "x.safetensors")  # by torch, which has every dtype
    assert {key: str(found.dtype) for key, found in tensors.items()} == {
        f"{NAME}/0": "torch.bfloat16",
        f"{NAME}/1": "torch.float32",
    }
    assert tensors[f"{NAME}/0"].float().flatten().tolist() == list(range(12))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.json", "x.safetensors"]


def test_both_files_have_the_permissions_of_new_files(tmp_path: Path) -> None:
    (tmp_path / "new").touch()
    write(tmp_path / "x.json")
    assert {path.stat().st_mode for path in tmp_path.iterdir()} == {
        (tmp_path / "new").stat().st_mode
    }
    for name in ("x.json", "x.safetensors"):
        (tmp_path / name).chmod(0o640)
    write(tmp_path / "x.json")  # the files that are replaced keep theirs
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.glob("x.*")}
    assert modes == {0o640}


def test_the_same_is_read_as_from_json(tmp_path: Path) -> None:
    folders = [tmp_path / format for format in ("json", "safetensors")]
    for folder in folders:
        folder.mkdir()
    files = [write(f / "agnostic_activations.json", format=f.name) for f in folders]
    a, b = map(load, files)
    for x, y in zip(a[NAME], b[NAME], strict=True):
        np.testing.assert_array_equal(x, y)
        assert (x is None) or (x.dtype, x.shape) == (y.dtype, y.shape)
    np.testing.assert_array_equal(a.tensor(NAME, 1), b.tensor(NAME, 1))
    assert (a.shape(NAME), a.dtype(NAME)) == (b.shape(NAME), b.dtype(NAME))
    pages = []
    for file in files:
        argv = ["--input", str(file), "--output-dir", str(tmp_path / "pages"), "--quiet"]
        assert bertviz_head_model_view.main(argv) == 0
        pages.append({p.name: p.read_bytes() for p in (tmp_path / "pages").iterdir()})
    assert pages[0] == pages[1]


def test_the_same_capture_gives_the_same_bytes(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "x.json")
        found.append([p.read_bytes() for p in sorted((tmp_path / name).iterdir())])
    assert found[0] == found[1]


DTYPES = ["float64", "float32", "float16", "int64", "int32", "int8", "uint8", "bool"]


@settings(deadline=None)
@given(
    st.sampled_from(DTYPES).flatmap(
        lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    )
)
def test_every_dtype_comes_back(tmp_path_factory: pytest.TempPathFactory, array: Any) -> None:
    path = write(tmp_path_factory.mktemp("x") / "x.json", {"a": [tensor(array, array.dtype.name)]})
    found = load(path).tensor(NAME, "a", 0)
    wide = array.astype(np.float32) if array.dtype == np.float16 else array
    assert found.dtype == wide.dtype
    np.testing.assert_array_equal(found, wide)  # NaN and infinities too: no text between


def test_complex_numbers_come_back(tmp_path: Path) -> None:
    pairs = np.array([[1, 2], [3, -4]], np.float32)
    for format in ("json", "safetensors"):
        path = write(tmp_path / f"{format}.json", Tensor("complex64", (2,), pairs), format)
        np.testing.assert_array_equal(load(path)[NAME], pairs)


def test_a_document_laid_out_anew_still_finds_its_tensors(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json")
    path.write_text(json.dumps(json.loads(path.read_text()), indent=1))
    np.testing.assert_array_equal(load(path).tensor(NAME, 1), WEIGHTS)


def _changed(path: Path, key: str, value: Any) -> None:
    document = json.loads(path.read_text())
    document["captured"]["attention_outputs"][NAME][key] = value
    path.write_text(json.dumps(document))


def _delete(path: Path) -> None:
    path_beside(path).unlink()


def _cut(path: Path) -> None:
    file = path_beside(path)
    file.write_bytes(file.read_bytes()[:-5])


def _another(path: Path) -> None:
    write(path.with_name("y.json"), [tensor([1.0]), tensor(WEIGHTS * 2)])
    path.with_name("y.safetensors").rename(path_beside(path))


def _folder(path: Path) -> None:
    path_beside(path).unlink()
    path_beside(path).mkdir()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (
            _delete,
            "the tensors of '{0}/x.json' are missing: 'x.safetensors' must be in the same folder. "
            "Put it there, or capture again.",
        ),
        (_cut, "'{0}/x.safetensors' is damaged or not a safetensors file: "),
        (_folder, "'{0}/x.safetensors' is damaged or not a safetensors file: "),
        (_another, "'{0}/x.safetensors' holds the tensors of another capture than '{0}/x.json'."),
        (
            lambda path: _changed(path, "output", [None, {"tensor": "../../etc/passwd"}]),
            "'{0}/x.json' is damaged at 'm.0.self_attn': it refers to a tensor of another "
            "name, '../../etc/passwd'. Capture again.",
        ),
        (
            lambda path: _changed(path, "shape", [[1], [2, 2], None]),
            "'{0}/x.json' is damaged at 'm.0.self_attn': its shape is [2, 2], but it holds "
            "18 numbers. Capture again.",
        ),
    ],
)
def test_damaged_pairs(harm: Any, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.json")
    harm(path)
    with pytest.raises(ToolkitError) as caught:
        load(path).tensor(NAME, 1)
    assert str(caught.value).startswith(message.format(tmp_path))


def test_references_without_a_file_of_tensors(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json")
    document = json.loads(path.read_text())
    del document["tensors"]
    path.write_text(json.dumps(document))
    with pytest.raises(ToolkitError, match="refers to a file of tensors, and the document has"):
        load(path).tensor(NAME, 1)


def test_weights_of_a_checkpoint_are_not_replaced(workplace: Path, capture: Run) -> None:
    """Told before the model is opened; text has nothing beside it."""
    save_file({"w": WEIGHTS}, "model.safetensors")
    before = Path("model.safetensors").read_bytes()
    argv = ("--prompt", "a", "--auto-select", "mlp:0", "--quiet", "--output", "model.json")
    done = capture(*argv, "--format", "safetensors", "--model", "nowhere")
    assert done.code == 1
    assert done.err == [
        "error: 'model.safetensors' would be replaced by the tensors of 'model.json', and was not "
        "written by this toolkit. Name another --output."
    ]
    assert capture(*argv).code == 0
    assert Path("model.safetensors").read_bytes() == before


@pytest.mark.parametrize("metadata", [{"document": "my notes"}, {"document": "0" * 32}, None])
def test_other_files_are_not_taken_for_tensors_of_ours(tmp_path: Path, metadata: Any) -> None:
    save_file({"w": WEIGHTS}, tmp_path / "x.safetensors", metadata)
    before = (tmp_path / "x.safetensors").read_bytes()
    write(tmp_path / "x.json", format="json")
    with pytest.raises(ToolkitError, match="was not written by this toolkit"):
        write(tmp_path / "x.json")
    assert (tmp_path / "x.safetensors").read_bytes() == before


@pytest.mark.parametrize("name", ["x", "x.txt", "x.safetensors"])
def test_tensors_only_beside_json(tmp_path: Path, name: str) -> None:
    """So that no two documents have one file of tensors."""
    with pytest.raises(UsageError, match=r"Write .*/x\.json; the tensors go beside it"):
        write(tmp_path / name)
    with pytest.raises(UsageError, match=r"Write x\.json; the tensors go beside it"):
        activations.capture(prompt="Once", output=name, format="safetensors")
    write(tmp_path / "x.json")
    write(tmp_path / "x", format="json")  # of another name, so it leaves these tensors alone
    np.testing.assert_array_equal(load(tmp_path / "x.json").tensor(NAME, 1), WEIGHTS)


def test_text_in_its_place_leaves_no_tensors_behind(tmp_path: Path) -> None:
    write(tmp_path / "x.json")
    write(tmp_path / "x.json", format="json")
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_both_commands_take_it(workplace: Path, capture: Run, view: Run) -> None:
    argv = ("--prompt", "Once there was a fox.", "--auto-select", "attn:0;mlp:0")
    assert capture(*argv, "--output", "text.json").code == 0
    assert capture(*argv, "--output", "x.json", "--format", "safetensors").out == ["x.json"]
    assert {path.name for path in workplace.iterdir()} == {"text.json", "x.json", "x.safetensors"}
    a, b = load("text.json"), load("x.json")
    assert a.names == b.names
    np.testing.assert_array_equal(a.tensor(a.names[0], 1), b.tensor(a.names[0], 1))
    assert view("--input", "x.json", "--quiet").code == 0


def test_from_python(workplace: Path) -> None:
    document = activations.capture(
        prompt="Once", select="mlp:0", output="x.json", format="safetensors"
    )
    assert document["model.layers.0.mlp"].shape == (1, 1, 128)
    with pytest.raises(UsageError, match="--format takes json or safetensors, not 'npz'"):
        activations.capture(prompt="Once", select="mlp:0", format="npz")
