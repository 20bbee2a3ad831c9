"""What is odd about how a tokenizer encoded a text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from activations.model.vocabulary import spell


def text_warnings(tokenizer: Any, text: str, ids: Sequence[int]) -> list[str]:
    """What is odd about how a text was encoded, a line each: unknown tokens, doubled marks."""
    return [*_unknown_tokens(tokenizer, ids), *_doubled_marks(tokenizer, text, ids)]


def _unknown_tokens(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    unknown: Any = getattr(tokenizer, "unk_token_id", None)
    if unknown in (tokenizer.bos_token_id, tokenizer.eos_token_id):  # GPT-2: a mark, or a word
        return []
    marks = set(tokenizer.all_special_ids) - {unknown}
    words = [i for i in ids if i not in marks]
    count = words.count(unknown)
    if 2 * count <= len(words):
        return []
    return [
        f"{count} of the text's {len(words)} tokens are unknown to the tokenizer "
        f"({tokenizer.unk_token}). If it is another model's, name the right one with --tokenizer."
    ]


def _doubled_marks(tokenizer: Any, text: str, ids: Sequence[int]) -> list[str]:
    """A mark that the text has and the tokenizer adds: the start token of a rendered chat."""
    first, last = spell(tokenizer, (ids[0], ids[-1]))
    added = [
        ("begins", first, _leading(ids, ids[0]), _leading_marks(text.lstrip(), first)),
        (
            "ends",
            last,
            _leading(ids[::-1], ids[-1]),
            _leading_marks(text.rstrip()[::-1], last[::-1]),
        ),
    ]
    return [
        f"the text {how} with '{mark}', and the tokenizer adds another. Leave it out of the text; "
        "a conversation can be given with --chat."
        for how, mark, in_ids, in_text in added
        if mark in tokenizer.all_special_tokens and in_ids > in_text > 0
    ]


def _leading(ids: Sequence[int], mark: int) -> int:
    """How often the mark stands at the start."""
    return sum(1 for _ in takewhile(lambda i: i == mark, ids))


def _leading_marks(text: str, mark: str) -> int:
    start = re.match(f"({re.escape(mark)})*", text)
    return len(start[0]) // len(mark) if start else 0
