"""Load: many modules, long texts, many captures. Times are printed (pytest -s), never asserted."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import memory
import numpy as np
import pytest
import tiny
import torch
import transformers
from browser import Layer, write_capture
from conftest import Run
from torch import nn

from activations import UsageError, capture, load
from activations.document.writer import write_document
from activations.outputs.tensor import Tensor

HELPERS = Path(__file__).parent.parent / "helpers"
MANY = 4_000


@contextmanager
def timed(what: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    print(f"{what}: {time.perf_counter() - start:.2f} s")


@contextmanager
def memory_below(most: int) -> Iterator[None]:
    """At no time more bytes than before."""
    before = memory.held()
    memory.forget_peak()
    yield
    assert memory.peak() - before < most


# ----------------------------------------------------------------------------------- many modules


@pytest.mark.parametrize("format", ["json", "safetensors"])
def test_a_document_of_thousands_of_modules(workplace: Path, view: Run, format: str) -> None:
    weights = np.full((1, 4, 4), 0.25, np.float32)
    with memory_below(120_000_000):  # the document takes 2 MB
        many_modules(weights, view, format)


def many_modules(weights: np.ndarray, view: Run, format: str) -> None:
    with timed(f"write {format}"):
        write_capture(Path("d.json"), [Layer(i, weights) for i in range(MANY)])
    if format == "safetensors":
        plain = load("d.json")
        outputs = {
            name: [Tensor("float32", a.shape, a) for a in plain[name]] for name in plain.names
        }
        with timed("write again"):
            write_document("d.json", plain.header, {"attention": outputs}, format="safetensors")
    with timed("load"):
        document = load("d.json")
    assert len(document.names) == MANY
    with timed("one tensor"):
        assert (document.tensor(document.names[-1], 1) == 0.25).all()
    with timed("in a notebook"):
        assert document._repr_html_()
    with timed("both pages"):
        done = view("--input", "d.json")
    assert done.code == 0
    assert f"layers 0-{MANY - 1}, 1 head, 4 tokens" in Path(done.out[0]).read_text()


class Small(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


class ManySmall(transformers.PreTrainedModel):
    """A model of ten thousand layers that do next to nothing."""

    config_class = transformers.PreTrainedConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.embed = nn.Embedding(400, 2)
        self.layers = nn.ModuleList([Small() for _ in range(MANY)])
        self.post_init()

    def forward(self, input_ids: torch.Tensor) -> tuple[torch.Tensor]:
        x = self.embed(input_ids)
        for layer in self.layers:
            x = layer(x)
        return (x,)


def test_a_model_of_thousands_of_modules(workplace: Path) -> None:
    model = ManySmall(transformers.PreTrainedConfig()).eval()
    words = tiny.tokenizer()
    with memory_below(120_000_000), timed("capture"):
        document = capture(model, "The cat", tokenizer=words, select="other:all", output="d.json")
    assert document.names == ["embed", *(f"layers.{i}" for i in range(MANY))]
    first, last = (document.tensor(f"layers.{i}") for i in (0, MANY - 1))
    np.testing.assert_allclose(last, first + MANY - 1, rtol=1e-3)
    assert hooks(model) == 0


# ---------------------------------------------------------------------------------------- long text

# In a process of its own: the peak of this one may be higher already. FNet mixes its tokens by a
# Fourier transform: no model with attention reads so many in a test's time.
LONG = """
import json, sys, time
sys.path[:0] = sys.argv[1:3]
import memory, tiny, torch
from activations import capture

torch.set_num_threads(1)
tokens = int(sys.argv[3])
model = tiny.model("fnet", max_position_embeddings=tokens, num_hidden_layers=1)
words = tiny.tokenizer()
capture(model, "The cat", tokenizer=words, select="mlp:0", output="d.json")
with torch.no_grad():  # what the pass itself takes is not ours; no logits, nor does the capture
    model.fnet(words("a" * tokens, return_tensors="pt")["input_ids"])
before, start = memory.peak(), time.perf_counter()
document = capture(model, "a" * tokens, tokenizer=words, select="mlp:0", output="d.json")
print(json.dumps({
    "shape": document.shape(document.names[0]),
    "tokens": len(document.header["tokens"]),
    "above": memory.peak() - before,
    "seconds": time.perf_counter() - start,
}))
"""


def test_a_text_of_a_hundred_thousand_tokens(workplace: Path) -> None:
    count = 100_000
    done = subprocess.run(
        [sys.executable, "-c", LONG, str(HELPERS.parent.parent), str(HELPERS), str(count)],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{found['seconds']:.1f} s, {found['above'] / 1e6:.0f} MB above the pass")
    assert found["shape"] == [1, count, 64]
    assert found["tokens"] == count
    tensor, logits = 4 * count * 64, 4 * count * 400
    assert found["above"] < tensor + logits + 75_000_000  # the numbers' text alone is 73 MB
    document = load("d.json")
    assert document.tensor(document.names[0]).shape == (1, count, 64)


# ------------------------------------------------------------------------------------ many captures


def hooks(model: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


def state(model: Any) -> list[Any]:
    """What a capture might have changed of a model, but for its weights."""
    modes = [(name, module.training, type(module)) for name, module in model.named_modules()]
    own = [sorted(vars(module)) for module in model.modules()]
    return [modes, own, model.config._attn_implementation, model.config.to_dict(), hooks(model)]


def handles() -> Counter[str]:
    found: Counter[str] = Counter()
    for handle in os.listdir("/proc/self/fd"):
        try:
            found[str(Path("/proc/self/fd", handle).readlink())] += 1
        except FileNotFoundError:  # the folder's own
            continue
    return found


def test_two_hundred_captures_leave_nothing(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a loaded model in training mode, with every kind of capture, some of which fail."""
    (workplace / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(workplace / "temporary"))
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    auto = transformers.AutoModelForCausalLM
    model = auto.from_config(tiny.config("llama"), attn_implementation="sdpa").train()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    words = tiny.tokenizer()
    ways: list[dict[str, Any]] = [
        {"select": "attn:0"},
        {"select": "attn:0", "format": "safetensors"},
        {"select": "attn:0", "attn_implementation": "sdpa"},
        {"select": "mlp:all;other:all"},
        {"select": "attn:0", "max_new_tokens": 2},
        {"select": "attn:nope"},
        {"select": "attn:0", "backend": "pyvene"},
        {"select": "attn:0", "prompt": "cat " * 300},
    ]

    def captures(count: int) -> None:
        for i in range(count):
            way: dict[str, Any] = {"prompt": f"The cat {i}", **ways[i % len(ways)]}
            try:
                document = capture(model, tokenizer=words, output="d.json", **way)
            except UsageError:
                assert way["select"] == "attn:nope" or len(way["prompt"]) > 1000
                continue
            document.tensor(document.names[0], *([1] if "attn" in way["select"] else []))

    with torch.no_grad():  # transformers hooks a model the first time it is asked for attentions
        model(**words("The cat", return_tensors="pt"), output_attentions=True)
    before = state(model)
    captures(len(ways) * 5)
    files, open_files, held = set(os.listdir()), handles(), memory.held()
    with timed("160 captures"):
        captures(160)
    assert (
        memory.held() - held < 6_000_000
    )  # 160 models of this size would be 10 MB, the texts more
    assert handles() == open_files
    assert set(os.listdir()) == files == {"d.json", "temporary"}
    assert os.listdir("temporary") == []
    assert state(model) == before
    assert all((value == weights[name]).all() for name, value in model.state_dict().items())


def test_captures_by_name_let_go_of_their_models(checkpoints: Any, workplace: Path) -> None:
    folder = str(checkpoints("llama"))

    def captures(count: int) -> None:
        for _ in range(count):
            capture(folder, "The cat", select="attn:0", output="d.json")

    def models() -> int:
        gc.collect()
        kinds = Counter(type(found).__name__ for found in gc.get_objects())
        return kinds["LlamaForCausalLM"]

    captures(10)
    others = models()  # of other tests, whose failures or fixtures may hold them
    open_files, held = handles(), memory.held()
    captures(30)
    assert models() <= others
    assert handles() == open_files
    assert memory.held() - held < 6_000_000
