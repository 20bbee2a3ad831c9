"""A document's file -> pieces of parsed JSON, the numbers still unread; and what can be wrong."""

from __future__ import annotations

import json
import mmap
import os
import shlex
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import simdjson

from activations.errors import ToolkitError
from activations.program import CAPTURE, command_line, program
from activations.system.kinds import BEGINNING, kind_of_bytes

_PIECE = 8_000_000  # bytes of a file that are searched at once
_MAX_KEPT = 16_000_000  # bytes of text; simdjson holds up to fourteen times as much
_MAX_LAZY_KEYS = 3000  # more modules than any capture has


def map_file(path: Path) -> Any:
    try:
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():  # opening a pipe would wait
            raise ToolkitError(f"'{path}' is not an ordinary file. Name the document's file.")
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise cut_short(path, "it is empty")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise ToolkitError(
            f"there is no file '{path}'. Capture first: {command_line(CAPTURE)} --output "
            f"{shlex.quote(str(path))}"
        ) from None
    except IsADirectoryError:
        raise ToolkitError(f"'{path}' is a folder. Name the document's file.") from None
    except (OSError, ValueError) as error:  # a NUL in the name
        why = getattr(error, "strerror", None) or error
        raise ToolkitError(f"'{path}' cannot be read: {why}. Check the path.") from error


def release(data: Any, start: int, end: int) -> None:
    """Free the memory of a part of a mapped file, which is read again if it is needed again."""
    if isinstance(data, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        first = start - start % mmap.PAGESIZE
        data.madvise(mmap.MADV_DONTNEED, first, end - first)


def line_ends(data: Any) -> Iterator[int]:
    """Where each line of a mapped file ends; the last one ends where the file does.

    Searched piece by piece as bytes: mmap's own search is ten times slower.
    """
    size = len(data)
    for start in range(0, size, _PIECE):
        piece = data[start : start + _PIECE]
        at = piece.find(b"\n")
        while at >= 0:
            yield start + at
            at = piece.find(b"\n", at + 1)
        release(data, start, min(start + _PIECE, size))
    if data[size - 1 : size] != b"\n":
        yield size


def parse_json(path: Path, data: Any) -> Any:
    try:
        return simdjson.Parser().parse(data[:])
    except (ValueError, RuntimeError):
        pass  # Python's own parser accepts more (NaN, long integers) and explains errors better
    try:
        return json.loads(data[:])
    except RecursionError:
        raise ToolkitError(f"'{path}' is nested too deeply to be a captured document.") from None
    except UnicodeDecodeError:
        raise ToolkitError(f"'{path}' is not JSON: it is not text in UTF-8.") from None
    except json.JSONDecodeError as error:
        # A cut string is reported at its start, a cut escape a few characters before the end.
        at_end = error.msg.startswith("Unterminated") or error.pos >= len(error.doc.rstrip()) - 6
        if at_end and error.doc.lstrip()[:1] in ("{", "["):
            raise cut_short(path) from None
        raise ToolkitError(
            f"'{path}' is not JSON: {error.msg} in line {error.lineno}, column {error.colno}. "
            f"Name a document that {program(CAPTURE)} wrote."
        ) from None
    except ValueError as error:  # an integer of thousands of digits
        raise ToolkitError(f"'{path}' is not a captured document: {error}.") from None


def parse_line(kept: simdjson.Parser, text: bytes, path: Path, name: str) -> Any:
    """The JSON of one module. Raises `ToolkitError` that names the module where it is damaged.

    `kept` is used again for every line, so that its memory is allocated once.
    """
    try:
        if len(text) <= _MAX_KEPT:
            return kept.parse(text)
    except (ValueError, RuntimeError):
        pass  # damaged, or a piece of the line before is still in use
    try:
        return simdjson.Parser().parse(text)
    except (ValueError, RuntimeError) as error:
        raise damaged(path, name, f"{error}") from None


def plain(node: Any) -> Any:
    """A simdjson node as plain Python objects."""
    if isinstance(node, simdjson.Array):
        return node.as_list()
    if isinstance(node, simdjson.Object):
        return node.as_dict()
    return node


def members(node: Any) -> dict[str, Any] | None:
    """The items of a JSON object, their values still unread; None for anything else."""
    if not isinstance(node, simdjson.Object):
        return node if isinstance(node, dict) else None
    keys = list(node)
    # simdjson searches for each key from the start, and takes a NUL for the end of a key.
    if len(keys) > _MAX_LAZY_KEYS or any("\0" in key for key in keys):
        found: dict[str, Any] = node.as_dict()
        return found
    return {key: node[key] for key in keys}


def cut_short(path: Path, why: str = "it ends in the middle") -> ToolkitError:
    return ToolkitError(f"'{path}' is cut short: {why}. Capture again.")


def damaged(path: Path, name: str, why: str) -> ToolkitError:
    return ToolkitError(f"'{path}' is damaged at '{name}': {why}. Capture again.")


# What else is JSON and lies about where people look for documents, by a key that it has.
_OTHER_JSON = {
    "model_type": "a model's configuration",
    "architectures": "a model's configuration",
    "peft_type": "an adapter's configuration",
    "weight_map": "an index of a model's weights",
    "added_tokens": "a tokenizer",
    "tokenizer_class": "a tokenizer's settings",
    "log_history": "the record of a training",
    "nbformat": "a notebook",
}


def another_format(path: Path, keys: Collection[str]) -> ToolkitError:
    """The error for JSON with these keys that is no document."""
    for key, what in _OTHER_JSON.items():
        if key in keys:
            return ToolkitError(f"'{path}' is {what}, not a captured document. {_advice(path)}")
    return ToolkitError(
        f"'{path}' is JSON but not a captured document: it has no 'captured' with "
        "'attention_outputs', 'mlp_outputs' or 'other_outputs'. Name a document that "
        f"{program(CAPTURE)} wrote."
    )


def check_kind(path: Path, data: Any) -> None:
    """Raise `ToolkitError` where a file begins as others do, such as a zip archive."""
    kind = kind_of_bytes(data[:BEGINNING])
    if kind is None:
        return
    if kind == "a safetensors file" and path.with_suffix(".json").is_file():
        advice = f"Name the document that it belongs to, '{path.with_suffix('.json')}'."
    elif kind in ("a zip archive", "a tar archive", "a compressed file"):
        advice = "Unpack it, and name the document in it."
    elif kind == "an HTML page":
        advice = "Name the document that the page was made from."
    elif kind == "a text in UTF-16":
        advice = "Save it as UTF-8."
    else:
        advice = _advice(path)
    raise ToolkitError(f"'{path}' is {kind}, not a captured document. {advice}")


def _advice(path: Path) -> str:
    """Beside a model's configuration, how to capture from it."""
    if (path.parent / "config.json").is_file():
        return f"Capture first: {command_line(CAPTURE)} --model {shlex.quote(str(path.parent))}"
    return f"Name a document that {program(CAPTURE)} wrote."
