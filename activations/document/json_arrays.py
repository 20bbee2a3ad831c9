"""Parsed JSON -> numpy arrays, nested as the module's output was."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import simdjson

from activations.document.json_file import members, plain
from activations.outputs.tree import Element, at

_DEEPEST = 100  # lists and objects in each other, in a module's output
_MOST_PARTS = 100_000  # tensors, lists, objects and nulls that it is made of
_MOST_ELEMENTS = 1000  # lists and objects that are looked at as what a module may have returned
_SHORT = 16  # a tuple; what is longer is a tensor with its rows
_MOST_DIMENSIONS = 64  # numpy has no more


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
