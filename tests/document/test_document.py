"""The document: exact text, exact numbers, read back piece by piece, other people's layouts."""

from __future__ import annotations

import copy
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simdjson
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from activations import load
from activations.document import writer
from activations.document.format import FORMAT
from activations.document.json_arrays import to_tree
from activations.document.writer import count_non_finite, write_document
from activations.errors import ToolkitError
from activations.model.vocabulary import tokens_of
from activations.outputs.tensor import Tensor
from activations.session.options import DEMO_MODEL
from activations.system.atomic import write_file
from activations.views.content import read_content

HEADER = {"format": FORMAT, "model": "m", "prompt": "p"}


def tensor(values: Any, dtype: str = "float32") -> Tensor:
    data = np.asarray(values, dtype=dtype)
    return Tensor(dtype, data.shape, np.ascontiguousarray(data))


def bfloat16(values: Any) -> Tensor:
    bits = np.asarray(values, dtype=np.float32).view(np.uint32) >> 16
    return Tensor("bfloat16", bits.shape, bits.astype(np.uint16))


def write(path: Path, attention: dict[str, Any], **header: Any) -> Path:
    write_document(path, {**HEADER, **header}, {"attention": attention})
    return path


@pytest.mark.parametrize("shape", [(7, 3), (1, 2, 5, 4), (30,), (2, 0, 9), (5, 1), (3, 2, 2)])
def test_large_tensors_are_written_in_parts(
    shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    outputs = {"a": [tensor(numbers), bfloat16(numbers)]}
    whole = write(tmp_path / "whole.json", outputs).read_bytes()
    monkeypatch.setattr(writer, "_CHUNK", 6)
    assert write(tmp_path / "parts.json", outputs).read_bytes() == whole


def test_tensors_are_let_go_as_they_are_written(tmp_path: Path) -> None:
    kept, released = ({"attention": {n: tensor([1.5]) for n in "abc"}} for _ in range(2))
    held: list[list[str]] = []
    write_document(tmp_path / "kept.json", HEADER, kept)
    write_document(
        tmp_path / "released.json",
        HEADER,
        released,
        lambda name: held.append(list(released["attention"])),
        release=True,
    )
    assert held == [["b", "c"], ["c"], []]
    assert list(kept["attention"]) == ["a", "b", "c"]
    assert (tmp_path / "kept.json").read_bytes() == (tmp_path / "released.json").read_bytes()


def test_the_text_is_exactly_this(tmp_path: Path) -> None:
    outputs = {
        "m.0.attn": [tensor([[1.5, 0.1]]), bfloat16([[[0.10009765625]]]), None],
        "m.1.attn": {"a": tensor(2.0), "cache": "DynamicCache"},
    }
    path = tmp_path / "doc.json"
    write_document(path, HEADER, {"attention": outputs, "other": {"n": tensor([1], "int64")}})
    assert path.read_text() == (
        '{\n"format": "agnostic-activations/1",\n"model": "m",\n"prompt": "p",\n"captured": {\n'
        '"attention_outputs": {\n'
        '"m.0.attn": {"shape": [[1,2],[1,1,1],null], "dtype": ["float32","bfloat16",null], '
        '"output": [[[1.5,0.1]],[[[0.100097656]]],null]},\n'
        '"m.1.attn": {"shape": {"a":[],"cache":null}, "dtype": {"a":"float32","cache":null}, '
        '"output": {"a":2.0,"cache":"DynamicCache"}}\n'
        "},\n"
        '"mlp_outputs": {},\n'
        '"other_outputs": {\n'
        '"n": {"shape": [1], "dtype": "int64", "output": [1]}\n'
        "}\n}\n}\n"
    )


@settings(max_examples=150, deadline=None)
@given(hnp.arrays(np.float32, hnp.array_shapes(), elements=st.floats(width=32, allow_nan=False)))
def test_other_programs_read_the_same_float32(tmp_path_factory: Any, values: np.ndarray) -> None:
    """In this toolkit's own reader, tests/document/test_numbers.py has every dtype."""
    path = write(tmp_path_factory.mktemp("d") / "doc.json", {"a": tensor(values)})
    output = json.loads(path.read_text())["captured"]["attention_outputs"]["a"]["output"]
    found = np.array(output, dtype=np.float64).astype(np.float32)
    np.testing.assert_array_equal(found, np.where(np.isfinite(values), values, np.nan))


@settings(max_examples=60, deadline=None)
@given(st.text(), st.text(min_size=1), st.lists(st.text(), max_size=4))
def test_any_text_survives(
    tmp_path_factory: Any, prompt: str, name: str, tokens: list[str]
) -> None:
    path = tmp_path_factory.mktemp("d") / "doc.json"
    write(path, {name: tensor([1.0])}, prompt=prompt, tokens=tokens)
    found = load(path)
    assert (found.prompt, found.names, found.header["tokens"]) == (prompt, [name], tokens)
    assert json.loads(path.read_text(encoding="utf-8"))["prompt"] == prompt


def test_one_module_one_line_and_only_its_line_is_parsed(tmp_path: Path) -> None:
    path = write(tmp_path / "d.json", {f"m.{i}": [tensor([float(i)])] for i in range(5)})
    lines = path.read_bytes().split(b"\n")
    at = next(i for i, line in enumerate(lines) if line.startswith(b'"m.2"'))
    lines[at] = lines[at].replace(b"2.0", b"2.0.0.0")  # damage one module
    path.write_bytes(b"\n".join(lines))
    found = load(path)
    assert found.tensor("m.3", 0).tolist() == [3.0]
    with pytest.raises(ToolkitError, match=r"is damaged at 'm\.2'"):
        found.tensor("m.2", 0)


def test_shapes_and_dtypes_need_no_numbers(tmp_path: Path) -> None:
    path = write(
        tmp_path / "d.json", {"a": [tensor([[1.0, 2.0]]), {"output": tensor([1], "int64")}]}
    )
    path.write_bytes(path.read_bytes().replace(b"[[1.0,2.0]]", b"[[broken]]"))
    found = load(path)
    assert found.shape("a") == [[1, 2], {"output": [1]}]
    assert found.dtype("a") == ["float32", {"output": "int64"}]


def test_names_by_category(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    write_document(path, HEADER, {"mlp": {"b": tensor([1.0])}, "attention": {"a": tensor([1.0])}})
    found = load(path)
    assert found.names == ["a", "b"]
    assert found.names_of("mlp") == ["b"]
    assert "m, 2 modules" in repr(found)


@pytest.mark.parametrize(
    ("name", "element", "message"),
    [
        ("a", (), "a: the whole output is not a tensor. Its tensors are at 0: {NAME}"),
        ("b", (1,), "b: element 1 is not a tensor. The whole output is one: name no element."),
        ("c", (0,), "c: element 0 is not a tensor. It holds no tensors."),
        ("a", (1,), "a: element 1 is not a tensor. Its tensors are at 0: {NAME}"),
        ("a", (9,), "a: element 9 is not a tensor. Its tensors are at 0: {NAME}"),
        ("a", (0, 5), "a: element 0/5 is not a tensor. Its tensors are at 0: {NAME}"),
        ("a", ("x",), "a: element x is not a tensor. Its tensors are at 0: {NAME}"),
        ("aa", (0,), "Module not found: the document has no module 'aa'. Did you mean 'a'?"),
    ],
)
def test_what_is_not_there(tmp_path: Path, name: str, element: Any, message: str) -> None:
    outputs = {"a": [tensor([1.0]), None], "b": tensor([1.0]), "c": [None]}
    found = load(write(tmp_path / "d.json", outputs))
    with pytest.raises(ToolkitError) as caught:
        found.tensor(name, *element)
    assert str(caught.value) == message.format(NAME="name one, as in tensor('a', 0).")


@pytest.mark.parametrize("model", [str(DEMO_MODEL), "no/such"])
def test_looking_at_a_document_does_not_change_it(model: str, tmp_path: Path) -> None:
    weights = tensor(np.full((1, 2, 3, 3), 1 / 3))
    ids = {"model": model, "input_ids": [[1, 5, 9]], "decoder_input_ids": [[2]]}
    found = load(write(tmp_path / "x.json", {"m.0.attn": [None, weights]}, **ids))
    before = copy.deepcopy(found.header)
    (stack,) = read_content(found, tokens_of).stacks
    assert stack.knows_tokens  # they were looked up
    assert found.scores()
    assert all(page._repr_html_() for page in (found.view(), found))
    assert found.header == before


# --------------------------------------------------------------------------- other people's layouts


def as_plain_json(path: Path, **changes: Any) -> dict[str, Any]:
    return {**json.loads(path.read_text()), **changes}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("described", [True, False])
def test_foreign_layouts(tmp_path: Path, indent: int | None, described: bool) -> None:
    weights = np.random.default_rng(0).random((1, 2, 3, 3)).astype(np.float32)
    path = write(tmp_path / "d.json", {"a": [tensor(np.ones((1, 3, 4))), tensor(weights), None]})
    data = as_plain_json(path)
    if not described:
        del data["captured"]["attention_outputs"]["a"]["shape"]
        del data["captured"]["attention_outputs"]["a"]["dtype"]
    other = tmp_path / "other.json"
    other.write_text(json.dumps(data, indent=indent))
    found = load(other)
    assert found.names == ["a"]
    np.testing.assert_array_equal(found.tensor("a", 1), weights)
    np.testing.assert_array_equal(found["a"][1], weights)
    assert found["a"][2] is None
    assert found.element_shapes("a")[(1,)] == (1, 2, 3, 3)


def as_lists(node: Any) -> Any:
    """Ordinary lists of a tree of arrays, with their dtypes."""
    if isinstance(node, np.ndarray):
        return str(node.dtype), node.tolist()
    return [as_lists(item) for item in node] if isinstance(node, list) else node


NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
NESTED = st.recursive(NUMBERS, lambda inner: st.lists(inner, max_size=3), max_leaves=12)


@given(NESTED | st.lists(NUMBERS) | hnp.arrays(np.int16, hnp.array_shapes()).map(np.ndarray.tolist))
def test_what_is_a_tensor_where_nothing_says_so(values: Any) -> None:
    """The buffers of simdjson against numpy on Python's own lists."""
    text = json.dumps(values)
    parsed = simdjson.Parser().parse(text.encode())
    found, expected = (
        to_tree(node, None, None, lambda *args: np.empty(0)) for node in (parsed, json.loads(text))
    )
    assert as_lists(found) == as_lists(expected)


def test_what_has_very_many_parts(tmp_path: Path) -> None:
    write(tmp_path / "x.json", {"m": [[None] * 50_000, [None] * 49_996]})
    assert [len(part) for part in load(tmp_path / "x.json")["m"]] == [50_000, 49_996]
    write(tmp_path / "x.json", {"m": [[None] * 50_000, [None] * 49_998]})
    with pytest.raises(ToolkitError, match="it has more than 100000 parts"):
        load(tmp_path / "x.json")["m"]


def test_nan_literals_of_other_writers(tmp_path: Path) -> None:
    data = {"captured": {"attention_outputs": {"a": {"output": [[[1.0, math.nan]], None]}}}}
    path = tmp_path / "d.json"
    path.write_text(json.dumps(data))  # Python writes NaN, which is not JSON
    np.testing.assert_array_equal(load(path).tensor("a", 0), [[1.0, np.nan]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is cut short: it is empty"),
        (b"not json at all", "is not JSON"),
        (b'{"captured": {"attention_outputs": {"a": ', "is cut short"),
        (b"[1, 2]", "is JSON but not a captured document"),
        (b'{"hello": 1}', "is JSON but not a captured document"),
        (b'{"captured": 3}', "is JSON but not a captured document"),
        (b'{"captured": {"attention_outputs": [1]}}', "is JSON but not a captured document"),
        (b'{"format": "other/9", "captured": {}}', "has the format 'other/9'"),
        (b"\xff\xfe\x00", "is a text in UTF-16, not a captured document"),
        (b"[" * 100_000, "is"),
        (b"PK\x03\x04", "is a zip archive, not a captured document"),
    ],
)
def test_files_that_are_no_document(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "d.json"
    path.write_bytes(content)
    with pytest.raises(ToolkitError) as caught:
        load(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_every_truncation_of_a_document_is_noticed(tmp_path: Path) -> None:
    whole = write(tmp_path / "d.json", {"a": tensor([1.0]), "b": tensor([2.0])}).read_bytes()
    cut = tmp_path / "cut.json"
    for length in range(len(whole) - 1):  # the last byte is a line break
        cut.write_bytes(whole[:length])
        with pytest.raises(ToolkitError, match="cut short"):
            load(cut)


LIES = [([7], [1, 2, 3]), ([2, 2], [1, 2, 3])]
RAGGED = [([2, 2], output) for output in ([[1.0], [1.0, 2.0]], ["a"], [[[]], [1]], [{}], [10**400])]


@pytest.mark.parametrize(("shape", "output"), [*LIES, *RAGGED])
def test_shapes_and_values_that_do_not_fit(tmp_path: Path, shape: Any, output: Any) -> None:
    entry = {"shape": shape, "dtype": "float32", "output": output}
    (tmp_path / "d.json").write_text(json.dumps({"captured": {"attention_outputs": {"a": entry}}}))
    with pytest.raises(
        ToolkitError, match="is damaged at 'a': .*(but it holds|holds other values)"
    ):
        load(tmp_path / "d.json").tensor("a")


@pytest.mark.parametrize("shape", [[1, 10**20], "x", [-1], None, {}])
def test_what_is_not_a_shape_is_not_believed(tmp_path: Path, shape: Any) -> None:
    entry = {"shape": shape, "dtype": "float32", "output": [1.0, 2.0, 3.0]}
    (tmp_path / "d.json").write_text(json.dumps({"captured": {"attention_outputs": {"a": entry}}}))
    assert load(tmp_path / "d.json").tensor("a").tolist() == [1, 2, 3]


# ------------------------------------------------------------------------------------- in one step


def test_non_finite_values_are_null_and_counted(tmp_path: Path) -> None:
    values = tensor([1.0, math.nan, math.inf, -math.inf, math.nan])
    captured = {"attention": {"a": [tensor([1.0]), values], "b": tensor([math.inf])}}
    assert count_non_finite(captured) == {
        "a": {"1": {"NaN": 2, "Infinity": 1, "-Infinity": 1}},
        "b": {"": {"NaN": 0, "Infinity": 1, "-Infinity": 0}},
    }
    path = tmp_path / "d.json"
    write_document(path, HEADER, captured)
    assert '"output": [[1.0],[1.0,null,null,null,null]]' in path.read_text()


def test_the_old_file_stays_when_writing_fails(tmp_path: Path) -> None:
    path = write(tmp_path / "d.json", {"a": tensor([1.0])})
    before = path.read_bytes()

    def fail(name: str) -> None:
        if name == "b":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_document(
            path, HEADER, {"attention": {"a": tensor([2.0]), "b": tensor([3.0])}}, progress=fail
        )
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["d.json"]


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    real = tmp_path / "real.json"
    link = tmp_path / "link.json"
    real.write_text("old")
    link.symlink_to(real)
    write_file(link, [b"new"])
    assert link.is_symlink()
    assert real.read_text() == "new"


def test_a_single_value_that_is_not_finite(tmp_path: Path) -> None:
    found = load(write(tmp_path / "d.json", {"a": tensor(math.nan)}))
    assert np.isnan(found.tensor("a"))
    assert np.isnan(found["a"])


# ------------------------------------------------------------------------------- edited by hand


def test_a_list_of_tensors_is_no_tensor(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", {"m.0": [tensor([[1, 2]]), tensor([[3, 4]])]})
    for element in ((), (2,), ("a",), (0, 0, 0)):
        with pytest.raises(ToolkitError, match="is not a tensor"):
            load(path).tensor("m.0", *element)


@pytest.mark.parametrize("name", ['a": {"x', "mlp_outputs", "other_outputs", "é\\n", "x\n", "]"])
def test_modules_of_any_name(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", {name: tensor([1.5]), "next": tensor([2.5])})
    document = load(path)
    assert document.names_of("attention") == [name, "next"]
    assert document.tensor(name).tolist() == document[name].tolist() == [1.5]


def laid_out(indent: int) -> Callable[[str], str]:
    return lambda text: json.dumps(json.loads(text), indent=indent)


@pytest.mark.parametrize(
    "change",
    [
        laid_out(0),
        laid_out(1),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("]]]},\n", "]]]}, \r\n"),  # one line
        lambda text: text.rstrip("\n"),
        lambda text: text + "\n\n",
    ],
)
def test_other_layouts(change: Callable[[str], str], tmp_path: Path) -> None:
    outputs = {"m.0": [tensor([[1, 2]]), tensor([[3, 4]])], "m.1": [tensor([[5, 6]])]}
    path = write(tmp_path / "x.json", outputs)
    path.write_bytes(change(path.read_text()).encode())
    document = load(path)
    assert document.names == ["m.0", "m.1"]
    assert document.tensor("m.0", 1).tolist() == document["m.0"][1].tolist() == [[3, 4]]
    assert document.tensor("m.1", 0).tolist() == [[5, 6]]


def test_a_number_of_thousands_of_digits(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"captured": ' + "1" * 5000 + "}")
    with pytest.raises(ToolkitError, match="is not a captured document"):
        load(tmp_path / "x.json")


def test_a_file_that_is_cut_while_it_is_open(tmp_path: Path) -> None:
    """The system ends a process that reads behind the end of a file it has mapped."""
    values = np.zeros(10_000, np.float32)
    path = write(tmp_path / "x.json", {"a": tensor(values), "b": [tensor(values), tensor(values)]})
    code = """
import sys
from activations import ToolkitError, load
document = load(sys.argv[1])
open(sys.argv[1], "r+").truncate(10)
for ask in (lambda: document["a"], lambda: document.tensor("b", 1), lambda: document.shape("b")):
    try:
        ask()
    except ToolkitError as error:
        print(error)
"""
    root = Path(__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", code, path], cwd=root, capture_output=True)
    line = f"'{path}' was changed after it was opened. Load it again."
    assert (done.returncode, done.stdout.decode().splitlines()) == (0, [line] * 3)


def test_tensors_that_are_held_while_others_are_read(tmp_path: Path) -> None:
    """The parser is kept from one to the next; what it gave before stays what it was."""
    outputs = {name: [tensor([i]), tensor([[i + 0.5] * 3])] for i, name in enumerate("abc")}
    path = write(tmp_path / "x.json", outputs)
    path.write_text(path.read_text().replace("[1.5,1.5,1.5]", "[1.5,x,1.5]"))
    document = load(path)
    held = [document.tensor("a", 1)]
    with pytest.raises(ToolkitError, match="is damaged at 'b'"):
        document.tensor("b", 1)
    held += [document.tensor(name, 1) for name in "ca"]
    assert [values.tolist() for values in held] == [[[i + 0.5] * 3] for i in (0, 2, 0)]


def test_a_closed_document(tmp_path: Path) -> None:
    document = load(write(tmp_path / "a.json", {"m": tensor([1.0])}))
    document.close()
    with pytest.raises(ToolkitError, match=r"is closed\. Load it again\.$"):
        document["m"]
