"""Modules around a Hugging Face model, and models that accelerate offloads, captured as they are.

The truth is plain hooks on the module, and the attentions of the same model without the wrapper.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import peft
import pytest
import tiny
import torch
from oracle import own_attentions
from torch import nn

from activations import ToolkitError, UsageError, capture
from activations.attention.weights import read_attention
from activations.model.hosts import hosts

TEXT = "The cat sat on the mat"
CPU = torch.device("cpu")


class Named(nn.Module):
    """A classifier of one's own: takes input_ids, has no configuration, is in training mode."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.backbone, self.head = model, nn.Linear(model.config.vocab_size, 2)

    def forward(self, input_ids: Any, attention_mask: Any = None) -> Any:
        return self.head(self.backbone(input_ids, attention_mask).logits)


class Configured(Named):
    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.config = model.config


class WithADict(Named):
    config = {"hidden": 32}  # noqa: RUF012


class Positional(Named):
    def forward(self, x: Any, mask: Any = None) -> Any:
        return super().forward(x, mask)


class Batch(Named):
    """Takes all inputs as one mapping, and more by name: a SentenceTransformer."""

    def forward(self, features: dict[str, Any], **options: Any) -> Any:
        return super().forward(features["input_ids"], features["attention_mask"])


class Past(Named):
    """Calls `forward` past the model's hooks, and asks for a tuple."""

    def forward(self, input_ids: Any, **options: Any) -> Any:
        logits, *others = self.backbone.forward(input_ids, return_dict=False)
        assert not any(isinstance(other, tuple) for other in others), "attentions nobody asked for"
        return logits


class Undecided(Named):
    """Leaves the form of the output to the configuration, as the classes of transformers do."""

    def forward(self, input_ids: Any, return_dict: Any = None) -> Any:
        return self.head(self.backbone(input_ids, return_dict=return_dict).logits)


class WantsAttentions(Named):
    def forward(self, input_ids: Any) -> Any:
        *_, attentions = self.backbone(input_ids, output_attentions=True, return_dict=False)
        return attentions[-1]


class KeepsOptions(Named):
    """What comes by name goes elsewhere than to the model."""

    def forward(self, input_ids: Any, **options: Any) -> Any:
        return self.finish(self.backbone(input_ids).logits, **options)

    def finish(self, logits: Any, attention_mask: Any = None) -> Any:
        return self.head(logits)


class HandsOn(Named):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.backbone(*args, **kwargs)


WRAPPERS = [Named, Configured, WithADict, Positional, Batch, Past, Undecided, WantsAttentions]
WRAPPERS += [KeepsOptions, HandsOn]
# What only distributes or compiles is taken off: modules keep their names.
TAKEN_OFF: list[Callable[[Any], Any]] = [nn.DataParallel, torch.compile]


def expected(family: str, ids: list[list[int]]) -> list[np.ndarray]:
    found = own_attentions(tiny.model(family), {"input_ids": torch.tensor(ids)})
    return [weights.numpy() for kind in found.values() for weights in kind]


@pytest.mark.parametrize("wrap", [*WRAPPERS, *TAKEN_OFF], ids=lambda wrap: wrap.__name__)
@pytest.mark.parametrize("family", ["llama", "deberta-v2"])  # the latter has weights on request
def test_wrapped(wrap: Callable[[Any], Any], family: str, workplace: Path) -> None:
    inner = tiny.model(family)
    model = wrap(inner)
    own, implementation = vars(inner).copy(), inner.config._attn_implementation
    document = capture(model, TEXT, tokenizer=tiny.tokenizer(), output="a.json")
    prefix = "backbone." if isinstance(model, Named) else ""
    entries = document.header["attention_weights"]
    assert [entry["layer"] for entry in entries] == [0, 1, 2]
    for entry, weights in zip(entries, expected(family, document.header["input_ids"]), strict=True):
        assert entry["module"].startswith(prefix)
        found = document.tensor(entry["module"], *entry["element"])
        np.testing.assert_array_equal(found, weights)
    # The model is left as it was: its forward, too.
    assert vars(inner).keys() == own.keys()
    assert inner.config._attn_implementation == implementation


def test_everything_in_a_wrapper(workplace: Path) -> None:
    """Each module of it, not only those of the model inside; and which model that is."""
    model = Named(tiny.model("llama")).eval()
    model.backbone.name_or_path = "some/llama"
    seen: list[Any] = []
    model.head.register_forward_hook(lambda module, args, output: seen.append(output.detach()))
    document = capture(
        model, TEXT, tokenizer=tiny.tokenizer(), select="other:head", output="a.json"
    )
    np.testing.assert_array_equal(document.tensor("head"), seen[-1].numpy())
    assert document.header["environment"]["attn_implementation"] == "eager"
    assert document.model == "some/llama"


def test_two_models_in_one(workplace: Path) -> None:
    """Each has its own kind of attention, by its name in the module."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.passage = tiny.model("bert"), tiny.model("gpt2")

        def forward(self, input_ids: Any) -> Any:
            return self.query(input_ids).logits.sum() + self.passage(input_ids).logits.sum()

    document = capture(Two(), TEXT, tokenizer=tiny.tokenizer(), output="a.json")
    kinds = [entry["kind"] for entry in document.header["attention_weights"]]
    assert kinds == ["query"] * 3 + ["passage"] * 3
    ids = document.header["input_ids"]
    found = [document.tensor(entry["module"], 1) for entry in document.header["attention_weights"]]
    for one, other in zip(found, expected("bert", ids) + expected("gpt2", ids), strict=True):
        np.testing.assert_array_equal(one, other)
    for stack in read_attention(document):
        assert stack.rows == stack.columns == tuple(document.header["tokens"])


def test_a_model_that_is_called_twice(workplace: Path) -> None:
    """Each call has its attention, as of two models."""

    class Twice(Named):
        def forward(self, input_ids: Any) -> Any:
            return self.backbone(input_ids).logits + self.backbone(input_ids.flip(1)).logits

    document = capture(Twice(tiny.model("bert")), TEXT, tokenizer=tiny.tokenizer(), output="a.json")
    entries = document.header["attention_weights"]
    assert [entry["kind"] for entry in entries] == ["backbone"] * 3 + ["backbone_2"] * 3
    (ids,) = document.header["input_ids"]
    truth = expected("bert", [ids]) + expected("bert", [ids[::-1]])
    for entry, weights in zip(entries, truth, strict=True):
        found = document.tensor(entry["module"], *entry["element"])
        np.testing.assert_array_equal(found, weights)


def test_modules_without_a_hugging_face_model(workplace: Path) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(32, 4, batch_first=True)
            self.embed, self.encoder = nn.Embedding(400, 32), nn.TransformerEncoder(layer, 2)

        def forward(self, tokens: Any) -> Any:
            return self.encoder(self.embed(tokens))

    model = Own().eval()
    document = capture(
        model, TEXT, tokenizer=tiny.tokenizer(), select="other:encoder", output="a.json"
    )
    ids = torch.tensor(document.header["input_ids"])
    with torch.no_grad():
        np.testing.assert_allclose(document.tensor("encoder"), model(ids).numpy(), atol=1e-6)
    assert document.model == "Own"


class NeedsLabels(Named):
    def forward(self, input_ids: Any, labels: Any) -> Any:
        return super().forward(input_ids)


INSIDE = "Capture the Hugging Face model inside it: model.get_submodule('backbone')."


@pytest.mark.parametrize(
    ("made", "lines"),
    [
        (lambda: NeedsLabels(tiny.model("llama")), ["NeedsLabels cannot be run on a text", INSIDE]),
        (
            lambda: nn.TransformerEncoder(
                nn.TransformerEncoderLayer(32, 4), 1, enable_nested_tensor=False
            ),
            ["TransformerEncoder cannot be run on a text", "Its forward has to take token ids."],
        ),
        (lambda: nn.Linear(3, 3), ["Linear cannot be run on a text", "take token ids."]),
        (lambda: tiny.model("llama").to("meta"), ["on the meta device, without weights."]),
    ],
    ids=["labels", "TransformerEncoder", "Linear", "meta"],
)
def test_what_cannot_be_run_on_a_text(
    made: Callable[[], Any], lines: list[str], workplace: Path
) -> None:
    model = made()
    with pytest.raises(ToolkitError) as caught:
        capture(model, TEXT, tokenizer=tiny.tokenizer(), output="a.json")
    for line in lines:
        assert line in str(caught.value)
    assert not list(workplace.iterdir())
    assert all("forward" not in vars(host) for host in hosts(model).values())


def test_no_attention_weights_inside(workplace: Path) -> None:
    with pytest.raises(UsageError, match="this model has no attention modules"):
        capture(nn.Embedding(400, 8), TEXT, tokenizer=tiny.tokenizer(), output="a.json")


# -------------------------------------------------------------------------------------- offloaded


@pytest.mark.parametrize("family", ["llama", "t5", "albert"])
@pytest.mark.parametrize("backend", ["hooks", "pyvene"])
def test_offloaded_by_the_user(family: str, backend: str, workplace: Path) -> None:
    """The same bytes as in memory, where it computes; and hooks of accelerate stay."""
    made = {"plain": tiny.model(family), "cpu": tiny.model(family), "disk": tiny.model(family)}
    accelerate.cpu_offload(made["cpu"], execution_device=CPU)
    accelerate.disk_offload(made["disk"], str(workplace / "weights"), execution_device=CPU)
    for name, model in made.items():
        hooked = sum(hasattr(module, "_hf_hook") for module in model.modules())
        capture(
            model,
            TEXT,
            tokenizer=tiny.tokenizer(),
            select="attn:all;mlp:all;other:all",
            backend=backend,
            output=f"{name}.json",
        )
        assert sum(hasattr(module, "_hf_hook") for module in model.modules()) == hooked
    plain = (workplace / "plain.json").read_bytes()
    assert (workplace / "cpu.json").read_bytes() == plain
    assert (workplace / "disk.json").read_bytes() == plain


def test_offloaded_weights_that_are_read_past_their_modules(workplace: Path) -> None:
    model = tiny.model("longcat_flash")
    accelerate.cpu_offload(model, execution_device=CPU)
    with pytest.raises(ToolkitError, match="reads weights past their modules"):
        capture(model, TEXT, tokenizer=tiny.tokenizer(), output="a.json")


# ---------------------------------------------------------------------------------------- adapters


LORA = peft.LoraConfig(target_modules=["q_proj"], base_model_name_or_path="some/base")
PROMPT = peft.PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")


def added(model: Any) -> Any:
    model.add_adapter(LORA)
    return model


def switched_off(model: Any) -> Any:
    """By transformers."""
    added(model).disable_adapters()
    return model


def second(model: Any) -> Any:
    made = peft.get_peft_model(model, LORA)
    made.add_adapter("other", LORA)
    made.set_adapter("other")
    return made


class Holds(Named):
    """Its own attribute of peft's name is no peft model's."""

    peft_config = LORA


# How a model gets an adapter, and what the document says of it: a name and a type.
LOADED: dict[str, tuple[Callable[[Any], Any], tuple[str, str] | None]] = {
    "peft": (lambda model: peft.get_peft_model(model, LORA), ("default", "LORA")),
    "transformers": (added, ("default", "LORA")),
    "the base model of peft's": (
        lambda model: peft.get_peft_model(model, LORA).get_base_model(),
        ("default", "LORA"),
    ),
    "injected": (lambda model: peft.inject_adapter_in_model(LORA, model), ("default", "LORA")),
    "the second": (second, ("other", "LORA")),
    "in an own module": (
        lambda model: Named(peft.get_peft_model(model, LORA)),
        ("default", "LORA"),
    ),
    "a prompt": (lambda model: peft.get_peft_model(model, PROMPT), ("default", "PROMPT_TUNING")),
    "switched off": (switched_off, None),
    "merged": (lambda model: peft.get_peft_model(model, LORA).merge_and_unload(), None),
    "another attribute": (Holds, None),
    "none": (lambda model: model, None),
}


@pytest.mark.parametrize("how", LOADED)
def test_an_adapter_that_the_user_loaded(how: str, workplace: Path) -> None:
    """The document tells it from its base model."""
    load, expected = LOADED[how]
    model = load(tiny.model("llama"))
    document = capture(model, TEXT, tokenizer=tiny.tokenizer(), output="a.json")
    adapter = document.header.get("adapter")
    assert (adapter and (adapter["name"], adapter["type"])) == expected


@pytest.mark.parametrize("config", [LORA, PROMPT], ids=["LoRA", "a prompt"])
def test_an_adapter_that_is_disabled(config: Any, workplace: Path) -> None:
    model = peft.get_peft_model(tiny.model("llama"), config)
    options: Any = {"tokenizer": tiny.tokenizer(), "select": "mlp:0"}
    with model.disable_adapter():
        off = capture(model, TEXT, output="a.json", **options)
    assert "adapter" not in off.header
    on = capture(model, TEXT, output="b.json", **options)
    assert on.header["adapter"]["name"] == "default"


def test_prefix_tuning(workplace: Path) -> None:
    """Keys before the text: rows are its tokens, and what they attend to is more."""
    model = peft.get_peft_model(
        tiny.model("llama"),
        peft.PrefixTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"),
    )
    document = capture(model, TEXT, tokenizer=tiny.tokenizer(), output="a.json")
    tokens = len(document.header["tokens"])
    (stack,) = read_attention(document)
    assert stack.weights[0].shape == (4, tokens, 4 + tokens)
    assert stack.columns[3:5] == ("prefix 3", document.header["tokens"][0])
    ids = {"input_ids": torch.tensor(document.header["input_ids"])}
    with torch.no_grad():
        own = model.eval()(**ids, output_attentions=True).attentions
    np.testing.assert_array_equal(stack.weights[2].dense(), own[2][0].numpy())
