"""`examples/tuned_lens.py`, and what `--lens FILE` makes of its matrices, by their definition."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Run
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from activations import load

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "examples" / "tuned_lens.py"
TEXT = "Once there was a hen named Tavo. One day Tavo met a king by the old mill."


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A lens after a few steps, and what the script prints."""
    file = tmp_path_factory.mktemp("lens") / "tuned.safetensors"
    done = subprocess.run(
        [sys.executable, SCRIPT, "--steps", "25", "--output", file],
        capture_output=True,
        text=True,
        check=True,
    )
    return file, done.stdout.splitlines()


def test_it_comes_closer_to_the_final_prediction(trained: tuple[Path, list[str]]) -> None:
    file, lines = trained
    assert lines[-1] == str(file)
    for layer, line in enumerate(lines[:-1]):
        before, after = line.removeprefix(f"layer {layer}: KL to the final prediction ").split(
            " -> "
        )
        assert float(after.removesuffix(" nats")) < float(before)
    assert set(load_file(file)) == {f"layers.{k}{end}" for k in range(3) for end in ("", ".bias")}


def kl(final: torch.Tensor, found: torch.Tensor) -> float:
    return float((final.exp() * (final - found)).sum(-1).mean())


def test_the_capture_reads_its_file(
    trained: tuple[Path, list[str]], workplace: Path, capture: Run
) -> None:
    """On a text that it was not trained on."""
    done = capture("--prompt", TEXT, "--auto-select", "attn:0", "--lens", trained[0], "--quiet")
    assert (done.code, done.err) == (0, [])
    document = load("agnostic_activations.json")
    lens, tensors = document.lens, load_file(trained[0])
    assert lens is not None
    assert document.header["lens"]["file"] == "tuned.safetensors"
    model: Any = AutoModelForCausalLM.from_pretrained(ROOT / "demo_model").eval()
    streams: list[torch.Tensor] = []
    for layer in model.model.layers:
        layer.register_forward_hook(lambda _module, _args, output: streams.append(output))
    with torch.no_grad():
        final = model(torch.tensor(document.header["input_ids"])).logits[0].log_softmax(-1)
        for k, stream in enumerate(streams[:3]):
            tuned = stream @ tensors[f"layers.{k}"].T + tensors[f"layers.{k}.bias"]
            read = [model.lm_head(model.model.norm(x))[0].log_softmax(-1) for x in (stream, tuned)]
            assert kl(final, read[1]) < kl(final, read[0])
            top = read[1].exp().topk(5)
            torch.testing.assert_close(
                torch.tensor(lens.probabilities[k]), top.values, rtol=1e-3, atol=1e-4
            )
            same = torch.tensor(lens.ids[k, :, 0]) == top.indices[:, 0]
            assert same.float().mean() > 0.95  # of nearly equal ones, either
