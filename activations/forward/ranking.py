"""Logits -> the likeliest ids, how likely they are, and where given ids stand among all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from activations.document.predictions import Ranked

_ROWS = 16  # at once: what a processor's cache holds of a large vocabulary


@dataclass(frozen=True)
class Ranking:
    """Of each row the K likeliest: `ids` and `probabilities`, (rows, K); `wanted` is (rows, W)."""

    ids: np.ndarray
    probabilities: np.ndarray
    wanted: Ranked


def rank(
    parts: Iterable[torch.Tensor], most: int, wanted: np.ndarray, independent: bool = False
) -> Ranking:
    """Rank the logits (rows, vocabulary), given part by part, one after the other.

    `wanted` are ids (rows, W), -1 for none. All is compared in float32, as `generate` does; of
    equal logits the lower id comes first, as it does for `argmax`. `independent` logits have a
    probability each (the logistic function), others one among all (softmax).
    """
    found: list[tuple[np.ndarray, ...]] = []
    done = 0
    for part in parts:
        for block in torch.split(part.detach(), _ROWS):
            plain = block.float().cpu()
            sums = plain.logsumexp(-1)
            if not bool(sums.isfinite().all()):
                plain = plain.nan_to_num(-torch.inf, torch.inf, -torch.inf)
            least = plain.topk(min(most, plain.shape[1])).values[:, -1]
            rows = zip(plain.numpy(), sums.tolist(), least.tolist(), wanted[done:], strict=False)
            ranked = [_ranked(*row, most, independent) for row in rows]
            found.append(tuple(map(np.stack, zip(*ranked, strict=True))))
            done += len(ranked)
    ids, probabilities, probability, ranks = map(np.concatenate, zip(*found, strict=True))
    return Ranking(ids, probabilities, Ranked(probability, ranks))


def _ranked(
    row: np.ndarray, log_sum: float, least: float, wanted: np.ndarray, most: int, independent: bool
) -> tuple[np.ndarray, ...]:
    """The `most` likeliest ids of a row, of which `least` is the last's logit."""

    def probability(ids: np.ndarray) -> np.ndarray:
        wide = row[ids].astype(np.float64)
        if not np.isfinite(log_sum):  # the row holds what is no number
            wide[:] = np.nan
        found = 1 / (1 + np.exp(-wide)) if independent else np.exp(wide - log_sum)
        return np.asarray(found, np.float32)

    ids = np.flatnonzero(row >= least)
    ids = ids[np.argsort(-row[ids], kind="stable")[:most]]
    there = wanted >= 0
    ranks = np.zeros(wanted.shape, np.int64)
    ranks[there] = [np.count_nonzero(row > row[id]) + 1 for id in wanted[there]]
    likely = np.full(wanted.shape, np.nan, np.float32)
    likely[there] = probability(wanted[there])
    return ids, probability(ids), likely, ranks
