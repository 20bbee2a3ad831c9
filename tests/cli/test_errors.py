"""The catalogue of errors: each row of the table in `error_rows`, and what needs a real process."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run
from error_rows import CATALOGUE, HUB, LINES, ROWS, Line, Row
from faults import snapshot
from transformers.models.llama import modeling_llama

import agnostic_capture
import bertviz_head_model_view
from activations import ToolkitError, __version__
from activations.forward import hooks
from activations.model.errors import loading_errors
from activations.text import printable
from activations.views import page

ROOT = Path(__file__).parent.parent.parent
Checkpoints = Callable[[str], Path]
# What a row does not say itself.
DEFAULTS = {
    "capture": {"--model": "{llama}", "--prompt": "The cat", "--auto-select": "attn:0"},
    "view": {"--input": "good.json"},
}
INSTEAD = {"--prompt-file": "--prompt", "--image": "--prompt", "--audio": "--prompt"}
HIDDEN, GOOD = np.zeros((1, 2, 4)).tolist(), np.full((1, 2, 2, 2), 0.5).tolist()


def document(path: str, output: Any, shape: Any = None, **header: Any) -> None:
    data = {
        "model": "m",
        "selected_patterns": {"attention": ["m.{layer}.self_attn"]},
        "tokens": ["a", "b"],
        "captured": {"attention_outputs": {"m.0.self_attn": {"shape": shape, "output": output}}},
    }
    Path(path).write_text(json.dumps(data | header))


@pytest.fixture(scope="module")
def place(checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The files that rows speak of, in the current folder. No row changes any."""
    folder = tmp_path_factory.mktemp("place")
    with contextlib.chdir(folder):
        document("good.json", [HIDDEN, GOOD], [[1, 2, 4], [1, 2, 2, 2]])
        document("none.json", [HIDDEN, None], [[1, 2, 4], None])
        document("flat.json", [HIDDEN, GOOD[0]], [[1, 2, 4], [2, 2, 2]])
        oblong = np.ones((1, 2, 2, 3)).tolist()
        document("oblong.json", [HIDDEN, oblong], [[1, 2, 4], [1, 2, 2, 3]])
        document("batch.json", [HIDDEN, GOOD * 2], [[1, 2, 4], [2, 2, 2, 2]])
        long = {"module": "m.0.self_attn", "element": [1], "layer": 0, "kind": "cross"}
        document("long.json", [HIDDEN, [[[[0.5] * 3001]]]], attention_weights=[long])
        Path("cut.json").write_text(Path("good.json").read_text()[:-30])
        Path("text.json").write_text("hello")
        Path("other.json").write_text('{"hello": 1}')
        Path("latin.txt").write_bytes("é".encode("latin-1"))
        Path("nothing.txt").touch()
        Path("agnostic_activations.json").write_text("old")
        Path("empty").mkdir()
        no_tokenizer = shutil.ignore_patterns("tokenizer*", "special*")
        shutil.copytree(checkpoints("llama"), "bare", ignore=no_tokenizer)
        Path("loop").symlink_to("loop")
        Path("leads_nowhere").symlink_to("no/where.json")
        os.mkfifo("pipe")
        yield folder


# ------------------------------------------------------------------------------- circumstances

UNDER: dict[str, Callable[[pytest.MonkeyPatch], None]] = {}


def circumstance(name: str) -> Callable[[Any], Any]:
    def add(function: Any) -> Any:
        UNDER[name] = function
        return function

    return add


def out_of_memory(*args: Any, **kwargs: Any) -> None:
    raise MemoryError


@circumstance("no memory in the forward pass")
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "_copy", out_of_memory)


@circumstance("no memory while loading")
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modeling_llama.LlamaForCausalLM, "from_pretrained", out_of_memory)


@circumstance("no memory while writing")
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("activations.document.writer._tensor_text", out_of_memory)


@circumstance("a full disk")
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 1000))


@circumstance("a folder that cannot be written")
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    """To root, as which tests may run, every folder is writable; see test_faults for real ones."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)


@circumstance("browsers that take little")
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "_LARGEST_PAGE", 3)


# --------------------------------------------------------------------------------------- the rows


def completed(argv: list[str]) -> list[str]:
    """The row's arguments after those it leaves to the defaults."""
    command, *given = argv
    named = {INSTEAD.get(item.partition("=")[0], item) for item in given}
    defaults = [item for pair in DEFAULTS[command].items() if pair[0] not in named for item in pair]
    return [*defaults, *given]


def filled(text: str, checkpoints: Checkpoints) -> str:
    """With the folders of checkpoints in place of their families in braces."""
    for family in ("llama", "bert", "bart", "opt", "falcon"):
        if "{" + family + "}" in text:
            text = text.replace("{" + family + "}", str(checkpoints(family)))
    return text


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.item}: {' '.join(row.argv)}"[:70])
def test_rows(
    row: Row,
    place: Path,
    checkpoints: Checkpoints,
    capture: Run,
    view: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One line, the right code, nothing on stdout, and every file as it was."""
    argv = [filled(item, checkpoints) for item in completed(row.argv)]
    before = files(place)
    with monkeypatch.context() as patched:
        if row.under:
            UNDER[row.under](patched)
        done = {"capture": capture, "view": view}[row.argv[0]](*argv, "--quiet")
    *warned, last = done.err
    expected = printable(f"error: {filled(row.line, checkpoints)}")
    if "{size}" in expected:  # of a page, whose code grows
        last = re.sub(r"about [\d.]+ kB", "about {size}", last)
    assert last == expected
    assert all(line.startswith("warning: ") for line in warned)
    assert (done.code, done.out) == (row.code, [])
    assert files(place) == before


def files(place: Path) -> Any:
    return {name: held for name, held in snapshot(place).items() if not name.startswith("bare/")}


def test_values_that_are_very_long(place: Path, capture: Run, view: Run) -> None:
    """One line all the same, of which the middle is left out."""
    for run, argv in (
        (capture, ["--max-new-tokens", "9" * 5000]),
        (capture, ["--layers", "0," * 50_000]),
        (view, ["--figure", "x" * 100_000]),
        (view, ["--input", "x" * 100_000]),
        (view, ["x" * 100_000]),
    ):
        done = run(*argv)
        assert done.code in (1, 2)
        (line,) = done.err
        assert line.startswith("error: ")
        assert "unexpected" not in line
        assert len(line) < 2100


def test_the_table_is_complete() -> None:
    """Every item of the catalogue has a row, and every option of both commands a wrong value."""
    items = {(row.argv[0], row.item) for row in ROWS} | {("capture", HUB[name][0]) for name in HUB}
    assert set(CATALOGUE) - {item for _, item in items} == set()
    for command, module in (("capture", agnostic_capture), ("view", bertviz_head_model_view)):
        for action in module.build_parser()._actions:
            if action.nargs != 0:  # takes a value
                assert (command, action.option_strings[0]) in items


# -------------------------------------------------------------------------- in real processes


BOTH_WAYS = [
    (line, unbuffered)
    for line in LINES
    for unbuffered in ("", "1")
    if not unbuffered or "$capture" not in line.shell  # as the view, and slow
]


@pytest.mark.parametrize(
    ("line", "unbuffered"), BOTH_WAYS, ids=lambda value: getattr(value, "item", value)
)
def test_lines_of_a_shell(line: Line, unbuffered: str, place: Path) -> None:
    before = files(place)
    commands = {
        "capture": f"{sys.executable} {ROOT}/agnostic_capture.py",
        "view": f"{sys.executable} {ROOT}/bertviz_head_model_view.py",
    }
    where = "--input good.json"
    done = subprocess.run(
        ["bash", "-c", line.shell],
        env={
            **os.environ,
            **commands,
            "view": f"{commands['view']} {where}",
            "PYTHONUNBUFFERED": unbuffered,
        },
        capture_output=True,
        timeout=120,
    )
    out, err = (text.decode().removesuffix("\n") for text in (done.stdout, done.stderr))
    try:
        assert (done.returncode, err) == (line.code, line.err)
        assert out == line.out.replace("{version}", __version__)
        assert set(files(place)) - set(before) == set(line.new)
    finally:
        for name in sorted(line.new, reverse=True):
            path = place / name
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)
    assert files(place) == before


class Hub(BaseHTTPRequestHandler):
    """Answers for every file of a model with its error."""

    def do_HEAD(self) -> None:
        name = "/".join(self.path.split("/")[1:3])
        _, status, code, _ = HUB[name]
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD  # noqa: N815

    def log_message(self, *args: Any) -> None:
        """Nowhere."""


ASKS = """
import sys
import agnostic_capture
for name in sys.argv[1:]:
    argv = ["--model", name, "--prompt", "x", "--auto-select", "attn:0", "--quiet"]
    print(agnostic_capture.main(argv))
"""


def test_what_a_hub_says(tmp_path: Path) -> None:
    """One that stands here, asked by huggingface_hub itself in a process of its own."""
    environment = {
        **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path / "cache"),
        "PYTHONPATH": str(ROOT),
    }
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
        done = subprocess.run(
            [sys.executable, "-c", ASKS, *HUB],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        server.shutdown()
    assert done.stderr.splitlines() == [f"error: {line}" for *_, line in HUB.values()]
    assert done.stdout.splitlines() == ["1"] * len(HUB)


@pytest.mark.parametrize(
    ("raised", "part", "line"),
    [
        (["GatedRepoError"], "configuration", "'o/m' is gated on the Hugging Face hub. Ask for"),
        (["RepositoryNotFoundError"], "configuration", "model not found: 'o/m' is neither a local"),
        (["RevisionNotFoundError"], "configuration", "'o/m' has no such revision"),
        (
            ["OSError", "ConnectError"],
            "configuration",
            "model not found: 'o/m' is not on",
        ),
        (["OSError", "LocalEntryNotFoundError"], "weights", "this machine does not have the"),
        (
            ["ValueError"],
            "configuration",
            "the configuration of 'o/m' cannot be loaded",
        ),
        (["SafetensorError"], "weights", "the weights of 'o/m' cannot be loaded: SafetensorError"),
        (["OSError"], "tokenizer", "'o/m' has no tokenizer that can be loaded. Save one beside"),
    ],
)
def test_what_loading_from_the_hub_raises(raised: list[str], part: str, line: str) -> None:
    error: Exception | None = None
    for name in reversed(raised):
        made = type(name, (Exception,), {})("an aggregated message that could not be resolved")
        made.__cause__ = error
        error = made
    with pytest.raises(ToolkitError) as caught, loading_errors("o/m", part):
        assert error is not None
        raise error
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize(
    ("implementation", "line"),
    [
        ("eager", "the weights of 'o/m' cannot be loaded: ImportError: requires bitsandbytes"),
        ("flash_attention_2", "'o/m' does not run with attention 'flash_attention_2' (ImportError"),
    ],
)
def test_what_is_missing_is_blamed_on_attention_only_if_it_was_named(
    implementation: str, line: str
) -> None:
    with pytest.raises(ToolkitError) as caught, loading_errors("o/m", "weights", implementation):
        raise ImportError("requires bitsandbytes.")
    assert str(caught.value).startswith(line)
