"""Texts that show what heads do: not a sentence, but ids made for it.

`induction`: a start token and random tokens, twice (Elhage et al. 2021; Olsson et al. 2022). In the
second copy an induction head looks at what followed the same token in the first. The control is the
same text with other tokens in place of the second copy: nothing repeats, so what a head shows there
is no induction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from activations.arguments import DIAGNOSTICS
from activations.errors import UsageError, unknown_value
from activations.inputs.request import Diagnostic
from activations.model.hosts import config_of, embeddings
from activations.model.limits import longest

_SEED = 0
_LENGTH = 50  # random tokens, where the model takes twice as many


def make_diagnostic(model: Any, tokenizer: Any, name: str) -> Diagnostic:
    """The text of this name for a model, which may lack its weights.

    Raises `UsageError` where there is none of this name, or the model knows too few tokens.
    """
    if name not in DIAGNOSTICS:
        raise unknown_value("--diagnostic", name, DIAGNOSTICS)
    start = _start(model, tokenizer)
    begins = () if start is None else (start,)
    ordinary = _ordinary(model, tokenizer, begins)
    room = longest(model, "prompt")
    most = _LENGTH if room is None else (room - len(begins)) // 2
    length = min(_LENGTH, most, len(ordinary) // 2)
    if length < 2:
        raise UsageError(
            "--diagnostic needs a model that reads text, with some ordinary tokens. Give a "
            "--prompt in its place."
        )
    order = torch.randperm(len(ordinary), generator=torch.Generator().manual_seed(_SEED))
    chosen = [ordinary[i] for i in order[: 2 * length].tolist()]
    first, other = chosen[:length], chosen[length:]
    return Diagnostic(name, _SEED, length, (*begins, *first, *first), (*begins, *first, *other))


def _start(model: Any, tokenizer: Any) -> int | None:
    """The token that texts begin with, as the tokenizer says, else the configuration."""
    config = config_of(model)
    found = [getattr(tokenizer, f"{name}_token_id", None) for name in ("bos", "cls")]
    found.append(getattr(config, "bos_token_id", None))
    table = embeddings(model)
    for id in found:
        if isinstance(id, int) and (table is None or 0 <= id < table.num_embeddings):
            return id
    return None


def _ordinary(model: Any, tokenizer: Any, others: Sequence[int]) -> list[int]:
    """The ids of tokens that stand for text."""
    table = embeddings(model)
    count = 0 if table is None else table.num_embeddings
    special = set(others)
    if tokenizer is not None:
        count = min(count, len(tokenizer))
        special |= set(tokenizer.all_special_ids)
        added = getattr(tokenizer, "added_tokens_decoder", {})
        special |= {id for id, token in added.items() if token.special}
    return [id for id in range(count) if id not in special]
