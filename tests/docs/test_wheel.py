"""A wheel of the toolkit, and both commands run from it, outside the clone."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def run(*argv: object, **environment: str) -> list[str]:
    done = subprocess.run(
        list(map(str, argv)),
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_both_commands_run_from_a_wheel(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = run("git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard")
    for name in files:  # a copy: building leaves folders behind
        if (ROOT / name).is_file() and not name.startswith(("tests/", "docs/", "benchmarks/")):
            (workplace / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
            (workplace / "clone" / name).write_bytes((ROOT / name).read_bytes())
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    run(
        *pip,
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--wheel-dir",
        ".",
        "./clone",
    )
    (wheel,) = workplace.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    own = {name for name in names if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in own} == {
        *("activations", "agnostic_capture.py", "bertviz_head_model_view.py")
    }
    sources = {name for name in files if name.startswith("activations/")}
    assert sources <= own
    run(*pip, "install", "--no-deps", "--no-index", "--target", "installed", wheel)
    (workplace / "elsewhere").mkdir()
    monkeypatch.chdir(workplace / "elsewhere")
    commands, where = workplace / "installed" / "bin", str(workplace / "installed")
    capture = (commands / "agnostic-capture", "--auto-select", "attn:0", "--quiet")
    assert run(*capture, PYTHONPATH=where) == ["agnostic_activations.json"]
    pages = run(commands / "bertviz-head-model-view", PYTHONPATH=where)
    assert [Path(page).name for page in pages] == [
        "attention_head_view_demo_model.html",
        "attention_model_view_demo_model.html",
    ]
    assert all(Path(page).stat().st_size > 100_000 for page in pages)
