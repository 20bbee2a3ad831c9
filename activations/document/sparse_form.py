"""How a document holds attention weights of which only the large ones were kept.

In place of the tensor stands {"sparse": {"above", "shape", "dropped", ...}}, with five tensors in
it: as numbers, or as references to the file of tensors. See `outputs/sparse.py` for what each is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from activations.document.header import is_count
from activations.outputs.sparse import Sparse, cell_size
from activations.outputs.tensor import Tensor
from activations.outputs.tree import Element, walk

ARRAYS = ("row_starts", "columns", "weights", "rest", "overview")
_MOST = 2**40  # numbers of a tensor, as anywhere in a document
_LONGEST = 2**24  # columns: each of them gets a name


def sparse_form(sparse: Sparse, tensor: Callable[[str, Tensor], Any]) -> dict[str, Any]:
    """What stands in the document; `tensor(name, data)` is what stands for one of its tensors."""
    axes = {} if sparse.axes is None else {"axes": list(sparse.axes)}
    facts = {"above": sparse.above, "shape": list(sparse.shape), **axes, "dropped": sparse.dropped}
    return {"sparse": facts | {name: tensor(name, array) for name, array in _arrays(sparse)}}


def _arrays(sparse: Sparse) -> Iterator[tuple[str, Tensor]]:
    for name in ARRAYS:
        array = getattr(sparse, name)
        if not isinstance(array, Tensor):
            array = Tensor(array.dtype.name, array.shape, array)
        yield name, array


def tensors_of(tree: Any) -> Iterator[tuple[Element, Tensor]]:
    """All tensors of a captured output, with the places of their numbers."""
    for element, leaf in walk(tree):
        if isinstance(leaf, Sparse):
            yield from (((*element, name), array) for name, array in _arrays(leaf))
        elif isinstance(leaf, Tensor):
            yield element, leaf


def is_sparse_form(node: Mapping[str, Any] | None) -> bool:
    """Whether a parsed object stands for such a tensor."""
    return node is not None and list(node) == ["sparse"]


def read_sparse(
    facts: Mapping[str, Any], dtype: Any, array: Callable[[str, Any], np.ndarray]
) -> Sparse:
    """The parsed object as a `Sparse`; `array(name, dtype)` reads one of its tensors, flat or not.

    Raises `ValueError` where it is none: whatever a file says, all that is used later is in range.
    """
    above, shape = facts.get("above"), facts.get("shape")
    if not isinstance(above, (int, float)) or not 0 <= above < 1:
        raise ValueError("'above' must be a number of at least 0 and less than 1")
    if not (isinstance(shape, list) and len(shape) == 4 and all(map(is_count, shape))):
        raise ValueError("'shape' must be four sizes: batch, heads, rows, columns")
    if math.prod(shape) >= _MOST or shape[3] > _LONGEST:
        raise ValueError("its 'shape' is not possible")
    axes = facts.get("axes")
    if axes is not None and (not isinstance(axes, list) or sorted(axes) != [0, 1, 2, 3]):
        raise ValueError("'axes' must be 0 to 3 in some order")
    batch, heads, rows, columns = shape
    starts, held = array("row_starts", "int64").reshape(-1), array("columns", "int64").reshape(-1)
    wide = dtype if dtype == "float64" else "float32"
    weights = array("weights", wide).reshape(-1)
    rest, overview = array("rest", "float32"), array("overview", "float32")
    cells = [-(-size // cell) for size, cell in zip(shape[2:], cell_size(shape), strict=True)]
    _check(starts, held, weights, batch * heads * rows, columns)
    if rest.size != batch * heads * rows or overview.size != batch * heads * cells[0] * cells[1]:
        raise ValueError("'rest' or 'overview' does not have the size that 'shape' asks for")
    return Sparse(
        float(above),
        (batch, heads, rows, columns),
        starts,
        held.astype(np.uint16 if columns <= 2**16 else np.uint32),
        Tensor(wide, weights.shape, weights),
        rest.reshape(batch, heads, rows).astype(np.float32),
        overview.reshape(batch, heads, *cells).astype(np.float16),
        None if axes is None else tuple(axes),
    )


def _check(
    starts: np.ndarray, held: np.ndarray, weights: np.ndarray, rows: int, columns: int
) -> None:
    if len(starts) != rows + 1 or len(held) != len(weights):
        raise ValueError("'row_starts', 'columns' and 'weights' do not fit each other or 'shape'")
    steps = np.diff(starts)
    if starts[0] != 0 or starts[-1] != len(held) or (steps < 0).any():
        raise ValueError("'row_starts' must rise from 0 to the number of weights")
    if len(held) and (held.min() < 0 or held.max() >= columns):
        raise ValueError("a column is outside the shape")
    rising = np.diff(held) > 0
    rising[starts[1:-1][(starts[1:-1] > 0) & (starts[1:-1] < len(held))] - 1] = True
    if not rising.all():
        raise ValueError("the columns of a row must rise")
