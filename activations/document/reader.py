"""Reading the JSON document, module by module; `activations.document.writer` writes it.

It is ordinary JSON with one module a line, so that both need little memory: the writer holds the
text of one tensor, the reader skips the lines it does not need. Numbers are the shortest decimal
text that reads back as the same float32 (float64, integers and booleans likewise); NaN and
infinities are null and counted under `non_finite`. Of attention weights captured with `keep_above`
only the large ones are there (see `activations.document.sparse_form`). With the format
"safetensors" the numbers are in another file (see `activations.document.tensor_file`).
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import simdjson

from activations.document.format import SECTIONS
from activations.document.header import checked_header
from activations.document.interventions import (
    Effect,
    HeadInput,
    Intervention,
    Sweep,
    read_effect,
    read_heads,
    read_interventions,
    read_sweep,
)
from activations.document.json_arrays import (
    guessed_shapes,
    node_at,
    reference,
    stands_for_tensor,
    to_array,
    to_sizes,
    to_sparse,
    to_tree,
)
from activations.document.json_file import (
    another_format,
    check_kind,
    cut_short,
    damaged,
    line_ends,
    map_file,
    members,
    parse_json,
    parse_line,
    plain,
    release,
)
from activations.document.predictions import Lens, Predictions, read_lens, read_predictions
from activations.document.sparse_form import ARRAYS
from activations.document.tensor_file import TensorFile, input_name
from activations.errors import ToolkitError, nearest, quoted_list
from activations.outputs.sparse import Sparse
from activations.outputs.tree import Element, at, walk

_START = b'{\n"format": "agnostic-activations/'
_OUTPUT = b', "output": '
_PARSING = 6  # bytes of memory for one of JSON, as measured
_KEY = re.compile(rb'("(?:[^"\\]|\\.)*"): \{')


@dataclass(frozen=True)
class _Line:
    """A module's category, and where its line starts, its value starts and its value ends."""

    category: str
    start: int
    entry: int
    end: int


class Document:
    """A capture on disk.

    `header` is everything but the captured outputs (`model`, `prompt`, `tokens`, ...), `names` the
    modules in order. `doc["model.layers.0.self_attn"]` is what that module returned, numpy arrays
    nested in lists and dicts; `doc.tensor(name, 1)` one array of it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lines: dict[str, _Line] = {}
        self._parsed: dict[str, Any] | None = None  # {module: entry} where the file is parsed whole
        self._bytes = map_file(self.path)
        self._parser = simdjson.Parser()
        try:
            header = self._read_lines() or self._parse_whole()
            self.header: dict[str, Any] = checked_header(header, self.path)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file. Also done when the object is deleted."""
        if isinstance(self._bytes, mmap.mmap):
            self._bytes.close()

    def __enter__(self) -> Document:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Document {str(self.path)!r}: {self.model}, {len(self.names)} modules>"

    @property
    def model(self) -> str:
        """The model's name as given to the capture."""
        return str(self.header.get("model", "model"))

    @property
    def prompt(self) -> str:
        return str(self.header.get("prompt", ""))

    @property
    def names(self) -> list[str]:
        """The captured modules (`name`, `name@1` for a second call, ...), in order."""
        return list(self._lines)

    def names_of(self, category: str) -> list[str]:
        """The captured modules of one category ("attention", "mlp", "other")."""
        return [name for name, line in self._lines.items() if line.category == category]

    def shape(self, name: str) -> Any:
        """The shapes of a module's output, nested as it was; a tensor's is a list of sizes."""
        return self._description(name).get("shape")

    def dtype(self, name: str) -> Any:
        """The dtypes the tensors had in the model, nested as the output."""
        return self._description(name).get("dtype")

    def __getitem__(self, name: str) -> Any:
        """A module's output: numpy arrays nested in lists and dicts, None where it was None.

        float32 arrays for every floating dtype but float64; null in a tensor comes back as NaN.
        """
        entry = self._entry(name)
        if "output" not in entry:
            raise damaged(self.path, name, "it has no 'output'")
        shape, dtype = plain(entry.get("shape")), plain(entry.get("dtype"))
        try:
            return to_tree(entry["output"], shape, dtype, partial(self._fetch, name))
        except ValueError as error:
            raise damaged(self.path, name, f"{error}") from None

    def tensor(self, name: str, *element: int | str) -> np.ndarray:
        """One tensor of a module's output: `doc.tensor("model.layers.0.self_attn", 1)`.

        Only this tensor is turned into numbers. Raises `ToolkitError` when there is no such module
        or the element is not a tensor.
        """
        node, shape, dtype = self._node(name, element)
        try:
            return to_array(node, shape, dtype, partial(self._fetch, name), element)
        except ValueError as error:
            raise damaged(self.path, name, f"{error}") from None

    def sparse(self, name: str, *element: int | str) -> Sparse | None:
        """What was kept of a tensor of attention weights captured with `keep_above`.

        None where the whole tensor is there. Raises `ToolkitError` as `tensor` does.
        """
        node, _, dtype = self._node(name, element)
        try:
            return to_sparse(node, dtype, partial(self._fetch, name), element)
        except ValueError as error:
            raise damaged(self.path, name, f"{error}") from None

    def input(self, name: str) -> Any:
        """What a module was given, where that was captured (`with_inputs`), as `doc[name]` has what
        it returned: of one argument that itself, else a dict by the arguments' names.

        Raises `ToolkitError` where it was not.
        """
        entry = self._entry(name)
        if "input" not in entry:
            raise ToolkitError(
                f"the document does not have what {name} was given. Capture it with --with-inputs."
            )
        shape, dtype = plain(entry.get("input_shape")), plain(entry.get("input_dtype"))
        try:
            return to_tree(entry["input"], shape, dtype, partial(self._fetch, input_name(name)))
        except ValueError as error:
            raise damaged(self.path, name, f"{error}") from None

    def heads(self, layer: int, kind: str | None = None) -> np.ndarray:
        """What each head of a layer returned, before the output projection: (heads, tokens, width).

        That is what this projection was given: capture it with `with_inputs`. `kind` names the
        attention ("cross") where there are several. Raises `ToolkitError` where the document does
        not have it, or where the place of the heads could not be proven.
        """
        there = [one for one in self._heads if kind in (None, one.kind)]
        found = [one for one in there if one.layer == layer]
        if len(found) != 1:
            has = ", ".join(f"{one.kind}:{one.layer}" for one in there) or "none"
            raise ToolkitError(
                f"the outputs of heads of layer {layer} are not in the document, or of several "
                f"kinds. There is: {has}. Capture the output projection with --with-inputs."
            )
        given = self.input(found[0].module)
        while isinstance(given, (list, dict)) and given:
            given = next(iter(given.values())) if isinstance(given, dict) else given[0]
        try:
            return found[0].split(np.asarray(given))
        except ValueError as error:
            raise damaged(self.path, found[0].module, f"{error}") from None

    def text_size(self, name: str) -> int:
        """How many bytes of the document a module takes at most: no more numbers than that."""
        line = self._lines[name]
        return len(self._bytes) if self._parsed is not None else line.end - line.entry

    def cost(self, name: str, element: Element) -> tuple[int, int]:
        """How many bytes of the document a tensor takes, and of memory while it is read; 0 where it
        has been read.

        Out of JSON a module is parsed at once, out of a file of tensors read as it is needed.
        """
        if self._parsed is not None:
            return 0, 0
        tensors = self._tensors
        size = 0 if tensors is None else tensors.size(name, element, ARRAYS)
        text = 0 if size else self.text_size(name)
        return size + text, size + text * _PARSING

    def matrices(
        self, name: str, element: Element, axes: tuple[int, ...] | None = None
    ) -> Sparse | Callable[[int], np.ndarray]:
        """What was kept of a 4-D tensor, as `sparse` gives it; else what reads the matrices of its
        first batch, one at a time, by their place.

        Out of a file of tensors only that matrix is read; out of JSON all of them at once, now.
        `axes` turn the tensor into (batch, heads, rows, columns).
        """
        node, shape, dtype = self._node(name, element)
        key, tensors, fetch = reference(node), self._tensors, partial(self._fetch, name)
        try:
            sparse = to_sparse(node, dtype, fetch, element)
            if sparse is not None:
                return sparse
            if (
                key is not None
                and axes is None
                and tensors is not None
                and tensors.shape(key, name, element) == to_sizes(shape)
            ):
                return lambda place: tensors.numbers(key, name, element, (0, place))
            whole = to_array(node, shape, dtype, fetch, element)
        except ValueError as error:
            raise damaged(self.path, name, f"{error}") from None
        first: np.ndarray = (whole if axes is None else whole.transpose(axes))[0]
        return lambda place: np.ascontiguousarray(first[place])

    def _node(self, name: str, element: Element) -> tuple[Any, Any, Any]:
        """The parsed JSON of a tensor, and what the document says of its shape and dtype."""
        entry = self._entry(name)
        shape = at(plain(entry.get("shape")), element, None)
        dtype = at(plain(entry.get("dtype")), element, None)
        try:
            node = node_at(entry["output"], element)
            # A single value that is not finite is null, but has a dtype.
            found = stands_for_tensor(node) or (node is None and isinstance(dtype, str))
        except (LookupError, TypeError, ValueError, OverflowError):
            node, found = None, False
        if entry.get("dtype") is not None and not isinstance(dtype, str):
            node, found = None, False  # a list of tensors, or a part of a tensor
        if not found and not isinstance(node, (simdjson.Array, list, int, float)):
            raise ToolkitError(self._not_a_tensor(name, element))
        return node, shape, dtype

    def _not_a_tensor(self, name: str, element: Element) -> str:
        what = f"element {'/'.join(map(str, element))}" if element else "the whole output"
        there = list(self.element_shapes(name))
        if there == [()]:
            how = "The whole output is one: name no element."
        elif there:
            steps = ", ".join(map(repr, there[-1]))
            names = ", ".join("/".join(map(str, path)) for path in there[:6])
            how = f"Its tensors are at {names}: name one, as in tensor({name!r}, {steps})."
        else:
            how = "It holds no tensors."
        return f"{name}: {what} is not a tensor. {how}"

    def _fetch(self, name: str, key: str, element: Element) -> np.ndarray:
        """A module's tensor from the file of tensors."""
        if self._tensors is None:
            raise ValueError("it refers to a file of tensors, and the document has none")
        return self._tensors.numbers(key, name, element)

    @cached_property
    def _tensors(self) -> TensorFile | None:
        id = self.header.get("tensors")
        return None if id is None else TensorFile(self.path, id)

    # ------------------------------------------------------------------------------ finding modules

    def _read_lines(self) -> dict[str, Any] | None:
        """Find every module's line without parsing it; parse the header.

        None where the lines are different (pretty-printed or damaged): then the whole file is
        parsed, which shows what is wrong.
        """
        if self._bytes[: len(_START)] != _START:
            return None
        try:
            return self._index_lines()
        except orjson.JSONDecodeError:  # a key or the first lines
            return None

    def _index_lines(self) -> dict[str, Any] | None:
        data, at_line, header_end, category = self._bytes, 0, -1, ""
        if not data[-4096:].rstrip().endswith(b"}\n}\n}"):
            raise cut_short(self.path)
        sections = {orjson.dumps(section): name for name, section in SECTIONS.items()}
        for end in line_ends(data):
            head = data[at_line : min(end, at_line + 10_000)]
            if header_end < 0:
                if head == b'"captured": {':
                    header_end = at_line
            elif key := _KEY.match(head):
                after = head[key.end() :].rstrip()
                if key[1] in sections and after in (b"", b"}", b"},"):
                    category = "" if after else sections[key[1]]
                elif not category or key[1] in sections:
                    return None
                else:
                    line = self._line(category, at_line, key, end)
                    if line is None:
                        return None
                    self._lines[orjson.loads(key[1])] = line
            elif head.rstrip() in (b"}", b"},"):
                category = ""
            elif head.rstrip():
                return None
            at_line = end + 1
        if header_end < 0:
            raise cut_short(self.path)
        header: dict[str, Any] = orjson.loads(data[:header_end].rstrip().rstrip(b",") + b"}")
        return header

    def _line(self, category: str, start: int, key: re.Match[bytes], end: int) -> _Line | None:
        last = self._bytes[max(start, end - 8) : end]
        stop = end - len(last) + len(last.rstrip(b" \t\r").removesuffix(b","))
        if self._bytes[stop - 1 : stop] != b"}":
            return None
        return _Line(category, start, start + key.end() - 1, stop)

    def _parse_whole(self) -> dict[str, Any]:
        """Parse a document of another layout whole; arrays become numbers only when asked for."""
        self._lines.clear()
        check_kind(self.path, self._bytes)
        header = members(parse_json(self.path, self._bytes)) or {}
        captured = members(header.pop("captured", None))
        if captured is None:
            raise another_format(self.path, header)
        self._parsed = {}
        for category, section in SECTIONS.items():
            outputs = members(captured.get(section, {}))
            if outputs is None:
                raise another_format(self.path, header)
            self._parsed |= outputs
            self._lines |= dict.fromkeys(outputs, _Line(category, 0, 0, 0))
        return {key: plain(value) for key, value in header.items()}

    def _entry(self, name: str) -> dict[str, Any]:
        """What the document says about a module; nested values are simdjson's."""
        line = self._lines.get(name)
        if line is None:
            close = nearest(name, self._lines)
            hint = f" Did you mean {quoted_list(close)}?" if close else ""
            raise ToolkitError(f"Module not found: the document has no module '{name}'.{hint}")
        if self._parsed is not None:
            entry = members(self._parsed[name])
        else:
            text = self._text(line.entry, line.end)
            entry = members(parse_line(self._parser, text, self.path, name))
        if entry is None:
            raise damaged(self.path, name, "it is not an object")
        return entry

    def _check_file(self) -> None:
        """Refuse a file that is closed, or that another program cut: reading past its end would
        kill the process.
        """
        if isinstance(self._bytes, mmap.mmap) and self._bytes.closed:
            raise ToolkitError(f"'{self.path}' is closed. Load it again.")
        if isinstance(self._bytes, mmap.mmap) and self._bytes.size() != len(self._bytes):
            raise ToolkitError(f"'{self.path}' was changed after it was opened. Load it again.")

    def _text(self, start: int, end: int) -> bytes:
        """A part of the file. The memory of the mapped part is released."""
        self._check_file()
        text: bytes = self._bytes[start:end]
        release(self._bytes, start, end)
        return text

    def _description(self, name: str) -> dict[str, Any]:
        """The shape and dtype of a module, read from the start of its line if possible."""
        line = self._lines.get(name)
        if line is not None and self._parsed is None:
            self._check_file()
            head_end = self._bytes.find(_OUTPUT, line.start, min(line.end, line.start + 100_000))
            head = self._bytes[line.start : max(head_end, line.start)]
            try:
                return dict(orjson.loads(b"{" + head + b"}}")[name])
            except (orjson.JSONDecodeError, KeyError, TypeError):
                pass  # a key of the output is called "output": parse the whole line
        entry = self._entry(name)
        return {key: plain(entry[key]) for key in ("shape", "dtype") if key in entry}

    def element_shapes(self, name: str) -> dict[Element, tuple[int, ...]]:
        """The shapes of a module's output tensors by element; guessed where none are given."""
        shape, dtype = self.shape(name), self.dtype(name)
        if dtype is not None and shape is not None:
            paths = (path for path, leaf in walk(dtype) if isinstance(leaf, str))
            return {path: to_sizes(at(shape, path, None)) or () for path in paths}
        return guessed_shapes(self._entry(name).get("output"))

    @cached_property
    def predictions(self) -> Predictions | None:
        """What the model predicts at every position; None where that was not captured.

        `doc.predictions.tokens[i]` are the K likeliest after token i, in an array of texts of the
        shape (positions, K), `.probabilities[i]` how likely. `.surprise` is in bits.
        """
        return read_predictions(self.header)

    @cached_property
    def lens(self) -> Lens | None:
        """What each layer would predict; None where no lens was captured.

        `doc.lens.tokens[k, i]` are the K likeliest of layer k at position `doc.lens.positions[i]`,
        in an array of texts of the shape (layers, positions, K).
        """
        return read_lens(self.header)

    @cached_property
    def interventions(self) -> tuple[Intervention, ...]:
        """What was changed in the pass; empty where nothing was."""
        return read_interventions(self.header)

    @cached_property
    def effect(self) -> Effect | None:
        """What the interventions did to the prediction; None where that was not measured.

        `doc.effect.kl` is in nats, `.before.tokens` and `.after.tokens` are the likeliest.
        """
        return read_effect(self.header)

    @cached_property
    def sweep(self) -> Sweep | None:
        """What each head, or feed-forward block, does to the prediction; None without a sweep.

        `doc.sweep.kl[i, j]` is the divergence without head j of the layer `doc.sweep.layers[i]`.
        """
        return read_sweep(self.header)

    @cached_property
    def _heads(self) -> tuple[HeadInput, ...]:
        return read_heads(self.header)

    @property
    def attention_weights(self) -> list[dict[str, Any]] | None:
        """Where the attention weights are, as the capture noted; None in other documents."""
        return self.header.get("attention_weights")
