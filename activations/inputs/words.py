"""Which tokens of a text make a word, as the tokenizer says when it encodes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from activations.model.errors import tokenizer_errors
from activations.model.vocabulary import spell

Words = list[int | None]
_WHITE = str.maketrans("▁ĠĊĉč", "  \n\t\r")  # as tokens spell it


def words_said(tokenizer: Any, encoding: Any) -> Words | None:
    """For each token of an encoded text the number of its word, from 0; None for special tokens.

    Of a pair of texts the second goes on counting. None where the tokenizer does not say: a slow
    one, or one that takes a text for one word, as those do that cut it at no space (Llama 2).
    """
    if not getattr(encoding, "is_fast", False):
        return None
    with tokenizer_errors():
        owners = list(zip(encoding.sequence_ids(0), encoding.word_ids(0), strict=True))
    ids = encoding["input_ids"][0].tolist()
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    found: Words = []
    number = -1
    for place, (owner, id) in enumerate(zip(owners, ids, strict=True)):
        if owner[1] is None or id in special:
            found.append(None)
            continue
        number += place == 0 or owner != owners[place - 1]
        found.append(number)
    return None if _hold_spaces(found, spell(tokenizer, ids)) else found


def _hold_spaces(words: Words, tokens: Sequence[str]) -> bool:
    """Whether a word has a space between its letters."""
    texts: dict[int, str] = {}
    for word, token in zip(words, tokens, strict=True):
        if word is not None:
            texts[word] = texts.get(word, "") + token.translate(_WHITE)
    return any(" " in text.strip() for text in texts.values())


def shifted(words: Words | None, labels: Sequence[int], ids: Sequence[int]) -> Words | None:
    """What is said of a target's tokens, for what the decoder reads: a start before them.

    None where the decoder reads something else.
    """
    if words is None:
        return None
    count = len(ids) - 1
    for first in range(len(labels) - count + 1):  # Whisper's tokenizer writes the start itself
        if list(labels[first : first + count]) == list(ids[1:]):
            return [None, *words[first : first + count]]
    return None
