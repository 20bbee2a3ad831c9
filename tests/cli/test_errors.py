"""Each row of the table of errors, error_rows.txt, and what needs a real process."""

from __future__ import annotations

import contextlib
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
from conftest import GOOD, HIDDEN, Run, document_with
from error_rows import ROWS, Row
from faults import snapshot
from safetensors.numpy import save_file

import agnostic_capture
import bertviz_head_model_view
from activations import ToolkitError, __version__
from activations.model.errors import loading_errors

ROOT = Path(__file__).parent.parent.parent
Checkpoints = Callable[[str], Path]
# What a row does not say itself.
DEFAULTS = {
    "capture": {"--model": "{llama}", "--prompt": "The cat", "--auto-select": "attn:0"},
    "view": {"--input": "good.json"},
}
INSTEAD = dict.fromkeys(
    ("--prompt-file", "--ids", "--diagnostic", "--image", "--audio"), "--prompt"
)
# design.md's list of what has a message of its own.
CATALOGUE = """\
model not found, no network, gated, a folder that is no checkpoint, tokenizer missing,
prompt empty, prompt longer than the model takes,
pattern unknown, pattern ambiguous, index out of range, nothing selected, Module not found,
No data captured, weights not available under this attention implementation, out of memory,
no room on the disk, output folder missing, output folder not writable,
file missing, not JSON, cut short, another format, no attention weights in the document,
Attention tensor does not have correct dimensions,
layer outside, head outside, token range outside, batch larger than one, page too large to open
"""


@pytest.fixture(scope="module")
def place(checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The files that rows speak of, in the current folder. No row changes any."""
    folder = tmp_path_factory.mktemp("place")
    with contextlib.chdir(folder):
        document_with("good.json", [HIDDEN, GOOD], [[1, 2, 4], [1, 2, 2, 2]])
        document_with("none.json", [HIDDEN, None], [[1, 2, 4], None])
        document_with("flat.json", [HIDDEN, GOOD[0]], [[1, 2, 4], [2, 2, 2]])
        oblong = np.ones((1, 2, 3, 2)).tolist()
        document_with("oblong.json", [HIDDEN, oblong], [[1, 2, 4], [1, 2, 3, 2]])
        document_with("batch.json", [HIDDEN, GOOD * 2], [[1, 2, 4], [2, 2, 2, 2]])
        long = {"module": "m.0.self_attn", "element": [1], "layer": 0, "kind": "cross"}
        document_with("long.json", [HIDDEN, [[[[0.5] * 3001]]]], attention_weights=[long])
        Path("cut.json").write_text(Path("good.json").read_text()[:-30])
        Path("text.json").write_text("hello")
        Path("other.json").write_text('{"hello": 1}')
        Path("latin.txt").write_bytes("é".encode("latin-1"))
        Path("half.txt").write_bytes(b"\xff\xfea")  # UTF-16 that ends within a character
        Path("nothing.txt").touch()
        save_file({"layers.0": np.zeros((4, 4))}, "small.safetensors")
        save_file({"layers.0.bias": np.zeros(4)}, "bias.safetensors")
        save_file({"lm_head.weight": np.zeros((4, 2))}, "head.safetensors")
        save_file({}, "none.safetensors")
        Path("m.gguf").write_bytes(b"GGUF")
        Path("page.html").write_text("<!DOCTYPE html>")
        Path("adapter").mkdir()
        Path("adapter/adapter_config.json").write_text('{"base_model_name_or_path": "/gone"}')
        Path("agnostic_activations.json").write_text("old")
        Path("empty").mkdir()
        no_tokenizer = shutil.ignore_patterns("tokenizer*", "special*")
        shutil.copytree(checkpoints("llama"), "bare", ignore=no_tokenizer)
        Path("loop").symlink_to("loop")
        Path("leads_nowhere").symlink_to("no/where.json")
        os.mkfifo("pipe")
        yield folder


def out_of_memory(*args: Any, **kwargs: Any) -> None:
    raise MemoryError


LLAMA = "transformers.models.llama.modeling_llama.LlamaForCausalLM"
# A row's circumstance -> what it puts in place of what.
UNDER: dict[str, tuple[str, Any]] = {
    "no memory in the forward pass": ("activations.forward.snapshots._copy", out_of_memory),
    "no memory while loading": (f"{LLAMA}.from_pretrained", out_of_memory),
    "no memory while writing": ("activations.document.writer._tensor_text", out_of_memory),
    "a full disk": ("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 1000)),
    # To root, as which tests may run, every folder is writable; see test_faults for real ones.
    "a folder that cannot be written": ("os.access", lambda path, mode: False),
    "little memory": ("activations.session.estimate.free_memory", lambda: 1000),
    "browsers that take little": ("activations.views.packing.LARGEST", 3),
    "heads that take much": ("activations.views.forecast._A_ROW", 10**9),
}


# --------------------------------------------------------------------------------------- the rows


def completed(argv: list[str]) -> list[str]:
    """The row's arguments after those it leaves to the defaults."""
    command, *given = argv
    named = {INSTEAD.get(item.partition("=")[0], item) for item in given}
    defaults = [item for pair in DEFAULTS[command].items() if pair[0] not in named for item in pair]
    return [*defaults, *given]


def of(*commands: str) -> list[Row]:
    return [row for row in ROWS if row.command.split()[0] in commands]


def named(row: Row) -> str:
    return f"{row.item}: {row.command}"[:70]


@pytest.mark.parametrize("row", of("capture", "view"), ids=named)
def test_rows(
    row: Row,
    place: Path,
    checkpoints: Checkpoints,
    capture: Run,
    view: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One line, the right code, nothing on stdout, and every file as it was."""

    def filled(text: str) -> str:
        return re.sub(r"\{(llama|bert|bart|opt|falcon)\}", lambda m: str(checkpoints(m[1])), text)

    argv = [filled(item) for item in completed(row.argv)]
    before = files(place)
    with monkeypatch.context() as patched:
        if row.under:
            patched.setattr(*UNDER[row.under])
        done = {"capture": capture, "view": view}[row.argv[0]](*argv, "--quiet")
    *warned, last = done.err
    if "{size}" in row.line:  # of a page, whose code grows
        last = re.sub(r"about [\d.]+ [kM]B", "about {size}", last)
    assert last == f"error: {filled(row.line)}"
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
    catalogue = set(CATALOGUE.strip().replace(",\n", ", ").split(", "))
    assert catalogue - {row.item for row in ROWS} == set()
    for command, module in (("capture", agnostic_capture), ("view", bertviz_head_model_view)):
        items = {row.item for row in of(command, "hub" if command == "capture" else command)}
        for action in module.build_parser()._actions:
            if action.nargs != 0:  # takes a value
                assert (*action.option_strings, action.metavar)[0] in items


# -------------------------------------------------------------------------- in real processes

# A view has its output unbuffered too; a capture, which is slow, only as it comes.
BOTH_WAYS = [
    pytest.param(row, unbuffered, id=f"{row.item}{unbuffered}")
    for row in ROWS
    for unbuffered in ("", "1")
    if "$view" in row.command or ("$capture" in row.command and not unbuffered)
]


@pytest.mark.parametrize(("row", "unbuffered"), BOTH_WAYS)
def test_lines_of_a_shell(row: Row, unbuffered: str, place: Path) -> None:
    before = files(place)
    commands = {
        "capture": f"{sys.executable} {ROOT}/agnostic_capture.py",
        "view": f"{sys.executable} {ROOT}/bertviz_head_model_view.py --input good.json",
    }
    done = subprocess.run(
        ["bash", "-c", row.command],
        env=os.environ | commands | {"PYTHONUNBUFFERED": unbuffered},
        capture_output=True,
        timeout=120,
    )
    out, err = (text.decode().removesuffix("\n") for text in (done.stdout, done.stderr))
    line = row.line.replace("{version}", __version__).replace("{clone}", str(ROOT))
    new = {row.leaving, str(Path(row.leaving).parent)} - {"", "."}
    try:
        assert done.returncode == row.code
        assert (out, err) == (("", f"error: {line}" if line else "") if row.code else (line, ""))
        assert set(files(place)) - set(before) == new
    finally:
        for name in new:
            shutil.rmtree(place / name, ignore_errors=True)
            (place / name).unlink(missing_ok=True)
    assert files(place) == before


HUB = {row.argv[1]: row for row in of("hub")}


class Hub(BaseHTTPRequestHandler):
    """Answers for every file of a model with its error."""

    def do_HEAD(self) -> None:
        _, _, status, code = HUB["/".join(self.path.split("/")[1:3])].argv
        self.send_response(int(status))
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
    assert done.stderr.splitlines() == [f"error: {row.line}" for row in HUB.values()]
    assert done.stdout.splitlines() == [str(row.code) for row in HUB.values()]


@pytest.mark.parametrize(
    ("raised", "part", "line"),
    [
        ("GatedRepoError", "configuration", "'o/m' is gated on the Hugging Face hub. Ask for"),
        ("RepositoryNotFoundError", "configuration", "model not found: 'o/m' is neither a local"),
        ("RevisionNotFoundError", "configuration", "'o/m' has no such revision"),
        ("OSError ConnectError", "configuration", "model not found: 'o/m' is not on"),
        ("OSError LocalEntryNotFoundError", "weights", "this machine does not have the"),
        ("ValueError", "configuration", "the configuration of 'o/m' cannot be loaded"),
        ("SafetensorError", "weights", "the weights of 'o/m' cannot be loaded: SafetensorError"),
        ("OSError", "tokenizer", "'o/m' has no tokenizer that can be loaded. Name one with"),
    ],
)
def test_what_loading_from_the_hub_raises(raised: str, part: str, line: str) -> None:
    """The first, caused by the second."""
    error: Exception | None = None
    for name in reversed(raised.split()):
        made = type(name, (Exception,), {})("an aggregated message that could not be resolved")
        made.__cause__ = error
        error = made
    with pytest.raises(ToolkitError) as caught, loading_errors("o/m", part):
        assert error is not None
        raise error
    assert str(caught.value).startswith(line)


def test_what_is_missing_is_blamed_on_attention_only_if_it_was_named() -> None:
    for implementation, line in {
        "eager": "the weights of 'o/m' cannot be loaded: ImportError: requires bitsandbytes",
        "flash_attention_2": "'o/m' does not run with attention 'flash_attention_2' (ImportError",
    }.items():
        with (
            pytest.raises(ToolkitError) as caught,
            loading_errors("o/m", "weights", implementation),
        ):
            raise ImportError("requires bitsandbytes.")
        assert str(caught.value).startswith(line)
