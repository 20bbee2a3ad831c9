"""Phases of the benchmark that are about long texts; `benchmarks/phases.py` runs them.

What stands for a long text is made up: a random Qwen2 of 14 heads a layer whose queries and keys
are scaled so that some 12 weights a row are above 0.01, as in trained models, and attention drawn
from such queries and keys.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from phases import HEADS, SHAPE, watched

KEEP = 0.01
_SHARPER = 3.4  # times the queries and keys of a fresh model
_WIDTH = 64  # of a made-up head
_SHARPNESS = 4.0  # the deviation of the made-up scores


def processor_time() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def build_long(folder: Path, layers: int) -> None:
    """A random Qwen2 in float32 whose attention is peaked, for any length of text."""
    import tiny
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        num_hidden_layers=layers,
        tie_word_embeddings=True,
        max_position_embeddings=32_768,
        **{**SHAPE, "vocab_size": 1024},
        **HEADS,
    )
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight *= _SHARPER
            layer.self_attn.k_proj.weight *= _SHARPER
    model.save_pretrained(folder / f"long_{layers}")
    tiny.tokenizer(size=261).save_pretrained(folder / f"long_{layers}")


def keep(folder: Path, layers: int, tokens: int) -> dict[str, Any]:
    """A capture with `--keep-above` beside SDPA, against a pass with SDPA alone.

    In processor time, and the memory that each needs above the model's.
    """
    import torch

    from activations.inputs.request import Request
    from activations.model.attn_implementation import attention_implementation
    from activations.selection.answers import select
    from activations.session import opening, run
    from activations.session.options import Options

    ids = tuple(torch.randint(3, 260, (tokens,), generator=torch.manual_seed(0)).tolist())
    options = Options(keep_above=KEEP)
    opened = opening.open_model(str(folder / f"long_{layers}"), options, Request(ids=ids))
    selection = select(opened.catalog, {"attention": "weights"})
    run.load_weights(opened, selection, options)
    inputs = {"input_ids": torch.tensor([ids]), "use_cache": False, "logits_to_keep": 1}

    def plain() -> None:
        with torch.no_grad(), attention_implementation(opened.model, "sdpa"):
            opened.model(**inputs)

    plain()  # warm
    start = processor_time()
    _, plain_memory = watched(plain)
    middle = processor_time()
    made: list[Any] = []
    _, memory = watched(lambda: made.append(run.run(opened, selection, options)))
    end = processor_time()
    kept = _bytes_kept(made[0].captured)
    path = folder / f"kept_{layers}_{tokens}.json"
    made[0].save(path, format="safetensors")
    size = sum(p.stat().st_size for p in (path, path.with_suffix(".safetensors")))
    return {
        "plain": middle - start,
        "capture": end - middle,
        "ratio": (end - middle) / (middle - start) - 1,
        "plain_memory": plain_memory,
        "above": memory - max(plain_memory, 0) - kept / 2**20,
        "kept": kept,
        "bytes": size,
        "attn_implementation": made[0].header["environment"]["attn_implementation"],
    }


def _bytes_kept(captured: Any) -> int:
    import numpy as np

    from activations.outputs.sparse import Sparse
    from activations.outputs.tree import walk

    found = [leaf for tree in captured["attention"].values() for _, leaf in walk(tree)]
    sparse = [leaf for leaf in found if isinstance(leaf, Sparse)]
    arrays: Iterator[np.ndarray] = (
        array
        for s in sparse
        for array in (s.row_starts, s.columns, s.weights.data, s.rest, s.overview)
    )
    return sum(array.nbytes for array in arrays)


def _heads(heads: int, tokens: int, seed: int) -> Iterator[Any]:
    """Causal attention of made-up queries and keys, a head at a time."""
    import numpy as np

    random = np.random.default_rng(seed)
    for _ in range(heads):
        queries, keys = random.normal(size=(2, tokens, _WIDTH)).astype(np.float32)
        found = np.zeros((tokens, tokens), np.float32)
        for first in range(0, tokens, 256):
            end = min(first + 256, tokens)
            scores = queries[first:end] @ keys[:end].T * np.float32(_SHARPNESS / _WIDTH**0.5)
            scores[np.arange(end) > np.arange(first, end)[:, None]] = -np.inf
            np.exp(scores - scores.max(1, keepdims=True), out=scores)
            found[first:end, :end] = scores / scores.sum(1, keepdims=True)
        yield found


def _header(layers: int, tokens: int) -> dict[str, Any]:
    names = [f"layers.{layer}.attn" for layer in range(layers)]
    return {
        "format": "agnostic-activations/1",
        "model": "made-up",
        "prompt": "",
        "tokens": [f"t{i % 997}" for i in range(tokens)],
        "attention_weights": [
            {"module": name, "element": [], "layer": layer, "kind": "self"}
            for layer, name in enumerate(names)
        ],
    }


def dense_document(folder: Path, layers: int, heads: int, tokens: int) -> dict[str, Any]:
    """A document of whole weights, with its numbers in a file of tensors."""
    import numpy as np

    from activations.document.writer import write_document
    from activations.outputs.tensor import Tensor

    outputs = {}
    for layer in range(layers):
        weights = np.stack(list(_heads(heads, tokens, layer)))[None]
        outputs[f"layers.{layer}.attn"] = Tensor("float32", weights.shape, weights)
    path = folder / f"dense_{tokens}.json"
    header = _header(layers, tokens)
    write_document(path, header, {"attention": outputs}, format="safetensors", release=True)
    return {"bytes": path.with_suffix(".safetensors").stat().st_size}


def sparse_document(folder: Path, layers: int, heads: int, tokens: int) -> dict[str, Any]:
    """A document of what `--keep-above 0.01` keeps. Every layer has the same heads."""
    from activations.document.writer import write_document
    from activations.outputs.sparse import SparseBuilder

    builder = SparseBuilder((1, heads, tokens, tokens), KEEP)
    for head, weights in enumerate(_heads(heads, tokens, 0)):
        for first in range(0, tokens, 128):
            builder.add(0, head, first, weights[first : first + 128])
    sparse = builder.finish()
    outputs = {f"layers.{layer}.attn": sparse for layer in range(layers)}
    path = folder / f"sparse_{layers}_{tokens}.json"
    header = {**_header(layers, tokens), "keep_above": KEEP}
    write_document(path, header, {"attention": outputs}, format="safetensors", release=True)
    return {"a_row": len(sparse.columns) / (heads * tokens)}


def view(folder: Path, name: str) -> dict[str, Any]:
    """Both pages of a document, by the command: seconds, and its anonymous memory at most."""
    import subprocess
    import sys

    command = Path(__file__).resolve().parent.parent / "bertviz_head_model_view.py"
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, command, folder / f"{name}.json", "--output-dir", folder / name],
        stdout=subprocess.PIPE,
        text=True,
    )
    most = 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        held = [int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")]
        most = max([most, *held])
        time.sleep(0.005)
    text, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"error: the view of {name} failed.")
    sizes = [Path(line).stat().st_size for line in text.splitlines()]
    return {"seconds": time.perf_counter() - start, "anonymous": most / 1024, "bytes": max(sizes)}
