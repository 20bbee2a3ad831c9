"""One walker and one getter over whatever a module returns."""

from __future__ import annotations

from collections import UserDict, namedtuple
from typing import Any

import pytest

from activations.outputs.tree import at, map_leaves, walk

Pair = namedtuple("Pair", ["left", "right"])
ALIKE = {1: 10, "1": 11, "1@1": 12, chr(0xD800): 13, chr(0xDFFF): 14, None: 15}


@pytest.mark.parametrize(
    ("tree", "plain", "paths"),
    [
        ("leaf", "leaf", [()]),
        ([1, {"a": [2]}, []], [1, {"a": [2]}, []], [(0,), (1, "a", 0)]),
        ((Pair(1, None), ()), [[1, None], []], [(0, 0), (0, 1)]),
        (UserDict(b=1, a=(2,)), {"b": 1, "a": [2]}, [("b",), ("a", 0)]),
    ],
)
def test_any_nesting(tree: Any, plain: Any, paths: Any) -> None:
    assert map_leaves(tree, lambda leaf, _: leaf) == plain
    assert [path for path, _ in walk(tree)] == paths
    assert all(at(plain, path) == leaf for path, leaf in walk(tree))
    leaves = [leaf for _, leaf in walk(tree)]
    found: list[Any] = []
    map_leaves(tree, lambda leaf, path: found.append((path, leaf)))
    assert found == list(zip(paths, leaves, strict=True))


def test_keys_that_are_spelled_alike_are_all_kept() -> None:
    names = {"1": 10, "1@1": 11, "1@1@1": 12, "?": 13, "?@1": 14, "None": 15}
    assert map_leaves(ALIKE, lambda leaf, _: leaf) == names
    assert dict(walk(ALIKE)) == {(name,): value for name, value in names.items()}


@pytest.mark.parametrize("path", [(2,), ("a",), (0, 0), (1, "b"), (1, 0), (1, "a", 0, 0)])
def test_where_nothing_is(path: Any) -> None:
    tree = ["text", {"a": [None]}]
    assert at(tree, path, "default") == "default"
    with pytest.raises(LookupError, match="nothing is at"):
        at(tree, path)
