"""Adapters captured on their base model: the same numbers as peft's own model gives."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import tiny
import torch
import transformers
from conftest import Run

from activations import ToolkitError, capture, load
from activations.model.adapter import add_empty, find_adapter

Checkpoints = Callable[[str], Path]
PROJECTIONS = ["q_proj", "v_proj"]
TEXT = "The cat sat"


def lora(**options: Any) -> peft.LoraConfig:
    options = {"r": 2, "target_modules": PROJECTIONS, "task_type": "CAUSAL_LM"} | options
    return peft.LoraConfig(**options)


KINDS: dict[str, Any] = {
    "LoRA": lora(),
    "DoRA": lora(use_dora=True),
    "PiSSA": lora(init_lora_weights="pissa"),
    "a head and embeddings": lora(
        target_modules=[*PROJECTIONS, "embed_tokens"], modules_to_save=["lm_head"]
    ),
    "some tokens": lora(trainable_token_indices=[3, 5]),
    "every layer but one": lora(layers_to_transform=[0, 2]),
    "IA3": peft.IA3Config(
        task_type="CAUSAL_LM",
        target_modules=["k_proj", "down_proj"],
        feedforward_modules=["down_proj"],
    ),
    "VeRA": peft.VeraConfig(task_type="CAUSAL_LM", r=2, target_modules=PROJECTIONS),
}


def trained(model: Any, config: Any, folder: Path | str, **options: Any) -> Any:
    """An adapter of a model, as after a training, saved in a folder; and peft's own model."""
    torch.manual_seed(1)
    made = peft.get_peft_model(model, config).eval()
    for name, parameter in made.named_parameters():
        if parameter.requires_grad:
            factor = 1.5 if "magnitude" in name else 1
            parameter.data = parameter.data * factor + 0.2 * torch.randn_like(parameter)
    made.save_pretrained(str(folder), **options)
    return made


def base(folder: Path, auto_class: str = "AutoModelForCausalLM", **options: Any) -> Any:
    auto = getattr(transformers, auto_class)
    return auto.from_pretrained(folder, attn_implementation="eager", **options).eval()


@pytest.fixture
def llama(checkpoints: Checkpoints, workplace: Path) -> Path:
    """A base model in the current folder."""
    return Path(shutil.copytree(checkpoints("llama"), "base"))


def check(folder: str, model: Any, head: str = "lm_head") -> Any:
    """The captured logits and attention weights are those of peft's own model."""
    document = capture(folder, TEXT, select=f"attn:weights;other:{head}", output="d.json")
    ids = torch.tensor(document.header["input_ids"])
    with torch.no_grad():
        truth = model(input_ids=ids, output_attentions=True)
    np.testing.assert_array_equal(document.tensor(head), truth.logits.numpy())
    places = [(e["module"], *e["element"]) for e in document.header["attention_weights"]]
    assert len(places) == len(truth.attentions)
    for place, weights in zip(places, truth.attentions, strict=True):
        np.testing.assert_array_equal(document.tensor(*place), weights.numpy())
    return document


@pytest.mark.parametrize("kind", KINDS)
def test_kinds(kind: str, llama: Path) -> None:
    model = trained(base(llama), KINDS[kind], "adapter")
    document = check("adapter", peft.PeftModel.from_pretrained(base(llama), "adapter").eval())
    plain = capture("base", TEXT, select="other:lm_head", output="p.json").tensor("lm_head")
    assert np.abs(document.tensor("lm_head") - plain).max() > 0.01  # it does something
    assert document.header["adapter"] == {
        "name": "adapter",
        "base_model": "base",
        "type": KINDS[kind].peft_type.value,
    }
    assert document.model == "adapter"
    with torch.no_grad():  # and what was trained is what was saved
        logits = model(input_ids=torch.tensor(document.header["input_ids"])).logits
    np.testing.assert_allclose(document.tensor("lm_head"), logits.numpy(), atol=1e-4)


FAMILIES = {
    "gpt2": ("AutoModelForCausalLM", {"task_type": "CAUSAL_LM", "target_modules": ["c_attn"]}),
    "bert": ("AutoModel", {"task_type": "FEATURE_EXTRACTION", "target_modules": ["query"]}),
    "albert": ("AutoModelForMaskedLM", {"target_modules": ["query", "value"]}),
    "t5": ("AutoModelForSeq2SeqLM", {"task_type": "SEQ_2_SEQ_LM", "target_modules": ["q", "v"]}),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_families(family: str, checkpoints: Checkpoints, workplace: Path) -> None:
    auto_class, options = FAMILIES[family]
    model = trained(base(checkpoints(family), auto_class), peft.LoraConfig(**options), "adapter")
    document = capture("adapter", TEXT, select="attn:weights", output="d.json")
    names = ("input_ids", "decoder_input_ids")
    ids = {name: document.header[name] for name in names if name in document.header}
    with torch.no_grad():
        truth = model(**{name: torch.tensor(i) for name, i in ids.items()}, output_attentions=True)
    kinds = ("attentions", "encoder_attentions", "decoder_attentions", "cross_attentions")
    weights = [tensor.numpy().tobytes() for kind in kinds for tensor in truth.get(kind) or ()]
    entries = document.header["attention_weights"]
    found = [document.tensor(e["module"], *e["element"]).tobytes() for e in entries]
    assert sorted(found) == sorted(weights)


def test_merged_it_gives_the_same(llama: Path) -> None:
    trained(base(llama), KINDS["LoRA"], "adapter").merge_and_unload().save_pretrained("merged")
    shutil.copy("base/tokenizer.json", "merged")
    shutil.copy("base/tokenizer_config.json", "merged")
    one, other = (
        capture(folder, TEXT, output=f"{folder}.json") for folder in ("adapter", "merged")
    )
    assert one.names == other.names
    for name in one.names:
        np.testing.assert_allclose(one.tensor(name, 1), other.tensor(name, 1), atol=1e-5)


def test_its_own_modules_can_be_chosen(llama: Path, capture: Run) -> None:
    """By the indices that --list shows, before any weights are loaded."""
    model = trained(base(llama), KINDS["LoRA"], "adapter")
    listed = capture("--model", "adapter", "--list").out
    index = next(line.split()[0] for line in listed if "q_proj.lora_A.default" in line)
    done = capture("--model", "adapter", "--prompt", TEXT, "--auto-select", f"attn:{index}")
    assert done.code == 0
    document = load(done.out[-1])
    layer = dict(model.get_base_model().named_modules())[document.names[1]]
    given: list[Any] = []
    layer.register_forward_hook(lambda module, args, output: given.append(output))
    with torch.no_grad():
        model(input_ids=torch.tensor(document.header["input_ids"]))
    np.testing.assert_array_equal(document.tensor(document.names[1]), given[0].numpy())


def test_weights_in_pickles(llama: Path) -> None:
    weights = trained(base(llama), KINDS["DoRA"], "adapter")
    torch.save(peft.get_peft_model_state_dict(weights), "adapter/adapter_model.bin")
    Path("adapter/adapter_model.safetensors").unlink()
    check("adapter", peft.PeftModel.from_pretrained(base(llama), "adapter").eval())


def test_tokens_added(llama: Path) -> None:
    """More embeddings than the base has, and the tokenizer that goes with them."""
    words = tiny.tokenizer()
    words.add_tokens(["cat sat"])
    model = base(llama)
    model.resize_token_embeddings(len(words) + 5)
    made = trained(model, KINDS["LoRA"], "adapter", save_embedding_layers=True)
    words.save_pretrained("adapter")
    document = check("adapter", made)
    assert "cat sat" in document.header["tokens"]


@pytest.mark.parametrize("task_type", ["SEQ_CLS", None])
def test_a_classifier(task_type: str | None, workplace: Path) -> None:
    """On a base without one: its class and the number of its labels are the adapter's."""
    tiny.checkpoint(Path("bert"), "bert", auto_class="AutoModel")
    config = peft.LoraConfig(
        task_type=task_type, r=2, target_modules=["query"], modules_to_save=["classifier"]
    )
    model = base(Path("bert"), "AutoModelForSequenceClassification", num_labels=5)
    made = trained(model, config, "adapter")
    assert check("adapter", made, "classifier").shape("classifier") == [1, 5]


def test_a_classifier_that_does_not_fit(workplace: Path) -> None:
    """Other labels than its base has, and nothing says so: its own sizes are what is told."""
    auto_class = "AutoModelForSequenceClassification"
    tiny.checkpoint(Path("bert"), "bert", auto_class=auto_class)
    config = lora(task_type=None, target_modules=["query"], modules_to_save=["classifier"])
    model = base(Path("bert"), auto_class, num_labels=5, ignore_mismatched_sizes=True)
    trained(model, config, "adapter")
    says(auto_mapping=None)(Path("adapter"))
    with pytest.raises(ToolkitError, match="RuntimeError: size mismatch for .*classifier"):
        capture("adapter", TEXT)
    adapter = find_adapter("adapter", {})
    assert adapter is not None
    plain = base(Path("bert"), auto_class)
    rows = plain.get_input_embeddings().num_embeddings
    assert add_empty(plain, adapter).get_input_embeddings().num_embeddings == rows


@pytest.mark.parametrize(("family", "kind"), [("roberta", "Sequence"), ("wav2vec2", "Audio")])
def test_labels_are_counted_in_the_last_layer(family: str, kind: str, workplace: Path) -> None:
    """Some classifiers have a layer before it that is trained too, inside or beside them."""
    config = lora(task_type=None, target_modules=["query", "q_proj"])
    config.modules_to_save = ["classifier", "projector"]
    model = tiny.model(family, f"AutoModelFor{kind}Classification", num_labels=5)
    trained(model, config, "adapter")
    says(base_model_name_or_path="base")(Path("adapter"))
    adapter = find_adapter("adapter", {})
    assert adapter is not None
    assert adapter.labels() == 5


def move(place: str) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        shutil.move("base", place)

    return change


def says(**fields: Any) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return change


WHERE_THE_BASE_IS: dict[str, list[Callable[[Path], Any]]] = {
    "in the current folder": [],
    "inside": [move("out/adapter/base")],
    "beside": [move("out/base")],
    "by the last part of where it was": [
        move("out/base"),
        says(base_model_name_or_path="/home/a/b/base"),
    ],
    "by its hub name, beside": [move("out/o/base"), says(base_model_name_or_path="o/base")],
    "as it says": [move("far/away"), says(base_model_name_or_path="far/away")],
    "the adapter's own folder": [
        move("moved"),
        lambda folder: shutil.copytree("moved", folder, dirs_exist_ok=True),
    ],
}


@pytest.mark.parametrize("where", WHERE_THE_BASE_IS)
def test_where_the_base_is(where: str, llama: Path) -> None:
    model = trained(base(llama), KINDS["DoRA"], "out/adapter")
    for change in WHERE_THE_BASE_IS[where]:
        change(Path("out/adapter"))
    document = capture("out/adapter/", TEXT, select="other:lm_head", output="d.json")
    with torch.no_grad():
        logits = model(input_ids=torch.tensor(document.header["input_ids"])).logits.numpy()
    np.testing.assert_allclose(document.tensor("lm_head"), logits, atol=1e-4)


def test_a_model_on_the_hub_that_only_mentions_an_adapter(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Merged, with the adapter's configuration left beside it: a model, as it is in a folder."""
    merged = trained(base(llama), lora(), "adapter").merge_and_unload()
    merged.save_pretrained("base")
    shutil.copy("adapter/adapter_config.json", "base")
    there = Path("cache/models--o--merged")
    shutil.copytree("base", there / "snapshots/abc")
    (there / "refs").mkdir()
    (there / "refs/main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(Path("cache").absolute()))
    for name in ("base", "o/merged"):
        document = check(name, merged)
        assert "adapter" not in document.header
    shutil.copy("adapter/adapter_model.safetensors", there / "snapshots/abc")
    assert find_adapter("o/merged", {}) is not None


HOME = {"base_model_name_or_path": "/home/b/gone"}
REFUSED: dict[str, tuple[Any, Callable[[Path], Any], str]] = {
    "no base": (lora(), says(base_model_name_or_path=None), "does not name the base model"),
    "a base that is gone": (lora(), says(**HOME), "'/home/b/gone', which is not there. Put it"),
    "a base on no hub": (
        lora(),
        says(base_model_name_or_path="o/base"),  # not the folder beside it
        "'adapter' is an adapter for 'o/base': model not found: 'o/base' is not on this machine",
    ),
    "an adapter of an adapter": (
        lora(),
        lambda folder: (
            shutil.copytree(folder, "two"),
            says(base_model_name_or_path="two")(folder),
        ),
        "'adapter' is an adapter for 'two', which is an adapter too. Merge",
    ),
    "another base": (lora(), says(target_modules=["nothing"]), "cannot be put into its base model"),
    "no such type": (lora(), says(peft_type="NEW"), "cannot be put into its base model"),
    "no weights": (
        lora(),
        lambda folder: (folder / "adapter_model.safetensors").unlink(),
        "there is no adapter_model.safetensors",
    ),
    "broken weights": (
        lora(),
        lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"x" * 99),
        "cannot be loaded: SafetensorError",
    ),
    "no JSON": (
        lora(),
        lambda folder: (folder / "adapter_config.json").write_text('{"a":\n1,}'),
        "'adapter/adapter_config.json' is not JSON: ",
    ),
    "tokens of its own": (
        peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
        lambda folder: None,
        "of the type PROMPT_TUNING, which is not a part of the model's modules. Load it with peft",
    ),
    "a prefix": (
        peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
        lambda folder: None,
        "of the type PREFIX_TUNING, which is not a part of the model's modules. Load it with peft",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what: str, llama: Path) -> None:
    config, change, line = REFUSED[what]
    trained(base(llama), config, "adapter")
    change(Path("adapter"))
    with pytest.raises(ToolkitError) as caught:
        capture("adapter", TEXT)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_device_map_is_refused(llama: Path) -> None:
    """peft would write its own names into the base model's file."""
    trained(base(llama), lora(), "adapter")
    before = Path("base/model.safetensors").read_bytes()
    with pytest.raises(ToolkitError, match="--device-map cannot be combined with an adapter"):
        capture("adapter", TEXT, device_map="disk")
    assert Path("base/model.safetensors").read_bytes() == before


def test_weights_that_do_not_fit_are_told(llama: Path, capture: Run) -> None:
    trained(base(llama), lora(), "adapter")
    says(target_modules=["q_proj", "o_proj"])(Path("adapter"))
    done = capture("--model", "adapter", "--prompt", TEXT, "--auto-select", "attn:weights")
    warned = [line for line in done.err if line.startswith("warning: ")]
    assert done.code == 0
    assert "lacks weights that it needs, so they are random: " in warned[0]
    assert "holds weights for which its base model has no place: " in warned[1]
    assert len(warned) == 2


def test_without_peft(llama: Path, capture: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(base(llama), lora(), "adapter")
    monkeypatch.setattr("activations.model.place.find_spec", lambda name: None)
    done = capture("--model", "adapter", "--prompt", TEXT, "--auto-select", "attn:weights")
    assert done.code == 1
    assert done.err[-1].endswith("and that is not installed. Install it: pip install peft")


def test_no_code_runs(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever adapter_config.json names: modules to import, pickles to read, remote code."""
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("evil/code.py", "megatron/core.py"):
        (tmp_path / module).parent.mkdir()
        (tmp_path / module).write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    trained(base(llama), lora(), "adapter")
    named = {"base_model_class": "Model", "parent_library": "evil.code"}
    for fields in (
        {"auto_mapping": named, "task_type": None},
        {"megatron_config": {"a": 1}, "megatron_core": "evil.code"},
        {"megatron_config": {"a": 1}, "megatron_core": "megatron.core"},
        {"trust_remote_code": True, "auto_map": {"AutoModel": "evil.code"}},
        {"init_lora_weights": "corda", "corda_config": {"cache_file": "evil/code.py"}},
    ):
        shutil.rmtree("new", ignore_errors=True)
        shutil.copytree("adapter", "new")
        says(**fields)(Path("new"))
        try:
            capture("new", TEXT)
        except ToolkitError as error:
            assert "\n" not in str(error)
        assert not (tmp_path / "canary").exists()
        assert not {"evil.code", "megatron.core"} & sys.modules.keys()


class Touches:
    """Unpickled, it makes a file."""

    def __reduce__(self) -> Any:
        return os.system, ("touch canary",)


def test_a_pickle_that_runs_code(llama: Path) -> None:
    trained(base(llama), lora(), "adapter")
    Path("adapter/adapter_model.safetensors").unlink()
    torch.save({"a": Touches()}, "adapter/adapter_model.bin")
    with pytest.raises(ToolkitError, match="as it could run code, it is not read"):
        capture("adapter", TEXT)
    assert not Path("canary").exists()
    torch.load("adapter/adapter_model.bin", weights_only=False)  # it would
    assert Path("canary").exists()


def test_base_and_adapter_compared(llama: Path) -> None:
    """Of a LoRA in the last layer only its heads change; and each can be ablated in either."""
    last = lora(layers_to_transform=[2], target_modules=["q_proj"])
    trained(base(llama), last, "adapter")
    before = capture("base", TEXT, output="before.json")
    after = capture("adapter", TEXT, output="after.json")
    with pytest.warns(UserWarning, match="other models: base and adapter"):
        rows = before.compare(after)
    changed = {(row["layer"], row["head"]) for row in rows if row["change"] > 1e-6}
    assert changed == {(2, head) for head in range(4)}
    cut = capture("adapter", TEXT, ablate="2.1", output="cut.json")
    assert cut.effect is not None
    assert cut.effect.kl > 0
    assert "self_attn.o_proj" in cut.interventions[0].module
