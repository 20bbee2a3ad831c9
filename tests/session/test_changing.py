"""Ablating and patching, against hooks written by hand here, and what linear algebra says of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from activations import Document, capture
from activations.errors import ToolkitError, UsageError

TEXT, OTHER = "The cat sat on the mat.", "The mat sat on the cat."
TARGET = "Ein Satz."

# family: one of its heads, and by its source code the matrix that reads the heads side by side,
# its call, the part of its input (layer 1, head 2 of four; a head is 8 wide)
CUTS = {
    "llama": ("1.2", "model.layers.1.self_attn.o_proj", 0, slice(16, 24)),
    "gpt2": ("1.2", "transformer.h.1.attn.c_proj", 0, slice(16, 24)),
    "bert": ("1.2", "bert.encoder.layer.1.attention.output.dense", 0, slice(16, 24)),
    "t5": ("cross:1.2", "decoder.block.1.layer.1.EncDecAttention.o", 0, slice(16, 24)),
    "bart": ("encoder:1.2", "model.encoder.layers.1.self_attn.out_proj", 0, slice(16, 24)),
    "albert": (
        "1.2",
        "albert.encoder.albert_layer_groups.0.albert_layers.0.attention.dense",
        1,
        slice(16, 24),
    ),
    "deberta-v2": ("1.2", "deberta.encoder.layer.1.attention.output.dense", 0, slice(16, 24)),
    "gpt_neox": ("1.2", "gpt_neox.layers.1.attention.dense", 0, slice(16, 24)),
}


def captured(tmp_path: Path, model: Any, prompt: str = TEXT, **asked: Any) -> Document:
    asked = {"select": "attn:0;mlp:;other:", "tokenizer": tiny.tokenizer(), **asked}
    return capture(model, prompt, output=tmp_path / "made.json", **asked)


@contextmanager
def cut_by_hand(
    model: Any, module: str, call: int, change: Callable[[torch.Tensor], torch.Tensor]
) -> Iterator[None]:
    """Change what one call of a module is given."""
    calls = 0

    def before(_: Any, args: tuple[torch.Tensor, ...]) -> Any:
        nonlocal calls
        calls += 1
        return (change(args[0].clone()), *args[1:]) if calls == call + 1 else None

    handle = model.get_submodule(module).register_forward_pre_hook(before)
    try:
        yield
    finally:
        handle.remove()


def logits(model: Any, document: Document) -> torch.Tensor:
    """Of the document's own ids, (positions, vocabulary)."""
    names = ("input_ids", "decoder_input_ids")
    ids = {name: torch.tensor(document.header[name]) for name in names if name in document.header}
    if "bert" in type(model).__name__.lower():
        ids["token_type_ids"] = torch.zeros_like(ids["input_ids"])
    model.set_attn_implementation("eager")
    with torch.no_grad():
        return model(**ids, attention_mask=torch.ones_like(ids["input_ids"])).logits[0]


def zero(part: slice) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(given: torch.Tensor) -> torch.Tensor:
        given[..., part] = 0
        return given

    return change


@pytest.mark.parametrize("family", CUTS)
def test_a_head_is_cut_where_the_heads_stand_side_by_side(family: str, tmp_path: Path) -> None:
    what, module, call, part = CUTS[family]
    model = tiny.model(family)
    target = {"target": TARGET} if family in ("t5", "bart") else {}
    made = captured(tmp_path, model, ablate=what, **target)
    before = logits(model, made)
    with cut_by_hand(model, module, call, zero(part)):
        after = logits(model, made)
    assert not torch.equal(before, after)
    assert made.predictions is not None
    np.testing.assert_array_equal(made.predictions.ids, after.topk(5).indices)
    np.testing.assert_allclose(made.predictions.probabilities, after.softmax(-1).topk(5)[0], 1e-4)
    p, q = before[-1].double().log_softmax(-1), after[-1].double().log_softmax(-1)
    assert made.effect is not None
    assert made.effect.kl == pytest.approx(float((p.exp() * (p - q)).sum()), rel=1e-3)
    assert made.effect.position == len(before) - 1
    assert list(made.effect.before.ids) == before[-1].topk(5).indices.tolist()
    assert list(made.effect.after.ids) == after[-1].topk(5).indices.tolist()
    name = f"{module}@{call}" if call else module
    (entry,) = made.header["interventions"]
    assert entry == {
        "what": what, "module": name, "with": "zero", "positions": None,
        "part": [-1, part.start, part.stop],
    }  # fmt: skip


def test_what_is_captured_is_the_changed_pass(tmp_path: Path) -> None:
    model = tiny.model("llama")
    asked = {"select": "attn:0;mlp:0;other:"}
    plain = {n: captured(tmp_path, model, **asked)[n] for n in ("model.layers.2.mlp",)}
    made = captured(tmp_path, model, ablate="1.2", **asked)
    seen = []
    hook = model.model.layers[2].mlp.register_forward_hook(lambda m, a, out: seen.append(out))
    with cut_by_hand(model, "model.layers.1.self_attn.o_proj", 0, zero(slice(16, 24))):
        logits(model, made)
    hook.remove()
    np.testing.assert_array_equal(made["model.layers.2.mlp"], seen[0].numpy())
    assert not np.array_equal(made["model.layers.2.mlp"], plain["model.layers.2.mlp"])


def test_what_a_cut_head_leaves_is_the_sum_of_the_others(tmp_path: Path) -> None:
    """The projection is linear: what it returns is its bias and a part for each head."""
    model = tiny.model("gpt2")  # with a bias
    asked = {"select": "attn:attn,c_proj;mlp:;other:", "with_inputs": True}
    whole = captured(tmp_path, model, **asked)
    name = "transformer.h.1.attn.c_proj"
    heads, returned = whole.heads(1), whole.tensor(name)
    assert heads.shape == (4, len(whole.header["tokens"]), 8)
    weight = model.transformer.h[1].attn.c_proj.weight.detach().numpy()  # (in, out)
    bias = model.transformer.h[1].attn.c_proj.bias.detach().numpy()
    parts = [heads[h] @ weight[8 * h : 8 * h + 8] for h in range(4)]
    np.testing.assert_allclose(sum(parts) + bias, returned[0], atol=1e-6)
    for head in range(4):
        cut = captured(tmp_path, model, ablate=f"1.{head}", **asked)
        left = sum(part for h, part in enumerate(parts) if h != head) + bias
        np.testing.assert_allclose(cut.tensor(name)[0], left, atol=1e-6)
        np.testing.assert_array_equal(np.delete(cut.heads(1), head, 0), np.delete(heads, head, 0))
        assert not cut.heads(1)[head].any()


def same(a: Document, b: Document) -> bool:
    """Whether everything captured and predicted is the same, to the bit."""
    assert a.predictions
    assert b.predictions
    outputs = all(np.array_equal(a.tensor(n, 0), b.tensor(n, 0)) for n in a.names)
    return outputs and np.array_equal(a.predictions.probabilities, b.predictions.probabilities)


def test_cut_twice_is_cut_once_and_all_heads_are_the_block_but_for_its_bias(tmp_path: Path) -> None:
    model = tiny.model("llama")  # without a bias

    def cut(what: str) -> Document:
        path = tmp_path / "cut"
        path.mkdir(exist_ok=True)
        made = captured(path, model, ablate=what)
        made.path.rename(tmp_path / f"{what.replace(':', '')[:40]}.json")
        return Document(tmp_path / f"{what.replace(':', '')[:40]}.json")

    assert same(cut("1.2"), cut("1.2,1.2"))
    assert same(cut("mlp:1"), cut("mlp:1,model.layers.1.mlp"))
    block, heads = cut("attn:1"), cut("1.0,1.1,1.2,1.3")
    assert block.predictions
    assert heads.predictions
    np.testing.assert_array_equal(block.predictions.probabilities, heads.predictions.probabilities)
    assert not same(block, cut("1.0,1.1,1.2"))


@pytest.mark.parametrize(
    "asked",
    [
        {"ablate": "1.2,mlp:0,attn:2"},
        {"ablate": ["1.2", "mlp:2"], "ablate_with": "mean", "at": [1, -1]},
        {"ablate": "model.layers.1", "with_inputs": True, "lens": "logit"},
        {"patch": "1.0,mlp:1", "source": OTHER},
    ],
    ids=str,
)
def test_pyvene_writes_the_same_bytes(asked: dict[str, Any], tmp_path: Path) -> None:
    model = tiny.model("llama")
    texts = []
    for backend in ("hooks", "pyvene"):
        captured(tmp_path, model, backend=backend, **asked)
        texts.append((tmp_path / "made.json").read_text().replace(f'"{backend}"', '""'))
    assert texts[0] == texts[1]


BLOCKS = {
    ("llama", "mlp:1"): "model.layers.1.mlp",
    ("llama", "attn:1"): "model.layers.1.self_attn",
    ("bert", "mlp:1"): "bert.encoder.layer.1.output.dense",  # `output` adds the stream
    ("bert", "attn:1"): "bert.encoder.layer.1.attention.output.dense",
    ("opt", "mlp:1"): "model.decoder.layers.1.fc2",  # there is no module of the whole block
    ("mixtral", "mlp:1"): "model.layers.1.mlp",
    ("t5", "encoder:mlp:1"): "encoder.block.1.layer.1.DenseReluDense",  # layer.1 adds the stream
    ("t5", "decoder:mlp:1"): "decoder.block.1.layer.2.DenseReluDense",
    ("t5", "encoder:attn:1"): "encoder.block.1.layer.0.SelfAttention",
    ("bart", "decoder:mlp:1"): "model.decoder.layers.1.fc2",
    ("albert", "mlp:1"): "albert.encoder.albert_layer_groups.0.albert_layers.0.ffn_output@1",
}


@pytest.mark.parametrize(("family", "what"), BLOCKS, ids=str)
def test_blocks_are_proven(family: str, what: str, tmp_path: Path) -> None:
    model = tiny.model(family)
    target = {"target": TARGET} if family in ("t5", "bart") else {}
    made = captured(tmp_path, model, ablate=what, **target)
    assert [entry["module"] for entry in made.header["interventions"]] == [BLOCKS[family, what]]
    name, _, call = BLOCKS[family, what].partition("@")
    calls = []

    def nothing(_: Any, args: Any, output: Any) -> Any:
        calls.append(name)
        if len(calls) - 1 != int(call or 0):
            return None
        if isinstance(output, tuple):
            return (torch.zeros_like(output[0]), *output[1:])
        return torch.zeros_like(output)

    handle = model.get_submodule(name).register_forward_hook(nothing)
    after = logits(model, made)
    handle.remove()
    assert made.predictions is not None
    np.testing.assert_array_equal(made.predictions.ids, after.topk(5).indices)


def test_the_mean_at_some_positions(tmp_path: Path) -> None:
    model = tiny.model("llama")
    made = captured(tmp_path, model, ablate="1.2", ablate_with="mean", at=[0, -1])
    last = len(made.header["tokens"]) - 1
    assert made.header["interventions"][0]["positions"] == [0, last]

    def change(given: torch.Tensor) -> torch.Tensor:
        mean = given[:, :, 16:24].mean(1)
        given[:, [0, last], 16:24] = mean[:, None]
        return given

    with cut_by_hand(model, "model.layers.1.self_attn.o_proj", 0, change):
        after = logits(model, made)
    assert made.predictions is not None
    np.testing.assert_allclose(made.predictions.probabilities, after.softmax(-1).topk(5)[0], 1e-4)


def test_a_patch_is_what_stood_there_on_the_source(tmp_path: Path) -> None:
    model = tiny.model("llama")
    source = captured(tmp_path, model, OTHER, select="attn:o_proj;mlp:;other:", with_inputs=True)
    kept = torch.from_numpy(source.input("model.layers.1.self_attn.o_proj")).clone()
    made = captured(tmp_path, model, patch="1.2", source=OTHER)
    assert len(source.header["tokens"]) == len(made.header["tokens"])

    def change(given: torch.Tensor) -> torch.Tensor:
        given[..., 16:24] = kept[..., 16:24]
        return given

    with cut_by_hand(model, "model.layers.1.self_attn.o_proj", 0, change):
        after = logits(model, made)
    assert made.predictions is not None
    np.testing.assert_array_equal(made.predictions.ids, after.topk(5).indices)
    np.testing.assert_allclose(made.predictions.probabilities, after.softmax(-1).topk(5)[0], 1e-4)


def test_a_decoders_patch_reads_the_same_target(tmp_path: Path) -> None:
    model = tiny.model("t5")
    asked = {"patch": "encoder:1.2,cross:0.0", "source": OTHER, "target": TARGET}
    made = captured(tmp_path, model, **asked)
    assert made.effect is not None
    assert made.effect.kl > 0


@pytest.mark.parametrize("asked", [{}, {"predict": 0}], ids=str)
def test_the_head_itself_is_patched(asked: dict[str, Any], tmp_path: Path) -> None:
    """At one position: what is predicted there is what the source predicts there."""
    model = tiny.model("llama")
    made = captured(tmp_path, model, patch="lm_head", source=OTHER, at=-1, **asked)
    assert made.effect is not None
    (positions,) = [one.positions for one in made.interventions]
    assert positions == (len(made.header["tokens"]) - 1,)
    after = made.effect.after
    source = captured(tmp_path, model, OTHER)
    assert source.predictions is not None
    np.testing.assert_array_equal(after.ids, source.predictions.ids[-1])


def test_a_diagnostics_control_is_ablated_too(tmp_path: Path) -> None:
    """What the previous-token head of the demo model carries, the control lacks as well."""
    asked = {"diagnostic": "induction", "output": tmp_path / "made.json"}
    cut = capture(**asked, ablate="3.2")
    scores = {(row["layer"], row["head"]): row for row in cut.scores()}
    whole = {(row["layer"], row["head"]): row for row in capture(**asked).scores()}
    assert scores[3, 2]["induction_control"] == whole[3, 2]["induction_control"]
    assert cut.effect is not None


def test_patching_in_the_same_text_is_told(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="what was written is what stood there before"):
        made = captured(tmp_path, tiny.model("llama"), patch="1.2", source=TEXT)
    assert made.effect is not None
    assert made.effect.kl == 0


def test_what_does_not_move_the_prediction_is_told(tmp_path: Path) -> None:
    """The first token's last feed-forward block reaches no later token."""
    with pytest.warns(UserWarning, match="the changes did not move the prediction"):
        captured(tmp_path, tiny.model("llama"), ablate="mlp:2", at=0)


def test_nothing_predicted_no_effect(tmp_path: Path) -> None:
    model = tiny.model("llama").model
    with pytest.warns(UserWarning, match="predicts nothing"):
        made = captured(tmp_path, model, ablate="0.1")
    assert made.effect is None
    assert made.interventions[0].what == "0.1"


def test_the_mask_is_what_is_looked_at(tmp_path: Path) -> None:
    tokenizer = tiny.tokenizer(bert=True)
    tokenizer.mask_token = "Ġmat"
    made = captured(tmp_path, tiny.model("bert"), ablate="1.2", tokenizer=tokenizer)
    assert made.effect is not None
    assert made.header["tokens"][made.effect.position] == "Ġmat"


def test_the_model_is_left_as_it_was(tmp_path: Path) -> None:
    model = tiny.model("llama")
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number % 2 == 0)
    before = [(p.requires_grad, p.clone()) for p in model.parameters()]
    captured(tmp_path, model, ablate="1.2,mlp:1", patch="0.1", source=OTHER)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    for (wants, value), parameter in zip(before, model.parameters(), strict=True):
        assert parameter.requires_grad == wants
        assert parameter.grad is None
        assert torch.equal(value, parameter)


# family, what is asked -> the error's start
REFUSED = {
    ("bitnet", "ablate", "1.2"): "--ablate 1.2: no place can be proven where the heads",
    ("bart", "ablate", "1.2"): "--ablate 1.2: there is decoder, cross, encoder attention. Say",
    ("bart", "ablate", "mlp:1"): "--ablate mlp:1: there is a layer 1 in 'model.encoder.layers'",
    ("llama", "ablate", "mlp:9"): "--ablate mlp:9: the model has no such layer. Choose from",
    ("llama", "ablate", "1.9"): "--ablate 1.9: layer 1 has no head 9. It has heads 0-3.",
    ("llama", "ablate", "9.1"): "--ablate 9.1: there is no layer 9. Choose from layers 0-2.",
    ("mamba", "ablate", "0.1"): "--ablate 0.1: no module of this model returns attention weights",
    ("opt", "ablate", "model"): "model: not called in this pass",
    ("llama", "patch", "1.2"): "--source has 2 tokens and the prompt",
}


@pytest.mark.parametrize(("family", "option", "what"), REFUSED, ids=str)
def test_what_cannot_be_done_is_one_line(
    family: str, option: str, what: str, tmp_path: Path
) -> None:
    asked = {option: what, **({"source": "The cat"} if option == "patch" else {})}
    select = "attn:weights" if family != "mamba" else "attn:;mlp:;other:all"
    with pytest.raises(ToolkitError) as caught:
        captured(tmp_path, tiny.model(family), select=select, **asked)
    assert str(caught.value).startswith(REFUSED[family, option, what])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "made.json").exists()


def test_one_place_is_changed_in_one_way(tmp_path: Path) -> None:
    asked = {"ablate": "1.2", "patch": "1.2", "source": OTHER}
    with pytest.raises(UsageError, match="both change 1.2"):
        captured(tmp_path, tiny.model("llama"), **asked)


@pytest.mark.parametrize("format", ["json", "safetensors"])
def test_what_modules_were_given(format: str, tmp_path: Path) -> None:
    model, names = tiny.model("llama"), ["model.layers.1.self_attn", "model.layers.1.mlp"]
    seen: dict[str, Any] = {}

    def keep(name: str) -> Callable[..., None]:
        def before(_: Any, args: Any, kwargs: Any) -> None:
            seen[name] = (args, kwargs)

        return before

    handles = [
        model.get_submodule(n).register_forward_pre_hook(keep(n), with_kwargs=True) for n in names
    ]
    asked = {"select": "attn:self_attn;mlp:mlp;other:", "with_inputs": True, "format": format}
    made = captured(tmp_path, model, **asked)
    for handle in handles:
        handle.remove()
    (stream,), _ = seen["model.layers.1.mlp"]
    np.testing.assert_array_equal(made.input("model.layers.1.mlp"), stream.numpy())
    _, kwargs = seen["model.layers.1.self_attn"]
    given = made.input("model.layers.1.self_attn")
    np.testing.assert_array_equal(given["hidden_states"], kwargs["hidden_states"].numpy())
    cos, sin = given["position_embeddings"]
    np.testing.assert_array_equal(cos, kwargs["position_embeddings"][0].numpy())
    np.testing.assert_array_equal(sin, kwargs["position_embeddings"][1].numpy())
    if format == "json":  # by Python's own reader
        raw = json.loads((tmp_path / "made.json").read_text())["captured"]["mlp_outputs"]
        entry = raw["model.layers.1.mlp"]
        assert entry["input_shape"] == list(stream.shape)
        assert entry["input_dtype"] == "float32"
        np.testing.assert_array_equal(np.float32(entry["input"]), stream.numpy())


def test_without_inputs_there_are_none(tmp_path: Path) -> None:
    made = captured(tmp_path, tiny.model("llama"))
    with pytest.raises(ToolkitError, match="--with-inputs"):
        made.input(made.names[0])
    with pytest.raises(ToolkitError, match="--with-inputs"):
        made.heads(1)
