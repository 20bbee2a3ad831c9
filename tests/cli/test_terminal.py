"""The three questions answered in a real terminal (a pseudo-terminal driven by pexpect)."""

from __future__ import annotations

import io
import os
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest
import tiny
from rich.console import Console

from activations import load
from activations.cli import questions
from activations.forward.probe import observe
from activations.selection.catalog import CATEGORIES, build_catalog

ROOT = Path(__file__).parent.parent.parent
TAB, CONTROL_C, CONTROL_D, CONTROL_U, UP = "\t", "\x03", "\x04", "\x15", "\x1b[A"
# pexpect does not answer when it is asked where the cursor stands.
QUIET = {"TERM": "xterm", "HF_HUB_OFFLINE": "1", "PROMPT_TOOLKIT_NO_CPR": "1"}
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def start(checkpoints: Callable[[str], Path], tmp_path: Path) -> Callable[..., pexpect.spawn]:
    command = [str(ROOT / "agnostic_capture.py")]

    def spawn(
        *more: str, width: int = 120, command: list[str] = command, **environment: str
    ) -> pexpect.spawn:
        argv = [*command, "--model", str(checkpoints("llama")), "--prompt", "The cat sat", *more]
        return pexpect.spawn(
            sys.executable,
            argv,
            cwd=tmp_path,
            env={**os.environ, **QUIET, **environment},
            encoding="utf-8",
            dimensions=(50, width),
            timeout=120,
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
    child.expect("Usual answer: 0.")
    answer(child, "MLP", "?\r")
    child.expect("An answer is a comma-separated list")
    answer(child, "MLP", "<\r")
    child.expect(r"Attention \(5 patterns")
    answer(child, "Attention", "q_proj,0\r")
    answer(child, "MLP", "down_proj\r")
    answer(child, "Other", "\r")
    child.expect('The same without questions: --auto-select "attn:q_proj,0;mlp:down_proj;other:"')
    child.expect("Capturing 9 modules of .*: about ")
    child.expect("agnostic_activations.json")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    parts = {name.rpartition(".")[2] for name in load(tmp_path / "agnostic_activations.json").names}
    assert parts == {"self_attn", "q_proj", "down_proj"}


def test_completions_say_what_they_mean(start: Callable[..., pexpect.spawn]) -> None:
    child = start()
    answer(child, "Attention", "0,", TAB)
    child.expect("weights +.*what holds the attention weights")  # after a comma too
    child.expect(r"3 +.*model.layers.\{layer\}.self_attn.v_proj")
    child.send(CONTROL_U + "v" + TAB)
    child.expect("v_proj")
    child.send("\r")
    answer(child, "MLP", UP)
    child.expect("v_proj")  # earlier answers come back
    child.send(CONTROL_C)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130


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


COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:[349]\d|10\d)(?:;\d+)*m")


@pytest.mark.parametrize("coloured", [False, True])
def test_no_color(start: Callable[..., pexpect.spawn], coloured: bool) -> None:
    """Neither rich's tables and wheel nor prompt_toolkit's menu have any, to the last line."""
    child = start(**({} if coloured else {"NO_COLOR": "1"}))
    seen = io.StringIO()
    child.logfile_read = seen
    answer(child, "Attention", TAB, TAB, CONTROL_U + "0\r")
    answer(child, "MLP", "\r")
    answer(child, "Other", "\r")
    child.expect("agnostic_activations.json")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert bool(COLOUR.search(seen.getvalue())) == coloured


def test_progress_on_a_terminal(start: Callable[..., pexpect.spawn]) -> None:
    child = start("--auto-select", "attn:0")
    for line in (
        "Importing torch and transformers",
        "Trying the model without its weights",
        "Capturing 3 modules",
        "Loading weights: 100%",
        "Running 3/3 model.layers.2.self_attn",
        "Writing 3/3 model.layers.2.self_attn",
    ):
        child.expect(line)
    child.expect(pexpect.EOF)
    assert_a_cursor(child.before)


@pytest.mark.parametrize("how", ["--quiet", "dumb"])
def test_no_progress_for_nobody(start: Callable[..., pexpect.spawn], how: str) -> None:
    argv = ["--auto-select", "attn:0"]
    child = start(*argv, how) if how == "--quiet" else start(*argv, TERM=how)
    child.expect(pexpect.EOF)
    lines = child.before.splitlines()
    assert lines[-1] == "agnostic_activations.json"
    assert len(lines) == (1 if how == "--quiet" else 4)
    assert "\x1b" not in child.before


@pytest.mark.parametrize("phase", ["Importing", "Trying", "Loading", "Running", "Writing"])
def test_leaving_while_it_works(
    start: Callable[..., pexpect.spawn], tmp_path: Path, phase: str
) -> None:
    slowly = str(ROOT / "tests" / "helpers" / "slowly.py")
    command = [str(ROOT / "agnostic_capture.py")]
    child = start(
        "--auto-select", "attn:0", command=command if phase == "Importing" else [slowly, phase]
    )
    child.expect("Loading weights: 100%" if phase == "Loading" else phase)
    child.send(CONTROL_C)
    child.expect(pexpect.EOF)
    child.close()
    shown = ESCAPES.sub("", child.before)
    assert child.exitstatus == 130, shown
    assert shown.endswith("error: interrupted.\r\n")
    assert "Traceback" not in shown
    assert_a_cursor(child.before)
    assert os.listdir(tmp_path) == []


def assert_a_cursor(text: str) -> None:
    """Whatever was hidden is shown again in the end."""
    assert text.rfind("\x1b[?25h") >= text.rfind("\x1b[?25l")


@pytest.mark.parametrize("width", [24, 80])
def test_a_narrow_terminal_folds_names_and_never_indices(
    start: Callable[..., pexpect.spawn], width: int
) -> None:
    child = start("--list", width=width)
    child.expect(pexpect.EOF)
    rows = ESCAPES.sub("", child.before).splitlines()
    assert max(map(len, rows)) <= width
    indices = [int(row[:3]) for row in rows if row[:3].strip().isdecimal()]
    assert indices == [*range(5), *range(5), *range(8)]
    names = "".join(row[6 : 6 + 44].split("  ")[0].strip() for row in rows if row[:1] == " ")
    assert "model.layers.{layer}.post_attention_layernorm" in names.replace(" ", "")


@pytest.mark.parametrize("family", ["llama", "longcat_flash", "t5"])
def test_nothing_of_a_table_is_cut_off(family: str) -> None:
    """What is folded is all there, at any width; only whole columns are left out."""
    catalog = build_catalog(observe(tiny.model(family)))
    for category in CATEGORIES:
        patterns = catalog.of(category)
        for width in (20, 24, 31, 32, 40, 55, 56, 60, 71, 72, 80, 99, 120, 200):
            table = questions._table(category, patterns, width)
            table.title, table.show_header = None, False
            text = io.StringIO()
            Console(file=text, width=width).print(table)
            cells = [cell for column in table.columns for cell in column.cells]
            assert Counter("".join(map(str, cells)).replace(" ", "")) == Counter(
                re.sub(r"\s", "", text.getvalue())
            ), (category, width)
            assert len(table.columns) == 3 + (width >= 32) + (width >= 56)
            assert max(map(len, text.getvalue().splitlines())) <= width
