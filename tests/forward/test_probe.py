"""The probe: attention weights by identity, the same on the skeleton as on the model itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from activations.forward.probe import observe, probe_inputs
from activations.forward.recording import Wanted, record
from activations.model.checkpoint import Checkpoint, open_checkpoint
from activations.model.loading import load_model, skeleton
from activations.outputs.shapes import in_words
from activations.outputs.tree import at
from activations.selection.catalog import build_catalog
from activations.selection.observation import Observation, weights_sources


def where_the_models_own_attentions_are(model: Any, inputs: dict[str, Any]) -> set[tuple[Any, ...]]:
    """(module, element) of every returned attention, found by value with plain hooks."""
    outputs: dict[str, Any] = {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda m, a, o, name=name: outputs.setdefault(name, o))
    with torch.no_grad():
        returned = model(**inputs, output_attentions=True)
    own = [t for k in returned if k.endswith("attentions") for t in returned[k] or ()]
    assert own
    return {
        (name, i)
        for name, output in outputs.items()
        if isinstance(output, tuple)
        for i, element in enumerate(output)
        if any(element is t for t in own)
    }


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_weights_are_found_where_the_model_returns_them(family: str) -> None:
    model = tiny.model(family)
    observation = observe(model)
    found = {(s.module, s.element[0]) for s in observation.weights}
    inputs = {"input_ids": torch.arange(3, 10)[None]}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs["input_ids"][:, :3]
    expected = where_the_models_own_attentions_are(tiny.model(family), inputs)
    layers = {name for name, _ in expected if name.rpartition(".")[2].isdecimal()}
    # T5's blocks return the weights of their attention modules again
    assert found >= {(name, i) for name, i in expected if name not in layers}
    kinds = {s.kind for s in observation.weights}
    assert kinds == ({"encoder", "decoder", "cross"} if family in ("t5", "bart") else {"self"})


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_skeleton_and_model_show_the_same(family: str, checkpoints: Callable[[str], Path]) -> None:
    checkpoint = open_checkpoint(str(checkpoints(family)))
    assert checkpoint.class_name == tiny.FAMILIES[family]
    light, (heavy, warnings) = skeleton(checkpoint), load_model(checkpoint, "eager")
    assert warnings == []
    assert all(parameter.device.type == "meta" for parameter in light.parameters())
    a, b = observe(light), observe(heavy)
    assert a == b
    assert build_catalog(a).patterns == build_catalog(b).patterns


def test_the_probe_leaves_no_hooks() -> None:
    model = tiny.model("bart")
    record(
        model, {"input_ids": torch.tensor([[1, 2]])}, Wanted([])
    )  # transformers adds its own once
    observe(model)
    hooks = [
        hook
        for module in model.modules()
        for kind in (module._forward_hooks, module._forward_pre_hooks)
        for hook in kind.values()
    ]
    assert [hook for hook in hooks if hook.__module__.startswith("activations")] == []


def test_sdpa_returns_no_weights() -> None:
    model = tiny.model("llama")
    model.set_attn_implementation("sdpa")
    assert observe(model).weights == ()


def test_a_model_whose_weights_need_the_flag() -> None:
    observation = observe(tiny.model("xlm", "AutoModelForMaskedLM", emb_dim=32))
    assert observation.needs_flag
    assert [s.module for s in observation.weights] == [
        f"transformer.attentions.{i}" for i in range(3)
    ]


@pytest.mark.parametrize("family", ["bert", "albert", "distilbert", "deberta-v2"])
def test_weights_of_a_model_whose_configuration_asks_for_tuples(family: str) -> None:
    """Its attentions are found by their keys all the same."""
    model = tiny.model(family, return_dict=False)
    with torch.no_grad():
        assert isinstance(model(**probe_inputs(model, {})), tuple)
    assert observe(model).weights == observe(tiny.model(family)).weights != ()


def test_attentions_that_a_model_returns_with_other_axes() -> None:
    model = tiny.model("xlnet")
    catalog = build_catalog(observe(model))
    first = catalog.of("attention")[0]
    assert first.text == "transformer.layer.{layer}.rel_attn"
    sources = weights_sources(catalog.observation.weights, first.names)
    assert [(s.module, s.element) for s in sources] == [(name, (2,)) for name in first.names]
    inputs = probe_inputs(model, {}) | {"output_attentions": True}
    recorded = record(model, inputs, Wanted([source.module for source in sources])).outputs
    with torch.no_grad():
        own = model(**inputs).attentions
    for source, returned in zip(sources, own, strict=True):
        numbers = at(recorded[source.module], source.element).data
        assert numbers.shape != tuple(returned.shape)
        np.testing.assert_array_equal(numbers.transpose(source.axes), returned)


@pytest.mark.parametrize("family", ["longformer", "cpmant"])
def test_attentions_that_no_module_returns(family: str) -> None:
    """They are sliced or padded afterwards; only the stack that collects them returns them."""
    observation = observe(tiny.model(family))
    assert observation.weights == ()
    assert observation.lost == ("self",)
    assert build_catalog(observation).of("attention")


def test_the_skeleton_calls_what_the_model_calls() -> None:
    """Where code asks for values: which experts a token goes to, which rows a mask picks."""
    for family in ("mixtral", "xmod"):
        auto_class = "AutoModelForCausalLM"
        checkpoint = Checkpoint(family, tiny.config(family, auto_class), auto_class)
        light, heavy = (
            observe(skeleton(checkpoint)),
            observe(tiny.model(family, auto_class)),
        )
        called = [{name for name, count in o.calls.items() if count} for o in (light, heavy)]
        assert called[0] == called[1]
        assert light.weights == heavy.weights


def test_outputs_in_words() -> None:
    observation: Observation = observe(tiny.model("t5"))
    words = {name: in_words(output) for name, output in observation.outputs.items()}
    assert words["encoder.block.0.layer.0"] == "([1,S,32], [1,4,S,S], [1,4,S,S])"
    assert words["decoder.block.0.layer.1"] == "([1,T,32], [1,4,T,S], [1,4,T,S])"
    assert observation.calls["shared"] == 0
    assert "shared" not in observation.outputs
