"""What a checkpoint's tokenizer calls token ids. Loads transformers only when it is asked."""

from __future__ import annotations

from collections.abc import Sequence


def tokens_of(model: str, ids: Sequence[object]) -> list[str]:
    """The tokens of these ids by the tokenizer of a model's name or folder; `#id` for others.

    Raises `ToolkitError` where there is no such tokenizer, and what it raises for odd ids.
    """
    from activations.model.checkpoint import open_checkpoint
    from activations.model.loading import load_tokenizer

    tokens = load_tokenizer(open_checkpoint(model)).convert_ids_to_tokens(ids)
    return [f"#{i}" if token is None else token for i, token in zip(ids, tokens, strict=True)]
