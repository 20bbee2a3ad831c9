"""Writing the JSON document, module by module; `activations.document.reader` describes it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

import numpy as np
import orjson

from activations.document.destination import check_output, obsolete_tensors
from activations.document.format import SECTIONS, Numbers, document_bytes, path_beside
from activations.document.sparse_form import sparse_form, tensors_of
from activations.document.tensor_file import identify, input_name, key_of, write_tensors
from activations.errors import ToolkitError
from activations.outputs.sparse import Sparse
from activations.outputs.tensor import Tensor
from activations.outputs.tree import Element, map_leaves, walk
from activations.system.atomic import replacing_together

_CHUNK = 200_000  # numbers turned into text at once: a few megabytes
Captured = Mapping[str, MutableMapping[str, Any]]  # category -> module name -> output tree
NonFinite = dict[str, dict[str, dict[str, int]]]  # module -> element -> what -> how many


def write_document(
    path: str | os.PathLike[str],
    header: Mapping[str, Any],
    captured: Captured,
    progress: Callable[[str], None] | None = None,
    format: str = "json",
    release: bool = False,
    given: Mapping[str, Any] | None = None,
) -> None:
    """Write the document to `path`, replacing it in one step.

    `captured` maps a category to {module name: output}, an output being `Tensor`s and `Sparse`s
    nested in lists and dicts. `given` maps a module's name to what it was given, in the
    same form. `progress` is called with each module's name before it is written.
    `format` is "json", or "safetensors" for the numbers in a file of their own next to the
    document. With `release`, each module's output is removed from `captured` once it is written as
    text.
    """
    check_output(path, format)
    if format == "safetensors":
        _write_with_tensors(path, header, captured, given or {}, progress)
        return
    size = estimated_size(captured, given=given)
    text = _Text(header, captured, given or {}, lambda _, tree: _json_pieces(tree))
    with replacing_together({path: size}, obsolete_tensors(path)) as (file,):
        text.write(file, progress, release)


def _write_with_tensors(
    path: str | os.PathLike[str],
    header: Mapping[str, Any],
    captured: Captured,
    given: Mapping[str, Any],
    progress: Callable[[str], None] | None,
) -> None:
    outputs = {name: tree for of_one in captured.values() for name, tree in of_one.items()}
    trees = [*outputs.items(), *((input_name(name), tree) for name, tree in given.items())]
    named = [
        (key_of(name, element), leaf) for name, tree in trees for element, leaf in tensors_of(tree)
    ]
    tensors = dict(named)
    if len(tensors) < len(named):
        raise ToolkitError("two tensors have the same name. Use --format json for this model.")
    size = estimated_size(captured, "safetensors", given)
    id = identify(tensors, header)

    def references(name: str, tree: Any) -> Iterator[bytes]:
        def reference(leaf: Any, element: Element) -> Any:
            if isinstance(leaf, Sparse):
                return sparse_form(leaf, lambda field, _: reference(Tensor, (*element, field)))
            named = isinstance(leaf, Tensor) or leaf is Tensor
            return {"tensor": key_of(name, element)} if named else leaf

        yield _dumps(map_leaves(tree, reference))

    # The document takes its place last: until then the old one is there, and notices.
    with replacing_together({path_beside(path): size, path: 0}) as (tensors_file, file):
        write_tensors(tensors_file, tensors, id)
        _Text({**header, "tensors": id}, captured, given, references).write(file, progress)


@dataclass(frozen=True)
class _Text:
    """The document's text; `pieces(module, output)` is the text of what it returned, or was given
    (by its `input_name`).
    """

    header: Mapping[str, Any]
    captured: Captured
    given: Mapping[str, Any]
    pieces: Callable[[str, Any], Iterator[bytes]]

    def write(
        self, file: BinaryIO, progress: Callable[[str], None] | None, release: bool = False
    ) -> None:
        file.write(b"{\n")
        for key, value in self.header.items():
            file.write(_dumps(key) + b": " + _dumps(value) + b",\n")
        file.write(b'"captured": {\n')
        for i, (category, section) in enumerate(SECTIONS.items()):
            outputs = self.captured.get(category, {})
            names = list(outputs)
            file.write(_dumps(section) + b": {")
            for j, name in enumerate(names):
                tree = outputs.pop(name) if release else outputs[name]
                if progress is not None:
                    progress(name)
                file.write((b",\n" if j else b"\n") + _dumps(name) + b": {")
                self._write_tree(file, "", name, tree)
                if name in self.given:
                    file.write(b", ")
                    self._write_tree(file, "input", input_name(name), self.given[name])
                file.write(b"}")
            file.write(b"\n}" if names else b"}")
            file.write(b",\n" if i < len(SECTIONS) - 1 else b"\n")
        file.write(b"}\n}\n")

    def _write_tree(self, file: BinaryIO, side: str, name: str, tree: Any) -> None:
        """Its shapes, its dtypes, and itself: of an input under keys of its own."""
        for field in ("shape", "dtype"):
            key = f"{side}_{field}" if side else field
            file.write(_dumps(key) + b": " + _dumps(_described(tree, field)) + b", ")
        file.write(_dumps(side or "output") + b": ")
        for piece in self.pieces(name, tree):
            file.write(piece)


def _described(tree: Any, field: str) -> Any:
    """The shapes or dtypes of an output's tensors, nested as it is."""

    def described(leaf: Any, _: Element) -> Any:
        if isinstance(leaf, Sparse):
            return leaf.tensor_shape if field == "shape" else leaf.dtype
        return getattr(leaf, field) if isinstance(leaf, Tensor) else None

    return map_leaves(tree, described)


def _json_pieces(tree: Any) -> Iterator[bytes]:
    """The JSON text of an output, one tensor's text at a time."""
    if isinstance(tree, Tensor):
        yield from _tensor_pieces(tree)
    elif isinstance(tree, Sparse):
        yield from _json_pieces(sparse_form(tree, lambda _, tensor: tensor))
    elif isinstance(tree, (list, dict)):
        pairs = tree.items() if isinstance(tree, dict) else ((None, item) for item in tree)
        yield b"{" if isinstance(tree, dict) else b"["
        for i, (key, value) in enumerate(pairs):
            prefix = b"," if i else b""
            yield prefix if key is None else prefix + _dumps(key) + b":"
            yield from _json_pieces(value)
        yield b"}" if isinstance(tree, dict) else b"]"
    else:
        yield _dumps(tree)


def _tensor_pieces(tensor: Tensor) -> Iterator[bytes]:
    """The JSON text of a tensor; of a large one part by part, to save memory."""
    if tensor.data.size <= _CHUNK or tensor.data.ndim < 2:
        yield _tensor_text(tensor)
        return
    for i, part in enumerate(tensor.data):
        yield b"," if i else b"["
        yield from _tensor_pieces(Tensor(tensor.dtype, part.shape, part))
    yield b"]"


def _tensor_text(tensor: Tensor) -> bytes:
    numbers = np.ascontiguousarray(tensor.numbers())  # of at least one dimension
    return _dumps(numbers[0] if tensor.shape == () and numbers.size == 1 else numbers)


def _dumps(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


def estimated_size(
    captured: Captured, format: str = "json", given: Mapping[str, Any] | None = None
) -> int:
    """About how many bytes the document will take, with its file of tensors."""
    trees = [tree for outputs in captured.values() for tree in outputs.values()]
    trees += (given or {}).values()
    return document_bytes(
        ([_numbers(tensor) for _, tensor in tensors_of(tree)] for tree in trees), format
    )


def _numbers(tensor: Tensor) -> Numbers:
    """Zeros take a third of the text of other numbers, and half of a causal attention is zeros."""
    count = prod(tensor.shape)
    if tensor.dtype not in ("float32", "float64", "float16", "bfloat16"):
        return Numbers(count, tensor.dtype)
    bits = tensor.data.view(f"u{tensor.data.itemsize}")  # ten times as fast to compare
    return Numbers(count, tensor.dtype, count - int(np.count_nonzero(bits)))


def count_non_finite(captured: Captured) -> NonFinite:
    """{module: {element: {"NaN": n, "Infinity": n, "-Infinity": n}}} where there are any.

    An element is the path to it, joined by slashes: "1", "0/2", "" for a plain tensor.
    """
    found: dict[str, dict[str, dict[str, int]]] = {}
    for outputs in captured.values():
        for name, tree in outputs.items():
            for path, leaf in walk(tree):
                counts = _non_finite(leaf)
                if counts:
                    found.setdefault(name, {})["/".join(map(str, path))] = counts
    return found


def _non_finite(leaf: Any) -> dict[str, int] | None:
    if isinstance(leaf, Sparse):  # such rows are NaN as a whole
        rows = int(np.isnan(leaf.rest).sum())
        return {"NaN": rows * leaf.shape[3], "Infinity": 0, "-Infinity": 0} if rows else None
    values = leaf.numbers() if isinstance(leaf, Tensor) else np.asarray(leaf)
    if values.dtype.kind not in "fc" or bool(np.isfinite(values).all()):
        return None
    return {
        "NaN": int(np.isnan(values).sum()),
        "Infinity": int(np.isposinf(values).sum()),
        "-Infinity": int(np.isneginf(values).sum()),
    }
