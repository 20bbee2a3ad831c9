"""The two commands as the user calls them, for advice that can be copied."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

CAPTURE = "agnostic_capture.py"
VIEW = "bertviz_head_model_view.py"


def program(script: str) -> str:
    """The command's name: the script's, or `agnostic-capture` where the commands are installed."""
    return _installed_name(script) if _is_installed() else script


def command_line(script: str) -> str:
    """How a command line begins: `python agnostic_capture.py`, `agnostic-capture`.

    A script that was called by its path names that folder.
    """
    if _is_installed():
        return _installed_name(script)
    called = Path(sys.argv[0])
    path = called.parent / script if called.name in (CAPTURE, VIEW) else Path(script)
    return f"python {shlex.quote(str(path))}"


def as_called(text: str) -> str:
    """A text that names the scripts, with the commands as they are called."""
    for script in (CAPTURE, VIEW):
        text = text.replace(f"python {script}", command_line(script))
    return text


def _is_installed() -> bool:
    return Path(sys.argv[0]).stem in map(_installed_name, (CAPTURE, VIEW))  # .exe on Windows


def _installed_name(script: str) -> str:
    return Path(script).stem.replace("_", "-")
