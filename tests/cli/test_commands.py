"""The two commands as a shell sees them: argv -> files, exit code, stdout, stderr."""

from __future__ import annotations

import gc
import io
import json
import os
import re
import shlex
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
from conftest import GOOD, HIDDEN, Outcome, Run, document_with
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    PreTrainedTokenizerFast,
)

import activations
from activations import Document, ToolkitError, UsageError, load
from activations.session import opening, run

ROOT = Path(__file__).parent.parent.parent
Checkpoints = Callable[[str], Path]
DOCUMENT = "agnostic_activations.json"
Take = Callable[..., tuple[Document, list[str]]]
Answer = Callable[..., Outcome]


@pytest.fixture
def take(checkpoints: Checkpoints, workplace: Path, capture: Run) -> Take:
    """Captures "The cat" with a family's checkpoint or a saved model: the document, and stderr."""

    def taken(model: str | Path, *argv: str, select: str = "attn:0") -> tuple[Document, list[str]]:
        folder = checkpoints(model) if isinstance(model, str) else model
        done = capture("--model", folder, "--prompt", "The cat", "--auto-select", select, *argv)
        assert (done.code, done.out) == (0, [DOCUMENT]), done.err
        return load(DOCUMENT), done.err

    return taken


@pytest.fixture
def answer(
    checkpoints: Checkpoints, workplace: Path, capture: Run, monkeypatch: pytest.MonkeyPatch
) -> Answer:
    """Captures "The cat" with a tiny Llama, the questions being answered over a pipe."""

    def answered(answers: str, *argv: str) -> Outcome:
        monkeypatch.setattr("sys.stdin", io.StringIO(answers))
        return capture("--model", checkpoints("llama"), "--prompt", "The cat", *argv)

    return answered


def saved(model: Any, chat_template: str | None = None, **options: Any) -> Path:
    """A folder with the model and a tokenizer; `options` are those of `tiny.tokenizer`."""
    model.save_pretrained("saved")
    tokenizer = tiny.tokenizer(**options)
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained("saved")
    return Path("saved")


def from_python(model: Any, **options: Any) -> Document:
    return activations.capture(model, "The cat", tokenizer=tiny.tokenizer(), **options)


# ------------------------------------------------------------------------------------ the main job


def test_without_arguments_it_shows_the_demo_model(
    workplace: Path, capture: Run, view: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("0\n0\n\n"))
    done = capture()
    assert (done.code, done.out) == (0, [DOCUMENT])
    assert done.err[0] == "No --model given: using the bundled demo_model."
    pages = view()
    assert pages.code == 0
    assert pages.out == [
        "bertviz/attention_head_view_demo_model.html",
        "bertviz/attention_model_view_demo_model.html",
    ]
    assert sorted(os.listdir("bertviz")) == [Path(path).name for path in pages.out]


@pytest.mark.parametrize("family", [*tiny.FAMILIES, *tiny.ODD_FAMILIES])
def test_every_family_from_checkpoint_to_pages(
    family: str, checkpoints: Checkpoints, take: Take, view: Run
) -> None:
    """Captured weights are the model's own output_attentions, bit for bit."""
    document, _ = take(family, "--prompt", "The cat sat", select="attn:weights")
    loader = getattr(transformers, (tiny.FAMILIES | tiny.ODD_FAMILIES)[family])
    model = loader.from_pretrained(checkpoints(family), attn_implementation="eager")
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


def test_the_keys_other_peoples_scripts_read(checkpoints: Checkpoints, take: Take) -> None:
    take("llama", "--prompt", "The cat sat on the mat", select="attn:self_attn;mlp:0;other:")
    data = json.loads(Path(DOCUMENT).read_text())
    assert " ".join(data) == (
        "format model prompt input_ids tokens words selected_patterns selected_modules "
        "attention_weights predictions environment captured"
    )
    assert data["format"] == "agnostic-activations/1"
    assert data["model"] == str(checkpoints("llama"))
    assert data["prompt"] == "The cat sat on the mat"
    name = "model.layers.{layer}."
    chosen = {"attention": [f"{name}self_attn"], "mlp": [f"{name}mlp"], "other": []}
    assert data["selected_patterns"] == chosen
    modules = {
        category: [pattern.format(layer=i) for pattern in patterns for i in range(3)]
        for category, patterns in chosen.items()
    }
    assert data["selected_modules"] == modules
    noted = {"module": "model.layers.1.self_attn", "element": [1], "layer": 1, "kind": "self"}
    assert data["attention_weights"][1] == noted
    assert data["environment"]["backend"] == "hooks"
    assert data["environment"]["attn_implementation"] == "eager"
    captured = data["captured"]
    assert {key: list(captured[key]) for key in captured} == {
        f"{category}_outputs": names for category, names in modules.items()
    }
    length = len(data["tokens"])
    assert np.shape(data["input_ids"]) == (1, length)
    entry = captured["attention_outputs"]["model.layers.0.self_attn"]
    assert list(entry) == ["shape", "dtype", "output"]
    assert entry["shape"] == [[1, length, 32], [1, 4, length, length]]
    assert entry["dtype"] == ["float32", "float32"]
    assert np.allclose(np.sum(entry["output"][1], axis=-1), 1, atol=1e-6)
    assert captured["mlp_outputs"]["model.layers.0.mlp"]["shape"] == [1, length, 32]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_both_backends_and_every_run_give_the_same_bytes(family: str, take: Take) -> None:
    texts = []
    for backend in ("hooks", "hooks", "pyvene"):
        take(family, "--backend", backend, select="attn:all;mlp:all;other:all")
        texts.append(Path(DOCUMENT).read_text())
    assert texts[0] == texts[1]
    assert texts[2] == texts[0].replace('"backend":"hooks"', '"backend":"pyvene"')


@pytest.mark.parametrize(
    ("dtype", "written"), [("bfloat16", "bfloat16"), ("float16", "float16"), ("auto", "float32")]
)
def test_dtypes(dtype: str, written: str, checkpoints: Checkpoints, take: Take) -> None:
    document, _ = take("qwen2", "--dtype", dtype, "--device", "cpu")
    name = "model.layers.0.self_attn"
    assert document.dtype(name) == [written, written]
    assert document.header["environment"]["dtype"] == written
    model = AutoModelForCausalLM.from_pretrained(
        checkpoints("qwen2"), attn_implementation="eager", dtype=getattr(torch, written)
    )
    with torch.no_grad():
        ids = torch.tensor(document.header["input_ids"])
        expected = model(ids, output_attentions=True).attentions[0]
    np.testing.assert_array_equal(document.tensor(name, 1), expected.float().numpy())


@pytest.mark.parametrize(
    ("argv", "select", "used"),
    [
        ([], "mlp:0", "sdpa"),
        ([], "attn:q_proj", "eager"),
        ([], "attn:0", "eager"),
        (["--attn-implementation", "sdpa"], "attn:q_proj", "sdpa"),
    ],
)
def test_attention_is_eager_only_when_it_is_captured(
    argv: list[str], select: str, used: str, take: Take
) -> None:
    document, _ = take("llama", *argv, select=select)
    assert document.header["environment"]["attn_implementation"] == used


def test_logits_are_whole_only_when_they_are_captured(take: Take) -> None:
    document, _ = take("llama", "--prompt", "The cat sat", select="other:lm_head")
    assert document.shape("lm_head") == [1, len(document.header["tokens"]), 400]


def test_layers(take: Take) -> None:
    document, _ = take("llama", "--layers", "0,2", select="attn:0;other:model.norm")
    assert document.names == ["model.layers.0.self_attn", "model.layers.2.self_attn", "model.norm"]
    assert document.attention_weights is not None
    assert [entry["layer"] for entry in document.attention_weights] == [0, 2]


@pytest.mark.parametrize(
    ("family", "argv", "select", "line"),
    [
        ("opt", [], "attn:0;other:0", "not called in this pass, so not captured: model."),
        ("llama", ["--text-pair", "the moon"], "attn:0", "puts nothing between the two texts"),
        ("longformer", [], "attn:0", "warning: the self attention weights that this model returns"),
    ],
)
def test_warnings(family: str, argv: list[str], select: str, line: str, take: Take) -> None:
    document, said = take(family, *argv, select=select)
    (warned,) = (one for one in said if one.startswith("warning: "))
    assert line in warned
    assert document.header.get("not_called") == (["model"] if family == "opt" else None)


def test_not_a_number_is_null_counted_and_said(take: Take) -> None:
    model = tiny.model("llama")
    model.model.layers[1].mlp.down_proj.weight.data[0, 0] = float("nan")
    document, said = take(saved(model), select="mlp:0")
    length = len(document.header["tokens"])
    counts = {"NaN": length, "Infinity": 0, "-Infinity": 0}
    assert document.header["non_finite"]["model.layers.1.mlp"] == {"": counts}
    line = "JSON has null for them, --format safetensors keeps them."
    assert f"warning: model.layers.1.mlp holds {length} NaN; {line}" in said


# -------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize(
    ("raw", "prompt"),
    [
        ("one\r\n two é\n".encode(), "one\r\n two é"),  # the last line break is not part of it
        # Windows puts a mark at the start
        *(
            ("\ufeffFrom Wíndows\r\n".encode(encoding), "From Wíndows")
            for encoding in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
        ),
    ],
)
def test_prompt_from_a_file_and_from_standard_input(
    raw: bytes,
    prompt: str,
    checkpoints: Checkpoints,
    workplace: Path,
    capture: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("p.txt").write_bytes(raw)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(raw)))
    for file in ("p.txt", "-"):
        argv = ["--model", checkpoints("llama"), "--auto-select", "attn:0", "--prompt-file", file]
        assert capture(*argv).code == 0
        assert load(DOCUMENT).prompt == prompt


def test_without_a_target_the_model_writes_it(checkpoints: Checkpoints, take: Take) -> None:
    header = take("bart", "--max-new-tokens", "5")[0].header
    model = AutoModelForSeq2SeqLM.from_pretrained(checkpoints("bart"))
    written = model.generate(
        torch.tensor(header["input_ids"]), max_new_tokens=5, forced_eos_token_id=None
    )
    assert header["decoder_input_ids"] == written.tolist()
    assert header["written"] == tiny.tokenizer().decode(written[0, 1:], skip_special_tokens=True)


def test_continuation(checkpoints: Checkpoints, take: Take, view: Run) -> None:
    document, said = take("llama", "--max-new-tokens", "4")
    header = document.header
    start = header["continuation_start"]
    model = AutoModelForCausalLM.from_pretrained(checkpoints("llama"))
    prompt = torch.tensor(header["input_ids"])[:, :start]
    written = model.generate(prompt, max_new_tokens=4, do_sample=False)
    assert header["input_ids"] == written.tolist()
    assert len(header["tokens"]) == written.shape[1]
    text = tiny.tokenizer().decode(written[0, start:], skip_special_tokens=True)
    assert header["written"] == text
    assert f"The model generated: {text!r}" in said
    pages = [Path(page).read_text() for page in view().out]
    assert all('<div id="generated" class="text" ' in page for page in pages)


def test_each_text_is_encoded_once(take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = PreTrainedTokenizerFast.__call__

    def spy(self: Any, text: Any = None, *args: Any, **options: Any) -> Any:
        read.append(text or options["text_target"])
        return real(self, text, *args, **options)

    monkeypatch.setattr(PreTrainedTokenizerFast, "__call__", spy)
    take("t5", "--target", "Ein Satz.", select="attn:weights")
    assert read == ["The cat", "Ein Satz."]


def test_pair(checkpoints: Checkpoints, take: Take, view: Run) -> None:
    """Told apart in the document, and by the model."""
    document, _ = take("bert", "--text-pair", "the moon")
    tokens, start = document.header["tokens"], document.header["sentence_b_start"]
    assert tokens[start - 1] == "[SEP]"
    assert "".join(tokens[start:-1]) == "theĠmoon"
    types = torch.tensor([[0] * start + [1] * (len(tokens) - start)])
    model = AutoModelForMaskedLM.from_pretrained(checkpoints("bert"), attn_implementation="eager")
    with torch.no_grad():
        ids = torch.tensor(document.header["input_ids"])
        expected = model(ids, token_type_ids=types, output_attentions=True).attentions
    for i, weights in enumerate(expected):
        found = document.tensor(f"bert.encoder.layer.{i}.attention", 1)
        np.testing.assert_array_equal(found, weights.numpy())
    assert view().code == 0


def test_targets_that_just_fit_and_that_do_not(take: Take, capture: Run) -> None:
    short = saved(tiny.model("bart", max_position_embeddings=12))
    take(short, "--target", "@" * 11, select="attn:weights")  # a start comes before them
    take(short, select="attn:weights")  # left to itself the model writes no more than it takes
    argv = ["--prompt", "The cat", "--auto-select", "attn:0"]
    done = capture("--model", short, *argv, "--target", "@" * 12)
    line = "error: the target (--target) is 13 tokens long, and this model takes 12. Shorten it."
    assert (done.code, done.err[-1]) == (2, line)


def test_an_end_outside_the_vocabulary(workplace: Path) -> None:
    assert len(from_python(tiny.model("gpt2", eos_token_id=50256)).names) == 3


PARTS = "selectattr('type', 'equalto', 'text')"  # LLaVA's template passes over a plain text
CHATS = [
    (
        "{% for m in messages %}<s>{{ m['role'] }} {{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}</s>{% endif %}",
        "<s>user The cat</s>",
    ),
    (
        "{% for m in messages %}USER: {% for c in m.content | " + PARTS + " %}{{ c.text }}"
        "{% endfor %}{% endfor %} ASSISTANT:",
        "USER: The cat ASSISTANT:",
    ),
]


@pytest.mark.parametrize(("template", "text"), CHATS)
def test_chat(template: str, text: str, take: Take) -> None:
    document, _ = take(saved(tiny.model("llama"), template), "--chat")
    assert document.prompt == "The cat"
    assert document.header["input_ids"] == [tiny.tokenizer()(text)["input_ids"]]


def test_a_chat_template_that_leaves_the_prompt_out(workplace: Path, capture: Run) -> None:
    folder = saved(tiny.model("llama"), "USER: ASSISTANT:")
    done = capture("--model", folder, "--prompt", "The cat", "--auto-select", "attn:0", "--chat")
    line = "error: the tokenizer's chat template leaves the prompt out. Leave --chat out."
    assert (done.code, done.err[-1]) == (2, line)


@pytest.mark.parametrize(
    ("family", "template"), [("t5", None), ("t5", "$A </s>"), ("mbart", "$A </s> [CLS]")]
)
def test_targets_are_shifted_as_the_model_does_it(
    family: str, template: str | None, take: Take
) -> None:
    """With tokenizers that write no end, an end (T5), or an end and a language (mBART)."""
    folder = saved(tiny.model(family, "AutoModelForSeq2SeqLM"), template=template)
    header = take(folder, "--target", "one two", select="attn:weights")[0].header
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    ids = tiny.tokenizer(template=template)("one two")["input_ids"]
    labels = torch.tensor([ids if template else [*ids, 2]])
    expected = model.prepare_decoder_input_ids_from_labels(labels)
    assert header["decoder_input_ids"] == expected.tolist()
    assert len(header["decoder_tokens"]) == expected.shape[1]


@pytest.mark.parametrize("class_name", ["BartModel", "BartForSequenceClassification"])
def test_decoders_of_models_without_a_language_head(class_name: str, take: Take) -> None:
    folder = saved(getattr(transformers, class_name)(tiny.config("bart")), template="$A </s>")
    document, said = take(folder, select="attn:weights")
    assert not any(line.startswith("warning") for line in said)
    header = document.header
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
    header = from_python(made, max_new_tokens=6).header
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

    def written() -> Any:
        return from_python(made, max_new_tokens=3).header["decoder_input_ids"][0]

    _, first, *_ = written()
    made.generation_config.update(bad_words_ids=[[first]], forced_bos_token_id=77)
    assert written()[1] == 77
    assert first not in written()


def test_what_the_model_is_asked_for(take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[set[str]] = []
    real = run.BACKENDS["hooks"]

    def spy(model: Any, call: dict[str, Any], *rest: Any) -> Any:
        texts = ("input_ids", "attention_mask")
        calls.append({f"{key}={value}" for key, value in call.items() if key not in texts})
        return real(model, call, *rest)

    monkeypatch.setitem(run.BACKENDS, "hooks", spy)
    take("llama", select="attn:0")
    take("llama", "--predict", "0", select="attn:0")
    take("llama", "--predict", "0", select="other:lm_head")
    whole = {"use_cache=False"}
    assert calls == [whole, whole | {"logits_to_keep=1"}, whole]


# ------------------------------------------------------------------------------------- questions


@pytest.mark.parametrize(
    ("answers", "modules", "said"),
    [
        ("0\n0\n\n", ["self_attn", "mlp"], []),
        ("nonsense\n7\nself_attn\n\n\n", ["self_attn"], ["Module not found", "no attention patte"]),
        ("?\n\n\nnorm, lm_head\nmodel.norm,lm_head\n", ["norm", "lm_head"], ["comma-separated"]),
        ("0\n0\n<\n1\n\n", ["self_attn", "gate_proj"], []),
        ("0\n0\n<\n<\nq_proj\n\n\n", ["q_proj"], []),
        ("<\n<\n0\n\n\n", ["self_attn"], ["This is the first question"]),
        (
            "attn:0\n7\nweight\nmlp:0;other:\n0\nweights\n\n\n",
            ["self_attn"],
            [
                "Leave out 'attn:': this question is about attention only. Answer 0, for example.",
                "indices go from 0 to 4. ? shows all forms of an answer.",
                "no attention pattern is called 'weight'. ? shows all forms of an answer.",
                "Leave out 'mlp:': this question is about attention only.",
                "no mlp pattern of this model returns attention weights, so 'weights' selects "
                "nothing. ? shows all forms of an answer.",
            ],
        ),
    ],
)
def test_piped_answers(answers: str, modules: list[str], said: list[str], answer: Answer) -> None:
    done = answer(answers)
    assert (done.code, done.out) == (0, [DOCUMENT]), done.err
    parts = {name.rpartition(".")[2] for name in load(DOCUMENT).names}
    assert parts == set(modules)
    for words in said:
        assert any(words in line for line in done.err), words
    assert not any("\x1b" in line for line in done.err)  # plain text over a pipe
    tables = sum(line.startswith("Attention (") for line in done.err)
    assert tables == 1 + ("<\n<\nq_proj" in answers)  # ? does not repeat what is there
    assert sum("T is the number of tokens" in line for line in done.err) == 1
    assert not any("--list" in line for line in done.err)


@pytest.mark.parametrize(
    ("answers", "instead"),
    [
        ("\n\n", "attn:0;mlp:0;other:"),
        ("", "attn:0;mlp:0;other:"),
        ("1\n", "attn:1;mlp:0;other:"),
        ("\n1\n", "attn:;mlp:1;other:"),
    ],
)
def test_answers_that_end_early(answers: str, instead: str, answer: Answer) -> None:
    done = answer(answers)
    assert done.code == 2
    assert done.err[-1].endswith(f'Give the answers with --auto-select "{instead}".')
    assert os.listdir() == []
    assert answer("", "--auto-select", instead).code == 0


@pytest.mark.parametrize("layers", ["-1,0", "0,-1", "-3,2", "=-1,-3"])
def test_layers_from_the_end(layers: str, take: Take, view: Run) -> None:
    """A list that begins with - is no option, to either command."""
    argv = [f"--layers{layers}"] if layers.startswith("=") else ["--layers", layers]
    document, _ = take("llama", *argv)
    assert document.names == ["model.layers.0.self_attn", "model.layers.2.self_attn"]
    done = view("--summary", "csv", "--lay", "-1,-2")
    assert done.code == 0, done.err
    assert {line.split(",")[1] for line in done.out[1:]} == {"0", "2"}


def test_a_summary_and_how_to_say_the_same(checkpoints: Checkpoints, answer: Answer) -> None:
    argv = ["--layers", "0,2", "--dtype", "bfloat16", "--backend", "pyvene"]
    done = answer("1, self_attn\n0,down_proj,2-4\n\n", *argv)
    assert done.code == 0, done.err
    spec = "attn:1, self_attn;mlp:0,down_proj,2-4;other:"
    repeat = done.err.index(f'The same without questions: --auto-select "{spec}"')
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
    assert answer("", *argv, "--auto-select", spec).code == 0
    assert load(DOCUMENT).names == names


@pytest.mark.parametrize(
    ("family", "argv", "foretold"),
    [
        ("llama", "--max-new-tokens 9", "up to 11 tokens: up to"),
        ("bert", "--text-pair 'the mat' --attn-implementation eager", "8 tokens, eager"),
        ("t5", "--target 'the mat'", "2 encoder and 4 decoder tokens: about"),
        ("t5", "", "2 encoder and up to 17 decoder tokens: up to"),
        ("switch_transformers", "--target the", "2 encoder and 3 decoder tokens: at least"),
    ],
)
def test_how_many_tokens_are_told(family: str, argv: str, foretold: str, take: Take) -> None:
    """Before the pass, and at its end."""
    _, said = take(family, *shlex.split(argv), select="attn:all;mlp:all")
    (line,) = (line for line in said if line.startswith("Capturing"))
    assert foretold in line
    *_, told, _ = said
    assert told.startswith(re.sub("up to.*|(?<=tokens).*", "", foretold))
    assert told.endswith("B.")


def test_quiet_leaves_the_result(take: Take) -> None:
    assert take("llama", "--quiet")[1] == []


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("loaded")

    for room in (opening, run):
        monkeypatch.setattr(room, "load_model", loaded)


@pytest.mark.usefixtures("no_weights")
def test_nothing_selected_is_told_before_the_weights_are_loaded(answer: Answer) -> None:
    """And asked again, until standard input ends."""
    for answers in ("\n\n\n", ",\n , \nnone\n"):
        done = answer(answers)
        assert (done.code, done.out) == (2, [])
        assert "Nothing is selected. Choose at least one pattern." in done.err
        assert done.err[-1].startswith("error: standard input ended before all questions were")
        assert not any(line.startswith("The same") for line in done.err)


@pytest.mark.usefixtures("no_weights")
def test_no_room_is_told_before_the_weights_are_loaded(
    checkpoints: Checkpoints, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 1000))
    for format in ("json", "safetensors"):
        done = answer("", "--auto-select", "attn:0", "--format", format)
        assert done.code == 1
        assert re.match(
            rf"error: no room on the disk for '{DOCUMENT}': about \d(\.\d)? kB are", done.err[-1]
        )
    with pytest.raises(ToolkitError, match="no room on the disk"):
        activations.capture(checkpoints("llama"), "The cat", output="x.json")
    assert os.listdir() == []


def test_leaving_while_a_library_waits_for_its_threads() -> None:
    """As huggingface_hub does for its downloads: an hour, if need be."""
    code = (
        "import sys, time\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from activations.cli.command import exit_on_signal, run_command\n"
        "from agnostic_capture import build_parser\n"
        "def work(args, console):\n"
        "    with exit_on_signal(console), ThreadPoolExecutor() as pool:\n"
        "        pool.submit(time.sleep, 300)\n"
        "        print('started', flush=True)\n"
        "        time.sleep(300)\n"
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
        _, errors = child.communicate(timeout=120)
        assert (child.returncode, errors) == (128 + number, said)


def test_list(checkpoints: Checkpoints, workplace: Path, capture: Run) -> None:
    done = capture("--model", checkpoints("bert"), "--list")
    assert done.code == 0
    assert done.out[0] == "Attention (10 patterns; * returns attention weights)"
    row = " ".join(done.out[1].split())
    assert row == "0 * bert.encoder.layer.{layer}.attention 3 x ([1,T,32], [1,4,T,T])"
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
    class_name: str, family: str, top: str, take: Take
) -> None:
    """Other classes than the language models' load as what they were saved as."""
    document, said = take(saved(getattr(transformers, class_name)(tiny.config(family))))
    assert not any(line.startswith("warning") for line in said)
    assert document.header["selected_patterns"]["attention"] == [top]
    assert document.names == [top.format(layer=i) for i in range(3)]


def test_classes_registered_in_pairs(take: Take) -> None:
    config = transformers.FunnelConfig(
        vocab_size=400, block_sizes=[1, 1], num_decoder_layers=1, d_model=32, n_head=4, d_head=8
    )
    take(saved(transformers.FunnelModel(config)), "--prompt", "The cat sat on")


def test_weights_the_checkpoint_lacks_are_said_to_be_random(take: Take) -> None:
    folder = saved(transformers.LlamaModel(tiny.config("llama")))
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config))
    logits = []
    for _ in range(2):
        document, said = take(folder, select="other:lm_head")
        logits.append(document.tensor("lm_head"))
    line = "lacks weights that its class needs, so they are random: lm_head.weight."
    assert f"warning: 'saved' {line}" in said
    np.testing.assert_array_equal(*logits)  # random, but the same every time


def test_where_a_checkpoint_is_loaded_from_is_passed_on(
    take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, Any, Any]] = []
    for loader in (transformers.AutoConfig, transformers.AutoTokenizer, AutoModelForCausalLM):

        def spy(
            name: str, loader: Any = loader, real: Any = loader.from_pretrained, **kw: Any
        ) -> Any:
            told.append((loader.__name__, kw["revision"], kw["trust_remote_code"]))
            return real(name, **kw)

        monkeypatch.setattr(loader, "from_pretrained", spy)
    document, _ = take("llama", "--revision", "v2")
    assert {item[1:] for item in told} == {("v2", False)}
    assert {item[0] for item in told} >= {"AutoConfig", "AutoTokenizer", "AutoModelForCausalLM"}
    assert document.header["environment"]["revision"] == "v2"


# ------------------------------------------------------------------------- documents of others


NOTED = {"module": "m.0.self_attn", "element": [1], "layer": 0, "kind": "self"}


def outputs(entry: Any, *names: str) -> dict[str, Any]:
    return {"captured": {"attention_outputs": dict.fromkeys(names, entry)}}


@pytest.mark.parametrize(
    "changes",
    [
        {"input_ids": 5, "tokens": None},
        {"selected_patterns": ["x"], "attention_weights": []},
        {"attention_weights": [NOTED | {"layer": 1e400}]},
        {"attention_weights": [NOTED | {"layer": 10**12}]},
        {"attention_weights": [NOTED | {"element": [7]}]},
        {"attention_weights": [NOTED | {"kind": "x"}]},
        {"attention_weights": [NOTED | {"module": "gone"}]},
        {"attention_weights": [3]},
        outputs({"shape": [[1]]}, "m.0.self_attn"),
        outputs(7, "m.0.self_attn"),
        outputs({"output": [0, GOOD]}, "m." + "9" * 5000),
        {"tokens": 7, "prompt": 3, "model": ["x"]},
        {"sentence_b_start": "one", "decoder_tokens": {}},
    ],
    ids=str,
)
def test_documents_edited_by_hand(changes: dict[str, Any], workplace: Path, view: Run) -> None:
    """Done, or one line that says what is wrong; never an unexpected error."""
    document_with("d.json", [HIDDEN, GOOD], **changes)
    done = view("--input", "d.json")
    assert done.code in (0, 1)
    assert not any("unexpected" in line for line in done.err), done.err
    assert (done.code == 0) == (len(done.out) == 2)


def facts(view: Run) -> str:
    page = Path(view("--input", "d.json", "--view", "head").out[0]).read_text()
    shown = re.search(r'id="facts">([^<]*)<', page)
    assert shown
    return shown[1]


def test_weights_handed_on_by_an_outer_module_are_shown_once(workplace: Path, view: Run) -> None:
    handed_on = outputs({"output": [HIDDEN, GOOD]}, "m.0.attention", "m.0.attention.self")
    document_with("d.json", None, **handed_on)
    assert facts(view).endswith("Self: layer 0, 2 heads, 2 tokens")


def test_only_what_is_handed_on_is_dropped(workplace: Path, view: Run) -> None:
    """Inner before outer; and a one-token text, where all attention is alike."""
    names = ("m.0.attention.self", "m.0.attention", "decoder.layers.0")
    entry = {"output": [HIDDEN, np.ones((1, 2, 1, 1)).tolist()]}
    changes = outputs(entry, *names, "decoder.layers.0.encoder_attn")
    document_with("d.json", None, **changes, tokens=["a"], decoder_tokens=["b"])
    shown = facts(view)
    assert [shown.count(kind) for kind in ("Encoder:", "Decoder:", "Cross:")] == [1, 1, 1]


def test_both_pages_or_none(workplace: Path, view: Run) -> None:
    document_with("d.json", [HIDDEN, GOOD])
    Path("bertviz/attention_model_view_m_d.html").mkdir(parents=True)
    assert view("--input", "d.json").code == 1
    assert os.listdir("bertviz") == ["attention_model_view_m_d.html"]


# ------------------------------------------------------------------------------ parts of the view


def test_parts_and_single_views(take: Take, view: Run) -> None:
    take("llama", "--prompt", "The cat sat on")
    done = view("--view", "head", "--layers", "1-2", "--heads", "3", "--tokens", "1:3", "--quiet")
    assert done.code == 0
    (path,) = done.out
    page = Path(path).read_text()
    assert "Self: layers 1-2, 1 head, 2 tokens" in page
    assert "Only the tokens 1 to 2 are shown." in page


def test_tokens_from_the_models_tokenizer_else_ids(take: Take, view: Run) -> None:
    take("llama")
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


def test_documents_without_our_additions(take: Take, view: Run) -> None:
    """Other people's captures: no attention_weights, no shapes, pretty-printed."""
    take("qwen2")
    view("--output-dir", "ours")
    data = json.loads(Path(DOCUMENT).read_text())
    del data["attention_weights"], data["format"], data["environment"]
    for entry in data["captured"]["attention_outputs"].values():
        del entry["shape"], entry["dtype"]
    Path("other").mkdir()  # under the usual name, which its pages do not carry
    Path("other", DOCUMENT).write_text(json.dumps(data, indent=1))
    assert view(Path("other", DOCUMENT), "--output-dir", "theirs").code == 0
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
        "heavy = {'torch', 'transformers', 'numpy', 'rich.console', 'bertviz', 'matplotlib'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = run_script("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_view_never_imports_torch(workplace: Path, tmp_path: Path) -> None:
    document_with("d.json", [HIDDEN, GOOD], [[1, 2, 4], [1, 2, 2, 2]])
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import bertviz_head_model_view as view\n"
        "assert view.main(['--input', 'd.json']) == 0\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = run_script("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "argv", [["agnostic_capture.py", "--auto-select", "attn:0"], ["bertviz_head_model_view.py"]]
)
def test_without_its_packages_a_command_says_what_to_do(argv: list[str], tmp_path: Path) -> None:
    """As where somebody forgot to activate the environment."""
    (tmp_path / DOCUMENT).write_text("{}")
    done = run_script("-S", str(ROOT / argv[0]), *argv[1:], "--quiet", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        r"error: the package '\w+' is not installed for this Python\. Activate the environment "
        r"\(source \.venv/bin/activate\), or install requirements\.txt\.\n",
        done.stderr,
    )
    assert run_script("-S", str(ROOT / argv[0]), "--help", cwd=tmp_path).returncode == 0


def test_the_garbage_collector_is_put_back(take: Take, tmp_path: Path) -> None:
    """Where the import fails too; and what a second capture in one process leaves is collected."""
    frozen = gc.get_freeze_count()
    take("llama")
    assert (gc.isenabled(), gc.get_freeze_count()) == (True, frozen)
    code = (
        f"import gc, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import agnostic_capture\n"
        "print(agnostic_capture.main(['--auto-select', 'attn:0']), gc.isenabled())"
    )
    assert run_script("-S", "-c", code, cwd=tmp_path).stdout == "1 True\n"


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


def test_what_a_request_for_weights_cannot_give_is_told(take: Take) -> None:
    document, said = take("led", "--target", "Ein", "--quiet", select="attn:weights")
    assert said == [
        "warning: the encoder attention weights that this model returns are not returned by any "
        "of its modules (it changes them afterwards), so they are not captured."
    ]
    assert {entry["kind"] for entry in document.attention_weights or ()} == {"decoder", "cross"}
    assert take("led", "--target", "Ein", "--quiet", select="mlp:0")[1] == []  # nobody asked


def test_models_that_draw_random_numbers_give_the_same_bytes(take: Take) -> None:
    take("reformer", select="attn:all")
    first, state = Path(DOCUMENT).read_bytes(), torch.random.get_rng_state()
    take("reformer", select="attn:all")
    assert Path(DOCUMENT).read_bytes() == first
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
    document = from_python(tiny.model("llama"), select="attn:0", layers=layers)
    assert document.names == [f"model.layers.{i}.self_attn" for i in expected]


TAKES_LAYERS = "layers takes numbers, as in layers=[0, 4] or layers=range(4), not "
MORE = "--max-new-tokens takes a number of at least 1."


@pytest.mark.parametrize("family", ["llama", "t5"])
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"max_new_tokens": 0}, MORE),
        ({"max_new_tokens": -2}, MORE),
        ({"max_new_tokens": 2.5}, "max_new_tokens takes a number, as in max_new_tokens=12, not 2."),
        ({"max_new_tokens": True}, "max_new_tokens takes a number, as in max_new_tokens=12, not T"),
        ({"prompt": ["The cat"]}, "prompt takes one text, not several. Capture one at a time."),
        ({"prompt": [3]}, "turn 1 of the conversation has no role and content. Write a list of"),
        ({"prompt": b"The cat"}, "prompt takes a text, or a list of turns, not b'The cat'."),
        ({"prompt": "a", "ids": [1]}, "prompt and ids cannot be combined. Give one of them."),
        ({"target": 3}, "target takes a text, not 3."),
        ({"select": ["attn:0"]}, "select takes a text, not ['attn:0']."),
        ({"select": None}, "select takes a text, not None."),
        ({"layers": "0,2"}, f"{TAKES_LAYERS}'0,2'."),
        ({"layers": [0.5]}, f"{TAKES_LAYERS}[0.5]."),
        ({"layers": [True, False]}, f"{TAKES_LAYERS}[True, False]."),
        ({"layers": []}, "nothing selected: --layers names no layer. Leave it out for all."),
        ({"layers": -9}, "--layers: the selected patterns have no layer -9. Their layers are"),
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
    with pytest.raises(UsageError, match="--dtype takes .*, not '5'"):
        activations.capture(folder, "The cat", dtype=5)


def test_a_loaded_model_is_left_as_it_was(workplace: Path) -> None:
    model = tiny.model("llama")
    model.set_attn_implementation("sdpa")
    model.train()
    model.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    document = from_python(model)
    assert document.attention_weights is not None
    assert len(document.attention_weights) == 3
    for options, line in (
        ({"tokenizer": None}, "needs its tokenizer"),
        ({"dtype": "bfloat16"}, "this one is loaded already"),
        ({"backend": "nope"}, "--backend takes hooks or pyvene, not 'nope'"),
        ({"attn_implementation": "nope"}, "--attn-implementation: there is no attention 'nope'"),
        ({"attn_implementation": "flash_attention_2"}, "does not run with attention 'flash_att"),
    ):
        given = {"tokenizer": tiny.tokenizer(), "select": "mlp:0", **options}
        with pytest.raises(ToolkitError, match=line) as caught:
            activations.capture(model, "The cat", **given)
        assert isinstance(caught.value, UsageError) == ("flash" not in line)
    assert model.config._attn_implementation == "sdpa"
    assert [module.training for module in model.modules()] == modes


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
    document = from_python(model)
    assert used() == before
    kinds = {entry["kind"] for entry in document.attention_weights or ()}
    assert kinds == {"encoder", "decoder", "cross"}
