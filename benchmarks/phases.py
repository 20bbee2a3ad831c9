"""One phase of the benchmark, in a process of its own: its time, and its memory from outside.

    python benchmarks/phases.py PHASE FOLDER [SIZE]

Prints one line of JSON. `naive` phases are what one would write without the toolkit: hooks and
`json.dump(tensor.tolist())`; `json.load`, `torch.tensor` and bertviz's own pages.
"""

from __future__ import annotations

import gc
import json
import logging
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]

SHAPE = {"hidden_size": 896, "intermediate_size": 4864, "vocab_size": 151_936}
HEADS = {"num_attention_heads": 14, "num_key_value_heads": 2}


def timed(work: Callable[[], Any]) -> float:
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def watched(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds, and the MB at most needed above what the process held before (Linux counts them)."""

    def held(field: str) -> float:
        status = Path("/proc/self/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith(field))
        return int(line.split()[1]) / 1024

    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far is what is held now
    before = held("VmRSS")
    seconds = timed(work)
    return seconds, held("VmHWM") - before


def pairs(a: Callable[[], Any], b: Callable[[], Any], count: int) -> tuple[float, float, float]:
    """Medians of both, and of the ratio b / a of runs side by side."""
    a(), b()  # warm
    times = [(timed(a), timed(b)) for _ in range(count)]
    ratio = statistics.median(second / first for first, second in times)
    return *(statistics.median(column) for column in zip(*times, strict=True)), ratio


# ----------------------------------------------------------------------------------- the model


def build(folder: Path, layers: int) -> None:
    """A random Qwen2 in bfloat16 (0.5 B parameters with 24 layers), whose tokens are bytes."""
    import tiny
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(num_hidden_layers=layers, tie_word_embeddings=True, **SHAPE, **HEADS)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    Qwen2ForCausalLM(config).save_pretrained(folder / "model")
    tiny.tokenizer(size=261).save_pretrained(folder / "model")


def capture(folder: Path, tokens: int) -> dict[str, Any]:
    """The forward pass with and without hooks, whole and stopped early; the documents' tensors."""
    import torch

    from activations.forward.recording import Wanted, record
    from activations.inputs.request import Request
    from activations.model.attn_implementation import attention_implementation
    from activations.selection.answers import select
    from activations.session import opening, run

    request = Request(("the cat sat on the mat " * tokens)[:tokens])
    opened = opening.open_model(str(folder / "model"), request=request)
    catalog = opened.catalog
    mlp = "mlp.gate_proj,mlp.up_proj"
    for name, answers in (
        ("attention", {"attention": "0"}),
        ("both", {"attention": "0", "mlp": mlp}),
    ):
        made = run.run(opened, select(catalog, answers))
        made.save(folder / f"{name}.json", format="safetensors")
    first = opening.with_request(opened, Request(request.prompt[:16]))
    short = run.run(first, select(catalog, {"attention": "0"}))
    short.save(folder / "short.json")

    model = opened.model
    inputs = {"input_ids": torch.tensor(made.header["input_ids"]), "use_cache": False}
    inputs["logits_to_keep"] = 1
    everywhere = select(catalog, {"attention": "0"}).names
    first = select(catalog, {"attention": "0"}, range(max(1, len(everywhere) // 6))).names

    def plain() -> None:
        with torch.no_grad():
            model(**inputs)

    with attention_implementation(model, "eager"):
        hooked = pairs(plain, lambda: record(model, inputs, Wanted(everywhere)), 7)
        stop = catalog.observation.first_after(first)
        part = pairs(plain, lambda: record(model, inputs, Wanted(first, stop_before=stop)), 5)
    return {"plain": hooked[0], "hooked": hooked[1], "ratio": hooked[2], "part": part[2]}


# ------------------------------------------------------------------------------------- writing


def held(folder: Path) -> dict[str, Any]:
    """The tensors as the toolkit holds them after the pass, copied into memory."""
    import ml_dtypes
    import numpy as np
    from safetensors import safe_open

    from activations.outputs.tensor import Tensor

    outputs: dict[str, Any] = {}
    with safe_open(folder / "attention.safetensors", framework="np") as file:
        for key in sorted(file.keys(), key=lambda key: (int(key.split(".")[2]), key)):
            values = file.get_tensor(key)
            bits = values.view(np.uint16) if values.dtype == ml_dtypes.bfloat16 else values
            tensor = Tensor(values.dtype.name, values.shape, bits.copy())
            outputs.setdefault(key.rpartition("/")[0], []).append(tensor)
    return outputs


def write(folder: Path) -> dict[str, Any]:
    from activations import load
    from activations.document.writer import write_document

    header = load(folder / "attention.json").header
    header.pop("tensors")
    outputs = {"attention": held(folder)}
    path = folder / "text.json"
    seconds, above = watched(lambda: write_document(path, header, outputs, release=True))
    line = max(tensor.data.size for found in held(folder).values() for tensor in found) * 12
    return {"seconds": seconds, "above": above, "bytes": path.stat().st_size, "line": line}


def naive_write(folder: Path) -> dict[str, Any]:
    import torch

    outputs = {
        name: [torch.from_numpy(tensor.data.view("i2")).view(torch.bfloat16) for tensor in found]
        for name, found in held(folder).items()
    }
    path = folder / "naive.json"

    def work() -> None:
        with path.open("w") as file:
            json.dump({name: [t.tolist() for t in found] for name, found in outputs.items()}, file)

    seconds, above = watched(work)
    return {"seconds": seconds, "above": above, "bytes": path.stat().st_size}


def write_tensors(folder: Path) -> dict[str, Any]:
    """`--format safetensors` against safetensors' own function alone."""
    import numpy as np
    from safetensors.numpy import save_file

    from activations import load
    from activations.document.writer import write_document

    header = load(folder / "attention.json").header
    header.pop("tensors")
    outputs = held(folder)
    plain = {f"{n}/{i}": np.array(t.data) for n, f in outputs.items() for i, t in enumerate(f)}
    alone, ours, ratio = pairs(
        lambda: save_file(plain, folder / "plain.safetensors"),
        lambda: write_document(
            folder / "again.json", header, {"attention": outputs}, format="safetensors"
        ),
        5,
    )
    return {"alone": alone, "ours": ours, "ratio": ratio}


# ------------------------------------------------------------------------------------- reading


def read(folder: Path, name: str = "text") -> dict[str, Any]:
    from activations import load
    from activations.attention.weights import read_attention

    def work() -> None:
        with load(folder / f"{name}.json") as document:
            for stack in read_attention(document):
                for layer in stack.weights:
                    for head in layer.each_head():
                        head.shape  # noqa: B018

    return {"seconds": statistics.median(timed(work) for _ in range(3))}


def naive_read(folder: Path) -> dict[str, Any]:
    import torch

    def work() -> None:
        with (folder / "naive.json").open() as file:
            [torch.tensor(found[1]) for found in json.load(file).values()]

    return {"seconds": timed(work)}


def write_both(folder: Path) -> dict[str, Any]:
    """A document with MLP lines, as text."""
    from activations import load
    from activations.document.writer import write_document
    from activations.outputs.tensor import Tensor

    document = load(folder / "both.json")
    header = {key: value for key, value in document.header.items() if key != "tensors"}
    captured: dict[str, Any] = {"attention": {}, "mlp": {}}
    for category, outputs in captured.items():
        for name in document.names_of(category):
            found = document[name]
            arrays = found if isinstance(found, list) else [found]
            tree = [Tensor("float32", array.shape, array) for array in arrays]
            outputs[name] = tree if isinstance(found, list) else tree[0]
    write_document(folder / "large.json", header, captured, release=True)
    return {"bytes": (folder / "large.json").stat().st_size}


def naive_pages(folder: Path, name: str = "naive") -> dict[str, Any]:
    """json.load, torch.tensor, bertviz's pages."""
    import torch

    import bertviz

    with (folder / f"{name}.json").open() as file:
        found = json.load(file)
    if "captured" in found:
        outputs = found["captured"]["attention_outputs"].values()
        attention = [torch.tensor(entry["output"][1]) for entry in outputs]
    else:
        attention = [torch.tensor(output[1]) for output in found.values()]
    tokens = [f"t{i}" for i in range(attention[0].shape[-1])]
    sizes = []
    for view in ("head", "model"):
        html = getattr(bertviz, f"{view}_view")(attention, tokens, html_action="return").data
        path = folder / f"{name}_{view}.html"
        path.write_text(f"<!doctype html><meta charset=utf-8>{html}")
        sizes.append(path.stat().st_size)
    return {"bytes": max(sizes)}


# --------------------------------------------------------------------------------- the browser


def pages(folder: Path, layers: int, heads: int, tokens: int) -> dict[str, Any]:
    """Pages of made-up attention (a softmax of normal scores of deviation 2), and bertviz's own."""
    import torch

    import bertviz
    from activations.attention.scores import with_scores
    from activations.views.content import Caption
    from activations.views.page import build_pages

    weights, names = _attention(layers, heads, tokens), tuple(f"t{i}" for i in range(tokens))
    (stack,) = with_scores([_stack(weights, names)])
    for view, page in build_pages(["head", "model"], Caption("m", "p"), [stack]).items():
        (folder / f"{view}_{tokens}.html").write_bytes(b"".join(page))
    if tokens <= 64:
        attention = [torch.from_numpy(layer)[None] for layer in weights]
        html = bertviz.model_view(attention, list(names), html_action="return").data
        (folder / "bertviz.html").write_text(f"<!doctype html><meta charset=utf-8>{html}")
    return {}


def _attention(layers: int, heads: int, tokens: int) -> Any:
    """Causal attention, a softmax of normal scores of deviation 2."""
    import numpy as np

    scores = np.random.default_rng(0).normal(scale=2, size=(layers, heads, tokens, tokens))
    scores[..., ~np.tri(tokens, dtype=bool)] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True)).astype(np.float32)
    return weights / weights.sum(-1, keepdims=True)


def _stack(weights: Any, names: tuple[str, ...]) -> Any:
    from activations.attention.layer import Layer
    from activations.attention.stack import Stack

    layers, heads = map(tuple, map(range, weights.shape[:2]))
    return Stack("Self", "self", layers, heads, tuple(map(Layer.of, weights)), names, names)


def scores(folder: Path, layers: int, heads: int, tokens: int) -> dict[str, Any]:
    """The scores of all heads, against five of them by whole arrays."""
    import numpy as np

    from activations.attention.scores import with_scores

    weights, names = _attention(layers, heads, tokens), tuple(f"t{i % 97}" for i in range(tokens))
    codes = np.array([int(name[1:]) for name in names])
    same = codes[:, None] == codes
    induction, first = np.zeros_like(same), np.zeros_like(same)
    induction[:, 1:] = np.tril(same, -2)[:, :-1]
    first[1:, 0] = True
    masks = np.eye(tokens, k=-1, dtype=bool), induction, np.tril(same, -1), first

    def plain() -> None:
        for layer in weights:
            for mask in masks:
                layer[:, mask].sum(axis=1, dtype=np.float64) / mask.any(axis=1).sum()
            -np.einsum("hij,hij->hi", layer, np.log(layer + np.float32(1e-30))).mean(axis=1)

    naive, ours, ratio = pairs(plain, lambda: with_scores([_stack(weights, names)]), 15)
    return {"naive": naive, "ours": ours, "ratio": ratio}


def draw(folder: Path, name: str) -> dict[str, Any]:
    """From opening a page until it is drawn and painted; its first picture and longest task."""
    import shutil

    from browser import FLAGS, NAMES, REQUIRE, STAND_IN
    from playwright.sync_api import sync_playwright

    from activations.views import assets

    libraries = assets.d3() + "\n" + assets.jquery() + STAND_IN
    chromium = next(filter(None, map(shutil.which, NAMES)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page()
        page.set_default_timeout(300_000)  # bertviz's own take long
        page.add_init_script(_WATCH)
        page.route(REQUIRE, lambda route: route.fulfill(body=libraries))
        start = time.perf_counter()
        address = (folder / f"{name}.html").resolve().as_uri()
        page.goto(address + ("#head=all" if name.startswith("head") else ""))  # not only one head
        page.evaluate(_DRAWN)
        seconds = time.perf_counter() - start
        longest, first = page.evaluate("[Math.max(0, ...window.tasks), window.first]")
        lines = page.locator("#vis line").count()
        browser.close()
    return {
        "seconds": seconds,
        "longest": longest / 1000,
        "first": first and first / 1000,
        "lines": lines,
    }


_WATCH = """
window.tasks = [];
new PerformanceObserver(list => {
    for (const entry of list.getEntries()) window.tasks.push(entry.duration);
}).observe({type: 'longtask', buffered: true});
window.first = null;  // when the first picture had been painted, in ms from the page's start
(function look() {
    const found = document.querySelector('#heat > *, #thumbnails canvas, #vis line');
    requestAnimationFrame(found ? () => { window.first = performance.now(); } : look);
})();
"""
_DRAWN = """async () => {
    const status = document.getElementById('status');
    while (status ? status.textContent.startsWith('Drawing') : !document.querySelector('line'))
        await new Promise(done => setTimeout(done, 10));
    for (let frame = 0; frame < 2; frame++)
        await new Promise(done => requestAnimationFrame(() => setTimeout(done, 0)));
}"""

PHASES: dict[str, Callable[..., Any]] = {
    found.__name__: found
    for found in (build, capture, write, naive_write, write_tensors, read, naive_read)
} | {found.__name__: found for found in (write_both, naive_pages, scores, pages, draw)}


def of_long_texts() -> dict[str, Callable[..., Any]]:
    import long_phases as here  # which uses this module

    every = (here.build_long, here.keep, here.dense_document, here.sparse_document)
    return {found.__name__: found for found in (*every, here.view, here.browse)}


def main(argv: list[str]) -> None:
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    phase, folder, *rest = argv
    found = (PHASES | of_long_texts())[phase](
        Path(folder), *(int(x) if x.isdecimal() else x for x in rest)
    )
    print(json.dumps(found or {}))


if __name__ == "__main__":
    main(sys.argv[1:])
