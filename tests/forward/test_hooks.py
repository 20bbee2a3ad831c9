"""What is recorded, against hooks written independently here; how the model is left."""

from __future__ import annotations

import json
import math
from collections import OrderedDict, namedtuple
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from oracle import assert_same, raw_hooks
from torch import nn
from torch.masked import masked_tensor
from transformers import CanineConfig, CanineModel
from transformers.cache_utils import DynamicCache
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.llama.modeling_llama import LlamaMLP

import activations
from activations.document.format import FORMAT
from activations.document.writer import count_non_finite, write_document
from activations.errors import ToolkitError
from activations.forward import pyvene_backend, recording
from activations.forward.probe import observe
from activations.forward.recording import Wanted

BACKENDS = [recording.record, pyvene_backend.record]


def inputs_for(model: Any) -> dict[str, Any]:
    ids = torch.tensor([[5, 9, 20, 7, 33, 9, 20]])
    inputs = {"input_ids": ids}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids[:, :4]
    return inputs


@pytest.mark.parametrize("record", BACKENDS)
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_module_whole(family: str, record: Any) -> None:
    model = tiny.model(family)
    names = [n for n, m in model.named_modules() if n and not isinstance(m, nn.ModuleList)]
    inputs = inputs_for(model)
    expected = raw_hooks(model, inputs, names)
    with torch.no_grad():
        logits = model(**inputs).logits
    found = record(model, inputs, Wanted(names))
    assert found.not_called == [name for name in names if not expected[name]]
    keys = [f"{n}@{k}" if k else n for n in names for k in range(len(expected[n]))]
    assert list(found.outputs) == keys
    for name in names:
        for k, returned in enumerate(expected[name]):
            assert_same(found.outputs[f"{name}@{k}" if k else name], returned)
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, logits)


Pair = namedtuple("Pair", ["left", "right"])


class Odd(nn.Module):
    """Returns whatever it was made with."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self) -> Any:
        return self.output


class Holder(nn.Module):
    """Calls its part a number of times."""

    def __init__(self, part: nn.Module, times: int = 1) -> None:
        super().__init__()
        self.part, self.times = part, times
        self.unused = nn.Identity()

    def forward(self) -> Any:
        return [self.part() for _ in range(self.times)]


@pytest.mark.parametrize(
    "output",
    [
        torch.arange(6.0).reshape(2, 3),
        (torch.ones(2), None),
        [torch.ones(1), (torch.zeros(2, dtype=torch.int64), [torch.tensor(3.5)])],
        Pair(torch.ones(1), torch.zeros(1)),
        {"a": torch.ones(2), "b": {"c": None}},
        OrderedDict(x=torch.tensor([True, False])),
        BaseModelOutput(last_hidden_state=torch.ones(1, 2), attentions=(torch.ones(1),)),
        (torch.ones(1), DynamicCache()),
        (torch.ones(1), 3, 2.5, "text", True),
        torch.zeros(1, 0, 4),
        torch.tensor(1.5, dtype=torch.bfloat16),
        torch.tensor([1.5, -2.25], dtype=torch.float16),
        torch.ones(3, 4).t(),  # not contiguous
        torch.ones(2, 1).expand(2, 5),  # aliased
        torch.tensor([[1, -(2**62)]]),
        torch.tensor([0.1], dtype=torch.float64),
        None,
        (),
    ],
    ids=str,
)
def test_every_structure(output: Any) -> None:
    found = recording.record(Holder(Odd(output)), {}, Wanted(["part"]))
    assert_same(found.outputs["part"], output)


class Wrapped(torch.Tensor):
    """Holds its numbers elsewhere; torch computes with it by what it says itself."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Wrapped:
        made: Wrapped = torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*(arg.inner if isinstance(arg, cls) else arg for arg in args), **(kwargs or {}))


class Mine(torch.Tensor):
    """With numbers like any other's."""


ODD: dict[str, Any] = {
    "MaskedTensor": lambda: masked_tensor(torch.ones(2), torch.tensor([True, False])),
    "Wrapped": lambda: Wrapped(torch.ones(2)),
    "Tensor on meta": lambda: torch.ones(2, device="meta"),
    "int": lambda: 2**64,
    "Path": lambda: Path(),
}


@pytest.mark.filterwarnings("ignore:.*MaskedTensor")
@pytest.mark.parametrize("backend", ["hooks", "pyvene"])
@pytest.mark.parametrize("name", ODD)
def test_what_cannot_be_written_is_named(name: str, backend: str, workplace: Path) -> None:
    """And costs nothing of what stands beside it: the whole way, the trial too."""

    class Odder(LlamaMLP):
        def forward(self, x: torch.Tensor) -> Any:
            return super().forward(x), ODD[name](), torch.ones(1).as_subclass(Mine)

    class First(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> Any:
            return self.inner(x)[0]

    model = tiny.model("llama")
    for layer in model.model.layers:
        mlp = layer.mlp
        mlp.__class__ = Odder
        layer.mlp = First(mlp)
    document = activations.capture(
        model, "The cat", tokenizer=tiny.tokenizer(), select="mlp:all", backend=backend
    )
    key = "model.layers.0.mlp.inner"
    assert document[key][1] == (type(Path()).__name__ if name == "Path" else name)
    assert document.tensor(key, 0).shape == (1, 2, 32)
    assert document.tensor(key, 2).tolist() == [1.0]


def test_plain_values_that_json_has_not(tmp_path: Path) -> None:
    class Own(float):
        """As numpy's, but unknown to everyone."""

    integers = [-(2**63), 2**64 - 1, 2**64, -(2**63) - 1]
    values = [*integers, True, "a\ud800", Own(1.5), math.nan, -math.inf]
    found = recording.record(Holder(Odd(values)), {}, Wanted(["part"]))
    captured = {"mlp": dict(found.outputs)}
    assert count_non_finite(captured) == {
        "part": {
            "7": {"NaN": 1, "Infinity": 0, "-Infinity": 0},
            "8": {"NaN": 0, "Infinity": 0, "-Infinity": 1},
        }
    }
    for format in ("json", "safetensors"):
        write_document(tmp_path / "x.json", {"format": FORMAT}, captured, format=format)
        output = json.loads((tmp_path / "x.json").read_text())["captured"]["mlp_outputs"]["part"]
        assert output["output"] == [
            *(-(2**63), 2**64 - 1, "int", "int", True, "a?", 1.5, None, None)
        ]


def test_modules_called_again_and_never() -> None:
    found = recording.record(Holder(Odd(torch.ones(1)), times=3), {}, Wanted(["part", "unused"]))
    assert list(found.outputs) == ["part", "part@1", "part@2"]
    assert found.not_called == ["unused"]


def test_in_place_changes_after_the_call_do_not_show() -> None:
    class Changes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = Odd(torch.ones(3))

        def forward(self) -> torch.Tensor:
            made = self.part()
            made += 41
            return made

    model = Changes()
    assert_same(recording.record(model, {}, Wanted(["part"])).outputs["part"], torch.ones(3))
    assert model.part.output.tolist() == [42.0] * 3  # the change did happen


def hook_count(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("record", BACKENDS)
def test_hooks_are_removed_and_others_stay(record: Any) -> None:
    model = tiny.model("llama")
    mine: list[int] = []
    model.lm_head.register_forward_hook(lambda *args: mine.append(1))
    model.lm_head.weight.requires_grad_(False)
    gradients = [p.requires_grad for p in model.parameters()]
    before = hook_count(model)
    record(model, inputs_for(model), Wanted(["model.norm"]))
    assert hook_count(model) == before
    with pytest.raises((TypeError, ValueError, RuntimeError, IndexError)):
        record(model, {"input_ids": torch.tensor([[10**6]])}, Wanted(["model.norm"]))
    assert hook_count(model) == before
    assert [p.requires_grad for p in model.parameters()] == gradients
    assert len(mine) == 1  # the user's own hook ran, and is still there


def test_hooks_are_removed_when_the_copy_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model("llama")
    monkeypatch.setattr(recording, "snapshot", lambda output: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        recording.record(model, inputs_for(model), Wanted(["model.norm"]))
    assert hook_count(model) == 0


def test_a_pass_that_stops_early_keeps_what_a_longer_text_calls_again() -> None:
    """CANINE attends in chunks of 128: one for the short trial, three for this text."""
    config = CanineConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    torch.manual_seed(0)
    model = CanineModel(config).eval()
    observation = observe(model)
    name = "initial_char_encoder.layer.0.attention.self.query"
    inputs = {"input_ids": torch.arange(97, 122).repeat(13)[None]}
    stopped = recording.record(
        model, inputs, Wanted([name], stop_before=observation.first_after([name]))
    )
    assert list(stopped.outputs) == [name, f"{name}@1", f"{name}@2"]
    assert observation.calls[name] == 1


@pytest.mark.parametrize("record", BACKENDS)
def test_unknown_module(record: Any) -> None:
    model = tiny.model("llama")
    with pytest.raises(ToolkitError) as caught:
        record(model, inputs_for(model), Wanted(["model.norm", "model.layers.0.self_atn"]))
    assert str(caught.value).startswith(
        "Module not found: the model has no module 'model.layers.0.self_atn'. Did you mean "
        "'model.layers.0.self_attn'"
    )
    assert hook_count(model) == 0


def test_modules_shared_under_two_names_are_found_by_both() -> None:
    model = Holder(Odd(torch.ones(1)))
    model.again = model.part
    found = recording.record(model, {}, Wanted(["again", "part"]))
    assert list(found.outputs) == ["again", "part"]


def test_pyvene_is_the_version_whose_methods_are_overridden() -> None:
    import pyvene

    for method in ("_gather_intervention_output", "_intervention_setter", "_remove_forward_hooks"):
        assert callable(getattr(pyvene.IntervenableModel, method))
