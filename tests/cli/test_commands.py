"""The two commands as a shell sees them: argv -> files, exit code, stdout, stderr."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import transformers
from conftest import Run
from small_documents import document_with
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

import activations
from activations import ToolkitError, UsageError, load
from activations.model import loading
from activations.session import opening, run

ROOT = Path(__file__).parent.parent.parent
Checkpoints = Callable[[str], Path]
DOCUMENT = "agnostic_activations.json"
AUTO = {
    "AutoModelForCausalLM": AutoModelForCausalLM,
    "AutoModelForMaskedLM": AutoModelForMaskedLM,
    "AutoModelForSeq2SeqLM": AutoModelForSeq2SeqLM,
}

# ------------------------------------------------------------------------------------ the main job


def test_without_arguments_it_shows_the_demo_model(
    workplace: Path, capture: Run, view: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("0\n0\n\n"))
    done = capture()
    assert (done.code, done.out) == (0, [DOCUMENT])
    assert done.err[0] == "No --model given: taking the bundled demo_model."
    pages = view()
    assert pages.code == 0
    assert pages.out == [
        "bertviz/attention_head_view_demo_model.html",
        "bertviz/attention_model_view_demo_model.html",
    ]
    assert sorted(os.listdir("bertviz")) == [Path(path).name for path in pages.out]


@pytest.mark.parametrize("family", [*tiny.FAMILIES, *tiny.ODD_FAMILIES])
def test_every_family_from_checkpoint_to_pages(
    family: str, checkpoints: Checkpoints, workplace: Path, capture: Run, view: Run
) -> None:
    """Captured weights are the model's own output_attentions, bit for bit."""
    folder = checkpoints(family)
    done = capture("--model", folder, "--prompt", "The cat sat", "--auto-select", "attn:weights")
    assert (done.code, done.out) == (0, [DOCUMENT])
    document = load(DOCUMENT)
    auto_class = (tiny.FAMILIES | tiny.ODD_FAMILIES)[family]
    model = AUTO[auto_class].from_pretrained(folder, attn_implementation="eager")
    if family == "big_bird":  # asked for attentions in its first pass, it gives none ever after
        model(torch.tensor(document.header["input_ids"]))
    inputs = {"input_ids": torch.tensor(document.header["input_ids"])}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.tensor(document.header["decoder_input_ids"])
    with torch.no_grad():
        returned = model(**inputs, output_attentions=True)
    expected = {
        (key.removesuffix("attentions").rstrip("_") or "self", layer): weights.numpy()
        for key in returned
        if key.endswith("attentions")
        for layer, weights in enumerate(returned[key] or ())
    }
    assert document.attention_weights is not None
    assert {(e["kind"], e["layer"]) for e in document.attention_weights} == set(expected)
    assert len(document.attention_weights) == len(expected)  # each tensor once
    for entry in document.attention_weights:
        found = document.tensor(entry["module"], *entry["element"])
        np.testing.assert_array_equal(found, expected[entry["kind"], entry["layer"]])
    assert view("--output-dir", "pages").code == 0
    assert len(os.listdir("pages")) == 2


def test_the_keys_other_peoples_scripts_read(
    checkpoints: Checkpoints, workplace: Path, capture: Run
) -> None:
    folder = checkpoints("llama")
    spec = "attn:self_attn;mlp:0;other:"
    capture("--model", folder, "--prompt", "The cat sat on the mat", "--auto-select", spec)
    data = json.loads(Path(DOCUMENT).read_text())
    assert list(data) == [
        "format",
        "model",
        "prompt",
        "input_ids",
        "tokens",
        "selected_patterns",
        "selected_modules",
        "attention_weights",
        "environment",
        "captured",
    ]
    assert data["format"] == "agnostic-activations/1"
    assert data["model"] == str(folder)
    assert data["prompt"] == "The cat sat on the mat"
    assert data["selected_patterns"] == {
        "attention": ["model.layers.{layer}.self_attn"],
        "mlp": ["model.layers.{layer}.mlp"],
        "other": [],
    }
    attention = [f"model.layers.{i}.self_attn" for i in range(3)]
    mlp = [f"model.layers.{i}.mlp" for i in range(3)]
    assert data["selected_modules"] == {"attention": attention, "mlp": mlp, "other": []}
    assert data["attention_weights"][1] == {
        "module": "model.layers.1.self_attn",
        "element": [1],
        "layer": 1,
        "kind": "self",
    }
    assert data["environment"]["backend"] == "hooks"
    assert data["environment"]["attn_implementation"] == "eager"
    captured = data["captured"]
    assert list(captured) == ["attention_outputs", "mlp_outputs", "other_outputs"]
    assert list(captured["attention_outputs"]) == attention
    length = len(data["tokens"])
    assert np.shape(data["input_ids"]) == (1, length)
    entry = captured["attention_outputs"]["model.layers.0.self_attn"]
    assert list(entry) == ["shape", "dtype", "output"]
    assert entry["shape"] == [[1, length, 32], [1, 4, length, length]]
    assert entry["dtype"] == ["float32", "float32"]
    assert np.allclose(np.sum(entry["output"][1], axis=-1), 1, atol=1e-6)
    assert captured["mlp_outputs"][mlp[0]]["shape"] == [1, length, 32]
    assert captured["other_outputs"] == {}


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_both_backends_and_every_run_give_the_same_bytes(
    family: str, checkpoints: Checkpoints, workplace: Path, capture: Run
) -> None:
    texts = []
    for backend in ("hooks", "hooks", "pyvene"):
        argv = ["--model", checkpoints(family), "--prompt", "The cat", "--backend", backend]
        assert capture(*argv, "--auto-select", "attn:all;mlp:all;other:all").code == 0
        texts.append(Path(DOCUMENT).read_text())
    assert texts[0] == texts[1]
    assert texts[2] == texts[0].replace('"backend":"hooks"', '"backend":"pyvene"')


@pytest.mark.parametrize(
    ("dtype", "written"), [("bfloat16", "bfloat16"), ("float16", "float16"), ("auto", "float32")]
)
def test_dtypes(
    dtype: str, written: str, checkpoints: Checkpoints, workplace: Path, capture: Run
) -> None:
    folder = checkpoints("qwen2")
    argv = ["--model", folder, "--prompt", "The cat", "--auto-select", "attn:0", "--dtype", dtype]
    assert capture(*argv, "--device", "cpu").code == 0
    document = load(DOCUMENT)
    name = "model.layers.0.self_attn"
    assert document.dtype(name) == [written, written]
    assert document.header["environment"]["dtype"] == written
    model = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=getattr(torch, written)
    )
    with torch.no_grad():
        ids = torch.tensor(document.header["input_ids"])
        expected = model(ids, output_attentions=True).attentions[0]
    np.testing.assert_array_equal(document.tensor(name, 1), expected.float().numpy())


def test_attention_is_eager_only_when_it_is_captured(
    checkpoints: Checkpoints, workplace: Path, capture: Run
) -> None:
    argv = ["--model", checkpoints("llama"), "--prompt", "The cat", "--auto-select"]
    for spec, used in (("mlp:0", "sdpa"), ("attn:q_proj", "eager"), ("attn:0", "eager")):
        assert capture(*argv, spec).code == 0
        assert load(DOCUMENT).header["environment"]["attn_implementation"] == used
    assert capture(*argv, "attn:q_proj", "--attn-implementation", "sdpa").code == 0
    assert load(DOCUMENT).header["environment"]["attn_implementation"] == "sdpa"


def test_logits_are_whole_only_when_they_are_captured(
    checkpoints: Checkpoints, workplace: Path, capture: Run
) -> None:
    argv = ["--model", checkpoints("llama"), "--prompt", "The cat sat", "--auto-select"]
    assert capture(*argv, "other:lm_head").code == 0
    document = load(DOCUMENT)
    assert document.shape("lm_head") == [1, len(document.header["tokens"]), 400]


def test_layers(checkpoints: Checkpoints, workplace: Path, capture: Run, view: Run) -> None:
    argv = ["--model", checkpoints("llama"), "--prompt", "The cat", "--layers", "0,2"]
    assert capture(*argv, "--auto-select", "attn:0;other:model.norm").code == 0
    document = load(DOCUMENT)
    assert document.names == ["model.layers.0.self_attn", "model.layers.2.self_attn", "model.norm"]
    assert document.attention_weights is not None
    assert [entry["layer"] for entry in document.attention_weights] == [0, 2]


def test_modules_never_called_are_named(
    checkpoints: Checkpoints, workplace: Path, capture: Run
) -> None:
    argv = ["--model", checkpoints("opt"), "--prompt", "The cat", "--auto-select"]
    done = capture(*argv, "attn:0;other:0")
    assert done.code == 0
    assert "warning: not called in this pass, so not captured: model." in done.err
    assert load(DOCUMENT).header["not_called"] == ["model"]
    done = capture(*argv, "other:0")
    assert done.code == 1
    assert done.err[-1].startswith("error: No data captured: none of the selected modules was")


def test_not_a_number_is_null_counted_and_said(
    tmp_path: Path, workplace: Path, capture: Run
) -> None:
    model = tiny.model("llama")
    model.model.layers[1].mlp.down_proj.weight.data[0, 0] = float("nan")
    model.save_pretrained(tmp_path / "broken")
    tiny.tokenizer().save_pretrained(tmp_path / "broken")
    argv = ["--model", "broken", "--prompt", "The cat", "--auto-select", "mlp:0"]
    done = capture(*argv)
    assert done.code == 0
    length = len(load(DOCUMENT).header["tokens"])
    counts = {"NaN": length, "Infinity": 0, "-Infinity": 0}
    assert load(DOCUMENT).header["non_finite"]["model.layers.1.mlp"] == {"": counts}
    line = "JSON has null for them, --format safetensors keeps them."
    assert f"warning: model.layers.1.mlp holds {length} NaN; {line}" in done.err


# -------------------------------------------------------------------------------- what is read


def test_prompt_from_a_file_and_from_standard_input(
    checkpoints: Checkpoints, workplace: Path, capture: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["--model", checkpoints("llama"), "--auto-select", "attn:0"]
    Path("p.txt").write_bytes("one\r\n two é\n".encode())
    assert capture(*argv, "--prompt-file", "p.txt").code == 0
    assert load(DOCUMENT).prompt == "one\r\n two é"  # the last line break is not part of it
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"from a pipe\n")))
    assert capture(*argv, "--prompt-file", "-").code == 0
    assert load(DOCUMENT).prompt == "from a pipe"
    Path("p.txt").write_bytes(b"\xef\xbb\xbfFrom Windows\r\n")  # its mark of a text in UTF-8
    assert capture(*argv, "--prompt-file", "p.txt").code == 0
    assert load(DOCUMENT).prompt == "From Windows"


def test_target_is_shifted_right(checkpoints: Checkpoints, workplace: Path, capture: Run) -> None:
    argv = ["--model", checkpoints("t5"), "--prompt", "The cat", "--auto-select", "attn:weights"]
    assert capture(*argv, "--target", "one two").code == 0
    header = load(DOCUMENT).header
    words = tiny.tokenizer()("one two")["input_ids"]
    assert header["decoder_input_ids"] == [[1, *words]]
    assert len(header["decoder_tokens"]) == len(words) + 1


def test_without_a_target_the_model_writes_it(
    checkpoints: Checkpoints, workplace: Path, capture: Run
) -> None:
    folder = checkpoints("bart")
    argv = ["--model", folder, "--prompt", "The cat", "--auto-select", "attn:0"]
    assert capture(*argv, "--max-new-tokens", "5").code == 0
    header = load(DOCUMENT).header
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    written = model.generate(
        torch.tensor(header["input_ids"]), max_new_tokens=5, forced_eos_token_id=None
    )
    assert header["decoder_input_ids"] == written.tolist()
    assert header["written"] == tiny.tokenizer().decode(written[0, 1:], skip_special_tokens=True)


def test_continuation(checkpoints: Checkpoints, workplace: Path, capture: Run, view: Run) -> None:
    folder = checkpoints("llama")
    argv = ["--model", folder, "--prompt", "The cat", "--auto-select", "attn:0"]
    done = capture(*argv, "--max-new-tokens", "4")
    header = load(DOCUMENT).header
    start = header["continuation_start"]
    model = AutoModelForCausalLM.from_pretrained(folder)
    prompt = torch.tensor(header["input_ids"])[:, :start]
    written = model.generate(prompt, max_new_tokens=4, do_sample=False)
    assert header["input_ids"] == written.tolist()
    assert len(header["tokens"]) == written.shape[1]
    text = tiny.tokenizer().decode(written[0, start:], skip_special_tokens=True)
    assert header["written"] == text
    assert f"The model wrote: {text!r}" in done.err
    pages = [Path(page).read_text() for page in view().out]
    assert all('<div id="written" class="text" ' in page for page in pages)


def test_pair(checkpoints: Checkpoints, workplace: Path, capture: Run, view: Run) -> None:
    argv = ["--model", checkpoints("bert"), "--prompt", "The cat", "--auto-select", "attn:0"]
    assert capture(*argv, "--text-pair", "the moon").code == 0
    header = load(DOCUMENT).header
    start = header["sentence_b_start"]
    assert header["tokens"][start - 1] == "[SEP]"
    spelled = "".join(header["tokens"][start:-1])
    assert spelled == "theĠmoon"
    assert view().code == 0


def test_a_pair_is_told_apart_by_the_model_too(
    checkpoints: Checkpoints, workplace: Path, capture: Run
) -> None:
    folder = checkpoints("bert")
    argv = ["--model", folder, "--prompt", "The cat", "--text-pair", "the moon"]
    assert capture(*argv, "--auto-select", "attn:0").code == 0
    document = load(DOCUMENT)
    start, length = document.header["sentence_b_start"], len(document.header["tokens"])
    types = torch.tensor([[0] * start + [1] * (length - start)])
    model = AutoModelForMaskedLM.from_pretrained(folder, attn_implementation="eager")
    with torch.no_grad():
        ids = torch.tensor(document.header["input_ids"])
        expected = model(ids, token_type_ids=types, output_attentions=True).attentions
    for i, weights in enumerate(expected):
        found = document.tensor(f"bert.encoder.layer.{i}.attention", 1)
        np.testing.assert_array_equal(found, weights.numpy())


def test_a_pair_for_a_model_without_pairs(
    checkpoints: Checkpoints, workplace: Path, capture: Run
) -> None:
    argv = ["--model", checkpoints("llama"), "--prompt", "The cat", "--text-pair", "the moon"]
    done = capture(*argv, "--auto-select", "attn:0")
    assert done.code == 0
    assert any("puts nothing between the two texts" in line for line in done.err)


def test_targets_that_just_fit_and_that_do_not(workplace: Path, capture: Run) -> None:
    tiny.model("bart", max_position_embeddings=12).save_pretrained("short")
    tiny.tokenizer().save_pretrained("short")
    argv = ["--model", "short", "--prompt", "The cat", "--auto-select", "attn:weights"]
    for count, code in ((11, 0), (12, 2)):  # a start comes before them
        done = capture(*argv, "--target", "@" * count)
        assert done.code == code, done.err
    assert done.err[-1] == (
        "error: the target (--target) is 13 tokens long, and this model takes 12. Shorten it."
    )
    assert capture(*argv).code == 0  # left to itself the model writes no more than it takes


def test_classes_registered_in_pairs(workplace: Path, capture: Run) -> None:
    config = transformers.FunnelConfig(
        vocab_size=400, block_sizes=[1, 1], num_decoder_layers=1, d_model=32, n_head=4, d_head=8
    )
    transformers.FunnelModel(config).save_pretrained("saved")
    tiny.tokenizer().save_pretrained("saved")
    argv = ["--model", "saved", "--prompt", "The cat sat on", "--auto-select", "attn:0"]
    done = capture(*argv)
    assert done.code == 0, done.err


def test_an_end_outside_the_vocabulary(workplace: Path) -> None:
    model = tiny.model("gpt2", eos_token_id=50256)
    document = activations.capture(model, "The cat", tokenizer=tiny.tokenizer(), output="x.json")
    assert len(document.names) == 3


def test_chat(workplace: Path, capture: Run) -> None:
    tiny.model("llama").save_pretrained("chatty")
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<s>{{ m['role'] }} {{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}</s>{% endif %}"
    )
    tokenizer.save_pretrained("chatty")
    argv = ["--model", "chatty", "--prompt", "The cat", "--auto-select", "attn:0", "--chat"]
    assert capture(*argv).code == 0
    header = load(DOCUMENT).header
    assert header["prompt"] == "The cat"
    assert header["input_ids"] == [tokenizer("<s>user The cat</s>")["input_ids"]]


PARTS = "selectattr('type', 'equalto', 'text')"  # LLaVA's template passes over a plain text


def test_a_chat_template_that_reads_parts(workplace: Path, capture: Run) -> None:
    tiny.model("llama").save_pretrained("chatty")
    tokenizer = tiny.tokenizer()
    inside = "{% for c in m.content | " + PARTS + " %}{{ c.text }}{% endfor %}"
    tokenizer.chat_template = "{% for m in messages %}USER: " + inside + "{% endfor %} ASSISTANT:"
    tokenizer.save_pretrained("chatty")
    argv = ["--model", "chatty", "--prompt", "The cat", "--auto-select", "attn:0", "--chat"]
    assert capture(*argv).code == 0
    expected = tokenizer("USER: The cat ASSISTANT:")["input_ids"]
    assert load(DOCUMENT).header["input_ids"] == [expected]
    tokenizer.chat_template = "USER: ASSISTANT:"
    tokenizer.save_pretrained("chatty")
    line = "error: the tokenizer's chat template leaves the prompt out. Leave --chat out."
    done = capture(*argv)
    assert (done.code, done.err[-1]) == (2, line)


def test_targets_are_shifted_as_the_model_does_it(workplace: Path, capture: Run) -> None:
    """With tokenizers that write an end (T5), or an end and a language (mBART)."""
    for family, template in (("t5", "$A </s>"), ("mbart", "$A </s> [CLS]")):
        tiny.model(family, "AutoModelForSeq2SeqLM").save_pretrained(family)
        tokenizer = tiny.tokenizer(template=template)
        tokenizer.save_pretrained(family)
        argv = ["--model", family, "--prompt", "The cat", "--auto-select", "attn:weights"]
        assert capture(*argv, "--target", "one two").code == 0
        model = AutoModelForSeq2SeqLM.from_pretrained(family)
        labels = torch.tensor([tokenizer("one two")["input_ids"]])
        expected = model.prepare_decoder_input_ids_from_labels(labels)
        assert load(DOCUMENT).header["decoder_input_ids"] == expected.tolist()


@pytest.mark.parametrize("class_name", ["BartModel", "BartForSequenceClassification"])
def test_decoders_of_models_without_a_language_head(
    class_name: str, workplace: Path, capture: Run
) -> None:
    getattr(transformers, class_name)(tiny.config("bart")).save_pretrained("saved")
    tiny.tokenizer(template="$A </s>").save_pretrained("saved")
    argv = ["--model", "saved", "--prompt", "The cat", "--auto-select", "attn:weights"]
    done = capture(*argv)
    assert done.code == 0, done.err
    assert not any(line.startswith("warning") for line in done.err)
    header = load(DOCUMENT).header
    if class_name == "BartModel":  # writes greedily: its head is tied to its embeddings
        assert len(header["decoder_tokens"]) > 2
    else:  # reads what the encoder reads, shifted right
        assert header["decoder_input_ids"] == [[1, *header["input_ids"][0][:-1]]]


SETTINGS: dict[str, dict[str, Any]] = {
    "several": {"min_length": 30, "num_return_sequences": 3, "num_beams": 4},
    "sampling": {"do_sample": True, "temperature": 9.0, "top_k": 50},
    "penalty": {"repetition_penalty": 5.0},
    "no repeats": {"no_repeat_ngram_size": 1},
    "end": {"forced_eos_token_id": 2},
    "contrastive": {"penalty_alpha": 0.6, "top_k": 4},
    "stop": {"stop_strings": ["e"]},
    "constraints": {"force_words_ids": [[7]]},
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("family", ["bart", "llama"])
def test_the_checkpoints_own_settings_for_writing_do_not_matter(
    family: str, name: str, workplace: Path
) -> None:
    """Each token is the likeliest by the model's own logits; the settings are there afterwards."""
    made = tiny.model(family)
    made.generation_config.update(**SETTINGS[name])
    before = made.generation_config.to_dict()
    header = activations.capture(
        made, "The cat", tokenizer=tiny.tokenizer(), max_new_tokens=6, output="x.json"
    ).header
    assert made.generation_config.to_dict() == before
    key = "decoder_input_ids" if family == "bart" else "input_ids"
    given = {"input_ids": torch.tensor(header["input_ids"])}
    given[key] = torch.tensor(header[key])
    start = 1 if family == "bart" else header["continuation_start"]
    with torch.no_grad():
        likeliest = made(**given).logits[0].argmax(-1).tolist()
    assert header[key][0][start:] == likeliest[start - 1 : -1]
    assert len(header[key][0]) == start + 6


def test_what_a_model_must_not_write_it_does_not(workplace: Path) -> None:
    """Marian would write its padding, Whisper its marks."""
    made = tiny.model("bart")

    def written() -> list[int]:
        document = activations.capture(
            made, "The cat", tokenizer=tiny.tokenizer(), max_new_tokens=3, output="x.json"
        )
        ids: list[int] = document.header["decoder_input_ids"][0]
        return ids

    _, first, *_ = written()
    made.generation_config.update(bad_words_ids=[[first]], forced_bos_token_id=77)
    assert written()[1] == 77
    assert first not in written()


def test_what_the_model_is_asked_for(
    checkpoints: Checkpoints, workplace: Path, capture: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[set[str]] = []
    real = run.BACKENDS["hooks"]

    def spy(model: Any, call: dict[str, Any], *rest: Any) -> Any:
        calls.append(
            {f"{key}={call[key]}" for key in call if key not in ("input_ids", "attention_mask")}
        )
        return real(model, call, *rest)

    monkeypatch.setitem(run.BACKENDS, "hooks", spy)
    argv = ["--model", checkpoints("llama"), "--prompt", "The cat", "--auto-select"]
    assert capture(*argv, "attn:0").code == capture(*argv, "other:lm_head").code == 0
    assert calls == [{"use_cache=False", "logits_to_keep=1"}, {"use_cache=False"}]


# ------------------------------------------------------------------------------------- questions


@pytest.mark.parametrize(
    ("answers", "modules", "said"),
    [
        ("0\n0\n\n", ["self_attn", "mlp"], []),
        ("nonsense\n7\nself_attn\n\n\n", ["self_attn"], ["Module not found", "no attention patte"]),
        ("?\n\n\nnorm, lm_head\nmodel.norm,lm_head\n", ["norm", "lm_head"], ["comma-separated"]),
    ],
)
def test_piped_answers(
    answers: str,
    modules: list[str],
    said: list[str],
    checkpoints: Checkpoints,
    workplace: Path,
    capture: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(answers))
    done = capture("--model", checkpoints("llama"), "--prompt", "The cat")
    assert done.code == 0, done.err
    parts = {name.rpartition(".")[2] for name in load(DOCUMENT).names}
    assert parts == set(modules)
    for words in said:
        assert any(words in line for line in done.err), words
    assert not any("\x1b" in line for line in done.err)  # plain text over a pipe
    tables = sum(line.startswith("Attention (") for line in done.err)
    assert tables == 1 + answers.startswith("?")  # ? shows the table again
    assert done.out == [DOCUMENT]


@pytest.mark.parametrize(
    ("answers", "instead"),
    [
        ("\n\n", "attn:0;mlp:0;other:"),
        ("", "attn:0;mlp:0;other:"),
        ("1\n", "attn:1;mlp:0;other:"),
        ("\n1\n", "attn:;mlp:1;other:"),
    ],
)
def test_answers_that_end_early(
    answers: str,
    instead: str,
    checkpoints: Checkpoints,
    workplace: Path,
    capture: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(answers))
    done = capture("--model", checkpoints("llama"), "--prompt", "The cat")
    assert done.code == 2
    assert done.err[-1].endswith(f'Answer beforehand with --auto-select "{instead}".')
    assert os.listdir() == []
    assert capture("--model", checkpoints("llama"), "--auto-select", instead).code == 0


def test_a_summary_and_how_to_say_the_same(
    checkpoints: Checkpoints, workplace: Path, capture: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("1, self_attn\n0,down_proj,2-4\n\n"))
    argv = ["--model", checkpoints("llama"), "--prompt", "The cat", "--layers", "0,2"]
    done = capture(*argv, "--dtype", "bfloat16", "--backend", "pyvene")
    assert done.code == 0, done.err
    repeat = done.err.index(
        'The same without questions: --auto-select "attn:1, self_attn;mlp:0,down_proj,2-4;other:"'
    )
    assert done.err[repeat - 2 : repeat] == [
        "Attention: model.layers.{layer}.self_attn (2 modules), "
        "model.layers.{layer}.self_attn.q_proj (2 modules)",
        "MLP: model.layers.{layer}.mlp (2 modules), model.layers.{layer}.mlp.up_proj (2 modules), "
        "model.layers.{layer}.mlp.down_proj (2 modules), model.layers.{layer}.mlp.act_fn "
        "(2 modules)",
    ]
    assert re.fullmatch(
        rf"Capturing 12 modules of {checkpoints('llama')}, 2 tokens, through pyvene, bfloat16: "
        r"about \d+ kB\.",
        done.err[repeat + 1],
    )
    names = load(DOCUMENT).names
    spec = re.search(r'"(.*)"', done.err[repeat])
    assert spec
    assert capture(*argv, "--auto-select", spec[1]).code == 0
    assert load(DOCUMENT).names == names


@pytest.mark.parametrize(
    ("family", "argv", "foretold", "told"),
    [
        ("llama", ["--max-new-tokens", "9"], "up to 11 tokens: up to", ""),
        (
            "bert",
            ["--text-pair", "the mat", "--attn-implementation", "eager"],
            "8 tokens, eager",
            "8 tokens, ",
        ),
        (
            "t5",
            ["--target", "the mat"],
            "2 encoder and 4 decoder tokens: about",
            "2 encoder and 4 decoder tokens, ",
        ),
        ("t5", [], "2 encoder and up to 17 decoder tokens: up to", "2 encoder and "),
        (
            "switch_transformers",
            ["--target", "the"],
            "2 encoder and 3 decoder tokens: at least",
            "2 encoder and 3 decoder tokens, ",
        ),
    ],
)
def test_how_many_tokens_are_told(
    family: str,
    argv: list[str],
    foretold: str,
    told: str,
    checkpoints: Checkpoints,
    workplace: Path,
    capture: Run,
) -> None:
    command = ["--model", checkpoints(family), "--prompt", "The cat", *argv]
    done = capture(*command, "--auto-select", "attn:all;mlp:all")
    assert done.code == 0, done.err
    (line,) = (line for line in done.err if line.startswith("Capturing"))
    assert foretold in line
    assert done.err[-2].startswith(told), done.err
    assert done.err[-2].endswith("B.")


def test_quiet_leaves_the_result(checkpoints: Checkpoints, workplace: Path, capture: Run) -> None:
    argv = ["--model", checkpoints("llama"), "--prompt", "The cat", "--auto-select", "attn:0"]
    done = capture(*argv, "--quiet")
    assert (done.code, done.out, done.err) == (0, [DOCUMENT], [])


def nothing_loads(monkeypatch: pytest.MonkeyPatch, *parts: str) -> None:
    def load(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("loaded")

    for part in parts:
        for room in (loading, opening, run):
            monkeypatch.setattr(room, part, load, raising=False)


def test_nothing_selected_is_told_before_anything_is_loaded(
    checkpoints: Checkpoints, workplace: Path, capture: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing_loads(monkeypatch, "load_model", "load_tokenizer")
    for answers in ("\n\n\n", ",\n , \n\n"):
        monkeypatch.setattr("sys.stdin", io.StringIO(answers))
        done = capture("--model", checkpoints("llama"), "--prompt", "The cat")
        assert (done.code, done.out) == (2, [])
        assert done.err[-1].startswith("error: nothing selected. Choose at least one pattern")
        assert not any(line.startswith("The same") for line in done.err)


def test_no_room_is_told_before_the_weights_are_loaded(
    checkpoints: Checkpoints, workplace: Path, capture: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing_loads(monkeypatch, "load_model")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 1000))
    argv = ["--model", checkpoints("llama"), "--prompt", "The cat", "--auto-select", "attn:0"]
    for format in ("json", "safetensors"):
        done = capture(*argv, "--format", format)
        assert done.code == 1
        assert re.fullmatch(
            rf"error: no room on the disk for '{DOCUMENT}': about \d\.\d kB are needed and 1\.0 kB "
            r"are free\. Free some, choose fewer modules or layers, or write elsewhere\.",
            done.err[-1],
        )
    with pytest.raises(ToolkitError, match="no room on the disk"):
        activations.capture(checkpoints("llama"), "The cat", output="x.json")
    assert os.listdir() == []


def test_leaving_while_a_library_waits_for_its_threads() -> None:
    """As huggingface_hub does for its downloads: an hour, if need be."""
    code = (
        "import sys, time\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from activations.cli import exit_on_signal, run_command\n"
        "from agnostic_capture import build_parser\n"
        "def work(args, console):\n"
        "    with exit_on_signal(console), ThreadPoolExecutor() as pool:\n"
        "        pool.submit(time.sleep, 60)\n"
        "        print('started', flush=True)\n"
        "        time.sleep(60)\n"
        "sys.exit(run_command(build_parser(), [], work))\n"
    )
    for number, said in ((signal.SIGINT, "error: interrupted.\n"), (signal.SIGTERM, "")):
        child = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "started\n"
        child.send_signal(number)
        _, errors = child.communicate(timeout=20)
        assert (child.returncode, errors) == (128 + number, said)


def test_list(checkpoints: Checkpoints, workplace: Path, capture: Run) -> None:
    done = capture("--model", checkpoints("bert"), "--list")
    assert done.code == 0
    assert done.out[0] == "Attention (10 patterns; * hands out attention weights)"
    assert done.out[1].split() == [
        "0",
        "*",
        "bert.encoder.layer.{layer}.attention",
        "3",
        "x",
        "([1,T,32],",
        "[1,4,T,T])",
    ]
    assert done.err == []
    assert os.listdir() == []


def test_a_model_that_cannot_be_tried_without_weights(
    checkpoints: Checkpoints, workplace: Path, capture: Run
) -> None:
    done = capture("--model", checkpoints("switch_transformers"), "--list")
    assert done.code == 0
    assert done.err[0].startswith("warning: this model cannot be tried without its weights")
    assert any("encoder.block.{layer}.layer.0.SelfAttention" in line for line in done.out)


def test_list_loads_no_weights(checkpoints: Checkpoints, tmp_path: Path, capture: Run) -> None:
    shutil.copy(checkpoints("llama") / "config.json", tmp_path)
    assert capture("--model", tmp_path, "--list").code == 0
    assert capture("--model", tmp_path, "--auto-select", "attn:0").code == 1


@pytest.mark.parametrize(
    ("class_name", "family", "top"),
    [
        ("LlamaModel", "llama", "layers.{layer}.self_attn"),
        ("BertModel", "bert", "encoder.layer.{layer}.attention"),
        ("BertForSequenceClassification", "bert", "bert.encoder.layer.{layer}.attention"),
        ("T5EncoderModel", "t5", "encoder.block.{layer}.layer.0"),
        ("GPT2Model", "gpt2", "h.{layer}.attn"),
    ],
)
def test_the_class_comes_from_the_checkpoint(
    class_name: str, family: str, top: str, workplace: Path, capture: Run
) -> None:
    """Other classes than the language models' load as what they were saved as."""
    getattr(transformers, class_name)(tiny.config(family)).save_pretrained("saved")
    tiny.tokenizer().save_pretrained("saved")
    done = capture("--model", "saved", "--prompt", "The cat", "--auto-select", "attn:0")
    assert done.code == 0, done.err
    assert not any(line.startswith("warning") for line in done.err)
    document = load(DOCUMENT)
    assert document.header["selected_patterns"]["attention"] == [top]
    assert document.names == [top.format(layer=i) for i in range(3)]


def test_weights_the_checkpoint_lacks_are_said_to_be_random(workplace: Path, capture: Run) -> None:
    transformers.LlamaModel(tiny.config("llama")).save_pretrained("saved")
    tiny.tokenizer().save_pretrained("saved")
    config = json.loads(Path("saved/config.json").read_text())
    config |= {"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False}
    Path("saved/config.json").write_text(json.dumps(config))
    done = capture("--model", "saved", "--prompt", "The cat", "--auto-select", "attn:0")
    assert done.code == 0
    assert (
        "warning: 'saved' lacks weights that its class needs, so they are random: lm_head.weight."
        in done.err
    )
    argv = ["--model", "saved", "--prompt", "The cat", "--auto-select", "other:lm_head"]
    texts = [Path(DOCUMENT).read_bytes() for _ in range(2) if capture(*argv).code == 0]
    assert len(texts) == 2
    assert texts[0] == texts[1]  # random, but the same every time


def test_where_a_checkpoint_is_loaded_from_is_passed_on(
    checkpoints: Checkpoints, workplace: Path, capture: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, Any, Any]] = []
    for loader in (transformers.AutoConfig, transformers.AutoTokenizer, AutoModelForCausalLM):

        def spy(
            name: str, loader: Any = loader, real: Any = loader.from_pretrained, **kw: Any
        ) -> Any:
            told.append((loader.__name__, kw["revision"], kw["trust_remote_code"]))
            return real(name, **kw)

        monkeypatch.setattr(loader, "from_pretrained", spy)
    argv = ["--model", checkpoints("llama"), "--prompt", "The cat", "--auto-select", "attn:0"]
    assert capture(*argv, "--revision", "v2").code == 0
    assert {item[1:] for item in told} == {("v2", False)}
    assert {item[0] for item in told} >= {"AutoConfig", "AutoTokenizer", "AutoModelForCausalLM"}
    assert load(DOCUMENT).header["environment"]["revision"] == "v2"


# ---------------------------------------------------------------------------------------- errors


GOOD = np.full((1, 2, 2, 2), 0.5).tolist()


NOTED = {"module": "m.0.self_attn", "element": [1], "layer": 0, "kind": "self"}


@pytest.mark.parametrize(
    "changes",
    [
        {"input_ids": 5, "tokens": None},
        {"selected_patterns": ["x"], "attention_weights": []},
        {
            "attention_weights": [
                {"module": "m.0.self_attn", "element": [1], "layer": 1e400, "kind": "self"}
            ]
        },
        {
            "attention_weights": [
                {"module": "m.0.self_attn", "element": [1], "layer": 10**12, "kind": "self"}
            ]
        },
        {
            "attention_weights": [
                {"module": "m.0.self_attn", "element": [7], "layer": 0, "kind": "self"}
            ]
        },
        {
            "attention_weights": [
                {"module": "m.0.self_attn", "element": [1], "layer": 0, "kind": "x"}
            ]
        },
        {"attention_weights": [{"module": "gone", "element": [1], "layer": 0, "kind": "self"}]},
        {"attention_weights": [3]},
        {"captured": {"attention_outputs": {"m.0.self_attn": {"shape": [[1]]}}}},
        {"captured": {"attention_outputs": {"m.0.self_attn": 7}}},
        {"captured": {"attention_outputs": {"m." + "9" * 5000: {"output": [0, GOOD]}}}},
        {"tokens": 7, "prompt": 3, "model": ["x"]},
        {"sentence_b_start": "one", "decoder_tokens": {}},
    ],
    ids=str,
)
def test_documents_edited_by_hand(changes: dict[str, Any], workplace: Path, view: Run) -> None:
    """Done, or one line that says what is wrong; never an unexpected error."""
    data = json.loads(document_with(Path("d.json"), [[[[0.0]]], GOOD], None).read_text())
    Path("d.json").write_text(json.dumps(data | changes))
    done = view("--input", "d.json")
    assert done.code in (0, 1)
    assert not any("unexpected" in line for line in done.err), done.err
    assert (done.code == 0) == (len(done.out) == 2)


def test_weights_handed_on_by_an_outer_module_are_shown_once(workplace: Path, view: Run) -> None:
    document_with(Path("d.json"), [[[[0.0]]], GOOD], None, "m.0.attention")
    data = json.loads(Path("d.json").read_text())
    outputs = data["captured"]["attention_outputs"]
    outputs["m.0.attention.self"] = outputs["m.0.attention"]
    Path("d.json").write_text(json.dumps(data))
    done = view("--input", "d.json", "--view", "head")
    assert "Self: layer 0, 2 heads, 2 tokens<" in Path(done.out[0]).read_text()


def test_only_what_is_handed_on_is_dropped(workplace: Path, view: Run) -> None:
    """Inner before outer; and a one-token text, where all attention is alike."""
    one = np.ones((1, 2, 1, 1)).tolist()
    document_with(Path("d.json"), [[[[0.0]]], one], None, "m.0.attention.self")
    data = json.loads(Path("d.json").read_text())
    outputs = data["captured"]["attention_outputs"]
    for name in ("m.0.attention", "decoder.layers.0", "decoder.layers.0.encoder_attn"):
        outputs[name] = outputs["m.0.attention.self"]
    data |= {"tokens": ["a"], "decoder_tokens": ["b"]}
    Path("d.json").write_text(json.dumps(data))
    page = Path(view("--input", "d.json", "--view", "head").out[0]).read_text()
    shown = re.search(r'id="facts">([^<]*)<', page)
    assert shown
    assert shown[1].count("Encoder:") == shown[1].count("Decoder:") == shown[1].count("Cross:") == 1


def test_both_pages_or_none(workplace: Path, view: Run) -> None:
    document_with(Path("d.json"), [[[[0.0]]], GOOD], None)
    Path("bertviz/attention_model_view_m.html").mkdir(parents=True)
    done = view("--input", "d.json")
    assert done.code == 1
    assert os.listdir("bertviz") == ["attention_model_view_m.html"]


def test_code_from_a_checkpoint_is_not_run_unasked(
    checkpoints: Checkpoints, tmp_path: Path, workplace: Path, capture: Run
) -> None:
    folder = tmp_path / "remote"
    shutil.copytree(checkpoints("llama"), folder)
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "my_own"
    config["architectures"] = ["MyOwn"]
    config["auto_map"] = {
        "AutoConfig": "code.MyConfig",
        "AutoModelForCausalLM": "code.MyOwn",
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(
        "from pathlib import Path\n"
        f"Path({str(tmp_path / 'ran')!r}).touch()\n"
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class MyConfig(LlamaConfig):\n    model_type = 'my_own'\n"
        "class MyOwn(LlamaForCausalLM):\n    config_class = MyConfig\n"
    )
    argv = ["--model", folder, "--prompt", "The cat", "--auto-select", "attn:0"]
    done = capture(*argv)
    assert done.code == 1
    assert done.err[-1].endswith("if you trust it add --trust-remote-code.")
    assert not (tmp_path / "ran").exists()
    assert capture(*argv, "--trust-remote-code").code == 0
    assert (tmp_path / "ran").exists()
    assert load(DOCUMENT).names[0] == "model.layers.0.self_attn"


# ------------------------------------------------------------------------------ parts of the view


def test_parts_and_single_views(
    checkpoints: Checkpoints, workplace: Path, capture: Run, view: Run
) -> None:
    argv = [
        "--model",
        checkpoints("llama"),
        "--prompt",
        "The cat sat on",
        "--auto-select",
        "attn:0",
    ]
    capture(*argv)
    done = view("--view", "head", "--layers", "1-2", "--heads", "3", "--tokens", "1:3", "--quiet")
    assert done.code == 0
    assert len(done.out) == 1
    page = Path(done.out[0]).read_text()
    assert "Self: layers 1-2, 1 head, 2 tokens" in page
    assert "Only the tokens 1 to 2 are shown." in page


def test_tokens_from_the_models_tokenizer_else_ids(
    checkpoints: Checkpoints, workplace: Path, capture: Run, view: Run
) -> None:
    folder = checkpoints("llama")
    capture("--model", folder, "--prompt", "The cat", "--auto-select", "attn:0")
    data = json.loads(Path(DOCUMENT).read_text())
    tokens = data.pop("tokens")
    Path("t.json").write_text(json.dumps(data))
    assert view("--input", "t.json", "--output-dir", "t").err == []
    page = next(Path("t").iterdir()).read_text()
    assert all(token.replace("Ġ", "·") in page for token in tokens)
    data["model"] = "./gone"
    Path("t.json").write_text(json.dumps(data))
    done = view("--input", "t.json", "--output-dir", "u")
    assert "cannot be loaded; ids are shown" in done.err[0]
    assert f"#{data['input_ids'][0][0]}" in next(Path("u").iterdir()).read_text()


def test_documents_without_our_additions(
    checkpoints: Checkpoints, workplace: Path, capture: Run, view: Run
) -> None:
    """Other people's captures: no attention_weights, no shapes, pretty-printed."""
    capture("--model", checkpoints("qwen2"), "--prompt", "The cat", "--auto-select", "attn:0")
    view("--output-dir", "ours")
    data = json.loads(Path(DOCUMENT).read_text())
    del data["attention_weights"], data["format"], data["environment"]
    for entry in data["captured"]["attention_outputs"].values():
        del entry["shape"], entry["dtype"]
    Path("other.json").write_text(json.dumps(data, indent=1))
    assert view("--input", "other.json", "--output-dir", "theirs").code == 0
    for page in os.listdir("ours"):
        assert (Path("ours") / page).read_bytes() == (Path("theirs") / page).read_bytes()


# -------------------------------------------------------------------------- as separate processes


def run_script(*argv: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *argv], capture_output=True, text=True, check=False, timeout=120, **kwargs
    )


@pytest.mark.parametrize("script", ["agnostic_capture.py", "bertviz_head_model_view.py"])
def test_light_answers_import_nothing_heavy(script: str, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "for argv in (['--help'], ['--version'], ['--nonsense'], ['--auto-select', 'x'],\n"
        "             ['--layers', 'x'], ['--figure', 'x'], ['--summary', 'x']):\n"
        f"    module = __import__({script[:-3]!r})\n"
        "    module.main(argv)\n"
        "heavy = {'torch', 'transformers', 'numpy', 'rich', 'bertviz', 'matplotlib'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = run_script("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_view_never_imports_torch(workplace: Path, tmp_path: Path) -> None:
    document_with(Path("d.json"), [[[[0.0]]], GOOD], [[1, 1, 1], [1, 2, 2, 2]])
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import bertviz_head_model_view as b\n"
        "assert b.main(['--input', 'd.json']) == 0\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = run_script("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_importing_has_no_side_effects(tmp_path: Path) -> None:
    files = [path.relative_to(ROOT) for path in (ROOT / "activations").rglob("[a-z]*.py")]
    names = [".".join(path.with_suffix("").parts) for path in files]
    assert "activations.errors" in names
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + "\n".join(
        f"import {name}" for name in ["activations", "agnostic_capture", *names]
    )
    done = run_script("-c", code, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert os.listdir(tmp_path) == []


def test_what_a_request_for_weights_cannot_give_is_told(workplace: Path, capture: Run) -> None:
    folder = tiny.checkpoint(workplace / "led", "led")
    argv = ("--model", folder, "--prompt", "The cat", "--target", "Ein", "--auto-select")
    done = capture(*argv, "attn:weights", "--quiet")
    assert (done.code, done.err) == (
        0,
        [
            "warning: the encoder attention weights that this model returns are handed out by none "
            "of its modules (it changes them afterwards), so they are not captured."
        ],
    )
    kinds = {entry["kind"] for entry in load(DOCUMENT).header["attention_weights"]}
    assert kinds == {"decoder", "cross"}
    assert capture(*argv, "mlp:0", "--quiet").err == []  # nobody asked for weights


def test_attention_that_is_handed_out_by_no_module_is_told(workplace: Path, capture: Run) -> None:
    folder = tiny.checkpoint(workplace / "longformer", "longformer")
    done = capture("--model", folder, "--prompt", "The cat", "--auto-select", "attn:0", "--quiet")
    assert done.code == 0
    assert done.err[0].startswith("warning: the self attention weights that this model returns are")


def test_models_that_draw_random_numbers_give_the_same_bytes(workplace: Path, capture: Run) -> None:
    folder = tiny.checkpoint(workplace / "reformer", "reformer")
    argv = ("--model", folder, "--prompt", "The cat sat.", "--auto-select", "attn:all", "--quiet")
    state = torch.random.get_rng_state()
    assert [capture(*argv, "--output", name).code for name in ("a.json", "b.json")] == [0, 0]
    assert Path("a.json").read_bytes() == Path("b.json").read_bytes()
    assert torch.equal(torch.random.get_rng_state(), state)  # the user's own are not touched


# ------------------------------------------------------------------------------------- from Python


def test_capture_and_load_from_python(checkpoints: Checkpoints, workplace: Path) -> None:
    document = activations.capture(
        str(checkpoints("gpt2")), "The cat sat", select="attn:0", output="x.json", layers=[1]
    )
    length = len(document.header["tokens"])
    weights = document.tensor("transformer.h.1.attn", 1)
    assert weights.shape == (1, 4, length, length)
    assert weights.dtype == np.float32
    assert activations.load("x.json").names == ["transformer.h.1.attn"]
    with pytest.raises(UsageError):
        activations.capture(str(checkpoints("gpt2")), "The cat", select="attn:nope")
    with pytest.raises(ToolkitError):
        activations.load("nowhere.json")


@pytest.mark.parametrize(
    ("layers", "expected"),
    [(2, [2]), ([0, 1], [0, 1]), (range(3), [0, 1, 2]), (np.arange(1, 3), [1, 2]), ({0}, [0])],
    ids=str,
)
def test_layers_from_python(layers: Any, expected: list[int], workplace: Path) -> None:
    document = activations.capture(
        tiny.model("llama"), "The cat", tokenizer=tiny.tokenizer(), select="attn:0", layers=layers
    )
    assert document.names == [f"model.layers.{i}.self_attn" for i in expected]


TAKES_LAYERS = "layers takes numbers, as in layers=[0, 4] or layers=range(4), not "
MORE = "--max-new-tokens takes a number from 1 up."


@pytest.mark.parametrize("family", ["llama", "t5"])
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"max_new_tokens": 0}, MORE),
        ({"max_new_tokens": -2}, MORE),
        ({"max_new_tokens": 2.5}, "max_new_tokens takes a number, as in max_new_tokens=12, not 2."),
        ({"max_new_tokens": True}, "max_new_tokens takes a number, as in max_new_tokens=12, not T"),
        ({"prompt": ["The cat"]}, "prompt takes a text, not ['The cat']."),
        ({"prompt": b"The cat"}, "prompt takes a text, not b'The cat'."),
        ({"target": 3}, "target takes a text, not 3."),
        ({"select": ["attn:0"]}, "select takes a text, not ['attn:0']."),
        ({"select": None}, "select takes a text, not None."),
        ({"layers": "0,2"}, f"{TAKES_LAYERS}'0,2'."),
        ({"layers": [0.5]}, f"{TAKES_LAYERS}[0.5]."),
        ({"layers": [True, False]}, f"{TAKES_LAYERS}[True, False]."),
        ({"layers": []}, "nothing selected: --layers names no layer. Leave it out for all."),
        ({"layers": -1}, "--layers: the selected patterns have no layer -1. Their layers are"),
        ({"output": None}, "output takes the name of a file, not None."),
        ({"image": 5}, "image takes the name of a file, not 5."),
        ({"chat": "no"}, "chat takes True or False, not 'no'."),
        ({"model": 5}, "model takes a name, a folder or a loaded model, not 5."),
        ({"attn_implementation": 5}, "attn_implementation takes a text, not 5."),
    ],
    ids=str,
)
def test_arguments_that_are_none(
    family: str, arguments: dict[str, Any], line: str, workplace: Path
) -> None:
    given = {"model": tiny.model(family), "prompt": "The cat", "tokenizer": tiny.tokenizer()}
    with pytest.raises(UsageError) as caught:
        activations.capture(**given | arguments)
    assert str(caught.value).startswith(line)
    assert os.listdir() == []


def test_torchs_own_names_of_dtypes_and_devices(checkpoints: Checkpoints, workplace: Path) -> None:
    folder = checkpoints("llama")
    options: dict[str, Any] = {"dtype": torch.bfloat16, "device": torch.device("cpu")}
    document = activations.capture(folder, "The cat", layers=0, **options)
    assert document.header["environment"]["dtype"] == "bfloat16"
    with pytest.raises(UsageError, match="--dtype does not know '5'"):
        activations.capture(folder, "The cat", dtype=5)


def test_a_loaded_model_is_left_as_it_was(workplace: Path) -> None:
    model = tiny.model("llama")
    model.set_attn_implementation("sdpa")
    model.train()
    model.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    document = activations.capture(model, "The cat", tokenizer=tiny.tokenizer(), output="x.json")
    assert document.attention_weights is not None
    assert len(document.attention_weights) == 3
    assert model.config._attn_implementation == "sdpa"
    assert [module.training for module in model.modules()] == modes
    with pytest.raises(UsageError, match="needs its tokenizer"):
        activations.capture(model, "The cat")
    with pytest.raises(UsageError, match="this one is loaded already"):
        activations.capture(model, "The cat", tokenizer=tiny.tokenizer(), dtype="bfloat16")
    with pytest.raises(UsageError, match="--backend does not know 'nope'"):
        activations.capture(model, "The cat", tokenizer=tiny.tokenizer(), backend="nope")


def test_an_attention_implementation_that_is_not_there(
    checkpoints: Checkpoints, workplace: Path, capture: Run
) -> None:
    model, tokenizer = tiny.model("llama"), tiny.tokenizer()
    for name, code, line in (
        ("no_such_attention", 2, "--attn-implementation does not know 'no_such_attention'"),
        ("flash_attention_2", 1, "does not run with attention 'flash_attention_2'"),
    ):
        with pytest.raises(ToolkitError, match=line):
            activations.capture(
                model, "The cat", tokenizer=tokenizer, select="mlp:0", attn_implementation=name
            )
        argv = ["--model", checkpoints("llama"), "--prompt", "The cat", "--auto-select", "mlp:0"]
        done = capture(*argv, "--attn-implementation", name)
        assert done.code == code
        assert line in done.err[-1]
        assert os.listdir() == []


def test_composite_models_get_their_parts_settings_back(workplace: Path) -> None:
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(
        tiny.config("bert"), tiny.config("bert", is_decoder=True, add_cross_attention=True)
    )
    config.decoder_start_token_id = config.pad_token_id = 1
    model = transformers.EncoderDecoderModel(config)
    model.set_attn_implementation({"": "sdpa", "encoder": "eager", "decoder": "sdpa"})

    def used() -> list[str]:
        return [c._attn_implementation for c in (config, config.encoder, config.decoder)]

    config = model.config
    before = used()
    document = activations.capture(model, "The cat", tokenizer=tiny.tokenizer(), output="x.json")
    assert used() == before
    assert document.attention_weights is not None
    assert {entry["kind"] for entry in document.attention_weights} == {
        "encoder",
        "decoder",
        "cross",
    }
