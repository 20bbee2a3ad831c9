"""The prediction that effects are measured on: one row of the logits, and its likeliest tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from activations.document.interventions import Effect, Top
from activations.forward.divergence import divergence
from activations.forward.ranking import rank
from activations.model.head import Head, logits_of
from activations.model.signature import accepts

Spell = Callable[[np.ndarray], np.ndarray]
_OF_POSITIONS = 3  # dimensions; logits of the whole text have two


class PredictedRow:
    """Which row of a model's logits is looked at, and what it says.

    It is that of the last position; of a masked model whose text has a mask, that of the first
    mask. `position` is its number in the text.
    """

    def __init__(
        self, model: nn.Module, head: Head, tensors: Mapping[str, torch.Tensor], mask: int | None
    ) -> None:
        """`tensors` are what the model reads, `mask` is the id of the token that hides others."""
        self._model, self.head = model, head
        ids = tensors.get("decoder_input_ids", tensors.get("input_ids"))
        masks: list[int] = []
        if head.of == "masked_token" and ids is not None and mask is not None:
            masks = (ids[0] == mask).nonzero().flatten().tolist()
        self._mask = masks[0] if masks else None
        self.position = 0
        if ids is not None and head.of != "label":
            self.position = ids.shape[1] - 1 if self._mask is None else self._mask

    def asked(self, call: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a pass that makes this row, and no others where it can be chosen."""
        last = self._mask is None and accepts(self._model, "logits_to_keep")
        return {**call, "logits_to_keep": 1} if last else dict(call)

    def of(self, returned: Any) -> torch.Tensor:
        """The row in what the model returned, (batch, vocabulary): a copy."""
        logits = logits_of(returned)
        assert logits is not None, "the model has a head"
        if logits.dim() < _OF_POSITIONS:
            return logits.detach().clone()
        return logits[:, -1 if self._mask is None else self._mask].detach().clone()

    def top(self, row: torch.Tensor, most: int, spell: Spell) -> Top:
        """The likeliest of a row (1, vocabulary)."""
        found = rank([row], min(most, row.shape[-1]), np.full((1, 1), -1), self.head.independent)
        ids = found.ids[0]
        return Top(
            tuple(ids.tolist()),
            tuple(spell(ids).tolist()),
            tuple(found.probabilities[0].astype(float).tolist()),
        )

    def effect(self, before: torch.Tensor, after: torch.Tensor, most: int, spell: Spell) -> Effect:
        """How far two rows (1, vocabulary) are apart; `spell(ids)` names what is predicted."""
        return Effect(
            divergence(before[0], after[0], self.head.independent),
            self.position,
            self.top(before, most, spell),
            self.top(after, most, spell),
        )
