"""The lens, against the model itself with its later layers passing on what they are given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from activations.errors import ToolkitError
from activations.forward import tail
from activations.inputs.request import Request
from activations.selection.answers import select
from activations.selection.catalog import CATEGORIES
from activations.session.opening import OpenedModel, open_loaded
from activations.session.options import Options
from activations.session.run import Capture, run

# Where the stream is: a plain output, a tuple's first, one module called again, a decoder's with
# position biases, several streams, no module that is a layer, a soft cap after the head.
FAMILIES = ["llama", "gptj", "albert", "t5", "bart", "zaya", "xlm", "gemma2", "reformer", "bert"]
TEXT = "The cat sat on the mat."


def opened_model(family: str, **changes: Any) -> OpenedModel:
    model = tiny.model(family, **changes)
    target = "Ein Satz" if model.config.is_encoder_decoder else None
    return open_loaded(model, tiny.tokenizer(), request=Request(TEXT, target=target))


def captured(opened: OpenedModel, **options: Any) -> Capture:
    category = next(c for c in CATEGORIES if opened.catalog.of(c))
    return run(opened, select(opened.catalog, {category: "0"}), Options(**options))


def inputs_of(capture: Capture) -> dict[str, torch.Tensor]:
    keys = ("input_ids", "decoder_input_ids")
    return {key: torch.tensor(capture.header[key]) for key in keys if key in capture.header}


@contextmanager
def passing_on(model: Any, layers: list[str], first: int, capture: Capture) -> Iterator[None]:
    """The layers from `first` on, each by its place in the pass, return what they are given."""
    named = [layer.partition("@")[0] for layer in layers]
    own = {name: model.get_submodule(name).forward for name in named}
    count = iter(range(len(layers)))

    def patched(name: str) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            returned = own[name](*args, **kwargs)
            if next(count) < first:
                return returned
            given = args[0] if args else kwargs["hidden_states"]
            if isinstance(returned, torch.Tensor):
                return given
            return type(returned)([given, *returned[1:]])

        return forward

    for name in own:
        model.get_submodule(name).forward = patched(name)
    try:
        yield
    finally:
        for name in own:
            del model.get_submodule(name).forward


@pytest.mark.parametrize("family", ["llama", "gptj", "albert", "t5", "bart", "gemma2", "bert"])
def test_each_layer_is_what_the_model_says_without_the_later_ones(family: str) -> None:
    opened = opened_model(family)
    model, capture = opened.model, captured(opened, lens="logit")
    lens = capture.header["lens"]
    assert len(lens["layers"]) == model.config.num_hidden_layers
    for k in range(len(lens["layers"])):
        with passing_on(model, lens["layers"], k + 1, capture), torch.no_grad():
            logits = model(**inputs_of(capture), use_cache=False).logits[0]
        top = logits.softmax(-1).topk(5)
        np.testing.assert_array_equal(lens["ids"][k], top.indices)
        np.testing.assert_allclose(lens["probabilities"][k], top.values, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_layer_is_the_model(family: str) -> None:
    opened = opened_model(family)
    before = {name: dict(vars(module)) for name, module in opened.model.named_modules()}
    capture = captured(opened, lens="logit", predict=4)
    lens, predictions = capture.header["lens"], capture.header["predictions"]
    for key in ("ids", "probabilities"):
        np.testing.assert_allclose(lens[key][-1], predictions[key], rtol=1e-5)
    assert lens["tokens"][-1] == predictions["tokens"]
    assert lens["predicted"]["rank"][-1] == [[1, 2, 3, 4]] * len(predictions["ids"])
    if predictions["of"] == "next_token":
        assert lens["actual"]["rank"][-1] == predictions["actual"]["rank"]
    for name, module in opened.model.named_modules():  # no forward, no hook is left
        assert vars(module).keys() == before[name].keys()
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_layers_that_a_module_has_several_of() -> None:
    lens = captured(opened_model("albert"), lens="logit").header["lens"]
    block = "albert.encoder.albert_layer_groups.0"
    assert lens["layers"] == [block, f"{block}@1", f"{block}@2"]


def test_at_some_positions_it_is_the_same() -> None:
    for family in ("llama", "bert"):  # one takes logits_to_keep, the other none
        opened = opened_model(family)
        whole = captured(opened, lens="logit").header["lens"]
        some = captured(opened, lens="logit", at=(-1, 2, 0)).header["lens"]
        last = len(whole["positions"]) - 1
        assert some["positions"].tolist() == [0, 2, last]
        np.testing.assert_array_equal(some["ids"], whole["ids"][:, [0, 2, last]])
        np.testing.assert_allclose(
            some["probabilities"], whole["probabilities"][:, [0, 2, last]], rtol=1e-4
        )


def test_many_logits_are_made_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = opened_model("llama")
    whole = captured(opened, lens="logit")
    from activations.session import predicting

    for room in (tail, predicting):
        monkeypatch.setattr(room, "LOGITS_AT_ONCE", 2 * 400)
    seen: list[tuple[int, ...]] = []
    head = opened.model.lm_head.register_forward_hook(lambda *a: seen.append(tuple(a[2].shape)))
    parts = captured(opened, lens="logit")
    head.remove()
    long = [shape for shape in seen if shape[1] > 2]
    assert len(long) <= 3  # those of the short texts, which find the layers
    for key in ("predictions", "lens"):
        np.testing.assert_array_equal(parts.header[key]["ids"], whole.header[key]["ids"])
        np.testing.assert_allclose(
            parts.header[key]["probabilities"], whole.header[key]["probabilities"], rtol=1e-4
        )


def test_refused_where_the_end_reads_more_than_the_last_layer() -> None:
    opened = opened_model("inkling2_text")
    with pytest.raises(ToolkitError, match="what follows the last of them reads more than"):
        captured(opened, lens="logit")
    assert "predictions" in captured(opened).header


def test_refused_where_the_real_pass_does_not_bear_it_out(monkeypatch: pytest.MonkeyPatch) -> None:
    opened, own = opened_model("llama"), tail.Tail._logits
    monkeypatch.setattr(tail.Tail, "_logits", lambda *args: own(*args) * 1.1)
    with pytest.raises(ToolkitError, match="does not give the model's logits"):
        captured(opened, lens="logit")


def test_a_part_of_the_depth_is_told() -> None:
    capture = captured(opened_model("hrm_text"), lens="logit")
    assert len(capture.header["lens"]["layers"]) == 3
    assert [line for line in capture.warnings if "H_module.layers.0@1 to" in line]
    assert captured(opened_model("t5"), lens="logit").warnings == []  # an encoder is no part of it


def test_matrices(tmp_path: Path) -> None:
    """A tuned lens, by its definition; layers without a matrix are read as they are."""
    from safetensors.torch import save_file

    opened = opened_model("llama")
    model = opened.model
    made = torch.randn(2, 32, 32, generator=torch.Generator().manual_seed(0))
    tensors = {"layers.0": made[0], "layers.1": made[1], "layers.1.bias": made[0, 0].clone()}
    save_file(tensors, tmp_path / "lens.safetensors")
    plain = captured(opened, lens="logit").header["lens"]
    capture = captured(opened, lens=str(tmp_path / "lens.safetensors"))
    lens = capture.header["lens"]
    assert (lens["kind"], lens["file"]) == ("matrices", "lens.safetensors")
    with torch.no_grad():
        streams = model(**inputs_of(capture), output_hidden_states=True).hidden_states[1:]
        for k, matrix in enumerate(made):
            changed = streams[k] @ matrix.T + (made[0, 0] if k else 0)
            expected = model.lm_head(model.model.norm(changed))[0].softmax(-1).topk(5)
            np.testing.assert_array_equal(lens["ids"][k], expected.indices)
            np.testing.assert_allclose(lens["probabilities"][k], expected.values, rtol=1e-4)
    np.testing.assert_array_equal(lens["ids"][2], plain["ids"][2])
    with pytest.raises(ToolkitError, match="of another model: it has 2 layers of 32 numbers"):
        captured(opened_model("llama", hidden_size=64), lens=str(tmp_path / "lens.safetensors"))


def test_hooks_of_the_user() -> None:
    """One that steers the last layer is part of what the model says, and runs in passes only."""
    opened, calls = opened_model("llama"), []
    plain = captured(opened, lens="logit")

    def steer(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        calls.append(output.shape[1])
        return output + 3 * torch.arange(output.shape[-1])

    hook = opened.model.model.layers[2].register_forward_hook(steer)
    capture = captured(opened, lens="logit")
    hook.remove()
    lens, predictions = capture.header["lens"], capture.header["predictions"]
    np.testing.assert_array_equal(lens["ids"][2], predictions["ids"])
    np.testing.assert_array_equal(lens["ids"][1], plain.header["lens"]["ids"][1])
    assert (lens["ids"][2] != plain.header["lens"]["ids"][2]).any()
    assert len(calls) == 3  # in two short passes, to find the layers, and in the text's own


def test_a_head_that_is_no_number() -> None:
    opened = opened_model("llama")
    with torch.no_grad():
        opened.model.lm_head.weight[7] = torch.nan
    capture = captured(opened, lens="logit")
    assert np.isnan(capture.header["lens"]["probabilities"]).all()
    count = len(capture.header["tokens"])
    assert f"the logits of {count} positions are not finite." in capture.warnings


def test_no_attention_weights_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that return them from their layers, only when they are asked."""
    kept: list[Any] = []
    own = tail.Tail.parts
    monkeypatch.setattr(tail.Tail, "parts", lambda *args: kept.append(args[0]) or own(*args))
    opened = opened_model("bloom")
    run(opened, select(opened.catalog, {"attention": "weights"}), Options(lens="logit"))
    held = [x for x in walk_tensors(vars(kept[0])) if x.dim() == 4]
    assert len(held) == 1  # the last layer's


def walk_tensors(tree: Any) -> Iterator[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, (dict, list, tuple)):
        for item in tree.values() if isinstance(tree, dict) else tree:
            yield from walk_tensors(item)
