"""Files and folders of other programs, given as a model or as a document: named for what they are.

A fast answer too: none of them is refused only after torch was imported.
"""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import GOOD, HIDDEN, Run, document_with
from safetensors.numpy import save_file
from safetensors.torch import load_file

from activations import capture as capture_python
from activations import load

ROOT = Path(__file__).parent.parent.parent
ANYWHERE = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"


def write(path: str, content: Any = "") -> None:
    """A file; a dict or list as JSON."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, (str, bytes)) else json.dumps(content)
    Path(path).write_bytes(text.encode() if isinstance(text, str) else text)


@pytest.fixture
def files(workplace: Path) -> None:
    """What other programs write, as they begin."""
    ones = {"x": np.ones(3, np.float32)}
    write("m.gguf", b"GGUF\3\0\0\0" + bytes(99))
    write("w/w.safetensors")
    save_file(ones, "w/w.safetensors")
    torch.save({"x": torch.ones(3)}, "w/w.pt")
    torch.save({"x": torch.ones(3)}, "w/old.pth", _use_new_zipfile_serialization=False)
    np.savez("w/w.npz", **ones)
    np.save("w/w.npy", ones["x"])
    write("page.html", "<!DOCTYPE html>\n<html><body></body></html>")
    write("text16.json", json.dumps({"a": 1}).encode("utf-16"))
    write("pointer.json", LFS)
    with zipfile.ZipFile("a.zip", "w") as archive:
        archive.write("page.html")
    with tarfile.open("m.tar", "w") as archive:
        archive.add("page.html")
    write("d.json.gz", gzip.compress(b"{}"))
    document_with("x.json", [HIDDEN, GOOD])
    save_file(ones, "x.safetensors")
    write("c/config.json", ANYWHERE)
    write("c/tokenizer.json", {"version": "1.0", "added_tokens": [], "model": {}})
    write("c/model.safetensors.index.json", {"metadata": {}, "weight_map": {}})
    write("c/adapter_config.json", {"peft_type": "LORA"})
    write("c/tokenizer_config.json", {"tokenizer_class": "X"})
    save_file(ones, "c/model.safetensors")


NAME = "Name a document that agnostic_capture.py wrote."
MODEL = "Capture first: python agnostic_capture.py --model c"
NO_DOCUMENT = {
    "m.gguf": f"a GGUF file (of llama.cpp), not a captured document. {NAME}",
    "w/w.safetensors": f"a safetensors file, not a captured document. {NAME}",
    "w/w.pt": f"a PyTorch file, not a captured document. {NAME}",
    "w/old.pth": f"a pickle file, not a captured document. {NAME}",
    "w/w.npz": f"a NumPy archive, not a captured document. {NAME}",
    "w/w.npy": f"a NumPy file, not a captured document. {NAME}",
    "page.html": "an HTML page, not a captured document. Name the document that the page was made "
    "from.",
    "text16.json": "a text in UTF-16, not a captured document. Save it as UTF-8.",
    "pointer.json": f"a pointer of Git LFS, not a captured document. {NAME}",
    "a.zip": "a zip archive, not a captured document. Unpack it, and name the document in it.",
    "m.tar": "a tar archive, not a captured document. Unpack it, and name the document in it.",
    "d.json.gz": "a compressed file, not a captured document. Unpack it, and name the document in "
    "it.",
    "x.safetensors": "a safetensors file, not a captured document. Name the document that it "
    "belongs to, 'x.json'.",
    "c/config.json": f"a model's configuration, not a captured document. {MODEL}",
    "c/tokenizer.json": f"a tokenizer, not a captured document. {MODEL}",
    "c/tokenizer_config.json": f"a tokenizer's settings, not a captured document. {MODEL}",
    "c/adapter_config.json": f"an adapter's configuration, not a captured document. {MODEL}",
    "c/model.safetensors.index.json": "an index of a model's weights, not a captured document. "
    f"{MODEL}",
    "c/model.safetensors": f"a safetensors file, not a captured document. {MODEL}",
}


def test_files_that_are_no_documents(files: None, view: Run) -> None:
    for name, line in NO_DOCUMENT.items():
        done = view("--input", name)
        assert (done.code, done.err) == (1, [f"error: '{name}' is {line}"])
        with pytest.raises(Exception, match="not a captured document"):
            load(name)


LLAMA_CPP = "holds weights in GGUF (of llama.cpp),"
GET = "which cannot be loaded here. Get the model in transformers' format, or convert it."
SAVED = "Name a folder made by save_pretrained()."
NO_CHECKPOINT = "is not a checkpoint: it has no config.json. Name one of its folders: --model"
CONFIG = {"c/config.json": ANYWHERE}
NAMED = ANYWHERE | {"transformers_weights": "mine.safetensors"}
POINTER = "a pointer of Git LFS, not the file itself. Fetch it: run git lfs pull in its folder."
# What is in the folder c, its name as a model, and the line.
MODELS: dict[str, tuple[dict[str, Any], str, str]] = {
    "GGUF": ({"c/a.gguf": ""}, "c", f"'c' {LLAMA_CPP} {GET}"),
    "GGUF file": ({"c/a.gguf": ""}, "c/a.gguf", f"'c/a.gguf' {LLAMA_CPP} {GET}"),
    "GGUF of another name": ({"c/a": b"GGUF"}, "c/a", f"'c/a' {LLAMA_CPP} {GET}"),
    "ONNX": (CONFIG | {"c/onnx/model.onnx": ""}, "c", f"'c' holds a model in ONNX, {GET}"),
    "Keras": (CONFIG | {"c/tf_model.h5": ""}, "c", f"'c' holds weights of TensorFlow, {GET}"),
    "SavedModel": ({"c/saved_model.pb": ""}, "c", f"'c' holds weights of TensorFlow, {GET}"),
    "TensorFlow 1": (
        {"c/bert_model.ckpt.index": ""},
        "c",
        f"'c' holds weights of TensorFlow, {GET}",
    ),
    "Flax": (CONFIG | {"c/flax_model.msgpack": ""}, "c", f"'c' holds weights of Flax, {GET}"),
    "MLX": (CONFIG | {"c/weights.npz": ""}, "c", f"'c' holds weights of MLX, {GET}"),
    "MLX, quantized": (
        {"c/config.json": ANYWHERE | {"quantization": {"bits": 4}}, "c/model.safetensors": ""},
        "c",
        f"'c' holds weights that MLX quantized, {GET}",
    ),
    "NeMo": ({"c/m.nemo": ""}, "c/m.nemo", f"'c/m.nemo' holds a model of NeMo, {GET}"),
    "original": (
        {"c/consolidated.00.pth": "", "c/params.json": {}},
        "c",
        f"'c' holds weights in the original format (consolidated.*), not transformers', {GET}",
    ),
    "diffusers": (
        {
            "c/model_index.json": {},
            "c/text_encoder/config.json": ANYWHERE,
            "c/unet/config.json": {},
        },
        "c",
        "'c' is a pipeline of diffusers, not one model. Name one of its folders: --model "
        "c/text_encoder",
    ),
    "sentence-transformers": (
        {"c/0_Transformer/config.json": ANYWHERE, "c/1_Pooling/config.json": {}},
        "c",
        f"the folder 'c' {NO_CHECKPOINT} c/0_Transformer",
    ),
    "a Trainer's output": (
        {f"c/checkpoint-{steps}/config.json": ANYWHERE for steps in (90, 500)},
        "c",
        f"the folder 'c' {NO_CHECKPOINT} c/checkpoint-500 (there are also c/checkpoint-90)",
    ),
    "a Trainer's output, with a space": (
        {"c/my run/config.json": ANYWHERE},
        "c",
        f"the folder 'c' {NO_CHECKPOINT} 'c/my run'",
    ),
    "a Trainer's output of adapters": (
        {"c/checkpoint-5/adapter_config.json": {}},
        "c/",
        f"the folder 'c' {NO_CHECKPOINT} c/checkpoint-5",
    ),
    "the hub's cache": (
        {"models--o--m--x/snapshots/abc/config.json": ANYWHERE},
        "models--o--m--x",
        "'models--o--m--x' is the hub's cache of 'o/m--x'. Write --model o/m--x, or "
        "models--o--m--x/snapshots/abc",
    ),
    "one weights file": (
        {},
        "w/w.pt",
        "'w/w.pt' is a single file (a PyTorch file), without the config.json it needs. " + SAVED,
    ),
    "a weights file with its configuration": (
        {},
        "c/model.safetensors",
        "'c/model.safetensors' is a file. Name the checkpoint's folder with --model.",
    ),
    "a zip": (
        {},
        "a.zip",
        "'a.zip' is a zip archive. Unpack it, and name the folder with --model.",
    ),
    "no weights": (
        CONFIG,
        "c",
        f"the weights of 'c' are missing: there is no model.safetensors. {SAVED}",
    ),
    "no index": (
        CONFIG | {"c/model-00001-of-00002.safetensors": ""},
        "c",
        "the weights of 'c' are in several files such as model-00001-of-00002.safetensors, and "
        "their index is missing, model.safetensors.index.json. Get it from where the files come "
        "from.",
    ),
    "not fetched": (
        CONFIG | {"c/model.safetensors": LFS},
        "c",
        f"'c/model.safetensors' is {POINTER}",
    ),
    "one part not fetched": (
        CONFIG
        | {
            "c/model.safetensors.index.json": {"weight_map": {"a": "a.safetensors"}},
            "c/a.safetensors": LFS,
        },
        "c",
        f"'c/a.safetensors' is {POINTER}",
    ),
    "variant not fetched": (
        CONFIG | {"c/model.fp16.safetensors": LFS},
        "c",
        f"'c/model.fp16.safetensors' is {POINTER}",
    ),
    "named in config.json, not fetched": (
        {"c/config.json": NAMED, "c/mine.safetensors": LFS, "c/model.safetensors": ""},
        "c",
        f"'c/mine.safetensors' is {POINTER}",
    ),
    "named in config.json, not there": (
        {"c/config.json": NAMED, "c/model.safetensors": ""},
        "c",
        "the weights of 'c' are missing: there is no mine.safetensors, which its config.json "
        "names. Get it from where the files come from.",
    ),
    "config: empty": (
        {"c/config.json": ""},
        "c",
        "'c/config.json' is not JSON: it is empty. Fix it, or get the checkpoint again.",
    ),
    "config: a list": (
        {"c/config.json": []},
        "c",
        "'c/config.json' holds no JSON object, which begins with {. Fix it, or get the checkpoint "
        "again.",
    ),
    "config: UTF-16": (
        {"c/config.json": "{}".encode("utf-16")},
        "c",
        "'c/config.json' is not text in UTF-8 but in UTF-16. Save it as UTF-8.",
    ),
    "config: a mark": (
        {"c/config.json": "{}".encode("utf-8-sig")},
        "c",
        "'c/config.json' begins with a byte order mark. Save it as UTF-8 without one.",
    ),
    "config: no JSON": (
        {"c/config.json": '{"a": 1,\n "b": }'},
        "c",
        "'c/config.json' is not JSON: Expecting value in line 2, column 7. Fix it, or get the "
        "checkpoint again.",
    ),
}


@pytest.mark.parametrize("what", MODELS)
def test_models_of_other_formats(
    what: str, workplace: Path, capture: Run, request: pytest.FixtureRequest
) -> None:
    content, name, line = MODELS[what]
    if not content:
        request.getfixturevalue("files")
    for path, held in content.items():
        write(path, held)
    done = capture("--model", name, "--prompt", "x", "--auto-select", "attn:0", "--quiet")
    assert (done.code, done.out, done.err) == (1, [], [f"error: {line}"])
    with pytest.raises(Exception) as caught:
        capture_python(name, "x")
    assert str(caught.value) == line


def test_a_broken_link(checkpoints: Callable[[str], Path], workplace: Path, capture: Run) -> None:
    """As in a snapshot that was copied out of the hub's cache without what its links lead to."""
    for file, target in {
        "config.json": "../blobs/abc",
        "model.safetensors": "../blobs/abc",
        "tokenizer.json": "tokenizer.json",  # itself
    }.items():
        Path("c").mkdir(exist_ok=True)
        Path("c", file).symlink_to(target)
        done = capture("--model", "c", "--prompt", "x", "--auto-select", "attn:0")
        assert done.err == [
            f"error: 'c/{file}' is a link that leads nowhere. Copy the files themselves (cp -rL), "
            "or get the checkpoint again."
        ]
        Path("c", file).unlink()
        write(f"c/{file}", ANYWHERE)


def named_in_config(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "mine.safetensors")
    fields = json.loads((folder / "config.json").read_text())
    write("c/config.json", fields | {"transformers_weights": "mine.safetensors"})


def in_pickles(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    write("c/consolidated.safetensors", LFS)


def in_parts(folder: Path) -> None:
    names = list(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "a.safetensors")}
    write("c/model.safetensors.index.json", index)


@pytest.mark.parametrize("change", [lambda folder: None, named_in_config, in_pickles, in_parts])
def test_pointers_that_are_not_needed(
    change: Callable[[Path], Any], checkpoints: Callable[[str], Path], workplace: Path
) -> None:
    """Only the weights that transformers reads need to be there."""
    change(Path(shutil.copytree(checkpoints("llama"), "c")))
    for name in ("consolidated.safetensors", "optimizer.bin", "model.fp16.safetensors"):
        write(f"c/{name}", LFS)
    given, truth = (
        capture_python(name, "The cat sat", select="mlp:0", output=f"{number}.json")
        for number, name in enumerate(("c", str(checkpoints("llama"))))
    )
    for name in truth.names:
        np.testing.assert_array_equal(given.tensor(name), truth.tensor(name))


ASKED = """
import sys
sys.path.insert(0, sys.argv[1])
import agnostic_capture
print(agnostic_capture.main(["--model", "m.gguf", "--prompt", "x", "--auto-select", "attn:0"]))
print("torch" in sys.modules)
"""


def test_before_torch_is_imported(files: None) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASKED, str(ROOT)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["1", "False"]
