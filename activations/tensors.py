"""A captured tensor as the document knows it: numpy data and the name of the dtype it had.

numpy has no bfloat16; its bits are kept as uint16 and widened exactly when numbers are wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from activations.observation import Element


@dataclass(frozen=True, eq=False)
class Tensor:
    """A snapshot of one tensor: C-contiguous `data` and the `dtype` it had in the model.

    `data` holds the values in that dtype where numpy has it; for "bfloat16" the raw bits as
    uint16, for dtypes numpy lacks otherwise (8-bit floats) the values widened to float32, for
    complex numbers a last axis of 2 (real, imaginary). `shape` is the tensor's own.
    """

    dtype: str
    shape: tuple[int, ...]
    data: np.ndarray

    def numbers(self) -> np.ndarray:
        """The values: float32 for half precisions (widened exactly), else in their own dtype."""
        if self.dtype == "bfloat16":
            # bfloat16 is the upper half of a float32.
            wide = self.data.astype(np.uint32)
            wide <<= 16
            return wide.view(np.float32)
        if self.data.dtype == np.float16:
            return self.data.astype(np.float32)
        return self.data


def map_leaves(tree: Any, fn: Callable[[Any, Element], Any], path: Element = ()) -> Any:
    """The same nesting of lists and dicts with `fn(leaf, path to it)` in place of every leaf."""
    if isinstance(tree, list):
        return [map_leaves(item, fn, (*path, i)) for i, item in enumerate(tree)]
    if isinstance(tree, dict):
        return {key: map_leaves(value, fn, (*path, key)) for key, value in tree.items()}
    return fn(tree, path)


def walk(tree: Any, path: Element = ()) -> Iterator[tuple[Element, Any]]:
    """Every leaf of a nesting of lists and dicts with the path that leads to it, in order."""
    waiting: list[tuple[Element, Any]] = [
        (path, tree)
    ]  # a document may be nested deeper than calls
    while waiting:
        path, node = waiting.pop()
        if isinstance(node, (list, dict)):
            steps = node.items() if isinstance(node, dict) else enumerate(node)
            waiting += reversed([((*path, step), inside) for step, inside in steps])
        else:
            yield path, node


def at(tree: Any, path: Element) -> Any:
    """What stands at a path; raises `LookupError` or `TypeError` where there is nothing."""
    for step in path:
        tree = tree[step]
    return tree
