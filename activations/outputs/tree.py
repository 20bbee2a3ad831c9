"""Paths into nested outputs: tuples, lists and mappings of tensors, as a module returned them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Any

from activations.text import encodable

# Where a tensor is inside what a module returned: () is the output itself, (1,) element 1 of a
# tuple, (2, 0) an element of an element, ("attentions",) an entry of a dict or ModelOutput.
Element = tuple[int | str, ...]
_REQUIRED = object()


def map_leaves(tree: Any, fn: Callable[[Any, Element], Any], path: Element = ()) -> Any:
    """The same nesting in lists and dicts, with `fn(leaf, path to it)` in place of every leaf."""
    if isinstance(tree, Mapping):
        return {key: map_leaves(value, fn, (*path, key)) for key, value in by_name(tree)}
    if isinstance(tree, (list, tuple)):
        return [map_leaves(item, fn, (*path, i)) for i, item in enumerate(tree)]
    return fn(tree, path)


def walk(tree: Any) -> Iterator[tuple[Element, Any]]:
    """Every leaf of a nesting with the path that leads to it, in order."""
    waiting: list[tuple[Element, Any]] = [((), tree)]  # no recursion: a document may nest deeper
    while waiting:
        path, node = waiting.pop()
        if isinstance(node, (Mapping, list, tuple)):
            steps = by_name(node) if isinstance(node, Mapping) else enumerate(node)
            waiting += reversed([((*path, step), inside) for step, inside in steps])
        else:
            yield path, node


def at(tree: Any, path: Element, default: Any = _REQUIRED) -> Any:
    """What is at a path in lists and dicts; if nothing, `default`, or else `LookupError`."""
    step: Any
    for step in path:
        try:
            if not isinstance(tree, (Mapping, list, tuple)):
                raise LookupError(step)  # a text has elements too, but is a leaf
            tree = tree[step]
        except (LookupError, TypeError):
            if default is _REQUIRED:
                raise LookupError(f"nothing is at {path}") from None
            return default
    return tree


def with_leaf(tree: Any, path: Element, leaf: Any) -> Any:
    """The same nesting, with another leaf at a path."""
    if not path:
        return leaf
    step: Any = path[0]
    if isinstance(tree, Mapping):
        changed = copy.copy(tree)
        changed[step] = with_leaf(tree[step], path[1:], leaf)  # type: ignore[index]
        return changed
    items = list(tree)
    items[step] = with_leaf(items[step], path[1:], leaf)
    make = getattr(tree, "_make", type(tree))  # of a namedtuple
    return make(items)


def by_name(mapping: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Its items under unique names: of the keys 1 and "1" the second is called 1@1."""
    taken: set[str] = set()
    for key, value in mapping.items():
        name = encodable(str(key))
        spellings = (f"{name}@{k}" if k else name for k in count())
        taken.add(own := next(spelling for spelling in spellings if spelling not in taken))
        yield own, value
