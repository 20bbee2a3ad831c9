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
from activations.document.sparse_form import ARRAYS, is_sparse_form, read_sparse
from activations.errors import ToolkitError
from activations.outputs.sparse import Sparse
from activations.outputs.tree import Element, at
from activations.system.memory import free_memory
from activations.system.sizes import size_text

_MAX_DEPTH = 100  # levels of lists and objects in a module's output
_MAX_PARTS = 100_000  # tensors, lists, objects and nulls in it
_MAX_ELEMENTS = 1000  # lists and objects that are searched for tensors
_MAX_TUPLE = 16  # a longer list is a tensor with its rows, not a tuple
_MAX_DIMENSIONS = 64  # of a numpy array


def node_at(node: Any, path: Element) -> Any:
    """What is at a path; raises `LookupError`, `TypeError` or `OverflowError` if nothing."""
    step: Any
    for step in path:
        inside = members(node)
        node = node[step] if inside is None else inside[step]
    return node


# Gets a tensor from the file of tensors, by its name there and its place in the module's output.
Fetch = Callable[[str, Element], np.ndarray]


def reference(node: Any) -> str | None:
    """The name in `{"tensor": name}`, which stands for a tensor in the file of tensors."""
    if isinstance(node, (simdjson.Object, dict)) and list(node) == ["tensor"]:
        key = node["tensor"]
        return key if isinstance(key, str) else None
    return None


def stands_for_tensor(node: Any) -> bool:
    """Whether an object stands for a tensor: one in the file of tensors, or a sparse one."""
    return reference(node) is not None or is_sparse_form(members(node))


def to_sparse(node: Any, dtype: Any, fetch: Fetch, path: Element = ()) -> Sparse | None:
    """What was kept of a tensor; None where all of it is there. Raises `ValueError`."""
    inside = members(node)
    facts = members(inside["sparse"]) if inside is not None and is_sparse_form(inside) else None
    if facts is None:
        return None

    def numbers(name: str, wanted: str) -> np.ndarray:
        part = facts.get(name)
        key = reference(part)
        if key is not None:
            return fetch(key, (*path, name))
        found = _buffer(part, np.dtype(wanted)) if isinstance(part, simdjson.Array) else None
        return _from_lists(plain(part), np.dtype(wanted)) if found is None else found

    return read_sparse(
        {key: plain(value) for key, value in facts.items() if key not in ARRAYS}, dtype, numbers
    )


def to_tree(node: Any, shape: Any, dtype: Any, fetch: Fetch) -> Any:
    """An output's JSON -> arrays nested as the module nested them.

    `dtype` says what is a tensor (a string) and what is a list (a list). Without it (documents of
    other programs) a list that is rectangular and all numbers is a tensor. Raises `ValueError`.
    """
    return _tree(node, shape, dtype, fetch, (), iter(range(_MAX_PARTS)))


def _tree(
    node: Any, shape: Any, dtype: Any, fetch: Fetch, path: Element, places: Iterator[int]
) -> Any:
    """A part of it. `places` limits their number: each takes ten times the memory of its text."""
    if len(path) > _MAX_DEPTH:
        raise ValueError("it is nested too deeply")
    if next(places, None) is None:
        raise ValueError(f"it has more than {_MAX_PARTS} parts that are not tensors")
    if isinstance(dtype, str) or (dtype is None and stands_for_tensor(node)):
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
    """Nested lists of numbers as an array; None where they are not rectangular, or hold others."""
    values = plain(node)
    try:
        # As objects first: numpy would make every text as wide as the widest.
        kinds = set(map(type, np.array(values, dtype=object).ravel()))
    except ValueError:  # ragged
        return None
    if not kinds <= {int, float, bool}:
        return None
    found = np.array(values)
    if found.dtype == np.float64:
        return _narrowed(found, np.dtype(np.float32))
    return found if found.dtype.kind in "iub" else None


def _narrowed(values: np.ndarray, wanted: np.dtype) -> np.ndarray:
    """The same numbers in a narrower dtype. Raises `ValueError` where an integer does not fit."""
    with np.errstate(over="ignore"):  # numbers too large for float32 become infinite
        found = values.astype(wanted)
    if wanted.kind != "f" and found.dtype != values.dtype and (found != values).any():
        raise ValueError(f"a tensor of {wanted} holds a number that does not fit")
    return found


_WIDTHS = {"float": (64, 32), "int": (64, 32, 16, 8), "uint": (64, 32, 16, 8), "bool": ("",)}
_NUMPY_DTYPES = {f"{k}{w}": np.dtype(f"{k}{w}") for k, widths in _WIDTHS.items() for w in widths}
_NUMPY_DTYPES["complex128"] = np.dtype("float64")  # pairs of numbers


def to_array(node: Any, shape: Any, dtype: Any, fetch: Fetch, path: Element = ()) -> np.ndarray:
    """A JSON array (or number) -> an array of the dtype the document names, else of float32.

    What was left out of a sparse one is 0.
    """
    sparse = to_sparse(node, dtype, fetch, path)
    if sparse is not None:
        _check_memory(sparse)
        return sparse.dense()
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
    if len(sizes) > _MAX_DIMENSIONS:
        raise ValueError(f"its shape has {len(sizes)} dimensions")
    if values.size != math.prod(sizes):
        raise ValueError(f"its shape is {list(sizes)}, but it holds {values.size} numbers")
    return values.reshape(sizes)


def _check_memory(sparse: Sparse) -> None:
    """Refuse to make a tensor that the memory cannot hold out of one that it can."""
    needed, free = sparse.size, free_memory()
    if free is not None and needed > free:
        raise ToolkitError(
            f"the whole tensor takes {size_text(needed)}, and {size_text(free)} of memory are "
            "free. Take what is there of it: Document.sparse."
        )


def to_sizes(shape: Any) -> tuple[int, ...] | None:
    if isinstance(shape, list) and all(
        isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 2**40 for size in shape
    ):
        return tuple(shape)
    return None


def _buffer(node: Any, wanted: np.dtype) -> np.ndarray | None:
    """All numbers of a JSON array in one buffer; None where it has null, true or false."""
    if wanted.kind not in "fiu":
        return None
    try:
        raw = node.as_buffer(of_type="d" if wanted.kind == "f" else wanted.kind)
    except (TypeError, ValueError):
        return None
    return _narrowed(np.frombuffer(raw, dtype=f"{wanted.kind}8"), wanted)


def _from_lists(values: Any, wanted: np.dtype) -> np.ndarray:
    """The slow way, for arrays with null (not finite) or booleans."""
    try:
        if wanted.kind == "f":
            return _narrowed(np.array(values, dtype=np.float64), wanted)
        return _narrowed(np.array(values, dtype=object), wanted)
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"a tensor of {wanted} is ragged or holds other values") from None


def first_shape(node: Any) -> tuple[int, ...]:
    """The lengths of the first lists at each depth: a guess at the shape."""
    sizes: list[int] = []
    while isinstance(node, (simdjson.Array, list)) and len(sizes) < _MAX_DIMENSIONS:
        sizes.append(len(node))
        if not sizes[-1]:
            break
        node = node[0]
    return tuple(sizes)


def guessed_shapes(output: Any) -> dict[Element, tuple[int, ...]]:
    """The shapes of the tensors in a module's output by element, where the document gives none.

    Searches the output's own elements, then dicts and short lists inside them, at most
    `_MAX_ELEMENTS`. What may be a tensor or a list of tensors is taken for both.
    """
    found: dict[Element, tuple[int, ...]] = {}
    waiting: deque[tuple[Element, Any]] = deque([((), output)])
    for _ in range(_MAX_ELEMENTS):
        if not waiting:
            break
        path, node = waiting.popleft()
        inside = members(node)
        if inside is not None and is_sparse_form(inside):
            facts = members(inside["sparse"]) or {}
            found[path] = to_sizes(plain(facts.get("shape"))) or ()
        elif inside is not None:
            waiting += [((*path, key), item) for key, item in inside.items()]
        elif isinstance(node, (simdjson.Array, list)):
            found[path] = first_shape(node)
            if not path or _may_hold_tensors(node):
                steps = enumerate(islice(node, _MAX_ELEMENTS))
                waiting += [((*path, i), item) for i, item in steps]
    return found


def _may_hold_tensors(node: Any) -> bool:
    """Whether a list may hold tensors of four dimensions. The rows of one tensor are all alike."""
    if len(node) > _MAX_TUPLE:
        return False
    items = list(node)
    sizes = [first_shape(item) for item in items]
    alike = sizes[1:] == sizes[:-1] and not any(members(item) is not None for item in items)
    return not alike or max(map(len, sizes), default=0) > 3
