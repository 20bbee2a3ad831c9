"""The three questions answered in a real terminal (a pseudo-terminal driven by pexpect)."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest

from activations import load

ROOT = Path(__file__).parent.parent
TAB, CONTROL_C, CONTROL_D = "\t", "\x03", "\x04"
# pexpect does not answer when it is asked where the cursor stands.
QUIET = {"TERM": "xterm", "HF_HUB_OFFLINE": "1", "PROMPT_TOOLKIT_NO_CPR": "1"}
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def start(checkpoints: Callable[[str], Path], tmp_path: Path) -> Callable[..., pexpect.spawn]:
    def spawn(**environment: str) -> pexpect.spawn:
        argv = [str(ROOT / "agnostic_capture.py"), "--model", str(checkpoints("llama"))]
        return pexpect.spawn(
            sys.executable,
            [*argv, "--prompt", "The cat sat"],
            cwd=tmp_path,
            env={**os.environ, **QUIET, **environment},
            encoding="utf-8",
            dimensions=(50, 120),
            timeout=30,
        )

    return spawn


def answer(child: pexpect.spawn, question: str, *keys: str) -> None:
    """Wait until the question stands there ready for keys (its last escape code), then type."""
    child.expect(f"{question} to capture")
    for part in keys:
        child.expect(r"\x1b\[\?25h")  # the cursor is shown again
        child.send(part)


def test_questions_with_completion_and_a_second_try(
    start: Callable[..., pexpect.spawn], tmp_path: Path
) -> None:
    child = start()
    child.expect("Attention to capture")
    table = ESCAPES.sub("", child.before)
    assert "0  *  model.layers.{layer}.self_attn" in re.sub(r" +\* +", "  *  ", table)
    child.expect(r"\x1b\[\?25h")
    child.send("nonsense\r")
    child.expect("Module not found: no attention pattern is called 'nonsense'")
    answer(child, "Attention", "q_pr" + TAB)
    child.expect("oj")  # completed at once: q_proj is the only one that begins so
    child.send(",0\r")
    answer(child, "MLP", "?\r")
    child.expect("An answer is a comma-separated list")
    answer(child, "MLP", "down_proj\r")
    answer(child, "Other", "\r")
    child.expect("agnostic_activations.json")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    parts = {name.rpartition(".")[2] for name in load(tmp_path / "agnostic_activations.json").names}
    assert parts == {"self_attn", "q_proj", "down_proj"}


@pytest.mark.parametrize(("key", "code"), [(CONTROL_C, 130), (CONTROL_D, 2)])
def test_leaving_at_a_question(
    start: Callable[..., pexpect.spawn], tmp_path: Path, key: str, code: int
) -> None:
    child = start()
    child.expect("Attention to capture")
    child.send(key)
    child.expect("interrupted" if code == 130 else "--auto-select")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == code
    assert os.listdir(tmp_path) == []


def test_a_dumb_terminal_gets_plain_text(
    start: Callable[..., pexpect.spawn], tmp_path: Path
) -> None:
    child = start(TERM="dumb")
    child.expect("Attention to capture")
    assert "\x1b" not in child.before
    for _ in range(3):
        child.send("0\r")
    child.expect("agnostic_activations.json")
    child.expect(pexpect.EOF)
    assert "\x1b" not in child.before
    child.close()
    assert child.exitstatus == 0


def test_no_color(start: Callable[..., pexpect.spawn]) -> None:
    child = start(NO_COLOR="1")
    child.expect("Attention to capture")
    assert not re.search(r"\x1b\[(3|4|9)\d", child.before)
    child.close(force=True)
