"""Checkpoints as people have them: what is loaded, and which warnings and lines there are."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from conftest import Run
from safetensors.torch import load_file, save_file

from activations import ToolkitError, capture, load

Change = Callable[[Path], Any]
WEIGHTS = "model.safetensors"
WANTED = ["--prompt", "The cat", "--auto-select", "attn:0"]


@pytest.fixture
def folder(checkpoints: Callable[[str], Path], workplace: Path) -> Path:
    return Path(shutil.copytree(checkpoints("llama"), "model"))


def config(**changes: Any) -> Change:
    """`None` leaves a key out."""

    def change(folder: Path) -> None:
        fields = json.loads((folder / "config.json").read_text()) | changes
        kept = {key: value for key, value in fields.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(kept))

    return change


def saved_as(**options: Any) -> Change:
    """The same weights saved in another way by transformers."""

    def change(folder: Path) -> None:
        model = transformers.AutoModelForCausalLM.from_pretrained(folder)
        (folder / WEIGHTS).unlink()
        model.save_pretrained(folder, **options)

    return change


def in_pickles(folder: Path) -> None:
    weights = list(load_file(folder / WEIGHTS).items())
    (folder / WEIGHTS).unlink()
    index = {}
    for number, part in enumerate((weights[:9], weights[9:]), 1):
        file = f"pytorch_model-0000{number}-of-00002.bin"
        torch.save(dict(part), folder / file)
        index |= {name: file for name, _ in part}
    text = json.dumps({"metadata": {}, "weight_map": index})
    (folder / "pytorch_model.bin.index.json").write_text(text)


def in_training(folder: Path) -> None:
    for name in ("optimizer.pt", "rng_state.pth", "scheduler.pt", "training_args.bin"):
        (folder / name).write_bytes(b"\x80\x02")


def moved(name: str) -> Change:
    return lambda folder: folder.rename(name)


def of_links(folder: Path) -> None:
    folder.rename("blobs")
    folder.mkdir()
    for file in Path("blobs").iterdir():
        (folder / file.name).symlink_to(f"../blobs/{file.name}")


def read_only(folder: Path) -> None:
    for path in (*folder.iterdir(), folder):
        path.chmod(0o500)


LOADED: dict[str, tuple[Change, str]] = {
    "in parts": (saved_as(max_shard_size="60KB"), "model"),
    "a variant": (saved_as(variant="fp16"), "model"),
    "a variant in parts": (saved_as(variant="bf16", max_shard_size="60KB"), "model"),
    "pickles in parts": (in_pickles, "model"),
    "an old dtype": (config(dtype=None, torch_dtype="float32"), "model"),
    "a class but no model_type": (config(model_type=None), "model"),
    "no class": (config(architectures=None), "model"),
    "a Trainer's checkpoint": (in_training, "model"),
    "spaces and letters": (moved("modèle 東 x"), "modèle 東 x/"),
    "links": (of_links, "model"),
    "a link": (lambda folder: Path("link").symlink_to(folder), "link"),
    "read-only": (read_only, "model"),
    "at home": (lambda folder: None, "~/model"),
    "a pickle of Git LFS beside": (
        lambda folder: (folder / "pytorch_model.bin").write_text("version https://git-lfs"),
        "model",
    ),
}


@pytest.mark.parametrize("what", LOADED)
def test_what_is_loaded(
    what: str, folder: Path, capture: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same numbers as from the checkpoint before, and no warning."""
    monkeypatch.setenv("HOME", str(Path.cwd()))

    def attention(name: str) -> Any:
        done = capture("--model", name, *WANTED, "--quiet")
        assert (done.code, done.err) == (0, [])
        return load(done.out[0]).tensor("model.layers.1.self_attn", 1)

    before = attention("model")
    change, name = LOADED[what]
    change(folder)
    np.testing.assert_array_equal(attention(name), before)


def without_a_weight(folder: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    weights = model.state_dict()
    weights.pop("model.layers.1.mlp.up_proj.weight")
    model.save_pretrained(folder, state_dict=weights)


def with_more(*names: str) -> Change:
    def change(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS) | {name: torch.ones(3) for name in names}
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})

    return change


def headless(folder: Path) -> None:
    config(architectures=["LlamaModel"])(folder)


TOLD: dict[str, tuple[Change, list[str]]] = {
    "a weight is missing": (
        without_a_weight,
        [
            "'model' lacks weights that its class needs, so they are random: "
            "model.layers.1.mlp.up_proj.weight."
        ],
    ),
    "a layer too many": (
        config(num_hidden_layers=2),
        [
            "'model' holds weights that LlamaForCausalLM does not use: "
            "model.layers.2.input_layernorm.weight, model.layers.2.mlp.down_proj.weight, "
            "model.layers.2.mlp.gate_proj.weight and 6 more. Check the class, the number of "
            "layers and the quantization in its config.json."
        ],
    ),
    "a class that is not there": (
        config(architectures=["Llama9ForCausalLM"]),
        [
            "transformers has no class 'Llama9ForCausalLM', which the config.json of 'model' "
            "names. It is loaded as LlamaModel, without its head."
        ],
    ),
    "weights quantized in a way that is not said": (
        with_more("model.layers.0.self_attn.q_proj.weight_scale"),
        [
            "'model' holds weights that LlamaForCausalLM does not use: "
            "model.layers.0.self_attn.q_proj.weight_scale. Check the class, the number of "
            "layers and the quantization in its config.json."
        ],
    ),
    "masks of old checkpoints are nothing to tell": (
        with_more("model.layers.0.self_attn.masked_bias", "model.layers.0.rope.inv_freq", "x.bias"),
        [],
    ),
    "a head left out is nothing to tell": (headless, []),
}


@pytest.mark.parametrize("what", TOLD)
def test_what_is_told(what: str, folder: Path, capture: Run) -> None:
    change, lines = TOLD[what]
    change(folder)
    done = capture("--model", "model", *WANTED, "--quiet")
    assert (done.code, done.err) == (0, [f"warning: {line}" for line in lines])


def test_python_callers_see_no_report(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever they let transformers say."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_info()
    try:
        config(num_hidden_layers=4)(folder)
        capture("model", "The cat")
        assert "LOAD REPORT" not in caplog.text
        assert transformers.logging.get_verbosity() == transformers.logging.INFO
        transformers.AutoModelForCausalLM.from_pretrained("model")
        assert "LOAD REPORT" in caplog.text  # which there is
    finally:
        transformers.logging.set_verbosity(before)


def quantized(**fields: Any) -> Change:
    return config(quantization_config=fields)


REFUSED: dict[str, tuple[Change, str]] = {
    "a new model_type": (
        config(model_type="llama9"),
        "this version of transformers does not know its model_type 'llama9'. Check its",
    ),
    "neither type nor class": (
        config(model_type=None, architectures=None),
        'its config.json names no model_type. Add it, as in "model_type": "llama".',
    ),
    "bitsandbytes": (
        quantized(quant_method="bitsandbytes", load_in_4bit=True),
        "requires bitsandbytes: `pip install .*`. Install what is missing",
    ),
    "GPTQ": (quantized(quant_method="gptq", bits=4), "requires optimum"),
    "AWQ": (
        quantized(quant_method="awq", bits=4, group_size=128, zero_point=True),
        "requires gptqmodel",
    ),
    "compressed-tensors": (
        quantized(quant_method="compressed-tensors", config_groups={}, format="x"),
        "pip install compressed-tensors",
    ),
    "no method": (quantized(bits=4), "in its config.json names no quant_method"),
    "a part is missing": (
        lambda folder: (
            saved_as(max_shard_size="60KB")(folder),
            next(folder.glob("model-00002*")).unlink(),
        ),
        "No such file or directory: model/model-00002-of-",
    ),
    "code elsewhere": (
        config(auto_map={"AutoConfig": "o/r--code.Config"}, model_type="mine"),
        "contains custom code, which is not run by default",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what: str, folder: Path) -> None:
    change, line = REFUSED[what]
    change(folder)
    with pytest.raises(ToolkitError) as caught:
        capture("model", "The cat")
    assert re.search(line, str(caught.value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("o/r--code.Config", "needs files that are not in this folder but on the Hugging Face"),
        ("code.Config", "it has no file 'code.py'. The files may be damaged or incomplete"),
    ],
)
def test_trusted_code_that_is_not_there(code: str, line: str, folder: Path) -> None:
    config(auto_map={"AutoConfig": code}, model_type="mine")(folder)
    with pytest.raises(ToolkitError) as caught:
        capture("model", "The cat", trust_remote_code=True)
    assert line in str(caught.value)


def test_quantized_weights_need_a_gpu() -> None:
    """What transformers raises where the packages are there but no GPU is."""
    from activations.model.errors import loading_errors

    with pytest.raises(ToolkitError) as caught, loading_errors("o/m", "weights"):
        raise RuntimeError("No GPU found. A GPU is needed for quantization.")
    assert str(caught.value).endswith("Run it on a GPU, or get a checkpoint that is not quantized.")
