"""What several test files share: tiny checkpoints, and the two commands run in this process."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # no test needs the internet; without this some would try

import pytest
import tiny
import tiny_media
import torch
import transformers

import agnostic_capture
import bertviz_head_model_view

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
