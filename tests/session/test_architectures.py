"""The architectures that show nearly every case, each captured whole and compared with itself.

One capture a family, of every module, from a checkpoint folder; the truth is what the model loaded
by transformers returns, and what plain hooks on it see.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from oracle import assert_same, own_attentions, raw_hooks

from activations import load
from activations.attention.weights import read_attention
from activations.document.reader import Document
from activations.errors import ToolkitError, UsageError
from activations.forward import recording
from activations.forward.recording import Wanted
from activations.inputs.request import Request
from activations.model import checkpoint, loading
from activations.outputs.tensor import Tensor
from activations.outputs.tree import at, walk
from activations.selection.answers import select
from activations.selection.observation import weights_sources
from activations.session.opening import OpenedModel, open_model
from activations.session.options import Options
from activations.session.run import BACKENDS, Capture, run
from activations.views.content import Caption
from activations.views.page import build_pages

FAMILIES = [
    *("llama", "gpt2", "bert", "distilbert", "albert", "t5", "bart", "opt", "gpt_neox"),
    *("mixtral", "switch_transformers", "qwen3_5", "nemotron_h", "mamba", "gemma3"),
    *("longcat_flash", "xlm", "openai-gpt", "deberta-v2", "hrm_text", "gpt_oss"),
    *("dots3_note", "deepseek_v4", "minimax", "funnel", "longformer", "squeezebert", "xlnet"),
    *("big_bird", "encoder-decoder", "zamba2", "blt"),
]
REUSED = ("albert", "hrm_text")  # one module is several layers
NO_WEIGHTS = {
    "mamba": "this model has no attention modules. Leave attention empty.",
    "longformer": "no attention pattern of this model returns attention weights, so 'weights' "
    "selects nothing. --list shows what there is.",
}
# What no view can show, and what is shown by position, in one line each.
_BY_NUMBER = "positions are shown by number."
ODD = {
    "deepseek_v4": [  # keys that stand for several tokens
        f"the document has 7 tokens for 7 x 8 positions; {_BY_NUMBER}"
    ],
    "minimax": [  # the state of its linear attention
        "model.layers.1.self_attn, element 1 (and 1 more) has the shape (1, 4, 8, 8) for 7 tokens, "
        "and its values are not attention weights. Left out."
    ],
    "funnel": [  # queries pooled, keys not yet
        f"the document has 7 tokens for {size} positions; {_BY_NUMBER}"
        for size in ("4 x 7", "4", "2 x 4", "2")
    ],
}
TEXT = Request("The cat sat on the mat.")
EVERYTHING = {"attention": "all", "mlp": "all", "other": "all"}


@dataclass
class Case:
    """One family's checkpoint, what the toolkit captured of it, and the model loaded afresh."""

    family: str
    folder: Path

    @cached_property
    def opened(self) -> OpenedModel:
        return open_model(str(self.folder), request=TEXT)

    @cached_property
    def capture(self) -> Capture:
        return run(self.opened, select(self.opened.catalog, EVERYTHING))

    @cached_property
    def model(self) -> Any:
        model, _ = loading.load_model(checkpoint.open_checkpoint(str(self.folder)), "eager")
        with torch.no_grad():
            # big_bird replaces its attention in its first pass
            model(**self.inputs | ({"output_attentions": False} if self.needs_flag else {}))
        return model

    @property
    def needs_flag(self) -> bool:
        return self.opened.catalog.observation.needs_flag

    @property
    def inputs(self) -> dict[str, Any]:
        keys = ("input_ids", "decoder_input_ids")
        header = self.capture.header
        found: dict[str, Any] = {key: torch.tensor(header[key]) for key in keys if key in header}
        if self.needs_flag:
            found["output_attentions"] = True
        assert self.capture  # has loaded the model
        taken = inspect.signature(self.opened.model.forward).parameters
        if "use_cache" in taken or any(p.kind is p.VAR_KEYWORD for p in taken.values()):
            found["use_cache"] = False
        return found


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    root, made = tmp_path_factory.mktemp("architectures"), dict[str, Case]()

    def case(family: str) -> Case:
        if family not in made:
            made.clear()  # tests come family by family: one model in memory at a time
            made[family] = Case(family, tiny.checkpoint(root / family, family))
        return made[family]

    return case


@pytest.fixture(params=FAMILIES, scope="module")
def case(request: pytest.FixtureRequest, cases: Callable[[str], Case]) -> Case:
    return cases(request.param)


def test_weights_are_the_models_own(case: Case) -> None:
    catalog = case.opened.catalog
    if case.family in NO_WEIGHTS:
        with pytest.raises(UsageError) as caught:
            select(catalog, {"attention": "weights"})
        assert str(caught.value) == NO_WEIGHTS[case.family]
        return
    capture = run(case.opened, select(catalog, {"attention": "weights"}))
    expected = own_attentions(case.model, case.inputs)
    entries = capture.header["attention_weights"]
    found: dict[str, list[Any]] = {}
    for entry in entries:
        output = capture.captured["attention"][entry["module"]]
        weights = at(output, tuple(entry["element"]))
        assert ("axes" in entry) == (case.family == "xlnet")
        if "axes" in entry:
            data = weights.data.transpose(entry["axes"])
            weights = Tensor(weights.dtype, data.shape, data)
        found.setdefault(entry["kind"], []).append(weights)
        # the layer is a number of the module's name, unless one module is several layers
        numbers = [part for part in entry["module"].split(".") if part.isdecimal()]
        assert str(entry["layer"]) in numbers or case.family in REUSED
    assert set(found) == set(expected)
    for kind, tensors in expected.items():
        assert len(found[kind]) == len(tensors)  # each once
        for recorded, own in zip(found[kind], tensors, strict=True):
            assert_same(recorded, own)
    places = [(entry["kind"], entry["layer"], entry["module"]) for entry in entries]
    assert len(set(places)) == len(places)


def test_every_module_whole_and_the_logits_unchanged(case: Case) -> None:
    listed = {module.name for module in case.opened.catalog.observation.modules}
    classes = {name: type(module).__name__ for name, module in case.model.named_modules()}
    assert listed == set(classes) - {""}
    names = [n for pattern in case.opened.catalog.patterns for n in pattern.names]
    assert set(names) == {n for n in listed if classes[n] not in ("ModuleList", "ModuleDict")}
    expected = raw_hooks(case.model, case.inputs, ["", *names])
    captured = case.capture.captured.values()
    recorded = {name: output for outputs in captured for name, output in outputs.items()}
    assert set(recorded) == {f"{n}@{k}" if k else n for n in names for k in range(len(expected[n]))}
    for name in names:
        for k, returned in enumerate(expected[name]):
            assert_same(recorded[f"{name}@{k}" if k else name], returned)
    assert case.capture.header.get("not_called", []) == [n for n in names if not expected[n]]

    # The same pass with every module hooked gives the logits of a pass without.
    seen: list[Any] = []
    assert case.capture  # has loaded it
    handle = case.opened.model.register_forward_hook(lambda m, args, out: seen.append(out))
    run(case.opened, select(case.opened.catalog, EVERYTHING))
    handle.remove()
    assert torch.equal(seen[-1].logits, expected[""][0].logits)


def test_pyvene_gives_the_same_bytes(case: Case, tmp_path: Path) -> None:
    selection = select(case.opened.catalog, EVERYTHING)
    case.capture.save(tmp_path / "hooks.json")
    run(case.opened, selection, Options(backend="pyvene")).save(tmp_path / "pyvene.json")
    hooks, pyvene = ((tmp_path / name).read_bytes() for name in ("hooks.json", "pyvene.json"))
    assert pyvene.replace(b'"backend":"pyvene"', b'"backend":"hooks"') == hooks


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_pass_that_stops_early_captures_the_same(case: Case, backend: str) -> None:
    """The first layer's modules only: with the whole pass made, and stopped when all have fired."""
    catalog = case.opened.catalog
    names = [
        name
        for pattern in catalog.patterns
        for name, layers in zip(pattern.names, pattern.layers, strict=True)
        if layers[:1] == (0,) and catalog.observation.calls[name]
    ]
    model, record = case.model, BACKENDS[backend]
    with torch.no_grad():
        logits = model(**case.inputs).logits
    whole = record(model, case.inputs, Wanted(names))
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    after = catalog.observation.first_after(names)
    stopped = record(model, case.inputs, Wanted(names, stop_before=after))
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()] == hooks
    assert str(stopped) == str(whole)  # names and order
    for name, output in whole.outputs.items():
        for (_, a), (_, b) in zip(walk(output), walk(stopped.outputs[name]), strict=True):
            assert a.data.tobytes() == b.data.tobytes() if isinstance(a, Tensor) else a == b
    with torch.no_grad():  # the next pass is an ordinary one
        assert torch.equal(model(**case.inputs).logits, logits)


def test_most_passes_for_the_first_layer_stop_early(case: Case) -> None:
    observation = case.opened.catalog.observation
    first = [s.module for s in weights_sources(observation.weights, observation.spans)][:1]
    after = observation.first_after(first)
    assert (after is None) == (case.family in NO_WEIGHTS)
    if after is not None:
        called: list[str] = []
        recording.record(case.model, case.inputs, Wanted(first, called.append, after))
        assert called == first * observation.calls[first[0]]


def test_patterns_format_back_to_exactly_their_modules(case: Case) -> None:
    for pattern in case.opened.catalog.patterns:
        expression = re.escape(pattern.text)
        for placeholder in pattern.placeholders:
            escaped = re.escape("{" + placeholder + "}")
            expression = expression.replace(escaped, rf"(?P<{placeholder}>\d+)")
        for name, layers in zip(pattern.names, pattern.layers, strict=True):
            match = re.fullmatch(expression, name)
            assert match, (pattern.text, name)
            assert pattern.text.format(**match.groupdict()) == name
            number = match.groupdict().get("layer")
            again = case.opened.catalog.observation.calls[name] > 1  # in another layer, maybe
            if case.family not in REUSED and not again:
                assert layers == (None if number is None else int(number),)


def turned(document: Document, entry: dict[str, Any]) -> Any:
    weights = document.tensor(entry["module"], *entry["element"])
    return weights.transpose(entry.get("axes") or range(weights.ndim))


def test_both_views(case: Case, tmp_path: Path) -> None:
    case.capture.save(tmp_path / "capture.json")
    if case.family in NO_WEIGHTS:
        with pytest.raises(ToolkitError, match=r"^no attention weights in "):
            read_attention(load(tmp_path / "capture.json"))
        return
    warnings: list[str] = []
    document = load(tmp_path / "capture.json")
    stacks = read_attention(document, warnings.append)
    # What is shown is what is in the document, under its layer.
    own = {
        (entry["kind"], entry["layer"], weights.tobytes())
        for entry in document.attention_weights or []
        if (weights := turned(document, entry)).ndim == 4
    }
    shown = [
        (stack.kind, layer, weights.dense().tobytes())
        for stack in stacks
        for layer, weights in zip(stack.layers, stack.weights, strict=True)
    ]
    assert shown
    assert own.issuperset(shown)
    assert list(dict.fromkeys(warnings)) == ODD.get(case.family, [])
    if "Left out" not in " ".join(warnings):
        assert own == set(shown)
    pages = build_pages(["head", "model"], Caption(case.family, TEXT.prompt), stacks)
    assert set(pages) == {"head", "model"}
