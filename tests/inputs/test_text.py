"""What people give a model to read besides a plain text: tokenizers, ids, conversations, languages.

The truth is the tokenizer's own encoding, and what the model returns for it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import transformers
from conftest import Run
from oracle import own_attentions
from tiny_translators import translator
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from activations import Document, ToolkitError, UsageError, capture
from activations.model.loading import load_tokenizer

ATTENTION = ("--auto-select", "attn:weights", "--output", "a.json", "--quiet")
Checkpoints = Callable[[str], Path]


def captured(model: Any, prompt: Any = None, **options: Any) -> Document:
    return capture(model, prompt, output="a.json", **{"tokenizer": tiny.tokenizer()} | options)


def attention_of(document: Document) -> list[np.ndarray]:
    entries = document.header["attention_weights"]
    return [document.tensor(entry["module"], *entry["element"]) for entry in entries]


# -------------------------------------------------------------------------------- the tokenizer


# What transformers makes of a folder without tokenizer files: nothing, or a tokenizer that knows
# no words. The last two need no files.
NO_FILES = ["bert", "gpt2", "qwen2", "roberta", "albert", "t5", "mbart", "xlnet", "gemma", "opt"]
NO_FILES += ["llama", "marian", "pegasus", "big_bird", "splinter", "nllb-moe", "deberta-v2"]


@pytest.mark.parametrize("family", NO_FILES)
def test_a_folder_without_tokenizer_files(family: str, workplace: Path) -> None:
    transformers.CONFIG_MAPPING[family]().save_pretrained("folder")
    with pytest.raises(ToolkitError) as caught:
        load_tokenizer("folder")
    assert str(caught.value) == (
        "'folder' has no tokenizer that can be loaded. Name one with --tokenizer, save one in its "
        "folder with tokenizer.save_pretrained(), or give token ids with --ids."
    )


@pytest.mark.parametrize("family", ["canine", "perceiver"])
def test_tokenizers_that_need_no_files(family: str, workplace: Path) -> None:
    transformers.CONFIG_MAPPING[family]().save_pretrained("folder")
    assert len(load_tokenizer("folder")("The cat")["input_ids"]) >= 7


def test_small_vocabularies_are_vocabularies(workplace: Path) -> None:
    """DNA has four letters."""
    words = Tokenizer(
        WordLevel({letter: i for i, letter in enumerate("ACGT")} | {"[UNK]": 4}, "[UNK]")
    )
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    tokenizer.save_pretrained("dna")
    assert load_tokenizer("dna").convert_tokens_to_ids("G") == 2


@pytest.mark.parametrize("given", ["folder", "path", "object"])
def test_another_tokenizer(given: str, checkpoints: Checkpoints, workplace: Path) -> None:
    """By name, for a checkpoint by name or a loaded model; the document says which."""
    shutil.copytree(checkpoints("llama"), "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    tiny.tokenizer(template="<s> $A").save_pretrained("words")
    tokenizer = {"folder": "words", "path": Path("words"), "object": load_tokenizer("words")}[given]
    for model in ("bare", tiny.model("llama")):
        header = captured(model, "The cat", tokenizer=tokenizer).header
        assert header["tokens"] == ["<s>", "The", "Ġcat"]
        assert header.get("tokenizer") == (None if given == "object" else "words")


def test_another_tokenizer_from_the_shell(
    checkpoints: Checkpoints, workplace: Path, capture: Run
) -> None:
    shutil.copytree(checkpoints("llama"), "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    tiny.tokenizer().save_pretrained("words")
    argv = ("--model", "bare", "--prompt", "The cat", *ATTENTION)
    assert capture(*argv).code == 1
    assert capture(*argv, "--tokenizer", "words").code == 0
    header = json.loads(Path("a.json").read_text())
    assert (header["tokenizer"], header["tokens"]) == ("words", ["The", "Ġcat"])


def test_mostly_unknown_tokens_are_counted(workplace: Path, capture: Run) -> None:
    words = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "the": 3, "cat": 4}
    inner = Tokenizer(WordLevel(words, "[UNK]"))
    inner.pre_tokenizer = tiny.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    tiny.model("bert").save_pretrained("bert")
    tokenizer.save_pretrained("bert")
    argv = ("--model", "bert", *ATTENTION)
    line = (
        "warning: 3 of the text's 5 tokens are unknown to the tokenizer ([UNK]). If it is another "
        "model's, name the right one with --tokenizer."
    )
    assert line in capture(*argv, "--prompt", "the cat sits over there").err
    assert capture(*argv, "--prompt", "the cat sits there").err == []
    # GPT-2's unknown token is the end of a text, which is a word where it is given.
    inner.add_special_tokens(["[UNK]"])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="[UNK]", eos_token="[UNK]"
    ).save_pretrained("bert")
    assert capture(*argv, "--prompt", "[UNK]").err == []


# ------------------------------------------------------------------------------------- token ids


@pytest.mark.parametrize("tokenizer", [None, tiny.tokenizer()], ids=["no tokenizer", "tokenizer"])
@pytest.mark.parametrize("family", ["llama", "bert", "t5"])
def test_ids_as_the_prompt(family: str, tokenizer: Any, workplace: Path) -> None:
    ids = [7, 7, 300, 12]
    document = captured(tiny.model(family), ids=ids, tokenizer=tokenizer)
    assert document.header["input_ids"] == [ids]
    known = tokenizer is not None
    assert document.header["tokens"] == (
        tokenizer.convert_ids_to_tokens(ids) if known else ["#7", "#7", "#300", "#12"]
    )
    assert document.prompt == (tokenizer.decode(ids) if known else "")
    inputs = {"input_ids": torch.tensor([ids])}
    if family == "t5":
        inputs["decoder_input_ids"] = torch.tensor(document.header["decoder_input_ids"])
    truth = [w for kind in own_attentions(tiny.model(family), inputs).values() for w in kind]
    for found, weights in zip(attention_of(document), truth, strict=True):
        np.testing.assert_array_equal(found, weights.numpy())


@pytest.mark.parametrize("form", [torch.tensor, list, np.array])
def test_ids_as_a_tokenizer_returns_them(form: Any, workplace: Path) -> None:
    document = captured(tiny.model("llama"), ids=form([[5, 6, 7]]), tokenizer=None)
    assert document.header["input_ids"] == [[5, 6, 7]]


def test_ids_from_the_shell(checkpoints: Checkpoints, workplace: Path, capture: Run) -> None:
    """Also where there is no tokenizer, which is said; and text is generated after them."""
    shutil.copytree(checkpoints("llama"), "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    done = capture("--model", "bare", "--ids", "5, 6,7", *ATTENTION, "--max-new-tokens", 2)
    assert done.code == 0
    assert done.err == [
        "warning: no tokenizer of 'bare' can be loaded, so tokens are shown by their ids."
    ]
    header = json.loads(Path("a.json").read_text())
    assert header["input_ids"][0][:3] == [5, 6, 7]
    assert (header["continuation_start"], "written" in header) == (3, False)


# -------------------------------------------------------------------------------- conversations

TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] }} {{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant{% endif %}"
)
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "The cat?"},
    {"role": "assistant", "content": "Sat."},
    {"role": "user", "content": "naïve café"},
]


def chatty(template: str = TEMPLATE) -> Any:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("turns", [TURNS, TURNS[:3]], ids=["asks", "answered"])
def test_a_conversation(turns: list[dict[str, str]], workplace: Path) -> None:
    """Python: a list as the prompt. The document has the turns, and the text that was read."""
    header = captured(tiny.model("llama"), turns, tokenizer=chatty()).header
    asks = turns[-1]["role"] == "user"
    text = chatty().apply_chat_template(turns, tokenize=False, add_generation_prompt=asks)
    assert header["input_ids"] == [chatty()(text)["input_ids"]]
    assert (header["prompt"], header["conversation"]) == (text, turns)
    assert text.endswith("<s>assistant") == asks


def test_a_conversation_from_a_file(workplace: Path, capture: Run) -> None:
    tiny.model("llama").save_pretrained("chat")
    chatty().save_pretrained("chat")
    argv = ("--model", "chat", *ATTENTION, "--chat", "--prompt-file")
    Path("messages.json").write_text(json.dumps(TURNS, indent=1))
    assert capture(*argv, "messages.json").code == 0
    header = json.loads(Path("a.json").read_text())
    assert header["conversation"] == TURNS
    # As the body of a request, with contents in parts.
    in_parts = [{**t, "content": [{"type": "text", "text": t["content"]}]} for t in TURNS]
    Path("body.jsn").write_text(json.dumps({"model": "x", "messages": in_parts}))
    assert capture(*argv, "body.jsn").code == 0
    assert json.loads(Path("a.json").read_text()) == header
    # A text is one turn, whatever it begins with.
    Path("text.txt").write_text("[a] cat")
    assert capture(*argv, "text.txt").code == 0
    header = json.loads(Path("a.json").read_text())
    assert header["conversation"] == [{"role": "user", "content": "[a] cat"}]
    assert header["prompt"] == "[a] cat"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            '[{"role": "user",\n "content"}]',
            "'m.json' is not JSON: Expecting ':' delimiter in line 2, column 11. Fix it.",
        ),
        ("[]", "'m.json' has no turns. Write"),
        ("3", "'m.json' is not a conversation. Write"),
        ('{"turns": []}', "'m.json' is not a conversation. Write"),
        ('[{"role": "user"}]', "turn 1 of 'm.json' has no role and content. Write"),
        ('[{"role": "user", "content": "a"}, "b"]', "turn 2 of 'm.json' has no role and content."),
        ('[{"role": "user", "content": null}]', "the content of turn 1 of 'm.json' is not a text."),
        (
            '[{"role": "user", "content": [{"type": "image"}]}]',
            "the content of turn 1 of 'm.json' is not a text.",
        ),
    ],
)
def test_conversations_that_are_none(text: str, line: str, workplace: Path, capture: Run) -> None:
    Path("m.json").write_text(text)
    done = capture("--prompt-file", "m.json", "--chat", *ATTENTION)
    assert done.code == 2
    assert done.err[-1].startswith(f"error: {line}")


def test_a_template_that_refuses_a_conversation(workplace: Path) -> None:
    picky = "{{ raise_exception('Roles must alternate') if messages|length > 1 }}"
    with pytest.raises(ToolkitError) as caught:
        captured(tiny.model("llama"), TURNS, tokenizer=chatty(picky))
    assert str(caught.value) == (
        "the tokenizer or its chat template fails: TemplateError: Roles must alternate. Change the "
        "conversation, or leave --chat out."
    )


# --------------------------------------------------------------------------------- doubled marks


@pytest.mark.parametrize(
    ("template", "text", "doubled"),
    [
        ("<s> $A", "<s>The cat", "begins with '<s>'"),
        ("$A </s>", "The cat</s>", "ends with '</s>'"),
        ("[CLS] $A [SEP]", "[CLS]The cat[SEP]", "begins with '[CLS]'"),
        ("<s> $A", "The cat", None),
        ("<s> $A", "!!", None),
        (None, "<s><s>The cat", None),  # as the user wants it
    ],
)
def test_marks_that_stand_twice(
    template: str | None, text: str, doubled: str | None, workplace: Path, capture: Run
) -> None:
    tiny.model("llama").save_pretrained("model")
    tiny.tokenizer(template=template).save_pretrained("model")
    done = capture("--model", "model", "--prompt", text, *ATTENTION)
    assert done.code == 0
    if doubled is None:
        assert done.err == []
    else:
        assert done.err[0] == (
            f"warning: the text {doubled}, and the tokenizer adds another. Leave it out of the "
            "text; a conversation can be given with --chat."
        )


def test_python_callers_are_warned_too(workplace: Path) -> None:
    with pytest.warns(UserWarning, match="begins with '<s>', and the tokenizer adds another"):
        captured(tiny.model("llama"), "<s>cat", tokenizer=tiny.tokenizer(template="<s> $A"))


# ------------------------------------------------------------------------------------- languages

CODES = {
    "nllb": ("deu_Latn", "fra_Latn"),
    "mbart": ("de_DE", "fr_XX"),
    "mbart50": ("de_DE", "fr_XX"),
}


@pytest.mark.parametrize("kind", CODES)
def test_the_text_written_begins_as_a_target_does(kind: str, workplace: Path) -> None:
    """With the language of the request, or that of the tokenizer, which stays as it was."""
    source, target = CODES[kind]
    model, tokenizer = translator(kind)
    named = {"source_language": source, "target_language": target}
    given = captured(model, "the cat", tokenizer=tokenizer, target="the dog", **named).header
    written = captured(model, "the cat", tokenizer=tokenizer, max_new_tokens=3, **named).header
    assert (tokenizer.src_lang[:2], tokenizer.tgt_lang) == ("en", None)
    _, own = translator(kind, src_lang=source, tgt_lang=target)
    model.set_attn_implementation("eager")
    by_tokenizer = captured(model, "the cat", tokenizer=own, max_new_tokens=3).header
    for header in (given, written, by_tokenizer):
        assert header["input_ids"] == [own("the cat")["input_ids"]]
        begun = header["decoder_tokens"].index(target)
        assert header["decoder_tokens"][: begun + 1] == (
            [target] if kind == "mbart" else ["</s>", target]
        )
    # What the model reads for a target is what it does itself with these labels.
    labels = own(text_target="the dog", return_tensors="pt")["input_ids"]
    read: list[Any] = []
    model.model.decoder.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["input_ids"].tolist()), with_kwargs=True
    )
    model(input_ids=torch.tensor(given["input_ids"]), labels=labels)
    assert given["decoder_input_ids"] == read[0]
    assert (given["source_language"], given["target_language"]) == (source, target)
    # And the continuation is the model's own.
    prefix = torch.tensor([written["decoder_input_ids"][0][: begun + 1]])
    ids = torch.tensor(written["input_ids"])
    with torch.no_grad():
        first = model(input_ids=ids, decoder_input_ids=prefix).logits[0, -1].argmax()
    assert written["decoder_input_ids"][0][begun + 1] == int(first)


@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("target", [None, "the dog"])
def test_without_a_target_language(kind: str, target: str | None, workplace: Path) -> None:
    """One line, in place of the source language."""
    model, tokenizer = translator(kind)
    with pytest.raises(UsageError) as caught:
        captured(model, "the cat", tokenizer=tokenizer, target=target)
    assert str(caught.value) == (
        "this model generates text in several languages. Name one with --target-language, as in "
        f"--target-language {CODES[kind][1]}."
    )


@pytest.mark.parametrize("setting", ["decoder_start_token_id", "forced_bos_token_id"])
def test_a_model_that_is_made_for_one_language(setting: str, workplace: Path, capture: Run) -> None:
    """Its generation settings say which, in a file of their own."""
    model, tokenizer = translator("mbart")
    french = tokenizer.convert_tokens_to_ids("fr_XX")
    setattr(model.generation_config, setting, french)
    model.save_pretrained("model")
    tokenizer.save_pretrained("model")
    done = capture("--model", "model", "--prompt", "the cat", *ATTENTION)
    assert done.code == 0, done.err
    assert "fr_XX" in json.loads(Path("a.json").read_text())["decoder_tokens"][:2]


@pytest.mark.parametrize(
    ("family", "asked", "line"),
    [
        (
            "nllb",
            {"target_language": "fr"},
            "--target-language: the tokenizer has no language 'fr'. "
            "Write 'afr_Latn' or 'fra_Latn'.",
        ),
        (
            "mbart",
            {"source_language": "xx"},
            "--source-language: the tokenizer has no language 'xx'.",
        ),
        (
            "t5",
            {"target_language": "fr"},
            "--target-language is for tokenizers that mark the "
            "language of a text (NLLB, M2M100, mBART). Leave it out.",
        ),
        ("llama", {"target_language": "fr"}, "--target-language needs an encoder-decoder model."),
        ("llama", {"source_language": "fr"}, "--source-language is for tokenizers that mark the"),
    ],
)
def test_languages_that_are_not_there(
    family: str, asked: dict[str, str], line: str, workplace: Path
) -> None:
    model, tokenizer = (
        translator(family) if family in CODES else (tiny.model(family), tiny.tokenizer())
    )
    with pytest.raises(UsageError) as caught:
        captured(model, "the cat", tokenizer=tokenizer, **asked)
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize("count", [None, 7])
def test_a_language_takes_a_position(count: int | None, workplace: Path) -> None:
    """Of 8 positions, mBART-50's start and language take two."""
    model, tokenizer = translator("mbart50", tgt_lang="fr_XX")
    model.config.max_position_embeddings = 8
    asked = {"tokenizer": tokenizer, "max_new_tokens": count}
    if count is None:
        assert len(captured(model, "the cat", **asked).header["decoder_tokens"]) <= 8
    else:
        with pytest.raises(UsageError, match="the text is 9 tokens long, and this model takes 8"):
            captured(model, "the cat", **asked)


# --------------------------------------------------------------------- few positions, and choices


@pytest.mark.parametrize("positions", [2, 5, 8])
@pytest.mark.parametrize("family", ["gpt2", "opt", "bert", "roberta", "bart", "t5"])
def test_models_with_few_positions(family: str, positions: int, workplace: Path) -> None:
    """The trial run is never longer; a text that just fits is captured, one more token refused."""
    padding = {"roberta": 1}.get(family, 0)  # positions begin after the one of padding
    model = tiny.model(family, max_position_embeddings=positions + padding)
    target = {"target": "!"} if family in ("bart", "t5") else {}
    document = captured(model, "!" * positions, **target)
    assert len(document.header["tokens"]) == positions
    if family != "t5":  # has relative positions, and takes longer texts
        with pytest.raises(UsageError, match=f"{positions + 1} tokens long.* takes {positions}"):
            captured(model, "!" * (positions + 1), **target)


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "albert"])
def test_multiple_choice_reads_one_choice(family: str, workplace: Path) -> None:
    model = tiny.model(family, "AutoModelForMultipleChoice")
    document = captured(model, "The cat")
    ids = torch.tensor(document.header["input_ids"])
    assert ids.dim() == 2
    truth = own_attentions(model, {"input_ids": ids[:, None]})["self"]
    for found, weights in zip(attention_of(document), truth, strict=True):
        np.testing.assert_array_equal(found, weights.numpy())
