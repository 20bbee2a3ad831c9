"""Documents as strangers may send them: real ones in every layout, and what can be done to them.

Everything random comes from the `random.Random` that is handed in, so that one seed makes one
document.
"""

from __future__ import annotations

import json
import random
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import picture_files

from activations.document.format import FORMAT
from activations.document.writer import write_document
from activations.outputs.tensor import Tensor


@dataclass(frozen=True)
class Sent:
    """The bytes of a document, and of the .safetensors beside it if there is one."""

    document: bytes
    beside: bytes | None = None


# ------------------------------------------------------------------------------------- real ones


def tensor(values: Any, dtype: str = "float32") -> Tensor:
    data = np.ascontiguousarray(np.asarray(values, dtype=dtype)).reshape(np.shape(values))
    return Tensor(dtype, data.shape, data)


def bfloat16(values: Any) -> Tensor:
    bits = np.asarray(values, dtype=np.float32).view(np.uint32) >> 16
    return Tensor("bfloat16", bits.shape, bits.astype(np.uint16))


def _attention(heads: int, rows: int, columns: int) -> Tensor:
    weights = np.tril(np.ones((1, heads, rows, columns))) + 0.125
    return tensor(weights / weights.sum(-1, keepdims=True))


def _layer(heads: int = 2, size: int = 3) -> list[Any]:
    return [bfloat16(np.arange(size * 2).reshape(1, size, 2)), _attention(heads, size, size), None]


def _note(module: str, layer: int, kind: str = "self", element: Any = (1,)) -> dict[str, Any]:
    return {"module": module, "element": list(element), "layer": layer, "kind": kind}


def _header(**more: Any) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "model": "org/m",
        "prompt": "a b a",
        "input_ids": [[1, 2, 1]],
        "tokens": ["a", "Ġb", "a"],
        "selected_patterns": {"attention": ["h.{layer}.attn"], "mlp": [], "other": []},
        **more,
    }


def _decoder_only() -> tuple[dict[str, Any], dict[str, Any]]:
    names = ["h.0.attn", "h.1.attn"]
    header = _header(
        attention_weights=[_note(name, i) for i, name in enumerate(names)],
        environment={"toolkit": "1", "dtype": "bfloat16", "revision": None},
        continuation_start=2,
        written="b c",
    )
    mlp = {"h.0.mlp": tensor([[[1.5, -0.0]]]), "h.0.mlp@1": tensor(7, "int64")}
    return header, {"attention": {name: _layer() for name in names}, "mlp": mlp}


_BLACK = np.zeros((3, 3, 3))


def _encoder_decoder() -> tuple[dict[str, Any], dict[str, Any]]:
    header = _header(
        decoder_input_ids=[[0, 5]],
        decoder_tokens=["<s>", "x"],
        target="x",
        attention_weights=[
            _note("encoder.0", 0, "encoder"),
            _note("decoder.0.self", 0, "decoder"),
            _note("decoder.0.cross", 0, "cross", ["weights"]),
        ],
        pictures=[picture_files.sound(np.eye(3) * 255), picture_files.image(_BLACK, (3, 1))],
    )
    cross = {"weights": _attention(2, 2, 3), "cache": "DynamicCache"}
    outputs = {"encoder.0": _layer(), "decoder.0.self": _layer(size=2), "decoder.0.cross": cross}
    return header, {"attention": outputs}


def _odd_numbers() -> tuple[dict[str, Any], dict[str, Any]]:
    header = _header(sentence_b_start=1, text_pair="b a", non_finite={"n": {"": {"NaN": 1}}})
    turned = {**_note("x", 3), "axes": [2, 3, 0, 1]}
    header["attention_weights"] = [turned, _note("y", 4, "text", []), _note("n", 5, "self", [0, 0])]
    outputs = {
        "x": [None, tensor(_attention(2, 3, 3).data.transpose(2, 3, 0, 1))],
        "y": tensor(np.eye(3, dtype=np.int64)[None, None], "int64"),
        "n": [[tensor([[[[0.5, np.nan], [np.inf, 0.0]]]]), tensor(True, "bool")]],
        "c": Tensor("complex64", (2,), np.array([[1, 2], [3, 4]], np.float32)),
        "d": {"e": [tensor([1e300], "float64"), tensor(np.zeros((0, 3)))]},
    }
    return header, {"attention": outputs, "other": {"o": tensor([2**64 - 1], "uint64")}}


def _written(made: tuple[dict[str, Any], dict[str, Any]], format: str) -> Sent:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.json")
        write_document(path, *made, format=format)
        beside = path.with_suffix(".safetensors")
        return Sent(path.read_bytes(), beside.read_bytes() if beside.exists() else None)


def _minimal(document: dict[str, Any]) -> dict[str, Any]:
    """What other people's scripts write: no shapes, no tokens, no notes."""
    sections = {
        section: {name: {"output": entry["output"]} for name, entry in outputs.items()}
        for section, outputs in document["captured"].items()
    }
    return {"model": "m", "input_ids": document["input_ids"], "captured": sections}


@cache
def real_documents() -> tuple[Sent, ...]:
    """One of every kind and layout."""
    made = [_decoder_only(), _encoder_decoder(), _odd_numbers()]
    ours = [_written(each, "json") for each in made]
    trees = [json.loads(sent.document) for sent in ours]
    others = [json.dumps(tree, indent=indent) for tree in trees for indent in (None, 0, 2)]
    others += [json.dumps(_minimal(tree)) for tree in trees]
    beside = [_written(each, "safetensors") for each in made]
    return (*ours, *(Sent(text.encode()) for text in others), *beside)


# ---------------------------------------------------------------------------------- odd in itself


class Raw(str):
    """JSON text that no value of Python's would give."""


def _deep(depth: int) -> Raw:
    return Raw("[" * depth + "]" * depth)


_TEXTS = ["", "x", "../x", "/etc/passwd", "a\0b", "\u202e", "</script>", "\ud800", "é" * 300, "h.0"]
_NUMBERS = [0, 1, -1, 2, 3, 2**31, 2**40, 2**63, 2**64, -(2**63), 0.5, -0.0, 1e308, 5e-324, 10**30]
_RAW = ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "9" * 400, "9" * 5000, "1e-400", "01"]
_RAW += ['"\\ud800"', '"\\u0000"', '{"tensor":"h.0.attn/1"}', '{"tensor":"../x"}', '{"tensor":1}']
_RAW += ['{"a":1,"a":2}', "[1,[2]]", '["1",2]', "[[1,2],[3]]", "tru", "", "'x'"]
_RAW += [f'["{"x" * 2000}"{", 1" * 500}]']  # numpy would make every one as wide as the widest
_DEPTHS = [3, 60, 70, 120, 300, 900, 1000, 1020, 1100]


def odd_value(rng: random.Random) -> Any:
    match rng.randrange(9):
        case 0:
            return rng.choice([None, True, False])
        case 1:
            return rng.choice(_NUMBERS)
        case 2:
            return rng.choice(_TEXTS)
        case 3:
            return Raw(rng.choice(_RAW))
        case 4:
            return _deep(100_000 if rng.random() < 0.02 else rng.choice(_DEPTHS))
        case 5:
            return [odd_value(rng) for _ in range(rng.randrange(4))]
        case 6:
            return {rng.choice(_TEXTS): odd_value(rng) for _ in range(rng.randrange(3))}
        case 7:  # the shape of a lie
            return [rng.choice([0, 1, 2, 3, 10**6, 2**39, -1]) for _ in range(rng.randrange(6))]
        case _:
            return rng.choice(["float32", "int8", "uint64", "bool", "complex64", "float16", "?"])


def dumped(tree: Any, layout: str, rng: random.Random) -> bytes:
    """JSON text; "ours" is line by line, as the writer lays it out."""
    raw: list[str] = []

    def marked(node: Any) -> Any:
        if isinstance(node, Raw):
            raw.append(str(node))
            return f"@{len(raw) - 1}@"
        if isinstance(node, dict):
            return {key: marked(value) for key, value in node.items()}
        return [marked(item) for item in node] if isinstance(node, list) else node

    tree = marked(tree)
    if layout == "ours" and isinstance(tree, dict) and isinstance(tree.get("captured"), dict):
        text = _line_by_line(tree)
    else:
        text = json.dumps(tree, indent={"pretty": 2, "flat": 0}.get(layout))
    for i, value in enumerate(raw):
        text = text.replace(f'"@{i}@"', value)
    if rng.random() < 0.1:
        text = _key_again(text, rng)
    return text.encode("utf-8", "surrogatepass")


def _line_by_line(tree: dict[str, Any]) -> str:
    def section(outputs: Any) -> str:
        if not isinstance(outputs, dict) or not outputs:
            return json.dumps(outputs)
        lines = (f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in outputs.items())
        return "{\n" + ",\n".join(lines) + "\n}"

    header = "".join(
        f"{json.dumps(key)}: {json.dumps(value)},\n"
        for key, value in tree.items()
        if key != "captured"
    )
    sections = ",\n".join(f"{json.dumps(n)}: {section(o)}" for n, o in tree["captured"].items())
    return "{\n" + header + '"captured": {\n' + sections + "\n}\n}\n"


def _key_again(text: str, rng: random.Random) -> str:
    """One of the keys a second time, with another value."""
    at = rng.choice([i for i, c in enumerate(text) if c == "{"] or [0])
    key = rng.choice(["model", "captured", "shape", "output", "element", "h.0.attn", "tokens"])
    return f'{text[: at + 1]}"{key}": {rng.choice(["1", "{}", "[[0.5]]"])}, {text[at + 1 :]}'


# ------------------------------------------------------------------------- what is done to them


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything in a document; numbers inside tensors are not all listed."""
    found, waiting = [], [tree]
    while waiting:
        node = waiting.pop()
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))[:3]
        for key in keys:
            found.append((node, key))
            if isinstance(node[key], (dict, list)):
                waiting.append(node[key])
    return found


def _change(node: Any, key: Any, rng: random.Random) -> None:
    other = odd_value(rng)
    match rng.randrange(7):
        case 0:
            del node[key]
        case 1 if isinstance(node, dict):
            node[rng.choice(_TEXTS)] = node.pop(key)
        case 2 if isinstance(node, list):
            node.insert(key, other)
        case 3:
            node[key] = [node[key]]
        case 4 if isinstance(node[key], list) and node[key]:
            # Not fifty times what was made fifty times before.
            node[key] = node[key] * rng.choice([2, 3, 50 if len(repr(node[key])) < 1000 else 2])
        case _:
            node[key] = other


def change_tree(sent: Sent, rng: random.Random) -> Sent:
    """Another value, key or nesting somewhere in the document, in any layout."""
    try:
        tree = json.loads(sent.document)
    except ValueError:
        return change_bytes(sent, rng)
    if not isinstance(tree, dict):
        return change_bytes(sent, rng)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        captured = tree.get("captured")
        header = [(tree, key) for key in tree if key != "captured"]
        places = header if rng.random() < 0.3 and header else _places(tree)
        if places:
            _change(*rng.choice(places), rng)
        if isinstance(captured, dict) and rng.random() < 0.05:
            tree["captured"] = tree.pop("captured", captured)  # last again
    layout = rng.choice(["ours", "ours", "pretty", "flat", "compact"])
    return replace(sent, document=dumped(tree, layout, rng))


_PIECES = [p.encode() for p in _RAW] + [
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\r",
    b"\n",
    b"}\n}\n}\n",
    b'"captured": {\n',
    b', "output": ',
    b"{\n",
    b"]]",
    b"[[",
    b"null",
    b"true",
    b'"',
    b"\\",
    b'{"tensor": "h.0.attn/0"}',
]


def _bytes_changed(data: bytes, rng: random.Random) -> bytes:
    at, to = sorted((rng.randint(0, len(data)), rng.randint(0, len(data))))
    match rng.randrange(8):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + rng.choice(_PIECES) + data[at:]
        case 2:
            return data[:at] + rng.choice(_PIECES) + data[min(to, at + 8) :]
        case 3:
            return data[:at] + data[to:]
        case 4:
            return data[:to] + data[at : at + 300] + data[to:]
        case 5 if data:
            at = rng.randrange(len(data))
            return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        case 6:
            return data.replace(b"\n", rng.choice([b"\r\n", b"\r", b"", b"\n\n", b" \n"]))
        case _:
            kind = rng.choice(["utf-16", "utf-32", "latin-1", "utf-8-sig", "utf-16-be"])
            return data.decode("utf-8", "replace").encode(kind, "replace")


def change_bytes(sent: Sent, rng: random.Random) -> Sent:
    return replace(sent, document=_bytes_changed(sent.document, rng))


def change_beside(sent: Sent, rng: random.Random) -> Sent:
    """A file of tensors that lies: its length, names, dtypes, shapes, offsets, id."""
    if sent.beside is None or len(sent.beside) < 8:
        return replace(sent, beside=rng.choice([b"", b"\xff" * 8, b"{}", bytes(8)]))
    (length,) = struct.unpack("<Q", sent.beside[:8])
    head, data = sent.beside[8 : 8 + length], sent.beside[8 + length :]
    match rng.randrange(5):
        case 0:
            return replace(sent, beside=_bytes_changed(sent.beside, rng))
        case 1:
            length = rng.choice([0, length - 1, length + 1, 2**31, 2**63, 2**64 - 1])
        case 2:
            data = _bytes_changed(data, rng)
        case _:
            head = _head_changed(head, rng)
            length = len(head)
    return replace(sent, beside=struct.pack("<Q", length % 2**64) + head + data)


_DTYPES = ["BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "I16", "F16", "BF16", "I32", "F32", "F64"]
_DTYPES += ["I64", "U64", "C64", "F4", "F6_E2M3", "?"]


def _head_changed(head: bytes, rng: random.Random) -> bytes:
    try:
        tree = json.loads(head)
        name = rng.choice([key for key in tree if key != "__metadata__"])
        entry = dict(tree[name])
        old = entry["data_offsets"][1] - entry["data_offsets"][0]
    except (ValueError, LookupError, TypeError):
        return _bytes_changed(head, rng)
    match rng.randrange(6):
        case 0:  # the same bytes as other numbers
            entry["dtype"] = rng.choice(_DTYPES)
            width = rng.choice([1, 2, 4, 8])
            entry["shape"] = [1] * rng.choice([0, 0, 3, 70]) + [old // width]
        case 1:
            entry["shape"] = rng.choice([[], [2**62, 4], [0, 2**63], [-1], [1] * 100])
        case 2:
            entry["data_offsets"] = rng.choice([[0, 4], [4, 0], [-1, 3], [0, 2**63], [0]])
        case 3:
            tree["__metadata__"] = rng.choice([{}, {"document": "x"}, {"document": 1}, None])
        case 4:
            tree[rng.choice(["../x", "/etc/passwd", "h.0.attn", "a\0", ""])] = entry
        case _:
            entry[rng.choice(list(entry))] = odd_value(rng)
    tree[name] = entry
    return dumped(tree, "compact", rng)


CHANGES: list[Callable[[Sent, random.Random], Sent]] = [
    change_tree,
    change_tree,
    change_tree,
    change_bytes,
    change_beside,
]


def changed(sent: Sent, rng: random.Random) -> Sent:
    """One to three things done to it."""
    for _ in range(rng.choice([1, 1, 2, 3])):
        change = rng.choice(CHANGES)
        if change is not change_beside or sent.beside is not None or rng.random() < 0.1:
            try:
                sent = change(sent, rng)
            except RecursionError:  # already nested deeper than calls
                sent = change_bytes(sent, rng)
    return sent
