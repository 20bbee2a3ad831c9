"""Tiny translation models whose tokenizers mark the language of a text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny
import transformers

WORDS = ["<s>", "<pad>", "</s>", "<unk>", "▁the", "▁cat", "▁dog"]
PIECES = [(word, -float(i)) for i, word in enumerate([*WORDS, "▁", *"thecadog"])]


def translator(kind: str, **languages: str) -> tuple[Any, Any]:
    """A tiny model and tokenizer of NLLB, mBART or mBART-50."""
    made: dict[str, Callable[[], Any]] = {
        "nllb": lambda: transformers.NllbTokenizer(
            vocab={word: i for i, word in enumerate(WORDS)}, merges=[], **languages
        ),
        "mbart": lambda: transformers.MBartTokenizer(vocab=PIECES, **languages),
        "mbart50": lambda: transformers.MBart50Tokenizer(vocab=PIECES, **languages),
    }
    tokenizer = made[kind]()
    start = {} if kind == "mbart" else {"decoder_start_token_id": 2}
    family = "m2m_100" if kind == "nllb" else "mbart"
    marks = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    return tiny.model(family, vocab_size=len(tokenizer), **marks, **start), tokenizer


def checkpoint(folder: Path, kind: str) -> Path:
    """Save one as a checkpoint folder."""
    for part in translator(kind):
        part.save_pretrained(folder)
    return folder
