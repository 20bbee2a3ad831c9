"""What a tokenizer makes of texts and ids. Imports transformers only to load one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from activations.model.errors import tokenizer_errors
from activations.text import encodable

_MOST_SPECIAL = 2000  # tokens; more are a vocabulary


def spell(tokenizer: Any, ids: Sequence[object]) -> list[str]:
    """The tokenizer's token for each id, `#id` for ids it does not know, or without a tokenizer."""
    if tokenizer is None:
        return [f"#{i}" for i in ids]
    with tokenizer_errors():
        tokens = tokenizer.convert_ids_to_tokens(ids)
    return [f"#{i}" if token is None else str(token) for i, token in zip(ids, tokens, strict=True)]


def decoded(tokenizer: Any, ids: Sequence[int], special: bool = True) -> str:
    """The text of token ids; `special` tokens are part of it."""
    with tokenizer_errors():
        return encodable(tokenizer.decode(list(ids), skip_special_tokens=not special))


def has_words(tokenizer: Any) -> bool:
    """Whether a tokenizer has a vocabulary: one made of no files has special tokens alone.

    (And a mark for spaces, or a full stop.)
    """
    if not hasattr(tokenizer, "get_vocab") or len(tokenizer) > _MOST_SPECIAL:
        return True
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return len(tokenizer.get_vocab().keys() - special - set(tokenizer.all_special_tokens)) > 1


def text_warnings(tokenizer: Any, text: str, ids: Sequence[int]) -> list[str]:
    """What is odd about how a text was encoded, a line each: unknown tokens, doubled marks."""
    return [*_unknown_tokens(tokenizer, ids), *_doubled_marks(tokenizer, text, ids)]


def _unknown_tokens(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    unknown: Any = getattr(tokenizer, "unk_token_id", None)
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
    if len(ids) < 2:
        return []
    first, last = spell(tokenizer, (ids[0], ids[-1]))
    ends = [
        (first, "begins with", ids[0] == ids[1] and text.lstrip().startswith(first)),
        (last, "ends with", ids[-1] == ids[-2] and text.rstrip().endswith(last)),
    ]
    return [
        f"the text {how} '{mark}', and the tokenizer adds another. Leave it out of the text; a "
        "conversation can be given with --chat."
        for mark, how, doubled in ends
        if doubled and mark in tokenizer.all_special_tokens
    ]


def tokens_of(model: str, ids: Sequence[object]) -> list[str]:
    """The same with the tokenizer of a model, by name or folder.

    Raises `ToolkitError` where there is none.
    """
    from activations.model.checkpoint import open_checkpoint
    from activations.model.loading import load_tokenizer

    checkpoint = open_checkpoint(model)
    return spell(load_tokenizer(checkpoint.name, checkpoint.where), ids)
