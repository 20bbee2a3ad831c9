"""--device-map: the same bytes wherever the weights lie, and no litter."""

from __future__ import annotations

import gc
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from conftest import Run

from activations import load
from activations.model.checkpoint import open_checkpoint
from activations.model.devices import parse_device_map
from activations.model.loading import load_model

MIXED = {
    "model.embed_tokens": "cpu",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.layers.2": "disk",
    "model.norm": "cpu",
    "model.rotary_emb": "cpu",
    "lm_head": "disk",
}
EVERYTHING = ("--auto-select", "attn:all;mlp:all;other:all", "--quiet")


@pytest.mark.parametrize(
    ("family", "places"),
    [
        ("llama", "auto"),
        ("llama", "sequential"),
        ("llama", "disk"),
        ("llama", json.dumps(MIXED)),
        ("gpt2", "disk"),  # tied embeddings
        ("bert", "disk"),
        ("t5", "disk"),  # writes the decoder's text first
        ("bart", "disk"),
    ],
)
@pytest.mark.parametrize("backend", ["hooks", "pyvene"])
def test_the_same_bytes(
    family: str,
    places: str,
    backend: str,
    checkpoints: Callable[[str], Path],
    workplace: Path,
    capture: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scratch = workplace / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    argv = ("--model", checkpoints(family), "--prompt", "The cat sat.", *EVERYTHING)
    argv += ("--backend", backend)
    assert capture(*argv, "--output", "plain.json").code == 0
    done = capture(*argv, "--output", "spread.json", "--device-map", places)
    assert done.code == 0, done.err
    assert (workplace / "spread.json").read_bytes() == (workplace / "plain.json").read_bytes()
    gc.collect()
    assert list(scratch.glob("offloaded-weights-*")) == []


def test_the_weights_do_stay_on_the_disk(checkpoints: Callable[[str], Path]) -> None:
    checkpoint = open_checkpoint(str(checkpoints("llama")))
    model, _ = load_model(checkpoint, device_map=json.dumps(MIXED))
    where = {name: parameter.device.type for name, parameter in model.named_parameters()}
    assert where["model.layers.0.mlp.up_proj.weight"] == "cpu"
    assert where["model.layers.2.mlp.up_proj.weight"] == "meta"  # read when needed, then dropped


def test_a_model_probed_with_its_weights_can_be_spread(workplace: Path, capture: Run) -> None:
    # switch_transformers cannot be probed without its weights
    folder = tiny.checkpoint(workplace / "switch", "switch_transformers")
    argv = ("--model", folder, "--prompt", "The cat", "--auto-select", "attn:weights", "--quiet")
    assert capture(*argv, "--output", "plain.json").code == 0
    done = capture(*argv, "--output", "spread.json", "--device-map", "disk")
    assert done.code == 0, done.err
    assert (workplace / "spread.json").read_bytes() == (workplace / "plain.json").read_bytes()


def test_a_map_that_leaves_parts_out(workplace: Path, capture: Run) -> None:
    argv = ["--auto-select", "attn:0", "--prompt", "x", "--quiet"]
    done = capture(*argv, "--device-map", '{"model.norm": "disk"}')
    assert (done.code, len(done.err)) == (1, 1)
    assert done.err[0].startswith(
        "error: --device-map does not fit: ValueError: The device_map provided does not give any "
        "device for the following parameters: model.embed_tokens"
    )
    assert list(workplace.iterdir()) == []


def test_weights_read_past_their_modules_are_refused(workplace: Path, capture: Run) -> None:
    """LongCat's router hands its classifier's weight to a function: accelerate leaves it empty."""
    folder = tiny.checkpoint(workplace / "longcat", "longcat_flash")
    argv = ("--model", folder, "--prompt", "The cat", "--auto-select", "attn:0", "--quiet")
    done = capture(*argv, "--device-map", "disk")
    assert (done.code, done.err) == (
        1,
        [
            "error: this model reads weights past their modules, so that accelerate does not fetch "
            "them. Load it without offloading: with a --device-map without 'disk', or none."
        ],
    )
    assert list(workplace.iterdir()) == [folder]
    assert capture(*argv, "--device-map", "auto").code == 0


def test_numbers_name_accelerators() -> None:
    assert parse_device_map("disk") == {"": "disk"}
    assert parse_device_map('{"model": "cpu"}') == {"model": "cpu"}


def test_a_spread_model_can_be_captured_from_python(
    workplace: Path, checkpoints: Callable[[str], Path]
) -> None:
    from activations import capture

    checkpoint = open_checkpoint(str(checkpoints("llama")))
    model, _ = load_model(checkpoint, device_map=json.dumps(MIXED))
    capture(model, "The cat", tokenizer=tiny.tokenizer(), output="spread.json")
    capture(str(checkpoints("llama")), "The cat", output="plain.json")
    name = "model.layers.2.self_attn"
    spread, plain = load("spread.json"), load("plain.json")
    assert (spread.tensor(name, 1) == plain.tensor(name, 1)).all()
