"""How far the toolkit reaches: every language model that transformers can build, in one process.

    python benchmarks/coverage.py [--only llama,bert] [--write]

Each entry of transformers' causal, masked and seq2seq language model mappings is built tiny, with
random weights. Its attention is captured by the toolkit and compared, bit for bit, with what the
model itself returns for `output_attentions=True`; then written, read back and turned into pages.
It is captured again with `--keep-above`, and compared with the large ones among these weights.
Its predictions are compared with its own logits, and each layer's lens with what the model itself
says when its later layers pass on what they are given. Where single heads can be cut is asked.
`--write` puts the table into benchmarks/coverage.md and its summary into docs/models.md.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import platform
import re
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]
os.environ["HF_HUB_OFFLINE"] = "1"  # no entry is on the hub

import numpy as np
import tiny
import torch
import transformers

from activations import load
from activations.attention import weights
from activations.errors import ToolkitError
from activations.forward import probe
from activations.inputs.prompt import complete
from activations.inputs.request import Request
from activations.model.attn_implementation import attention_implementation
from activations.model.checkpoint import Checkpoint
from activations.model.loading import skeleton
from activations.model.signature import accepts, paired
from activations.outputs.sparse import Sparse
from activations.outputs.tree import at
from activations.selection.answers import select
from activations.selection.catalog import CATEGORIES, Catalog, build_catalog
from activations.session.naming import attention_layers
from activations.session.opening import OpenedModel, with_request
from activations.session.options import Options
from activations.session.run import Capture, run
from activations.session.trials import head_places
from activations.views.choices import VIEWS
from activations.views.content import Caption
from activations.views.page import build_pages

PROMPT = "The cat sat on the mat and looked at the moon."
TARGET = "Ein Satz, noch ein Satz."
KEEP = 0.05  # a threshold with weights on both sides, in a text this short
SECONDS = 60  # an entry may take; most take one
TABLE = ROOT / "benchmarks" / "coverage.md"
PAGE = ROOT / "docs" / "models.md"
MARKS = ("<!-- coverage -->", "<!-- /coverage -->")


@dataclass
class Row:
    """What became of one entry. `returned` counts the attention tensors the model itself returns,
    `exact` those captured with the same bits, `shown` those drawn on the pages, `kept` those of
    which `--keep-above` kept the large ones with the same bits (of raw scores, all). `predicts`:
    its predictions are those of its own logits. `layers` counts those that the lens reads, and
    `read` those whose lens is what the model says without the later ones; `cut` the attention
    tensors whose heads can be cut one by one."""

    entry: str
    built: bool = False
    run: bool = False
    captured: bool = False
    skeleton: bool = False
    returned: int = 0
    exact: int = 0
    surplus: int = 0
    shown: int = 0
    kept: int = 0
    predicts: bool = False
    layers: int = 0
    read: int = 0
    cut: int = 0
    why: list[str] = field(default_factory=list)

    @property
    def is_exact(self) -> bool:
        return 0 < self.returned == self.exact and not self.surplus

    @property
    def is_viewable(self) -> bool:
        return 0 < self.returned == self.shown

    @property
    def is_kept(self) -> bool:
        return 0 < self.returned == self.kept

    @property
    def is_read(self) -> bool:
        return self.predicts and self.layers > 0

    @property
    def is_cut(self) -> bool:
        return 0 < self.returned == self.cut

    def cells(self) -> list[str]:
        def count(number: int) -> str:
            return f"{number} of {self.returned}" if self.returned else "-"

        def said(yes: bool, asked: bool = True) -> str:
            return "yes" if yes else "no" if asked else "-"

        return [
            self.entry,
            said(self.built),
            said(self.captured, self.built),
            count(self.exact),
            said(self.skeleton, self.run),
            count(self.shown),
            count(self.kept),
            f"{self.read} of {self.layers}" if self.layers else said(False, self.run),
            count(self.cut),
            "; ".join(self.why).replace("|", "\\|"),
        ]


# ----------------------------------------------------------------------------------- one entry


def examine(row: Row, task: str, family: str) -> None:
    """Everything about one entry; what fails is told in `row.why`."""
    with step(row, "not built"):
        config = tiny.config(family, tiny.TASKS[task])
        checkpoint = Checkpoint(family, config, tiny.TASKS[task])
        model = tiny.model(family, tiny.TASKS[task])
        row.built = True
    if not row.built:
        return
    catalog = find_out(row, checkpoint, model)
    if catalog is None:
        return
    text = Request(PROMPT, target=TARGET if paired(model.config) else None)
    opened = OpenedModel(family, catalog, text, model=model, tokenizer=tiny.tokenizer())
    with step(row, "not captured"):
        check_everything(row, opened)
    with step(row, "attention not captured"):
        check_weights(row, with_request(opened, text))
    with step(row, "no lens"):
        check_lens(row, with_request(opened, text))
    with step(row, "no heads to cut"):
        check_heads(row, with_request(opened, text))


def find_out(row: Row, checkpoint: Checkpoint, model: Any) -> Catalog | None:
    """The catalogue, as the commands get it: without weights where that works."""
    light = heavy = None
    with step(row, "not probed without weights"):
        light = build_catalog(probe.observe(skeleton(checkpoint)))
    with (
        step(row, "does not run on text"),
        attention_implementation(model, "eager"),
    ):
        heavy = build_catalog(probe.observe(model))
        row.run = True
    if heavy is None:
        row.why = row.why[-1:]  # without weights it fails for the same reason
    elif light is not None:
        other = difference(light, heavy)
        row.skeleton = other is None
        row.why += [f"without weights: {other}"] if other else []
    return light if light is not None and heavy is not None else heavy


def check_everything(row: Row, opened: OpenedModel) -> None:
    """Every module hooked; a model with a decoder writes the decoder's text itself."""
    answers = {c: "all" for c in CATEGORIES if opened.catalog.of(c)}
    text = Request(PROMPT, max_new_tokens=4 if paired(opened.model.config) else None)
    capture = run(with_request(opened, text), select(opened.catalog, answers))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "all.json"
        capture.save(path)
        names = load(path).names
    if names != [name for outputs in capture.captured.values() for name in outputs]:
        raise ValueError("the document holds other modules than were captured")
    row.captured = True


def check_weights(row: Row, opened: OpenedModel) -> None:
    if not any(pattern.weights for pattern in opened.catalog.of("attention")):
        assert opened.encoded is not None
        inputs = complete(opened.model, opened.tokenizer, opened.request, opened.encoded)
        own = own_attentions(opened, inputs.tensors)
        row.returned = sum(map(len, own.values()))
        row.why.append(
            "its modules hand its attentions out nowhere" if own else "returns no attentions"
        )
        return
    torch.manual_seed(0)  # Reformer hashes by chance
    capture = run(opened, select(opened.catalog, {"attention": "weights"}))
    inputs = {
        key: torch.tensor(capture.header[key])
        for key in ("input_ids", "decoder_input_ids")
        if key in capture.header
    }
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    torch.manual_seed(0)
    own = own_attentions(opened, inputs)
    compare(row, capture, own)
    view(row, capture)
    with step(row, "not captured with --keep-above"):
        keep_above(row, opened, own)


def check_lens(row: Row, opened: OpenedModel) -> None:
    """What is predicted at every position, and what each layer would predict."""
    category = next(c for c in CATEGORIES if opened.catalog.of(c))
    capture = run(opened, select(opened.catalog, {category: "0"}), Options(lens="logit"))
    predictions, lens = capture.header["predictions"], capture.header["lens"]
    row.predicts = is_top(predictions, own_logits(opened, capture))
    if not row.predicts:
        raise ValueError("the predictions are not those of the model's logits")
    row.layers = len(lens["layers"])
    for k in range(row.layers):
        with passing_on(opened.model, lens["layers"], k + 1), suppress(RuntimeError):  # other sizes
            logits = own_logits(opened, capture)
            row.read += is_top({name: lens[name][k] for name in ("ids", "probabilities")}, logits)
    row.why += [f"lens: {phrase(line)}" for line in capture.warnings if "lens reads" in line]


def check_heads(row: Row, opened: OpenedModel) -> None:
    """Of how many attention tensors the heads stand side by side somewhere, proven."""
    layers = attention_layers(opened.catalog)
    if not layers:
        return
    category = next(c for c in CATEGORIES if opened.catalog.of(c))
    selection = select(opened.catalog, {category: "0"})
    plain = run(opened, selection)
    assert plain.inputs is not None
    call = {"use_cache": False} if accepts(opened.model, "use_cache") else {}
    found = head_places(opened, plain.inputs, call, [layer.source.tensor for layer in layers])
    row.cut = len(found)
    missing = [layer for layer in layers if layer.source.tensor not in found]
    if missing:
        row.why.append(f"no heads to cut: {len(missing)} of {len(layers)} are not proven")


def own_logits(opened: OpenedModel, capture: Capture) -> torch.Tensor:
    """(positions, vocabulary), of the model alone."""
    model, keys = opened.model, ("input_ids", "decoder_input_ids")
    inputs = {key: torch.tensor(capture.header[key]) for key in keys if key in capture.header}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    options = {"use_cache": False, "return_dict": True}
    taken = {k: v for k, v in (inputs | options).items() if accepts(model, k)}
    torch.manual_seed(0)  # Reformer hashes by chance
    with torch.no_grad(), attention_implementation(model, "eager"):
        logits: torch.Tensor = model(**taken)["logits"][0].float()
    return logits


def is_top(found: dict[str, Any], logits: torch.Tensor) -> bool:
    """Whether the likeliest by these logits were found; of nearly equal ones, either."""
    likely = logits.softmax(-1)
    top = likely.topk(found["ids"].shape[-1]).values.numpy()
    of_ids = likely.gather(1, torch.from_numpy(found["ids"])).numpy()
    return np.allclose(found["probabilities"], top, 0, 1e-4) and np.allclose(of_ids, top, 0, 1e-4)


@contextmanager
def passing_on(model: Any, layers: list[str], first: int) -> Iterator[None]:
    """The layers from `first` on, each by its place in the pass, return what they are given."""
    before: dict[str, list[int]] = {}
    for place, layer in enumerate(layers):
        before.setdefault(layer.partition("@")[0], []).append(place)
    own = {name: model.get_submodule(name).forward for name in before}
    skipped = int(layers[0].partition("@")[2] or 0)  # calls of an earlier round (HRM)

    def patched(name: str) -> Any:
        places = iter([-1] * skipped + before[name])

        def forward(*args: Any, **kwargs: Any) -> Any:
            returned = own[name](*args, **kwargs)
            if next(places, -1) < first:
                return returned
            given = next(x for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor))
            return given_in_place(returned, given)

        return forward

    for name in own:
        model.get_submodule(name).forward = patched(name)
    try:
        yield
    finally:
        for name in own:
            del model.get_submodule(name).forward


def given_in_place(returned: Any, given: torch.Tensor) -> Any:
    """What a layer returned, with what it was given as its stream."""
    if isinstance(returned, torch.Tensor):
        return given
    if isinstance(returned, dict):
        name = next(iter(returned))
        return type(returned)({**returned, name: given})
    rest = (given, *returned[1:])
    return returned._make(rest) if hasattr(returned, "_make") else type(returned)(rest)


def own_attentions(opened: OpenedModel, inputs: dict[str, Any]) -> dict[str, list[Any]]:
    """What the model returns as its attentions, by kind, flat and in its order."""
    model = opened.model
    options = {"output_attentions": True, "use_cache": False, "return_dict": True}
    taken = {k: v for k, v in (inputs | options).items() if accepts(model, k)}
    with torch.no_grad():
        returned = model(**taken)
    return {
        key.removesuffix("attentions").rstrip("_") or "self": found
        for key, value in returned.items()
        if key.endswith("attentions") and (found := list(flat(value)))
    }


def flat(value: Any) -> Iterator[Any]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list, dict)):  # Pegasus-X's are dicts: local and global
        for item in value.values() if isinstance(value, dict) else value:
            yield from flat(item)


def compare(row: Row, capture: Capture, own: dict[str, list[Any]]) -> None:
    """Every tensor the model returns, once, in its order and under its kind; nothing else."""
    captured: dict[str, list[np.ndarray]] = {}
    for entry in capture.header["attention_weights"]:
        outputs = capture.captured["attention"][entry["module"]]
        data = at(outputs, tuple(entry["element"])).data
        axes = entry.get("axes") or range(data.ndim)  # XLNet turns them afterwards
        captured.setdefault(entry["kind"], []).append(data.transpose(axes))
    row.returned = sum(map(len, own.values()))
    for kind in sorted({*own, *captured}):
        held, returned = captured.get(kind, []), own.get(kind, [])
        pairs = zip(held, returned, strict=False)
        same = [np.array_equal(h, r.numpy(), equal_nan=True) for h, r in pairs]
        row.exact += sum(same)
        row.surplus += max(len(held) - len(returned), 0)
        if len(held) != len(returned):
            row.why.append(f"{kind}: {len(held)} captured of {len(returned)}")
        elif not all(same):
            row.why.append(f"{kind}: {same.count(False)} of {len(same)} differ")


def keep_above(row: Row, opened: OpenedModel, own: dict[str, list[Any]]) -> None:
    """Every tensor the model returns, with 0 in place of what was left out, which is counted."""
    torch.manual_seed(0)
    options = Options(keep_above=KEEP, attn_implementation="eager")
    capture = run(opened, select(opened.catalog, {"attention": "weights"}), options)
    held: dict[str, list[Any]] = {}
    for entry in capture.header["attention_weights"]:
        outputs = capture.captured["attention"][entry["module"]]
        held.setdefault(entry["kind"], []).append(at(outputs, tuple(entry["element"])))
    for kind, returned in own.items():
        pairs = zip(held.get(kind, []), (tensor.numpy() for tensor in returned), strict=False)
        same = [is_what_was_large(leaf, whole) for leaf, whole in pairs]
        row.kept += sum(same)
        if not all(same):
            row.why.append(f"--keep-above, {kind}: {same.count(False)} of {len(same)} differ")


def is_what_was_large(leaf: Any, whole: np.ndarray) -> bool:
    if not isinstance(leaf, Sparse):  # raw scores, or a state
        raw = bool(whole.min() < 0 or whole.max() > 1.001 or whole.ndim != 4)
        return raw and np.array_equal(leaf.data, whole, equal_nan=True)
    turned = replace(leaf, axes=None).dense()  # as the model returns them, XLNet's too
    large = np.where(whole > KEEP, whole, 0)
    sums = turned.sum(-1, dtype=np.float64) + leaf.rest
    return np.array_equal(turned, large) and np.allclose(sums, whole.sum(-1), rtol=0, atol=1e-5)


def view(row: Row, capture: Capture) -> None:
    with step(row, "not viewable"), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.json"
        capture.save(path)
        told: list[str] = []
        stacks = weights.read_attention(load(path), told.append)
        pages = build_pages(VIEWS, Caption(row.entry, PROMPT), stacks)
        if all(page[-1].endswith(b"</html>\n") for page in pages.values()):
            row.shown = sum(len(stack.layers) for stack in stacks)
        if row.shown < row.returned:
            row.why += [f"not viewable: {phrase(line)}" for line in told[:1]]


def difference(light: Catalog, heavy: Catalog) -> str | None:
    """What the skeleton shows otherwise. How often an expert is called, and for how many tokens,
    follows from the weights, so only whether a module is called at all counts."""
    for what in ("modules", "weights", "needs_flag", "warm_up"):
        if getattr(light.observation, what) != getattr(heavy.observation, what):
            return f"other {what}"
    called = [{n for n, k in c.observation.calls.items() if k} for c in (light, heavy)]
    if called[0] != called[1]:
        return f"other modules are called: {min(called[0] ^ called[1])}"
    patterns = [[replace(p, outputs="") for p in c.patterns] for c in (light, heavy)]
    return None if patterns[0] == patterns[1] else "other patterns"


# ---------------------------------------------------------------------------------- failures


class TooLong(BaseException):
    """No `Exception`, so that nobody takes it for a failure of the model."""


@contextmanager
def step(row: Row, what: str) -> Iterator[None]:
    """Go on with the next step where one fails, and say why."""
    try:
        yield
    except ToolkitError as error:
        row.why.append(f"{what}: {phrase(str(error))}")
    except Exception as error:
        row.why.append(f"{what}: {type(error).__name__}: {phrase(str(error))}".rstrip(": "))


def phrase(message: str) -> str:
    """A message's first sentence, without the folder of this run; of a wrong shape, the shape."""
    if shape := re.search(r"has the shape (\(.*?\))", message):
        return f"the weights have the shape {shape[1]}"
    line = re.sub(r"'/\S*/", "'", " ".join(message.split()))
    return re.split(r"[.!:;](?= )|[.!]$", line, maxsplit=1)[0][:120]


@contextmanager
def time_limit(row: Row) -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise TooLong

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    except TooLong:
        row.why.append(f"took longer than {SECONDS} s")
    finally:
        signal.alarm(0)


# ------------------------------------------------------------------------------------ all of them


def summary(rows: list[Row]) -> str:
    """One line: of how many entries what holds."""
    count = {
        "built": sum(row.built for row in rows),
        "run on text": sum(row.run for row in rows),
        "probed alike without weights": sum(row.skeleton for row in rows),
        "captured whole": sum(row.captured for row in rows),
        "return attentions": sum(row.returned > 0 for row in rows),
        "captured exactly": sum(row.is_exact for row in rows),
        "viewable": sum(row.is_viewable for row in rows),
        "exact with --keep-above": sum(row.is_kept for row in rows),
        "read by the lens": sum(row.is_read for row in rows),
        "with heads to cut": sum(row.is_cut for row in rows),
    }
    return f"{len(rows)} entries: " + ", ".join(f"{n} {what}" for what, n in count.items())


def table(rows: list[Row]) -> str:
    """The Markdown document: the versions, what the columns mean, one line an entry."""
    versions = f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}"
    head = ["entry", "built", "captured", "exact", "without weights", "viewable", "kept"]
    head += ["lens", "heads", "why not"]
    lines = [
        "# Coverage",
        "",
        f"Generated by `python benchmarks/coverage.py --write` with {versions}, "
        f"Python {'.'.join(platform.python_version_tuple()[:2])}, on the CPU.",
        "",
        "Every entry of transformers' causal, masked and seq2seq language model mappings, built",
        "tiny, with random weights, and run on one sentence.",
        "",
        "* **captured**: with every module selected, a document is written and read back.",
        "* **exact**: how many of the attention tensors that the model itself returns for",
        "  `output_attentions=True` `attn:weights` captures: the same bits, each once, in the same",
        "  order, under the same kind.",
        "* **without weights**: the probe finds the same on the skeleton as on the model itself.",
        "* **viewable**: how many of those tensors the head and the model view show.",
        "* **kept**: of how many of those tensors `--keep-above` keeps the large weights with the",
        "  same bits, and the sum of the rest of each row; of others, all.",
        "* **lens**: how many layers `--lens logit` reads, and for how many of these it says what",
        "  the model says itself when its later layers return what they are given. The last one's",
        "  is always the model's own prediction, or there is no lens. That check cannot be made",
        "  where a layer is several modules, or gets more than one stream.",
        "* **heads**: of how many of those tensors single heads can be cut (`--ablate`): the place",
        "  where they stand side by side is proven by gradients.",
        "",
        summary(rows) + ".",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
    ]
    return "\n".join(lines + ["| " + " | ".join(row.cells()) + " |" for row in rows]) + "\n"


def short_table(rows: list[Row]) -> str:
    """The summary, for between the two marks in docs/models.md."""

    def line(what: str, name: str, among: list[Row]) -> str:
        missing = dict.fromkeys(
            row.entry.partition("/")[2] for row in among if not getattr(row, name)
        )
        found = sum(bool(getattr(row, name)) for row in among)
        return f"| {what} | {found} of {len(among)} | {', '.join(missing)} |"

    attending = [row for row in rows if row.returned]
    return "\n".join(
        [
            f"Tiny random models of all entries of transformers {transformers.__version__}'s "
            "causal, masked and seq2seq language models. "
            "[The long table](../benchmarks/coverage.md) says why not.",
            "",
            "| | entries | all but |",
            "|---|---:|---|",
            line("can be built", "built", rows),
            line(
                "of these, captured with every module hooked",
                "captured",
                [r for r in rows if r.built],
            ),
            line("of those that return attentions, captured bit for bit", "is_exact", attending),
            line("shown whole by the views", "is_viewable", attending),
            line("and exact with `--keep-above`, for long texts", "is_kept", attending),
            line("of those that run, read by the lens", "is_read", [r for r in rows if r.run]),
            line("of those that return attentions, heads can be cut", "is_cut", attending),
        ]
    )


def write(rows: list[Row]) -> None:
    TABLE.write_text(table(rows), encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    between = re.compile(f"{re.escape(MARKS[0])}.*?{re.escape(MARKS[1])}", re.DOTALL)
    if not between.search(text):
        raise SystemExit(
            f"error: docs/models.md has no {MARKS[0]}...{MARKS[1]}. Put the marks back."
        )
    text = between.sub(lambda _: f"{MARKS[0]}\n{short_table(rows)}\n{MARKS[1]}", text)
    PAGE.write_text(text, encoding="utf-8")


def examined(task: str, family: str) -> Row:
    """One entry's row, within the time limit."""
    row = Row(f"{task}/{family}")
    with time_limit(row):
        examine(row, task, family)
    return row


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="NAMES", help="families, as in llama,bert")
    parser.add_argument("--write", action="store_true", help="coverage.md and docs/models.md anew")
    options = parser.parse_args(argv)
    only = options.only.split(",") if options.only else None
    if only and options.write:
        parser.error("--write needs all entries. Leave out --only.")
    rows = []
    for task, family in tiny.entries():
        if only is None or family in only:
            rows.append(examined(task, family))
            print(" | ".join(rows[-1].cells()), file=sys.stderr)
            gc.collect()
    print(summary(rows))
    if options.write:
        write(rows)
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    sys.exit(main())
