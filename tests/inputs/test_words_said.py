"""What the tokenizer says of words, in the document: of prompts, pairs, targets, conversations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from activations import Document, capture
from activations.inputs.words import shifted, words_said

TEXT = "The cats sat, unmated. The mat"


def captured(model: Any, tokenizer: Any, **options: Any) -> Document:
    return capture(model, tokenizer=tokenizer, output="x.json", **options)


def said(tokenizer: Any, *texts: str) -> list[int | None] | None:
    return words_said(tokenizer, tokenizer(*texts, return_tensors="pt"))


def sentencepiece(splits: bool, prepends: bool = False) -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.BPE(unk_token="<unk>"))
    if prepends:  # as the tokenizer of Llama 2 is converted
        steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        inner.normalizer = normalizers.Sequence(steps)
    else:
        inner.pre_tokenizer = pre_tokenizers.Metaspace(split=splits)
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=60, special_tokens=special, show_progress=False)
    inner.train_from_iterator([TEXT], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", bos_token="<s>")


def by_spelling(tokens: list[str]) -> list[int | None]:
    """Byte-level tokens: a word begins at a space, and at punctuation."""
    found: list[int | None] = []
    number = -1
    for token in tokens:
        if token in ("[CLS]", "[SEP]", "<s>", "</s>"):
            found.append(None)
            continue
        number += not found or found[-1] is None or token[0] in "Ġ,."
        found.append(number)
    return found


def test_a_prompt(workplace: Path) -> None:
    document = captured(tiny.model("llama"), tiny.tokenizer(), prompt=TEXT)
    assert document.header["words"] == by_spelling(document.header["tokens"])
    assert len(set(document.header["words"])) == 8


def test_a_pair_goes_on_counting(workplace: Path) -> None:
    pair = {"prompt": TEXT, "text_pair": "unmated cats"}
    document = captured(tiny.model("bert"), tiny.tokenizer(bert=True), **pair)
    header = document.header
    assert header["words"] == by_spelling(header["tokens"])
    first = header["sentence_b_start"]
    assert (header["words"][first - 2], header["words"][first]) == (7, 8)


def test_the_second_text_begins_a_word() -> None:
    """Also where the tokenizer puts nothing between the two."""
    alone = said(tiny.tokenizer(), "mat")
    assert alone == [0] * len(alone or [])
    assert said(tiny.tokenizer(), "mat", "mat") == [*alone, *[1] * len(alone)]


def test_a_target(workplace: Path) -> None:
    document = captured(
        tiny.model("t5"), tiny.tokenizer(template="$A </s>"), prompt="x", target=TEXT
    )
    header = document.header
    assert header["decoder_words"] == [None, *by_spelling(header["decoder_tokens"][1:])]
    assert header["words"] == [0, None]


def test_what_a_model_generates_is_not_said(workplace: Path) -> None:
    llama, t5 = tiny.model("llama"), tiny.model("t5")
    header = captured(llama, tiny.tokenizer(), prompt=TEXT, max_new_tokens=3).header
    start = header["continuation_start"]
    assert header["words"] == by_spelling(header["tokens"][:start])
    assert "decoder_words" not in captured(t5, tiny.tokenizer(), prompt=TEXT).header


def test_ids_say_nothing(workplace: Path) -> None:
    header = captured(tiny.model("llama"), tiny.tokenizer(), ids=[5, 6, 7]).header
    assert "words" not in header


def test_both_formats_say_the_same(workplace: Path) -> None:
    headers = []
    for form in ("json", "safetensors", "json"):
        captured(tiny.model("llama"), tiny.tokenizer(), prompt=TEXT, format=form)
        lines = Path("x.json").read_text().splitlines()
        headers += [line for line in lines if line.startswith('"words"')]
    assert len(headers) == 3
    assert len(set(headers)) == 1


@pytest.mark.parametrize(("splits", "prepends"), [(False, False), (False, True)])
def test_a_tokenizer_for_which_a_text_is_one_word(splits: bool, prepends: bool) -> None:
    assert said(sentencepiece(splits, prepends), TEXT) is None


def test_unknown_pieces_are_of_their_words() -> None:
    tokenizer = sentencepiece(splits=True)
    words = said(tokenizer, "<s>mat zmat")
    assert words is not None
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("<s>mat zmat")["input_ids"])
    assert (words[0], tokens[0]) == (None, "<s>")
    unknown = tokens.index("<unk>")
    assert words[unknown] == words[unknown + 1] != words[1]


def test_white_space_is_no_letter() -> None:
    """Byte-level pre-tokenizers take it together, spaces between line breaks too."""
    assert said(tiny.tokenizer(), "a\n  \n  \nb") is not None


@pytest.mark.parametrize(
    ("labels", "ids", "expected"),
    [
        ([7, 8, 9, 2], [0, 7, 8, 9], [None, 0, 0, 1]),  # T5
        ([1, 7, 8, 2], [1, 7, 8], [None, 0, 1]),  # Whisper's tokenizer writes the start itself
        ([7, 8, 2], [0, 8, 7], None),
        ([], [0], [None]),
    ],
)
def test_what_a_decoder_reads(labels: list[int], ids: list[int], expected: Any) -> None:
    words: list[int | None] = [0, 0, 1, None] if labels[:1] == [7] else [None, 0, 1, None]
    assert shifted(words[: len(labels)], labels, ids) == expected
    assert shifted(None, labels, ids) is None


def test_slow_tokenizers_say_nothing() -> None:
    tokenizer = tiny.tokenizer()
    assert words_said(tokenizer, dict(tokenizer(TEXT, return_tensors="pt"))) is None
