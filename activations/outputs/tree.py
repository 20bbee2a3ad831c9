"""Paths into nested outputs: lists and dicts of tensors, as a module returned them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

# Where a tensor stands inside what a module returned: () is the output itself, (1,) element 1 of a
# tuple, (2, 0) an element of an element, ("attentions",) an entry of a dict or ModelOutput.
Element = tuple[int | str, ...]


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
