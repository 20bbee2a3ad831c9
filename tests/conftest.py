"""What test files share: tiny checkpoints and documents, the two commands run in this process."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # no test needs the internet; without this some would try

import numpy as np
import pytest
import tiny
import tiny_media
import torch
import transformers
from browser import Open, Tab, launch
from playwright.sync_api import Browser, sync_playwright

import agnostic_capture
import bertviz_head_model_view

for size in ("COLUMNS", "LINES"):  # pytest-xdist's; a terminal says itself how large it is
    os.environ.pop(size, None)
torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit code, lines on stdout and stderr."""

    code: int
    out: list[str]
    err: list[str]


Run = Callable[..., Outcome]


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Tiny checkpoint folders by family, each made when first asked for."""
    root = tmp_path_factory.mktemp("checkpoints")

    def folder(family: str) -> Path:
        path = root / family
        if not path.exists():
            room = tiny_media if family in tiny_media.FAMILIES else tiny
            room.checkpoint(path, family)
        return path

    return folder


HIDDEN, GOOD = np.zeros((1, 2, 4)).tolist(), np.full((1, 2, 2, 2), 0.5).tolist()


def document_with(
    path: str | Path, output: Any, shape: Any = None, name: str = "m.0.self_attn", **header: Any
) -> None:
    """A document of one module, as another program may have written it; `header` changes keys."""
    data = {
        "model": "m",
        "selected_patterns": {"attention": ["m.{layer}.self_attn"]},
        "tokens": ["a", "b"],
        "captured": {"attention_outputs": {name: {"shape": shape, "output": output}}},
    }
    Path(path).write_text(json.dumps(data | header))


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, so that default paths land there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _runner(main: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*argv: object) -> Outcome:
        capsys.readouterr()
        code = main([str(item) for item in argv])
        captured = capsys.readouterr()
        return Outcome(code, captured.out.splitlines(), captured.err.splitlines())

    return run


@pytest.fixture
def capture(capsys: pytest.CaptureFixture[str]) -> Run:
    """agnostic_capture.py, run in this process."""
    return _runner(agnostic_capture.main, capsys)


@pytest.fixture
def view(capsys: pytest.CaptureFixture[str]) -> Run:
    """bertviz_head_model_view.py, run in this process."""
    return _runner(bertviz_head_model_view.main, capsys)


# ------------------------------------------------------------------------------------ in a browser


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    # One browser for all. Not longer than this module: while playwright runs, its event loop does,
    # and other tests may want one of their own.
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def free_tabs() -> list[Tab]:
    """Tabs are used again: to open one takes four times as long as to load a page."""
    return []


@pytest.fixture
def open_page(chromium: Browser, free_tabs: list[Tab]) -> Iterator[Open]:
    """Opens a file and waits for the drawing. At the end: no message, no error, no request.

    A head view shows all heads, a model view opens none, unless the address says otherwise: `#` is
    the page's own choice.
    """
    used: list[tuple[Tab, bool]] = []

    def open_(path: Path, address: str = "", quiet: bool = True, **options: Any) -> Tab:
        tab = free_tabs.pop() if free_tabs else Tab(chromium)
        used.append((tab, quiet))
        if (
            re.match("attention_(head|model)_view", path.name)
            and "head=" not in address
            and address != "#"
        ):
            address += f"{'&' if address else '#'}head=all"
        beside = [file.as_uri() for file in path.parent.glob("*.html")]
        tab.open(path.as_uri() + address, beside, **options)
        if quiet:
            tab.drawn()
        return tab

    yield open_
    for tab, quiet in used:
        complaints, requests = tab.leave()
        free_tabs.append(tab)
        assert requests == []
        assert not quiet or complaints == []
