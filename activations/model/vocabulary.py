"""What a tokenizer calls token ids. Imports transformers only to load one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from activations.model.errors import tokenizer_errors


def spell(tokenizer: Any, ids: Sequence[object]) -> list[str]:
    """The tokenizer's token for each id, `#id` for ids it does not know."""
    with tokenizer_errors():
        tokens = tokenizer.convert_ids_to_tokens(ids)
    return [f"#{i}" if token is None else str(token) for i, token in zip(ids, tokens, strict=True)]


def tokens_of(model: str, ids: Sequence[object]) -> list[str]:
    """The same with the tokenizer of a model, by name or folder.

    Raises `ToolkitError` where there is none.
    """
    from activations.model.checkpoint import open_checkpoint
    from activations.model.loading import load_tokenizer

    return spell(load_tokenizer(open_checkpoint(model)), ids)
