"""Phases of the benchmark that are about long texts; `benchmarks/phases.py` runs them.

What stands for a long text is made up: a random Qwen2 of 14 heads a layer whose queries and keys
are scaled so that some 12 weights a row are above 0.01, as in trained models, and attention drawn
from such queries and keys.
"""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from phases import HEADS, SHAPE, watched

KEEP = 0.01
_SHARPER = 3.4  # times the queries and keys of a fresh model
_WIDTH = 64  # of a made-up head
_SHARPNESS = 4.6  # the deviation of the made-up scores


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
    kept = _kept(made[0].captured)
    return {
        "plain": middle - start,
        "capture": end - middle,
        "ratio": (end - middle) / (middle - start) - 1,
        "plain_memory": plain_memory,
        "above": memory - max(plain_memory, 0) - kept["captured"] / 2**20,
        "kept": kept["kept"],
        "a_row": kept["entries"] / (layers * HEADS["num_attention_heads"] * tokens),
        "attn_implementation": made[0].header["environment"]["attn_implementation"],
    }


def _kept(captured: Any) -> dict[str, int]:
    """The bytes of all that was captured, and the bytes and the number of the weights among it."""
    from activations.document.sparse_form import tensors_of
    from activations.outputs.sparse import Sparse
    from activations.outputs.tree import walk

    trees = list(captured["attention"].values())
    found = [leaf for tree in trees for _, leaf in walk(tree) if isinstance(leaf, Sparse)]
    return {
        "captured": sum(t.data.nbytes for tree in trees for _, t in tensors_of(tree)),
        "kept": sum(tensor.data.nbytes for each in found for _, tensor in tensors_of(each)),
        "entries": sum(len(each.columns) for each in found),
    }


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
            most = max(most, anonymous(Path(f"/proc/{process.pid}")))
        except OSError:  # it has ended
            break
        time.sleep(0.005)
    text, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"error: the view of {name} failed.")
    sizes = [Path(line).stat().st_size for line in text.splitlines()]
    return {"seconds": time.perf_counter() - start, "anonymous": most / 1024, "bytes": max(sizes)}


# --------------------------------------------------------------------------------- the browser

_FIRST = """
window.first = null;
(function look() {
    const canvas = document.querySelector('#thumbnails canvas');
    const painted = () => setTimeout(() => { window.first = performance.now(); });
    if (canvas) requestAnimationFrame(painted);
    else setTimeout(look, 5);
})();
"""
_LOADED = """async () => {
    while (document.readyState !== 'complete' || window.first === null)
        await new Promise(done => setTimeout(done, 10));
    const [entry] = performance.getEntriesByType('navigation');
    return { first: window.first, parsed: entry.domContentLoadedEventEnd };
}"""
_OPENING = """async count => {
    const times = [];
    const { layers, heads } = Page.stacks[0];
    for (let i = 0; i < count; i++) {
        const [layer, head] = [layers[(i * 7) % layers.length], heads[(i * 5) % heads.length]];
        const name = `Layer ${layer}, Head ${head}`;
        const start = performance.now();
        document.querySelector(`#thumbnails [aria-label='${name}']`).click();
        while (document.querySelector('#vis text.detail')?.textContent !== name ||
               !document.querySelector('#vis .detail title'))
                await new Promise(done => setTimeout(done));
        await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
        times.push(performance.now() - start);
    }
    return times.sort((a, b) => a - b);
}"""


def browse(folder: Path, name: str) -> dict[str, Any]:
    """The model view in Chromium: when its first picture stands, when all of it is read, how long a
    head takes to open, the longest task, and its anonymous memory at most.
    """
    import shutil

    from browser import FLAGS, NAMES
    from phases import _WATCH
    from playwright.sync_api import sync_playwright

    (page_file,) = (folder / name).glob("attention_model_view_*.html")
    chromium = next(filter(None, map(shutil.which, NAMES)), None)
    with sync_playwright() as playwright, Watch("--type=renderer", str(folder)) as watch:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=[*FLAGS, f"--user-agent={folder}"]
        )
        page = browser.new_page()
        page.set_default_timeout(300_000)
        page.add_init_script(_WATCH + _FIRST)
        page.goto(page_file.resolve().as_uri(), wait_until="commit")
        loaded = page.evaluate(_LOADED)
        opening = page.evaluate(_OPENING, 24)
        longest = page.evaluate("Math.max(0, ...window.tasks)")
        browser.close()
    return {
        "first": loaded["first"] / 1000,
        "parsed": loaded["parsed"] / 1000,
        "opening": opening[len(opening) // 2] / 1000,
        "worst": opening[-1] / 1000,
        "longest": longest / 1000,
        "memory": watch.most / 1024,
        "bytes": page_file.stat().st_size,
    }


class Watch:
    """The most anonymous memory, in kB, of any process whose command line has these words."""

    def __init__(self, *words: str) -> None:
        self._words = [word.encode() for word in words]
        self.most = 0

    def __enter__(self) -> Watch:
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._done.wait(0.02):
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    line = (process / "cmdline").read_bytes()
                    if all(word in line for word in self._words):
                        self.most = max(self.most, anonymous(process))
                except OSError:  # it has ended
                    continue


def anonymous(process: Path) -> int:
    """kB of memory that a process has for itself."""
    lines = (process / "status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)
