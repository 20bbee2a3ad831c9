"""What a tokenizer makes of texts and ids. Imports transformers only to load one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from activations.model.errors import tokenizer_errors
from activations.text import encodable


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


def tokens_of(model: str, ids: Sequence[object]) -> list[str]:
    """The same with the tokenizer of a model, by name or folder.

    Raises `ToolkitError` where there is none.
    """
    from activations.model.checkpoint import open_checkpoint
    from activations.model.loading import load_tokenizer

    return spell(load_tokenizer(*open_checkpoint(model).tokenizer_source), ids)
