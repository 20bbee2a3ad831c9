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
    done = called(*argv, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def called(*argv: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, argv)),
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


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

    # Both name themselves and each other as they are called.
    done = called(*capture[:-1], PYTHONPATH=where)
    assert "\nNext: bertviz-head-model-view\n" in done.stderr
    for command in ("agnostic-capture", "bertviz-head-model-view"):
        lines = run(commands / command, "--help", PYTHONPATH=where)
        assert lines[0].startswith(f"usage: {command} [")
        assert f"  {command}" in lines  # the first example
        assert ".py" not in "".join(lines)
        assert run(commands / command, "--version", PYTHONPATH=where)[0].startswith(f"{command} ")
    done = called(commands / "bertviz-head-model-view", "--input", "x.json", PYTHONPATH=where)
    assert done.stderr.endswith("Capture first: agnostic-capture --output x.json\n")
    assert ".py" not in done.stderr


@pytest.mark.parametrize(
    ("folder", "advised"),
    [(".", "python {}"), ("../clone", "python ../clone/{}"), ("../a b", "python '../a b/{}'")],
)
def test_a_script_called_by_its_path_names_that_path(
    folder: str, advised: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace / "here").mkdir()
    monkeypatch.chdir(workplace / "here")
    Path(folder).mkdir(exist_ok=True)
    script = Path(folder, "bertviz_head_model_view.py")
    script.symlink_to(ROOT / script.name)  # Python looks for the package next to what is linked
    capture, view = map(advised.format, ("agnostic_capture.py", "bertviz_head_model_view.py"))
    done = called(sys.executable, script, "--input", "x.json")
    assert done.stderr.endswith(f"Capture first: {capture} --output x.json\n")
    shown = run(sys.executable, script, "--help")
    assert shown[0].startswith("usage: bertviz_head_model_view.py [")
    assert f"  {view} --summary" in shown
