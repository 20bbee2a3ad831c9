"""What must hold of any bytes that are sent as a document.

Whatever a stranger sends, the library answers with a value or a `ToolkitError`, and the command
with pages or with one line; nothing else is left behind, and nothing outside the folder is touched.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from odd_documents import Sent
from packed import head, inflated

import bertviz_head_model_view
from activations import load
from activations.document.format import SECTIONS
from activations.document.reader import Document
from activations.errors import ToolkitError
from activations.model.vocabulary import tokens_of
from activations.outputs.tree import walk
from activations.views.content import read_content

_MANY = 12  # modules and elements that are asked for one by one


def judge(sent: Sent, folder: Path, command: bool = True) -> str:
    """Put it into an empty folder and ask everything there is to ask. Returns what was said of it.

    `command` runs the command too, which takes a hundred times as long.
    """
    path = folder / "x.json"
    path.write_bytes(sent.document)
    beside = folder / "x.safetensors"
    if sent.beside is not None:
        beside.write_bytes(sent.beside)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what numpy says would stand among our own lines
            said = ask(path, sent.document, pages=command)
            if command:
                said = run_command(path)
    finally:
        path.unlink()
        beside.unlink(missing_ok=True)
    return said


# -------------------------------------------------------------------------------------- in Python


def ask(path: Path, data: bytes, pages: bool) -> str:
    """Everything of a document that can be asked from Python."""
    try:
        document = load(path)
    except ToolkitError as error:
        return _line(error)
    with document:
        assert isinstance(repr(document), str)
        assert sorted(n for c in SECTIONS for n in document.names_of(c)) == sorted(document.names)
        _same_as_json(document, data)
        for name in document.names[:_MANY]:
            _ask_module(document, name)
        if pages:
            assert "<" in document._repr_html_()
            _answer(lambda: document.view("model").page)
        try:
            read_content(document, tokens_of)
        except ToolkitError as error:
            return _line(error)
    return "shown"


def _ask_module(document: Document, name: str) -> None:
    _answer(lambda: document.shape(name))
    _answer(lambda: document.dtype(name))
    sizes = _answer(lambda: document.element_shapes(name)) or {}
    whole = _answer(lambda: document[name])
    elements = [element for element, _ in walk(whole)][:_MANY] if whole is not None else []
    for element in dict.fromkeys([*elements, *list(sizes)[:_MANY], (), (0,), (1,), ("x",), (0, 9)]):
        values = _answer(lambda element=element: document.tensor(name, *element))
        assert values is None or (isinstance(values, np.ndarray) and values.dtype.kind in "fiub")


def _answer(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except ToolkitError as error:
        _line(error)
        return None


def _line(error: ToolkitError) -> str:
    line = str(error)
    assert line.endswith((".", ")", '"', "?")) or "python agnostic_capture.py" in line, line
    return line


def _same_as_json(document: Document, data: bytes) -> None:
    """Where Python's own parser takes the bytes, both ways of reading must agree with it."""
    with contextlib.suppress(ValueError, RecursionError):
        tree = json.loads(data, object_pairs_hook=_once, parse_constant=_not_json)
        sections = [tree["captured"].get(section, {}) for section in SECTIONS.values()]
        names = dict.fromkeys(name for outputs in sections for name in outputs)
        assert document.names == list(names), (document.names, names)
        known = {key for key, value in tree.items() if value is not None}
        assert set(document.header) == known - {"captured"}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key stands there twice: parsers differ")
    return dict(pairs)


def _not_json(word: str) -> None:
    raise ValueError(f"{word} is not JSON: parsers differ")


# ------------------------------------------------------------------------------------ the command


def run_command(path: Path) -> str:
    """bertviz_head_model_view.py in this process: its pages, then its table and a figure."""
    said = _run_once(path, 2, [])
    _run_once(path, 1, ["--summary", "table", "--figure", "0.0"])
    return said


def _run_once(path: Path, files: int, options: list[str]) -> str:
    """Files and their paths, or one line and nothing else."""
    folder, made = path.parent, path.parent / "pages"
    before = _seen(folder.parent)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = bertviz_head_model_view.main(
            ["--input", str(path), "--output-dir", str(made), *options]
        )
    lines = err.getvalue().splitlines()
    written = sorted(made.iterdir()) if made.exists() else []
    try:
        _check_lines(code, lines)
        if code:
            assert not made.exists()
            assert out.getvalue() == ""
        else:
            assert sorted(out.getvalue().splitlines()[-len(written) :]) == list(map(str, written))
            assert len(written) >= files
            for file in written:
                if file.suffix == ".html":
                    check_page(file.read_bytes())
                else:
                    ElementTree.fromstring(file.read_text("utf-8"))
    finally:
        for file in written:
            file.unlink()
        if made.exists():
            made.rmdir()
    assert _seen(folder.parent) == before
    return lines[-1] if code else "shown"


def _check_lines(code: int, lines: list[str]) -> None:
    assert code in (0, 1, 2)
    *others, last = lines or [""]
    assert all(line.startswith("warning: ") for line in others), lines
    assert all(len(line) < 5000 for line in lines), "a line nobody can read"
    if code:
        assert last.startswith("error: "), lines
        assert not last.startswith(("error: unexpected", "error: out of memory")), lines
    else:
        assert last.startswith("warning: ") or not last


def _seen(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder, with its size and when it was changed."""
    return {
        str(file): (file.stat().st_size, file.stat().st_mtime_ns)
        for file in folder.rglob("*")
        if file.is_file()
    }


class _Elements(HTMLParser):
    """Every element that is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.scripts: dict[str, str] = {}
        self._id: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)
        self._id = dict(attrs).get("id") if tag == "script" else None

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self._id = None

    def handle_data(self, data: str) -> None:
        if self._id is not None:
            self.scripts[self._id] = self.scripts.get(self._id, "") + data


def check_page(page: bytes) -> None:
    """Well-formed, with as many weights as its data speaks of."""
    text = page.decode("utf-8")
    # The page's own scripts are the same in every page: only what differs is looked at.
    text = re.sub(r"(<script>).*?(</script>)", r"\1\2", text, flags=re.DOTALL)
    parser = _Elements()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    data = json.loads(parser.scripts["page-data"], parse_constant=_not_json)
    for entry in data["stacks"]:
        rows, columns = entry["cells"]
        layers, heads = len(entry["layers"]), len(entry["heads"])
        shades = inflated(parser.scripts[f"overview-{entry['id']}"])
        assert len(shades) == layers * heads * rows * columns
        for layer, number in itertools.product(range(layers), range(heads)):
            head(entry, parser.scripts[f"head-{entry['id']}-{layer}-{number}"])


@contextlib.contextmanager
def working_folder(parent: Path | None = None) -> Iterator[Path]:
    """An empty folder in one that holds something that must not be touched; in memory if it can."""
    import tempfile

    root = "/dev/shm" if parent is None and os.access("/dev/shm", os.W_OK) else parent
    with tempfile.TemporaryDirectory(dir=root) as name:
        inside = Path(name, "inside")
        inside.mkdir()
        Path(name, "x.safetensors").write_bytes(b"not yours")
        Path(name, "x").write_bytes(b"not yours")
        yield inside
