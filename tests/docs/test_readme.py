"""The README tells the truth: every command runs, every option is there, every message is real."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_media
from conftest import Run, document_with

import agnostic_capture
import bertviz_head_model_view

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
Checkpoints = Callable[[str], Path]

# Folders of these names stand in for the models of the hub.
STAND_INS = {
    "Qwen/Qwen2.5-0.5B": "qwen2",
    "google-t5/t5-small": "t5",
    "google-bert/bert-base-uncased": "bert",
    "google/vit-base-patch16-224": "vit",
    "openai/clip-vit-base-patch32": "clip",
    "openai/whisper-tiny": "whisper",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def console_commands() -> list[str]:
    lines = [line for block in blocks("console") for line in block.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def flags_of(parser: object) -> set[str]:
    return set(re.findall(r"--[a-z][a-z-]+", parser.format_help()))  # type: ignore[attr-defined]


def test_every_option_is_documented_and_every_documented_option_exists() -> None:
    exist = flags_of(agnostic_capture.build_parser()) | flags_of(
        bertviz_head_model_view.build_parser()
    )
    documented = set(re.findall(r"`(--[a-z][a-z-]+)", README))
    assert exist - documented == set()
    assert documented - exist == set()


def test_every_command_runs(
    checkpoints: Checkpoints,
    workplace: Path,
    capture: Run,
    view: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the README's order, in a folder with the toolkit, stand-in models, an image and audio."""
    for name in ("agnostic_capture.py", "bertviz_head_model_view.py", "activations", "demo_model"):
        (workplace / name).symlink_to(ROOT / name)
    for name, family in STAND_INS.items():
        shutil.copytree(checkpoints(family), workplace / name)
    (workplace / "bertviz").mkdir()
    tiny_media.image(workplace / "cat.png")
    tiny_media.audio(workplace / "speech.wav")
    mains = {"agnostic_capture.py": capture, "bertviz_head_model_view.py": view}
    commands = console_commands()
    assert len(commands) > 12
    for command in commands:
        words = shlex.split(command)
        if words[0] == "python" and words[1] in mains and ">" not in words:
            # The interactive one is answered as the README shows.
            monkeypatch.setattr("sys.stdin", io.StringIO("0\n\n\n"))
            done = mains[words[1]](*words[2:])
            assert done.code == 0, (command, done.err)
        else:  # pipes and redirections are the shell's
            line = command.replace("python ", f"{sys.executable} ")
            subprocess.run(["bash", "-c", line], check=True, capture_output=True, timeout=120)
        if command == "python bertviz_head_model_view.py":
            shown = re.findall(r"^bertviz/.*html$", README, re.MULTILINE)
            assert done.out == shown


def test_the_python_examples_run(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    for code in blocks("python"):  # each goes on where the one before it ended
        exec(compile(code, "README.md", "exec"), names)
    assert "model.layers.1.self_attn" in capsys.readouterr().out
    assert Path("fox.html").stat().st_size > 100_000


def test_every_message_is_the_one_the_program_prints(
    checkpoints: Checkpoints, workplace: Path, capture: Run, view: Run
) -> None:
    hidden, weights = np.zeros((1, 6, 8)).tolist(), np.zeros((4, 6, 6)).tolist()
    document_with(
        Path("flat.json"), [hidden, weights], [[1, 6, 8], [4, 6, 6]], "model.layers.0.self_attn"
    )
    shutil.copytree(checkpoints("llama"), "remote")
    config = json.loads(Path("remote/config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "code.Config"}}
    Path("remote/config.json").write_text(json.dumps(config))
    Path("remote/code.py").write_text("")
    llama = ["--model", checkpoints("llama"), "--prompt", "The cat", "--auto-select"]
    falcon = ["--model", checkpoints("falcon"), "--prompt", "The cat", "--auto-select"]
    opt = ["--model", checkpoints("opt"), "--prompt", "The cat", "--auto-select"]
    assert capture(*llama, "mlp:0").code == 0
    printed = [
        view("--input", "flat.json"),
        capture(*llama, "attn:self_atn"),
        capture(*opt, "other:0"),
        view(),
        capture(*falcon, "attn:0", "--attn-implementation", "sdpa"),
        capture("--model", "./remote", "--prompt", "The cat", "--auto-select", "attn:0"),
    ]
    shown = re.findall(r"^error: .*$", README, re.MULTILINE)
    assert shown == [outcome.err[-1] for outcome in printed]
    for words in ("Attention tensor does not have correct dimensions", "Module not found"):
        assert f"**`{words}`**" in README
    assert "**`No data captured`**" in README


def test_make_demo(tmp_path: Path) -> None:
    """The first command of the README, in a copy of the tree, with this environment."""
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, files.split("\0")):
        if (ROOT / name).exists():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    environment = Path(sys.prefix)
    # The set-up itself is what `make test` has just done.
    done = subprocess.run(
        ["make", "demo", f"VENV={environment}", "-o", f"{environment}/.installed"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pages = [line for line in done.stdout.splitlines() if line.endswith(".html")]
    assert len(pages) == 2
    assert all((tmp_path / page).stat().st_size > 100_000 for page in pages)
    assert "make demo\n" in blocks("sh")[0]


def test_pictures_are_there() -> None:
    pictures = re.findall(r'src="([^"]+)"', README)
    assert len(pictures) == 2
    for picture in pictures:
        assert (ROOT / picture).read_bytes().startswith(b"\x89PNG")
