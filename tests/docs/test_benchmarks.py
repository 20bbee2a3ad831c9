"""The benchmark of speed: what is counted, and where its table goes. Nothing is timed here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent.parent.parent / "benchmarks"))

import interventions
import long
import phases
import predictions
import run

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    ("marks", "script", "least"),
    [
        (run.MARKS, "run.py", 15),
        (long.MARKS, "long.py", 15),
        (predictions.MARKS, "predictions.py", 6),
        (interventions.MARKS, "interventions.py", 6),
    ],
)
def test_every_row_of_the_page_is_one_that_is_measured(marks: str, script: str, least: int) -> None:
    page = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    found = run.between(marks).search(page)
    assert found
    rows = re.findall(r"^\| (.+?) \| (.*?) \| (.*?) \| (.*?) \| (.*?) \|$", found[1], re.MULTILINE)
    assert len(rows) > least
    source = (ROOT / "benchmarks" / script).read_text(encoding="utf-8")
    for what, *_, reach in rows[1:]:  # after the heads of the columns
        fixed = reach.split(",")[0]  # after it may stand what that is in numbers
        assert fixed in source or fixed.startswith("<= one line"), what


def test_the_table_takes_the_place_of_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "ROOT", tmp_path)
    page = tmp_path / "docs" / "speed.md"
    page.parent.mkdir()
    page.write_text("before\n<!-- benchmarks -->old<!-- /benchmarks -->\nafter\n")
    rows = [("writing", "31 s", "0.5 s", run.times(31, 0.5), ">= 25 x")]
    run.write(rows)
    text = page.read_text()
    assert "| writing | 31 s | 0.5 s | 62 x | >= 25 x |" in text
    assert text.startswith("before\n<!-- benchmarks -->\n")
    assert text.endswith("<!-- /benchmarks -->\nafter\n")
    assert "old" not in text
    run.write(rows)  # and again
    assert page.read_text() == text
    page.write_text("no marks")
    with pytest.raises(SystemExit, match="Put the marks back"):
        run.write(rows)


def test_memory_is_the_childs_own() -> None:
    # In a small process, as the benchmark is: Linux counts a parent's memory at the fork.
    code = """
import run
print(run.child("-c", "pass")[1], run.child("-c", "bytearray(200_000_000)")[1])
run.child("-c", "raise SystemExit(3)")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "benchmarks", capture_output=True, text=True
    )
    small, large = map(float, done.stdout.split())
    assert 150 < large - small < 250
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        1,
        "error: -c raise SystemExit(3) failed.",
    )


def test_phases_in_processes_of_their_own(tmp_path: Path) -> None:
    """The browser's rows at the smallest size: pages of ours and bertviz's, and each drawn."""

    def phase(*argv: str) -> Any:
        script = ROOT / "benchmarks" / "phases.py"
        done = subprocess.run(
            [sys.executable, script, argv[0], tmp_path, *argv[1:]], capture_output=True, check=True
        )
        return json.loads(done.stdout)

    assert phase("pages", "1", "2", "8") == {}
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["bertviz.html", "head_8.html", "model_8.html"]
    assert all(phase("draw", name)["lines"] > 0 for name in ("bertviz", "head_8", "model_8"))


def test_ratios_are_of_runs_side_by_side() -> None:
    calls: list[str] = []
    phases.pairs(lambda: calls.append("a"), lambda: calls.append("b"), 3)
    assert calls == list("ab" * 4)
