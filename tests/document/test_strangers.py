"""Documents from strangers: whatever the bytes, pages or one clear line, in bounded memory."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import strangers
from conftest import Run
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from odd_documents import Sent, changed, real_documents, tensor

from activations import load
from activations.attention.scores import SCORES
from activations.document.format import FORMAT
from activations.document.writer import write_document
from activations.errors import ToolkitError, nearest
from activations.model.vocabulary import tokens_of
from activations.views.content import read_content

patient = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with strangers.working_folder() as inside:
        yield inside


# --------------------------------------------------------------------------------- any document


@settings(patient, max_examples=1500)
@given(st.integers(0, 2**64))
def test_changed_documents(folder: Path, seed: int) -> None:
    rng = random.Random(seed)
    strangers.judge(changed(rng.choice(real_documents()), rng), folder, command=False)


@settings(patient, max_examples=60)
@given(st.integers(0, 2**64))
def test_changed_documents_through_the_command(folder: Path, seed: int) -> None:
    rng = random.Random(seed)
    strangers.judge(changed(rng.choice(real_documents()), rng), folder)


@settings(patient, max_examples=200)
@given(st.binary(), st.none() | st.binary())
@example(b"", None)
@example(b"\0" * 5000, b"\0" * 5000)
@example(b"{", None)
def test_any_bytes(folder: Path, data: bytes, beside: bytes | None) -> None:
    strangers.judge(Sent(data, beside), folder, command=False)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inside: st.lists(inside) | st.dictionaries(st.text(), inside),
    max_leaves=8,
)
KEYS = sorted({key for sent in real_documents()[:3] for key in json.loads(sent.document)})


@settings(patient, max_examples=300)
@given(st.integers(0, 2), st.sampled_from([*KEYS, "tensors"]), JSON)
def test_any_value_of_any_key(folder: Path, which: int, key: str, value: Any) -> None:
    tree = json.loads(real_documents()[which].document)
    text = json.dumps({**tree, key: value})
    strangers.judge(Sent(text.encode()), folder, command=False)


@pytest.mark.parametrize("sent", real_documents())
def test_as_it_was_sent(folder: Path, sent: Sent) -> None:
    assert strangers.judge(sent, folder) == "shown"


@pytest.mark.parametrize("sent", [real_documents()[0], real_documents()[5], real_documents()[-3]])
def test_cut_anywhere(folder: Path, sent: Sent) -> None:
    whole = len(sent.document.rstrip())
    for end in range(whole):
        said = strangers.judge(Sent(sent.document[:end], sent.beside), folder, command=False)
        assert "is cut short" in said or "is not JSON" in said
    for end in range(len(sent.beside or b"")):
        cut = Sent(sent.document, sent.beside[:end])  # type: ignore[index]
        assert "is damaged or not a safetensors file" in strangers.judge(cut, folder, command=False)


# ------------------------------------------------------------------ what was found, made smallest

SQUARE = [[[[1.0, 0.0], [0.5, 0.5]]]]
NOTE = {"module": "m", "element": [], "layer": 0, "kind": "self"}


def minimal(output: Any = SQUARE, name: str = "m", described: Any = None, **header: Any) -> str:
    entry = {**(described or {}), "output": output}
    return json.dumps({**header, "captured": {"attention_outputs": {name: entry}}})


def deep(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


ENTRY = "an entry of 'attention_weights' does not say module, element, layer and kind"
NO_TEXTS = {"model": 1, "prompt": [[]], "text_pair": {}, "target": True, "image": 0.5, "tensors": 1}
NO_LISTS_OF_TEXTS = [("tokens", "ab"), ("tokens", ["a", 1]), ("vision_tokens", {})]
NO_IDS = [("input_ids", [[1], 2]), ("input_ids", [True]), ("decoder_input_ids", [-1])]
NO_POSITIONS = {"sentence_b_start": True, "continuation_start": -1}
NO_WORDS = [("words", [0, True]), ("words", {}), ("decoder_words", [-1]), ("decoder_words", ["a"])]
NO_ENTRIES = [
    *({"element": element} for element in ([10**30], [[]], "01", [-1])),
    *({"layer": layer} for layer in ("0", True, 10**7)),
    *({"module": deep(900)}, {"axes": 3}, {"kind": None}),
]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        *((key, value, f"'{key}': it must be a text") for key, value in NO_TEXTS.items()),
        ("prompt", deep(900), "'prompt': it must be a text"),
        ("format", ["x"], "'format': it must be a text"),
        *((k, value, f"'{k}': it must be a list of texts") for k, value in NO_LISTS_OF_TEXTS),
        *((key, value, f"'{key}': it must be a list of token ids") for key, value in NO_IDS),
        *((key, value, f"'{key}': it must be a position") for key, value in NO_POSITIONS.items()),
        *((key, value, f"'{key}': it must be a list of the numbers of") for key, value in NO_WORDS),
        ("attention_weights", {}, "'attention_weights': it must be a list"),
        ("attention_weights", [1], ENTRY),
        *(("attention_weights", [{**NOTE, **entry}], ENTRY) for entry in NO_ENTRIES),
        ("attention_weights", [NOTE, {**NOTE, "layer": 1}], "it names one tensor twice"),
        ("selected_patterns", {"mlp": [deep(900)]}, "'selected_patterns': it must be a list"),
    ],
)
def test_keys_of_another_type(
    workplace: Path, view: Run, key: str, value: Any, message: str
) -> None:
    Path("x.json").write_text(minimal(**{key: value}))
    outcome = view("--input", "x.json")
    assert (outcome.code, len(outcome.err)) == (1, 1)
    assert message in outcome.err[0]
    assert os.listdir() == ["x.json"]


def test_more_words_than_tokens(workplace: Path) -> None:
    for tokens, words in (("tokens", "words"), ("decoder_tokens", "decoder_words")):
        Path("x.json").write_text(minimal(**{tokens: ["a", "b"], words: [0, None, 1]}))
        with pytest.raises(ToolkitError, match=f"'{words}': .* no longer than the tokens"):
            load("x.json")
        Path("x.json").write_text(minimal(**{words: [0, None, 1]}))
        assert load("x.json").header == {words: [0, None, 1]}


def test_null_is_as_good_as_nothing(workplace: Path) -> None:
    Path("x.json").write_text(minimal(tokens=None, attention_weights=None, format=None, model=None))
    document = load("x.json")
    assert document.header == {}
    assert document.model == "model"
    assert read_content(document, tokens_of).stacks[0].rows == ("#0", "#1")


def test_deep_nesting(workplace: Path) -> None:
    for depth in (200, 900):
        Path("x.json").write_text(minimal(deep(depth)))
        with pytest.raises(ToolkitError, match="damaged at 'm': it is nested too deeply"):
            load("x.json")["m"]
    Path("x.json").write_text(minimal(deep(70)))  # more dimensions than numpy has
    found, lists = load("x.json")["m"], 0
    while isinstance(found, list):
        (found,), lists = found, lists + 1
    assert found.ndim + lists == 71
    Path("x.json").write_text(minimal(described={"shape": deep(900), "dtype": deep(900)}))
    assert load("x.json").element_shapes("m") == {}
    assert "no attention weights" in strangers.ask(Path("x.json"), b"", pages=True)


@pytest.mark.parametrize("layout", ["ours", "whole"])
def test_a_key_with_a_nul_is_itself(workplace: Path, layout: str) -> None:
    outputs = {"m": tensor([1.0]), "m\0": {"a": tensor([2.0]), "a\0b": tensor([3.0])}}
    path = workplace / "x.json"
    write_document(path, {"format": FORMAT, "x": 1, "x\0": 2}, {"attention": outputs})
    if layout == "whole":
        path.write_text(json.dumps(json.loads(path.read_text())))
    document = load(path)
    assert document.header == {"format": FORMAT, "x": 1, "x\0": 2}
    assert document["m\0"] == {"a": np.float32(2), "a\0b": np.float32(3)}
    assert document.tensor("m\0", "a\0b") == [3]
    assert document.tensor("m") == [1]


@pytest.mark.parametrize(
    ("dtype", "values", "message"),
    [
        ("int8", [300], "a tensor of int8 holds a number that does not fit"),
        ("int64", [1.5], "a tensor of int64 is ragged or holds other values"),
        ("int64", [None], "a tensor of int64 is ragged or holds other values"),
        ("uint8", [-1], "a tensor of uint8 is ragged or holds other values"),
        ("bool", [2], "a tensor of bool is ragged or holds other values"),
        ("bool", ["yes"], "a tensor of bool is ragged or holds other values"),
        ("bool", [[True], [True, False]], "a tensor of bool is ragged or holds other values"),
        ("float32", [{}], "a tensor of float32 is ragged or holds other values"),
        ("float32", [[1], [1, 2]], "its shape is [1], but it holds "),
    ],
)
def test_numbers_that_a_dtype_has_not(
    workplace: Path, dtype: str, values: list[Any], message: str
) -> None:
    Path("x.json").write_text(minimal(values, described={"shape": [1], "dtype": dtype}))
    for ask in (lambda d: d["m"], lambda d: d.tensor("m")):
        with pytest.raises(ToolkitError) as caught:
            ask(load("x.json"))
        assert message in str(caught.value)


@pytest.mark.filterwarnings("error")
def test_numbers_beyond_float32_are_infinite(workplace: Path) -> None:
    for output in ([1e300, -1e300], [1e300, None, -1e300]):
        for described in (None, {"dtype": "float32"}):
            Path("x.json").write_text(minimal(output, described=described))
            assert load("x.json").tensor("m")[0] == np.inf
    Path("x.json").write_text(minimal([1e300, -1e300]))
    np.testing.assert_array_equal(load("x.json")["m"], np.float32([np.inf, -np.inf]))


def test_a_shape_of_many_dimensions(workplace: Path) -> None:
    for sizes in ([1] * 65, [2**39] * 100_000):
        Path("x.json").write_text(minimal([1], described={"shape": sizes, "dtype": "float32"}))
        with pytest.raises(ToolkitError, match=f"its shape has {len(sizes)} dim"):
            load("x.json").tensor("m")


def test_integers_as_attention_weights_have_scores(workplace: Path, view: Run) -> None:
    for output in ([[[[1, 0], [0, 1]]]], [[[[True, False], [False, True]]]]):
        dtype = "bool" if output[0][0][0][0] is True else "int64"
        described = {"shape": [1, 1, 2, 2], "dtype": dtype}
        Path("x.json").write_text(minimal(output, described=described, tokens=["a", "b"]))
        stack = read_content(load("x.json"), tokens_of).stacks[0]
        assert stack.scores is not None
        scores = dict(zip(SCORES, stack.scores[0, 0], strict=True))
        known = {name: score for name, score in scores.items() if not np.isnan(score)}
        assert known == {"previous_token": 0, "self": 1, "first_token": 0, "entropy": 0}
        assert view("--input", "x.json").code == 0


def test_halves_of_characters_in_a_name(workplace: Path, view: Run) -> None:
    name = "a.\ud800"
    notes = [{**NOTE, "module": name}, {**NOTE, "module": "b", "layer": 0}]
    tree = json.loads(
        minimal(name=name, attention_weights=notes, model="\udfff", tokens=["\ud800"])
    )
    tree["captured"]["attention_outputs"]["b"] = {"output": SQUARE}
    Path("x.json").write_text(json.dumps(tree))
    outcome = view("--input", "x.json")
    assert (outcome.code, len(outcome.out)) == (0, 2), outcome.err


# ------------------------------------------------------------------------------ models and tokens


@pytest.mark.parametrize("model", ["x" * 300, "x/" + "y" * 5000, "a\0b", "\ud800", "", "..", "-x"])
def test_models_that_cannot_be(workplace: Path, view: Run, model: str) -> None:
    Path("x.json").write_text(minimal(model=model, input_ids=[[1, 2]]))
    outcome = view("--input", "x.json", "--output-dir", ".")
    assert (outcome.code, len(outcome.err)) == (0, 1)
    assert outcome.err[0].startswith("warning: the document has no tokens and the tokenizer of '")


def test_ids_that_the_tokenizer_has_not(workplace: Path, checkpoints: Any) -> None:
    model = str(checkpoints("llama"))
    Path("x.json").write_text(minimal(model=model, input_ids=[[1, 9_999_999]]))
    first, last = read_content(load("x.json"), tokens_of).stacks[0].rows
    assert not first.startswith("#")
    assert last == "#9999999"


@pytest.mark.parametrize("flag", ["--input", "--output-dir"])
def test_names_that_no_file_can_have(workplace: Path, view: Run, flag: str) -> None:
    Path("agnostic_activations.json").write_text(minimal(tokens=["a", "b"]))
    outcome = view(flag, "x" * 300)
    assert (outcome.code, len(outcome.err)) == (1, 1)
    assert f"'{'x' * 300}' " in outcome.err[0]
    assert "unexpected" not in outcome.err[0]


# ------------------------------------------------------------------------- lines of our own layout


def ours(tmp_path: Path) -> str:
    path = tmp_path / "x.json"
    outputs = {"m": tensor(SQUARE), "n": tensor(SQUARE)}
    write_document(path, {"format": FORMAT, "model": "m"}, {"attention": outputs})
    return path.read_text()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"n": {"shape"', '"n: {"shape"', "is not JSON"),
        ('"n": {"shape"', '"n" {"shape"', "is not JSON"),
        ('"n": {"shape"', 'n\n"n": {"shape"', "is not JSON"),
        ('"mlp_outputs": {}', '"mlp_outputs": []', "is JSON but not a captured document"),
        ('"attention_outputs": {\n', '"attention_outputs": [\n{', "is not JSON"),
        ('"model": "m"', '"model": "m', "is not JSON"),
    ],
)
def test_lines_that_are_no_modules_are_not_passed_over(
    tmp_path: Path, before: str, after: str, message: str
) -> None:
    text = ours(tmp_path)
    assert text.count(before) == 1
    (tmp_path / "x.json").write_text(text.replace(before, after))
    with pytest.raises(ToolkitError, match=message):
        load(tmp_path / "x.json")


def test_a_section_on_a_line_of_its_own(tmp_path: Path) -> None:
    text = ours(tmp_path).replace('"attention_outputs": {\n', '"attention_outputs": {"k": {}, \n')
    (tmp_path / "x.json").write_text(text)
    assert load(tmp_path / "x.json").names == ["k", "m", "n"]


def test_keys_after_the_captured_ones(tmp_path: Path) -> None:
    text = ours(tmp_path).removesuffix("}\n}\n")
    (tmp_path / "x.json").write_text(text + '},\n"later": {"a": {}},\n"last": {\n"b": {\n}\n}\n}\n')
    document = load(tmp_path / "x.json")
    assert document.names == ["m", "n"]
    assert set(document.header) == {"format", "model", "later", "last"}


# ---------------------------------------------------------------------------- the file beside it


def pair(folder: Path, output: Any = None) -> Path:
    path = folder / "x.json"
    known = {"format": FORMAT, "tokens": ["a", "b"], "attention_weights": [NOTE]}
    outputs = {"m": tensor(SQUARE) if output is None else output}
    write_document(path, known, {"attention": outputs}, format="safetensors")
    return path


def rewrite_head(path: Path, change: Any) -> None:
    beside = path.with_suffix(".safetensors")
    data = beside.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    head = json.loads(data[8 : 8 + length])
    change(head)
    text = json.dumps(head).encode()
    beside.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


@pytest.mark.parametrize(
    ("dtype", "shape"), [("F8_E4M3", [16]), ("F8_E5M2", [16]), ("C64", [2]), ("F4", [32])]
)
def test_dtypes_that_no_document_has(tmp_path: Path, dtype: str, shape: list[int]) -> None:
    path = pair(tmp_path)
    rewrite_head(path, lambda head: head["m"].update(dtype=dtype, shape=shape))
    with pytest.raises(ToolkitError, match=f"no document has tensors of {dtype}"):
        load(path).tensor("m")


@pytest.mark.parametrize("shape", [[1] * 70 + [4], [0, 2**63]])
def test_shapes_that_numpy_has_not(tmp_path: Path, shape: list[int]) -> None:
    path = pair(tmp_path, tensor(np.zeros((0, 3))) if 0 in shape else None)
    rewrite_head(path, lambda head: head["m"].update(shape=shape))
    with pytest.raises(ToolkitError, match="is damaged at 'm'"):
        load(path).tensor("m")


def test_one_tensor_is_not_named_by_many(tmp_path: Path) -> None:
    path = pair(tmp_path)
    tree = json.loads(path.read_text())
    for output in ([{"tensor": "m"}] * 1000, {"tensor": "m/0"}):
        tree["captured"]["attention_outputs"]["m"] = {"output": output}
        path.write_text(json.dumps(tree))
        with pytest.raises(ToolkitError, match="refers to a tensor of another name"):
            load(path)["m"]


def test_a_link_that_leads_away_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "theirs").mkdir()
    mine = pair(tmp_path / "mine")
    theirs = tmp_path / "theirs" / "x.json"
    shutil.copy(mine, theirs)
    theirs.with_suffix(".safetensors").symlink_to(mine.with_suffix(".safetensors"))
    with pytest.raises(ToolkitError, match="leads out of the folder of .* and is not followed"):
        load(theirs).tensor("m")
    with pytest.raises(ToolkitError, match="leads out of the folder"):
        read_content(load(theirs), tokens_of)


def test_nothing_is_written_where_it_would_not_be_read(tmp_path: Path) -> None:
    for name in ("mine", "theirs"):
        (tmp_path / name).mkdir()
    pair(tmp_path / "mine")
    before = (tmp_path / "mine" / "x.safetensors").read_bytes()
    (tmp_path / "theirs" / "x.safetensors").symlink_to("../mine/x.safetensors")
    with pytest.raises(ToolkitError, match="is a link that leads out of its folder"):
        pair(tmp_path / "theirs")
    assert os.listdir(tmp_path / "theirs") == ["x.safetensors"]
    assert (tmp_path / "mine" / "x.safetensors").read_bytes() == before


def test_links_to_two_files_that_lie_beside_each_other(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    blobs = pair(tmp_path / "blobs")
    for suffix, blob in ((".json", "1f"), (".safetensors", "2e")):  # as in the hub's cache
        blobs.with_suffix(suffix).rename(tmp_path / "blobs" / blob)
        (tmp_path / "snapshot" / f"y{suffix}").symlink_to(f"../blobs/{blob}")
    assert load(tmp_path / "snapshot" / "y.json").tensor("m").tolist() == SQUARE


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = pair(tmp_path)
    path.with_suffix(".safetensors").unlink()
    os.mkfifo(path.with_suffix(".safetensors"))
    with pytest.raises(ToolkitError, match="it is not an ordinary file"):
        load(path).tensor("m")


# ------------------------------------------------------------------------------- memory and time


def test_long_names_are_not_compared(tmp_path: Path) -> None:
    assert nearest("x" * 10_000, ["x" * 10_001]) == []
    assert nearest("ab", ["a" * 10_000, "abc"]) == ["abc"]


def test_a_line_can_be_read(workplace: Path, view: Run) -> None:
    Path("x.json").write_text(minimal([1], attention_weights=[{**NOTE, "module": "x" * 10**6}]))
    (line,) = view("--input", "x.json").err
    assert line.startswith("error: Module not found: the document has no module 'xxx")
    assert len(line) < 2100


def test_many_tensors_are_refused(tmp_path: Path) -> None:
    outputs = {f"m{i}": {"output": SQUARE} for i in range(10_001)}
    (tmp_path / "x.json").write_text(json.dumps({"captured": {"attention_outputs": outputs}}))
    with pytest.raises(ToolkitError, match="holds 10001 tensors of attention weights"):
        read_content(load(tmp_path / "x.json"), tokens_of)


MEASURED = """
import sys
sys.path[:0] = sys.argv[1:3]
import bertviz_head_model_view, memory
from activations import load
from activations.errors import ToolkitError
for path in sys.argv[3:]:  # the first is small: what the programs themselves take
    before = memory.held()
    memory.forget_peak()
    bertviz_head_model_view.main(["--input", path, "--output-dir", path + ".pages"])
    try:
        with load(path) as document:
            [document[name] for name in document.names[:10]]
    except ToolkitError:
        pass
print(memory.peak() - before)
"""
SIZE = 2_000_000
SIDE = 1000
SLAB = "[" + ",".join(["[" + ",".join("0" * SIDE) + "]"] * SIDE) + "]"
BIG: dict[str, tuple[str, dict[str, Any]]] = {
    "numbers": (f"[[{SLAB}]]", {}),
    "nulls": (f"[[{SLAB.replace('0', 'null')}]]", {}),
    "a NaN": (f"[[{SLAB.replace('0', 'NaN', 1)}]]", {}),
    "a shape": (f"[[{SLAB}]]", {"shape": [1, 1, 2**39, 2**39], "dtype": "float32"}),
    "no numbers": (f"[[{SLAB}]]", {"shape": [0, 2**39], "dtype": "float32"}),
    "texts": ('["' + "x" * (SIZE // 2) + '"' + ',""' * (SIZE // 6) + "]", {}),
    "brackets": ("[" * (SIZE // 2) + "]" * (SIZE // 2), {}),
    "ragged": ("[" + "[0],[]," * (SIZE // 7) + "0]", {}),
}


@pytest.mark.parametrize("name", BIG)
def test_memory_is_a_multiple_of_the_size(tmp_path: Path, name: str) -> None:
    output, described = BIG[name]
    (tmp_path / "small.json").write_text(minimal(tokens=["a", "b"]))
    text = minimal("@", described=described, attention_weights=[NOTE])
    if name == "texts":
        text = minimal("@")
    (tmp_path / "big.json").write_text(text.replace('"@"', output))
    size = (tmp_path / "big.json").stat().st_size
    assert most_memory(tmp_path, "small.json", "big.json") < 50 * size


def test_memory_where_one_tensor_is_named_many_times(tmp_path: Path) -> None:
    (tmp_path / "small.json").write_text(minimal(tokens=["a", "b"]))
    notes = [{**NOTE, "layer": layer} for layer in range(10_000)]
    text = minimal("@", attention_weights=notes).replace('"@"', f"[[{SLAB}]]")
    (tmp_path / "big.json").write_text(text)
    assert most_memory(tmp_path, "small.json", "big.json") < 50 * len(text)


def most_memory(folder: Path, *names: str) -> int:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))

    tests = Path(__file__).parent.parent
    where = [str(tests.parent), str(tests / "helpers")]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *where, *(str(folder / name) for name in names)],
        capture_output=True,
        text=True,
        preexec_fn=limited,
        check=True,
    )
    assert "Traceback" not in done.stderr
    assert "unexpected" not in done.stderr
    assert "out of memory" not in done.stderr
    return int(done.stdout.split()[-1])
