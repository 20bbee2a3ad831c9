"""What a model's logits are of: the next token, the token in each place, or labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any

from activations.model.hosts import config_of, only_host
from activations.model.signature import paired

if TYPE_CHECKING:
    import torch

_OF_POSITIONS = 3  # dimensions; logits of the whole text have two
_LEAST = 2  # labels; one is a number, as in a regression
_KEYS = ("logits", "prediction_logits")  # what models call them; those of other tasks differ


@dataclass(frozen=True)
class Head:
    """`of` is "next_token", "masked_token" or "label".

    `labels` are their names by id, None where the vocabulary's tokens are what is predicted.
    `independent`: each label has a probability of its own, and they do not sum to 1.
    """

    of: str
    labels: Mapping[int, str] | None = None
    independent: bool = False


def logits_of(returned: Any) -> torch.Tensor | None:
    """The logits in what a model returned: (1, positions, vocabulary), or (1, labels)."""
    import torch

    found = (returned.get(key) for key in _KEYS) if isinstance(returned, Mapping) else ()
    return next((x for x in found if isinstance(x, torch.Tensor) and x.is_floating_point()), None)


def head_of(model: Any, sizes: Sequence[object]) -> Head | None:
    """What logits of these sizes are of; None where that is no prediction (a regression, a mask).

    By the model's own account, and that of transformers.
    """
    from transformers.models.auto import modeling_auto

    host, config = only_host(model), config_of(model)
    if host is None or len(sizes) not in (2, 3) or sizes[0] != 1:
        return None
    if len(sizes) == _OF_POSITIONS:
        name = type(host).__name__
        masked = name in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES.values()
        if host.can_generate():
            # XLM says that it does both. XLNet sees what it predicts, unless a mask orders it.
            in_place = masked or "perm_mask" in signature(host.forward).parameters
            return Head("masked_token" if in_place and not paired(config) else "next_token")
        pretrained = name in modeling_auto.MODEL_FOR_PRETRAINING_MAPPING_NAMES.values()
        if masked or (pretrained and sizes[2] == getattr(config, "vocab_size", None)):
            return Head("masked_token")
        if name in modeling_auto.MODEL_FOR_CTC_MAPPING_NAMES.values():
            return Head("label")
    labels = {int(id): str(label) for id, label in (config.id2label or {}).items()}
    if len(labels) < _LEAST or sizes[-1] != len(labels):
        return None
    return Head("label", labels, config.problem_type == "multi_label_classification")
