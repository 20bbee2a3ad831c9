"""Modules -> categories and patterns, on made-up module lists and on what the probe sees."""

from __future__ import annotations

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from activations.forward.probe import observe
from activations.selection.catalog import Catalog, build_catalog
from activations.selection.observation import Module, Observation, WeightsSource, weights_sources


def catalog_of(*modules: tuple[str, ...], weights: tuple[WeightsSource, ...] = ()) -> Catalog:
    listed = tuple(Module(name, class_name) for name, class_name in modules)
    calls = {module.name: 1 for module in listed}
    return build_catalog(Observation(listed, calls=calls, weights=weights))


def texts(catalog: Catalog, category: str) -> list[str]:
    return [pattern.text for pattern in catalog.of(category)]


def layers_of(*names_and_classes: tuple[str, ...], count: int = 2) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = [("model.layers", "ModuleList")]
    for i in range(count):
        found.append((f"model.layers.{i}", "Layer"))
        found += [(f"model.layers.{i}.{name}", cls) for name, cls in names_and_classes]
    return found


@pytest.mark.parametrize(
    ("name", "class_name", "category"),
    [
        ("self_attn", "LlamaAttention", "attention"),
        ("mixer", "NemotronHAttention", "attention"),
        ("post_attention_layernorm", "LlamaRMSNorm", "other"),
        ("self_attn_layer_norm", "LayerNorm", "other"),
        ("attn_dropout", "Dropout", "other"),
        ("mlp", "LlamaMLP", "mlp"),
        ("mlp", "Qwen2MoeSparseMoeBlock", "mlp"),
        ("mlp", "DeepseekV3MoE", "mlp"),
        ("experts", "MixtralExperts", "mlp"),
        ("ffn", "FFN", "mlp"),
        ("fc1", "Linear", "mlp"),
        ("ffn_output", "Linear", "mlp"),
        ("feed_forward", "Lfm2MLP", "mlp"),
        ("mixer", "MambaMixer", "other"),
        ("intermediate", "ConvActivation", "mlp"),
        ("attention_input", "BlockAttentionResidual", "other"),
        ("input_layernorm", "Qwen2MoeRMSNorm", "other"),
        ("temporal_block", "RecurrentGemmaRecurrentBlock", "other"),
    ],
)
def test_category_by_class_and_name(name: str, class_name: str, category: str) -> None:
    catalog = catalog_of(*layers_of((name, class_name)))
    assert f"model.layers.{{layer}}.{name}" in texts(catalog, category)


@pytest.mark.parametrize(
    ("parts", "attention", "mlp"),
    [
        (  # what is inside gets the category
            "self_attn:A_Attention self_attn.q_norm:RMSNorm mlp:A_MLP mlp.act:SiLU",
            "self_attn self_attn.q_norm",
            "mlp mlp.act",
        ),
        (  # an output is MLP next to an intermediate, attention inside attention
            "attention:BertAttention attention.output:BertSelfOutput "
            "intermediate:BertIntermediate output:BertOutput",
            "attention attention.output",
            "intermediate output",
        ),
        (  # whatever its class
            "intermediate:ConvActivation output:ConvDropoutLayerNorm output_norm:LayerNorm "
            "intermediate_query:QFormerIntermediate output_query:QFormerOutput",
            "",
            "intermediate output intermediate_query output_query",
        ),
    ],
)
def test_categories_by_place(parts: str, attention: str, mlp: str) -> None:
    catalog = catalog_of(*layers_of(*(tuple(part.split(":")) for part in parts.split())))
    for category, expected in (("attention", attention), ("mlp", mlp)):
        names = [text.removeprefix("model.layers.{layer}.") for text in texts(catalog, category)]
        assert names == expected.split()


def test_a_layer_is_not_attention_whatever_its_class_is_called() -> None:
    modules = (
        "layers:ModuleList layers.0:JambaMambaDecoderLayer layers.0.mamba:JambaMambaMixer "
        "layers.0.feed_forward:JambaMLP layers.1:JambaAttentionDecoderLayer "
        "layers.1.self_attn:JambaAttention layers.1.feed_forward:JambaMLP"
    )
    catalog = catalog_of(*(tuple(module.split(":")) for module in modules.split()))
    assert texts(catalog, "attention") == ["layers.{layer}.self_attn"]
    assert catalog.of("attention")[0].layers == ((1,),)  # the real layer number
    assert "layers.{layer}" in texts(catalog, "other")  # unlike classes, still the layers


def test_the_probe_overrules_the_class() -> None:
    weights = tuple(
        WeightsSource(f"model.layers.{i}.looks_plain", 0, (1,), "self", i) for i in range(2)
    )
    catalog = catalog_of(
        *layers_of(("looks_plain", "Mystery"), ("linear_attn", "LightningAttention")),
        weights=weights,
    )
    # A module that returns the model's attentions is attention. One that is called and returns none
    # while others do is not, even if its class is called Attention (linear attention).
    assert texts(catalog, "attention") == ["model.layers.{layer}.looks_plain"]
    assert "model.layers.{layer}.linear_attn" in texts(catalog, "other")


def test_attention_that_a_model_does_not_return_is_attention() -> None:
    weights = (WeightsSource("decoder.layers.0.self_attn", 0, (1,), "decoder", 0),)
    modules = []
    for side in ("encoder", "decoder"):
        modules += [(f"{side}.layers", "ModuleList"), (f"{side}.layers.0", "Layer")]
        modules += [(f"{side}.layers.0.self_attn", f"{side.title()}Attention")]
    # LED returns its encoder's in another form, so none of that list is found
    assert texts(catalog_of(*modules, weights=weights), "attention") == [
        "decoder.layers.{layer}.self_attn",
        "encoder.layers.{layer}.self_attn",
    ]


def test_patterns_that_return_weights_come_first() -> None:
    modules = [("layers", "ModuleList"), ("layers.0", "Layer")]
    modules += [("layers.0.a", "OuterAttn"), ("layers.0.b", "InnerAttn")]
    weights = (WeightsSource("layers.0.b", 0, (1,), "self", 0),)
    calls = {"layers.0.a": 0, "layers.0.b": 1}
    observation = Observation(tuple(Module(*m) for m in modules), calls=calls, weights=weights)
    expected = ["layers.{layer}.b", "layers.{layer}.a"]
    assert texts(build_catalog(observation), "attention") == expected


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        # T5: the inner numbers tell attention from feed-forward, so they stay
        (
            "block:ModuleList block.0:T5Block block.0.layer:ModuleList "
            "block.0.layer.0:T5LayerSelfAttention block.0.layer.0.Self:T5Attention "
            "block.0.layer.1:T5LayerFF",
            "block.{layer} block.{layer}.layer.0 block.{layer}.layer.0.Self block.{layer}.layer.1",
        ),
        # XLM: the number comes last
        ("t.att:ModuleList t.att.0:MultiHeadAttention t.att.1:MultiHeadAttention", "t.att.{layer}"),
        # experts get a name of their own; digits inside a part stay
        (
            "h:ModuleList h.0:Layer h.0.experts:ModuleList h.0.experts.0:Expert "
            "h.0.experts.1:Expert h.0.experts.1.fc1:Linear h.0.ln_1:LayerNorm",
            "h.{layer} h.{layer}.experts.{expert} h.{layer}.experts.{expert}.fc1 h.{layer}.ln_1",
        ),
        # LongCat: two attentions a layer, in a list called like one
        (
            "h:ModuleList h.0:Layer h.0.attn:ModuleList h.0.attn.0:Attention h.0.attn.1:Attention",
            "h.{layer} h.{layer}.attn.{index}",
        ),
        # Zamba2
        (
            "h:ModuleList h.0:Layer h.0.a_list:ModuleList h.0.a_list.0:Linear h.0.a_list.1:Linear",
            "h.{layer} h.{layer}.a_list.{a}",
        ),
        # a number straight after a number
        ("h:ModuleList h.0:ModuleList h.0.0:FunnelLayer h.0.1:FunnelLayer", "h.{layer}.{index}"),
        # a sequence of unlike modules counts nothing
        ("head:Sequential head.0:Linear head.1:ReLU", "head head.0 head.1"),
    ],
)
def test_patterns(modules: str, expected: str) -> None:
    pairs = [tuple(module.split(":")) for module in modules.split()]
    assert {pattern.text for pattern in catalog_of(*pairs).patterns} == set(expected.split())


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_patterns_format_back_to_exactly_their_modules(family: str) -> None:
    model = tiny.model(family)
    catalog = build_catalog(observe(model))
    classes = {name: type(module).__name__ for name, module in model.named_modules() if name}
    callable_ones = [name for name, class_name in classes.items() if class_name != "ModuleList"]
    covered: list[str] = []
    for pattern in catalog.patterns:
        assert pattern.placeholders in ((), ("layer",))
        for name, (layer,) in zip(pattern.names, pattern.layers, strict=True):
            assert (pattern.text.format(layer=layer) if layer is not None else pattern.text) == name
        covered += pattern.names
    assert sorted(covered) == sorted(callable_ones)  # every module in exactly one pattern


@pytest.mark.parametrize(
    ("family", "attention", "mlp"),
    [
        ("llama", "model.layers.{layer}.self_attn", "model.layers.{layer}.mlp"),
        ("qwen2", "model.layers.{layer}.self_attn", "model.layers.{layer}.mlp"),
        ("gpt2", "transformer.h.{layer}.attn", "transformer.h.{layer}.mlp"),
        ("gpt_neox", "gpt_neox.layers.{layer}.attention", "gpt_neox.layers.{layer}.mlp"),
        ("opt", "model.decoder.layers.{layer}.self_attn", "model.decoder.layers.{layer}.fc1"),
        ("bert", "bert.encoder.layer.{layer}.attention", "bert.encoder.layer.{layer}.intermediate"),
        ("t5", "encoder.block.{layer}.layer.0", "encoder.block.{layer}.layer.1"),
        ("bart", "model.encoder.layers.{layer}.self_attn", "model.encoder.layers.{layer}.fc1"),
    ],
)
def test_the_first_of_each_category(family: str, attention: str, mlp: str) -> None:
    catalog = build_catalog(observe(tiny.model(family)))
    assert catalog.of("attention")[0].text == attention
    assert catalog.of("attention")[0].weights
    assert catalog.of("mlp")[0].text == mlp


def test_short_spelling_leaves_the_list_name_out() -> None:
    catalog = catalog_of(*layers_of(("self_attn", "Attention")))
    assert catalog.of("attention")[0].short == "model.{layer}.self_attn"


def test_each_tensor_once_from_the_outermost_chosen_module() -> None:
    inner = WeightsSource("l.0.attention.self", 0, (1,), "self", 0)
    outer = WeightsSource("l.0.attention", 0, (1,), "self", 0)
    assert weights_sources((inner, outer), [inner.module, outer.module]) == (outer,)
    assert weights_sources((inner, outer), [inner.module]) == (inner,)
    assert weights_sources((inner, outer), []) == ()


PART = st.one_of(st.sampled_from(["layers", "h", "attn", "experts"]), st.integers(0, 40).map(str))


@given(st.lists(st.lists(PART, min_size=1, max_size=6), min_size=1, max_size=20))
def test_any_names_format_back(parts: list[list[str]]) -> None:
    names = list(dict.fromkeys(".".join(p.strip() for p in item) for item in parts))
    catalog = build_catalog(Observation(tuple(Module(name, "Linear") for name in names)))
    found = [name for pattern in catalog.patterns for name in pattern.names]
    assert sorted(found) == sorted(names)
    for pattern in catalog.patterns:
        for name in pattern.names:
            numbers = [part for part in name.split(".") if part.isdecimal()]
            values = dict(zip(pattern.placeholders, map(int, numbers), strict=False))
            if len(numbers) == len(pattern.placeholders) and all(n == str(int(n)) for n in numbers):
                assert pattern.text.format(**values) == name
