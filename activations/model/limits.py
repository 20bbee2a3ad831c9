"""How many tokens a model takes, as it says itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from activations.model.hosts import config_of

if TYPE_CHECKING:
    from torch import nn

# What configurations call the most tokens of a side: T5 and BART have one name for both, LED and
# Whisper one for each.
_LIMITS = {
    "prompt": ("max_encoder_position_embeddings", "max_position_embeddings"),
    "decoder": (
        "max_decoder_position_embeddings",
        "max_target_positions",
        "max_position_embeddings",
    ),
}


def longest(model: nn.Module, side: str) -> int | None:
    """How many tokens the "prompt" or "decoder" side takes, where the configuration says so."""
    config = config_of(model)
    text_config = getattr(config, "text_config", None) or config
    found = (getattr(text_config, name, None) for name in _LIMITS[side])
    limit = next((limit for limit in found if isinstance(limit, int) and limit > 0), None)
    return None if limit is None else limit - _positions_of_padding(model, limit)


def _positions_of_padding(model: nn.Module, limit: int) -> int:
    """How many positions no token gets: RoBERTa counts from the one after that of padding."""
    from torch import nn

    for name, module in model.named_modules():
        if (
            isinstance(module, nn.Embedding)
            and "position" in name
            and module.num_embeddings == limit
        ):
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0
