"""A file's JSON -> numpy arrays, nested as the module's output was; and what can be wrong."""

from __future__ import annotations

import json
import math
import mmap
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import simdjson

from activations.errors import ToolkitError
from activations.outputs.tree import Element, at

_PIECE = 8_000_000  # bytes of a file looked through at once
_DEEPEST = 100  # lists and objects in each other, in a module's output
_MOST_PARTS = 100_000  # tensors, lists, objects and nulls that it is made of
_KEPT_FOR = 16_000_000  # bytes of text; simdjson holds up to fourteen times as much
_MANY_KEYS = 3000  # more modules than any capture has
_MOST_ELEMENTS = 1000  # lists and objects that are looked at as what a module may have handed out
_SHORT = 16  # a tuple; what is longer is a tensor with its rows
_MOST_DIMENSIONS = 64  # numpy has no more


# ---------------------------------------------------------------------------------- file -> JSON


def map_file(path: Path) -> Any:
    try:
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():  # a pipe is waited for
            raise ToolkitError(f"'{path}' is not an ordinary file. Name the document's file.")
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise cut_short(path, "it is empty")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise ToolkitError(
            f"there is no file '{path}'. Capture first: python agnostic_capture.py --output {path}"
        ) from None
    except IsADirectoryError:
        raise ToolkitError(f"'{path}' is a folder. Name the document's file.") from None
    except (OSError, ValueError) as error:  # a NUL in the name
        why = getattr(error, "strerror", None) or error
        raise ToolkitError(f"'{path}' cannot be read: {why}.") from error


def let_go(data: Any, start: int, end: int) -> None:
    """Give back the memory of a part of a mapped file: what was read counts as the process's own.

    It is read from the file again when it is needed again.
    """
    if isinstance(data, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        first = start - start % mmap.PAGESIZE
        data.madvise(mmap.MADV_DONTNEED, first, end - first)


def line_ends(data: Any) -> Iterator[int]:
    """Where each line of a mapped file ends, the last one at its end; memory is given back.

    Piece by piece as bytes: mmap's own search is an order of magnitude slower.
    """
    size = len(data)
    for start in range(0, size, _PIECE):
        piece = data[start : start + _PIECE]
        at = piece.find(b"\n")
        while at >= 0:
            yield start + at
            at = piece.find(b"\n", at + 1)
        let_go(data, start, min(start + _PIECE, size))
    if data[size - 1 : size] != b"\n":
        yield size


def cut_out(text: bytes, shape: Any, dtype: Any, index: int) -> memoryview | None:
    """The text of one element of `[tensor, tensor, ...]}`, found by its brackets.

    So the others need no parsing. None where brackets do not tell: an element that is no plain
    tensor or has no numbers, a shape that lies, text that is laid out otherwise. Of the last
    element only where it begins and that the text ends; more than one in it is no JSON.
    """
    if not isinstance(shape, list) or not isinstance(dtype, list) or text[:1] != b"[":
        return None
    if len(shape) != len(dtype) or not 0 <= index < len(dtype):
        return None
    start = end = 0
    for i, (sizes, kind) in enumerate(zip(shape[: index + 1], dtype, strict=False)):
        start = end + 1
        end = _last_end(text, start, sizes, kind) if i == len(dtype) - 1 else -1
        if end < 0:
            end = _end(text, start, sizes, kind)
        if end < 0 or text[end : end + 1] != (b"," if i < len(dtype) - 1 else b"]"):
            return None
    return memoryview(text)[start:end]


def _end(text: bytes, start: int, sizes: Any, kind: Any) -> int:
    """Where a tensor (or null) ends that is nested as deep as it is said to be; else -1."""
    if kind is None:
        return start + 4 if text[start : start + 4] == b"null" else -1
    depth = _depth(sizes, kind)
    if not _begins(text, start, depth):
        return -1
    found = text.find(b"]" * depth, start + depth)
    return found + depth if found >= 0 else -1


def _last_end(text: bytes, start: int, sizes: Any, kind: Any) -> int:
    """The same of the last tensor, without looking for it: just before the text's own end."""
    depth = _depth(sizes, kind)
    ends = _begins(text, start, depth) and text.endswith(b"]" * depth + b"]}")
    return len(text) - 2 if ends else -1


def _begins(text: bytes, start: int, depth: int) -> bool:
    opened = start + depth
    return bool(depth and text[start:opened] == b"[" * depth and text[opened : opened + 1] != b"[")


def _depth(sizes: Any, kind: Any) -> int:
    """How deep a tensor's lists are nested; 0 where that cannot be told."""
    known = to_sizes(sizes)
    if not isinstance(kind, str) or not known or 0 in known:
        return 0
    return len(known) + kind.startswith("complex")


def parse_json(path: Path, data: Any) -> Any:
    try:
        return simdjson.Parser().parse(data[:])
    except (ValueError, RuntimeError):
        pass  # Python's own parser takes more (NaN, long integers) and explains itself better
    try:
        return json.loads(data[:])
    except RecursionError:
        raise ToolkitError(f"'{path}' is nested too deeply to be a captured document.") from None
    except UnicodeDecodeError:
        raise ToolkitError(f"'{path}' is not JSON: it is not text in UTF-8.") from None
    except json.JSONDecodeError as error:
        # A cut string is reported where it starts, a cut escape a few characters before the end.
        at_end = error.msg.startswith("Unterminated") or error.pos >= len(error.doc.rstrip()) - 6
        if at_end and error.doc.lstrip()[:1] in ("{", "["):
            raise cut_short(path) from None
        raise ToolkitError(
            f"'{path}' is not JSON: {error.msg} in line {error.lineno}, column {error.colno}. "
            "Name a document that agnostic_capture.py wrote."
        ) from None
    except ValueError as error:  # an integer of thousands of digits
        raise ToolkitError(f"'{path}' is no captured document: {error}.") from None


def parse_line(text: bytes | memoryview, path: Path, name: str) -> Any:
    try:
        return simdjson.Parser().parse(text)
    except (ValueError, RuntimeError) as error:
        raise damaged(path, name, f"{error}") from None


class LineParser:
    """simdjson's parser, kept: it takes its memory once, and not anew for every line."""

    def __init__(self) -> None:
        self._kept = simdjson.Parser()

    def parse(self, text: bytes | memoryview, path: Path, name: str) -> Any:
        """As `parse_line`. What is given is to be let go before the next."""
        if len(text) > _KEPT_FOR:
            return parse_line(text, path, name)
        try:
            return self._kept.parse(text)
        except (ValueError, RuntimeError):  # damaged, or the last is still held
            return parse_line(text, path, name)


def cut_short(path: Path, why: str = "it ends in the middle") -> ToolkitError:
    return ToolkitError(f"'{path}' is cut short: {why}. Capture again.")


def damaged(path: Path, name: str, why: str) -> ToolkitError:
    return ToolkitError(f"'{path}' is damaged at '{name}': {why}. Capture again.")


def another_format(path: Path) -> ToolkitError:
    return ToolkitError(
        f"'{path}' is JSON but not a captured document: it has no 'captured' with "
        f"'attention_outputs', 'mlp_outputs' or 'other_outputs'. Name a "
        "document that agnostic_capture.py wrote."
    )


# ---------------------------------------------------------------------------------- JSON -> numpy


def plain(node: Any) -> Any:
    """A simdjson node as ordinary Python."""
    if isinstance(node, simdjson.Array):
        return node.as_list()
    if isinstance(node, simdjson.Object):
        return node.as_dict()
    return node


def members(node: Any) -> dict[str, Any] | None:
    """The keys of a JSON object with what they hold, unread as yet; None where it is none."""
    if not isinstance(node, simdjson.Object):
        return node if isinstance(node, dict) else None
    keys = list(node)
    # simdjson looks for a key from the start each time, and takes a NUL for its end.
    if len(keys) > _MANY_KEYS or any("\0" in key for key in keys):
        found: dict[str, Any] = node.as_dict()
        return found
    return {key: node[key] for key in keys}


def found_at(node: Any, path: Element) -> Any:
    """What stands at a path; raises `LookupError`, `TypeError` or `OverflowError` if nothing."""
    step: Any
    for step in path:
        inside = members(node)
        node = node[step] if inside is None else inside[step]
    return node


# A tensor in another file, by its name there and by its place in the module's output.
Fetch = Callable[[str, Element], np.ndarray]


def reference(node: Any) -> str | None:
    """The tensor that `{"tensor": name}` stands for."""
    if isinstance(node, (simdjson.Object, dict)) and list(node) == ["tensor"]:
        key = node["tensor"]
        return key if isinstance(key, str) else None
    return None


def to_tree(node: Any, shape: Any, dtype: Any, fetch: Fetch) -> Any:
    """An output's JSON -> arrays nested as the module nested them.

    `dtype` tells a tensor (a string) from a list (a list); without it (other people's documents)
    a list that is rectangular and numeric throughout is taken for a tensor. Raises `ValueError`.
    """
    return _tree(node, shape, dtype, fetch, (), iter(range(_MOST_PARTS)))


def _tree(
    node: Any, shape: Any, dtype: Any, fetch: Fetch, path: Element, places: Iterator[int]
) -> Any:
    """A part of it. `places` are how many more there may be: each takes ten times its text."""
    if len(path) > _DEEPEST:
        raise ValueError("it is nested too deeply")
    if next(places, None) is None:
        raise ValueError(f"it has more than {_MOST_PARTS} parts that are no tensors")
    if isinstance(dtype, str) or (dtype is None and reference(node) is not None):
        return to_array(node, shape, dtype, fetch, path)
    inside = members(node)
    if inside is not None:
        return {
            key: _tree(value, *_inside(key, shape, dtype), fetch, (*path, key), places)
            for key, value in inside.items()
        }
    if isinstance(node, (simdjson.Array, list)):
        guess = None if isinstance(dtype, list) else _rectangular(node)
        if guess is not None:
            return guess
        return [
            _tree(item, *_inside(i, shape, dtype), fetch, (*path, i), places)
            for i, item in enumerate(node)
        ]
    return node


def _inside(step: int | str, shape: Any, dtype: Any) -> tuple[Any, Any]:
    return at(shape, (step,), None), at(dtype, (step,), None)


def _rectangular(node: simdjson.Array | list[Any]) -> np.ndarray | None:
    """The array that nested lists of numbers stand for, where they are one."""
    if isinstance(node, simdjson.Array) and not isinstance(_first(node), bool):
        return _rectangular_numbers(node)
    values = plain(node)
    try:
        # As objects first: of texts numpy would make every one as wide as the widest.
        kinds = set(map(type, np.array(values, dtype=object).ravel()))
    except ValueError:  # ragged
        return None
    if not kinds <= {int, float, bool}:
        return None
    found = np.array(values)
    if found.dtype == np.float64:
        return _narrowed(found, np.dtype(np.float32))
    return found if found.dtype.kind in "iub" else None


def _rectangular_numbers(node: simdjson.Array) -> np.ndarray | None:
    """Without making Python's lists of them, which take several times the memory."""
    sizes = first_shape(node)
    for name in ("float32",) if 0 in sizes else ("int64", "uint64", "float32"):
        values = _buffer(node, np.dtype(name))
        if values is not None:
            fits = values.size == math.prod(sizes) and _nested_so(node, sizes)
            return values.reshape(sizes) if fits else None
    return None


def _nested_so(node: Any, sizes: tuple[int, ...]) -> bool:
    """Whether all lists are as long as the first at their depth, which `sizes` are."""
    if not sizes:
        return not isinstance(node, simdjson.Array)
    return (
        isinstance(node, simdjson.Array)
        and len(node) == sizes[0]
        and all(_nested_so(item, sizes[1:]) for item in node)
    )


def _first(node: Any) -> Any:
    """The first value in nested lists; the list itself where that is empty."""
    while isinstance(node, simdjson.Array) and len(node):
        node = node[0]
    return node


def _narrowed(values: np.ndarray, wanted: np.dtype) -> np.ndarray:
    """The same numbers in a narrower dtype. Raises `ValueError` where it has no such integer."""
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite in it
        found = values.astype(wanted)
    if wanted.kind != "f" and found.dtype != values.dtype and (found != values).any():
        raise ValueError(f"a tensor of {wanted} holds a number that is none")
    return found


_NUMPY_DTYPES = {
    name: np.dtype(name)
    for name in [
        "float64",
        "float32",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint64",
        "uint32",
        "uint16",
        "uint8",
        "bool",
    ]
} | {"complex128": np.dtype("float64")}  # pairs of numbers


def to_array(node: Any, shape: Any, dtype: Any, fetch: Fetch, path: Element = ()) -> np.ndarray:
    """A JSON array (or number) -> an array of the dtype the document names, float32 unless so."""
    wanted = _NUMPY_DTYPES.get(dtype, np.dtype(np.float32))
    values = _buffer(node, wanted) if isinstance(node, simdjson.Array) else None
    sizes = to_sizes(shape)
    key = reference(node)
    if key is not None:
        values = fetch(key, path)
    elif values is None or sizes is None:
        values = _from_lists(plain(node), wanted)
    if sizes is None:
        sizes = values.shape
    elif isinstance(dtype, str) and dtype.startswith("complex"):
        sizes = (*sizes, 2)
    if len(sizes) > _MOST_DIMENSIONS:
        raise ValueError(f"it says that a tensor has {len(sizes)} dimensions")
    if values.size != math.prod(sizes):
        raise ValueError(f"it says {list(sizes)} for a tensor that holds {values.size} numbers")
    return values.reshape(sizes)


def to_sizes(shape: Any) -> tuple[int, ...] | None:
    if isinstance(shape, list) and all(
        isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 2**40 for size in shape
    ):
        return tuple(shape)
    return None


def _buffer(node: Any, wanted: np.dtype) -> np.ndarray | None:
    """All numbers of a JSON array in one buffer, or None where it holds null, true or false."""
    kind = {"f": "d", "i": "i", "u": "u"}.get(wanted.kind)
    if kind is None:
        return None
    try:
        raw = node.as_buffer(of_type=kind)
    except (TypeError, ValueError):
        return None
    return _narrowed(np.frombuffer(raw, dtype={"d": "f8", "i": "i8", "u": "u8"}[kind]), wanted)


def _from_lists(values: Any, wanted: np.dtype) -> np.ndarray:
    """The slow way, for arrays with null (not a finite number) or booleans."""
    try:
        if wanted.kind == "f":
            return _narrowed(np.array(values, dtype=np.float64), wanted)
        return _narrowed(np.array(values, dtype=object), wanted)
    except (ValueError, TypeError, OverflowError):
        raise ValueError(
            f"a tensor is ragged or holds something that is no number of {wanted}"
        ) from None


def first_shape(node: Any) -> tuple[int, ...]:
    """The sizes along the first members of nested lists: a guess at an unstated shape."""
    sizes: list[int] = []
    while isinstance(node, (simdjson.Array, list)) and len(sizes) < _MOST_DIMENSIONS:
        sizes.append(len(node))
        if not sizes[-1]:
            break
        node = node[0]
    return tuple(sizes)


def guessed_shapes(output: Any) -> dict[Element, tuple[int, ...]]:
    """The sizes of the tensors in a module's output by element, where nothing states them.

    Looks into the output's own elements, and into dicts and short lists further in: those nearest
    first, no more than `_MOST_ELEMENTS`. What may be a tensor as well as a list of tensors is both.
    """
    found: dict[Element, tuple[int, ...]] = {}
    waiting: deque[tuple[Element, Any]] = deque([((), output)])
    for _ in range(_MOST_ELEMENTS):
        if not waiting:
            break
        path, node = waiting.popleft()
        inside = members(node)
        if inside is not None:
            waiting += [((*path, key), item) for key, item in inside.items()]
        elif isinstance(node, (simdjson.Array, list)):
            found[path] = first_shape(node)
            if not path or _may_hold_tensors(node):
                steps = enumerate(islice(node, _MOST_ELEMENTS))
                waiting += [((*path, i), item) for i, item in steps]
    return found


def _may_hold_tensors(node: Any) -> bool:
    """Whether a list may be one of tensors of four dimensions: a tensor's rows are alike."""
    if len(node) > _SHORT:
        return False
    items = list(node)
    sizes = [first_shape(item) for item in items]
    alike = sizes[1:] == sizes[:-1] and not any(members(item) is not None for item in items)
    return not alike or max(map(len, sizes), default=0) > 3
