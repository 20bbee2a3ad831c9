"""How far two predictions are apart: the Kullback-Leibler divergence."""

from __future__ import annotations

import torch


def divergence(before: torch.Tensor, after: torch.Tensor, independent: bool = False) -> float:
    """The divergence of what logits (vocabulary,) predict from what others do, in nats.

    The sum of p log(p / q), p being `before`'s probabilities and q `after`'s, in float64. Of
    `independent` logits it is the sum over the divergences of each label. NaN where logits are not
    finite.
    """
    log_p, log_q = _log_probabilities(before, independent), _log_probabilities(after, independent)
    found = (log_p.exp() * (log_p - log_q)).sum().item()
    return max(found, 0.0) if found == found else found  # rounding may leave -1e-17


def likelihood(logits: torch.Tensor, id: int, independent: bool = False) -> float:
    """How likely logits (vocabulary,) make one id."""
    return float(_log_probabilities(logits, independent).reshape(-1)[id].exp())


def _log_probabilities(logits: torch.Tensor, independent: bool) -> torch.Tensor:
    wide = logits.detach().double().cpu()
    if independent:  # each label, and its absence
        return torch.nn.functional.logsigmoid(torch.stack([wide, -wide]))
    return wide.log_softmax(-1)
