"""Weights next to SDPA: the model stays as it is, the weights are those of an eager run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from conftest import Run

from activations.errors import ToolkitError
from activations.inputs.request import Request
from activations.outputs.tree import at
from activations.selection.answers import select
from activations.selection.observation import WeightsSource
from activations.session.opening import open_loaded
from activations.session.options import Options
from activations.session.run import BACKENDS, Capture, run

TEXT = "The cat sat on the mat and looked at the moon."
MODELS = [*tiny.FAMILIES, "albert", "distilbert", "mistral", "mixtral", "gemma3_text"]


def weights_of(capture: Capture) -> dict[tuple[Any, ...], np.ndarray]:
    return {
        (entry["kind"], entry["layer"]): at(
            capture.captured["attention"][entry["module"]], tuple(entry["element"])
        ).numbers()
        for entry in capture.header["attention_weights"]
    }


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", MODELS)
def test_weights_with_sdpa(family: str, backend: str) -> None:
    auto = (tiny.FAMILIES | tiny.ODD_FAMILIES).get(family, "AutoModelForCausalLM")
    request = Request(TEXT, target="Ein Satz." if family in ("t5", "bart") else None)
    opened = open_loaded(tiny.model(family, auto), tiny.tokenizer(), request=request)
    # the last of the others reads the final hidden states
    last = [p.text for p in opened.catalog.of("other") if p.outputs.startswith("[")][-1]
    selection = select(opened.catalog, {"attention": "weights", "other": last})
    eager = run(opened, selection)
    sdpa = run(opened, selection, Options(attn_implementation="sdpa", backend=backend))
    expected, found = weights_of(eager), weights_of(sdpa)
    assert list(found) == list(expected)
    for key, weights in expected.items():
        np.testing.assert_allclose(found[key], weights, atol=1e-5)
    assert sdpa.header["environment"]["attn_implementation"] == "sdpa"

    # What the model goes on with is an ordinary run's with SDPA, bit for bit.
    model = opened.model
    model.set_attn_implementation("sdpa")
    (name,) = selection.modules["other"]
    seen: list[Any] = []
    model.get_submodule(name).register_forward_hook(lambda m, a, output: seen.append(output))
    keys = ("input_ids", "decoder_input_ids")
    inputs = {key: torch.tensor(eager.header[key]) for key in keys if key in eager.header}
    with torch.no_grad():
        plain = model(**inputs)
    assert plain.get("attentions") is None
    np.testing.assert_array_equal(sdpa.captured["other"][name].numbers(), seen[0].numpy())


def test_only_the_chosen_layers_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    from activations.forward import sdpa_weights

    computed: list[int] = []
    own = sdpa_weights._call

    def counting(module: Any, *args: Any, **kwargs: Any) -> Any:
        computed.append(module.layer_idx)
        return own(module, *args, **kwargs)

    monkeypatch.setattr(sdpa_weights, "_call", counting)
    opened = open_loaded(tiny.model("llama"), tiny.tokenizer(), request=Request(TEXT))
    selection = select(opened.catalog, {"attention": "0"}, [1])
    run(opened, selection, Options(attn_implementation="sdpa"))
    assert computed == [1]


def test_the_attention_function_is_put_back_whatever_happens() -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    from activations.forward.sdpa_weights import sdpa_weights

    own = ALL_ATTENTION_FUNCTIONS["sdpa"]
    model = tiny.model("llama")
    source = WeightsSource("model.layers.0.self_attn", 0, (1,), "self", 0)
    with pytest.raises(ZeroDivisionError), sdpa_weights(model, "sdpa", [source]):
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is not own
        raise ZeroDivisionError
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is own


def test_a_model_that_does_not_change_its_attention() -> None:
    opened = open_loaded(tiny.model("deberta-v2"), tiny.tokenizer(), request=Request(TEXT))
    selection = select(opened.catalog, {"attention": "weights"})
    with pytest.raises(
        ToolkitError, match=r"cannot change to attention 'sdpa' once it is loaded\. Use"
    ):
        run(opened, selection, Options(attn_implementation="sdpa"))


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (
            "falcon",  # with attention of its own
            "attention weights are not available under the attention implementation 'sdpa'. Use "
            "--attn-implementation eager, or choose other modules.",
        ),
        ("gpt_neo", "'{0}' does not run with attention 'sdpa'. Use --attn-implementation eager."),
    ],
)
def test_models_without_such_an_attention(
    family: str, message: str, workplace: Path, capture: Run
) -> None:
    folder = tiny.checkpoint(workplace / family, family)
    argv = ("--model", folder, "--prompt", TEXT, "--quiet", "--auto-select")
    done = capture(*argv, "attn:0", "--attn-implementation", "sdpa")
    assert (done.code, done.err) == (1, [f"error: {message.format(folder)}"])
    assert [path.name for path in workplace.iterdir()] == [family]
    # Falcon's layers return weights too; nobody asked for attention, so the model keeps its own.
    assert capture(*argv, "other:all").code == 0


@pytest.mark.parametrize(("family", "windows"), [("llama", 0), ("mistral", 3), ("gemma3_text", 2)])
def test_weights_of_an_attention_that_gets_no_mask(
    family: str, windows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flash attention gets the width of its window, no mask. This is a stand-in for it."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, flash_attention_mask
    from transformers.modeling_utils import AttentionInterface

    told: list[int | None] = []

    def flash(module: Any, q: Any, k: Any, v: Any, mask: Any, **options: Any) -> tuple[Any, None]:
        window = options.pop("sliding_window", None)
        told.append(window)
        rows, columns = torch.arange(q.shape[2])[:, None], torch.arange(k.shape[2])
        seen = (rows >= columns) & ((rows - columns) < (window or 10**6))
        assert mask is None
        return sdpa_attention_forward(module, q, k, v, seen[None, None], **options)

    monkeypatch.setitem(AttentionInterface._global_mapping, "windowed", flash)
    masks = ALL_MASK_ATTENTION_FUNCTIONS._global_mapping
    monkeypatch.setitem(masks, "windowed", flash_attention_mask)
    changes = {"sliding_window": 4} if windows else {}
    model = tiny.model(family, "AutoModelForCausalLM", **changes)
    opened = open_loaded(model, tiny.tokenizer(), request=Request(TEXT))
    selection = select(opened.catalog, {"attention": "weights"})
    expected = weights_of(run(opened, selection))
    options = Options(attn_implementation="windowed")
    found = weights_of(run(opened, selection, options))
    assert sum(window is not None for window in told) == windows
    assert len(expected) == len(found) > 2
    for key, weights in expected.items():
        np.testing.assert_allclose(found[key], weights, atol=1e-5)
