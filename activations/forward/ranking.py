"""Logits -> the likeliest ids, how likely they are, and where given ids stand among all.

A vocabulary has 100,000 logits and more a position, so this counts: each row is read a few times,
while it is in the processor's cache, and never sorted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from activations.document.predictions import Ranked

_ROWS = 16  # copied at once: what a cache holds of a large vocabulary
_GROUP = 256  # logits, of which the largest is looked at first


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
            rows = block.float().cpu().numpy()
            scratch = np.empty_like(rows[0])
            ranked = [
                _ranked(row, scratch, most, ids, independent)
                for row, ids in zip(rows, wanted[done:], strict=False)
            ]
            found.append(tuple(map(np.stack, zip(*ranked, strict=True))))
            done += len(ranked)
    ids, probabilities, probability, ranks = map(np.concatenate, zip(*found, strict=True))
    return Ranking(ids, probabilities, Ranked(probability, ranks))


def _ranked(
    row: np.ndarray, scratch: np.ndarray, most: int, wanted: np.ndarray, independent: bool
) -> tuple[np.ndarray, ...]:
    """The likeliest ids of a row and how likely they are, and the same of the wanted ones.

    `scratch` is as large as the row; its memory is used again for the next.
    """
    is_odd = bool(np.isnan(row.max()))
    if is_odd:
        row = np.nan_to_num(row, nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    ids = _likeliest(row, most)
    highest = row[ids[0]]
    if is_odd or not np.isfinite(highest):  # the row holds what is no number
        log_sum = np.nan
    else:
        sums = np.exp(np.subtract(row, highest, out=scratch), out=scratch).sum()
        log_sum = float(highest) + np.log(float(sums))

    def probability(ids: np.ndarray) -> np.ndarray:
        wide = row[ids].astype(np.float64)
        found = 1 / (1 + np.exp(-wide)) if independent else np.exp(wide - log_sum)
        return np.where(np.isnan(log_sum), np.nan, found).astype(np.float32)

    there = wanted >= 0
    ranks = np.zeros(wanted.shape, np.int64)
    ranks[there] = [np.count_nonzero(row > row[id]) + 1 for id in wanted[there]]
    likely = np.full(wanted.shape, np.nan, np.float32)
    likely[there] = probability(wanted[there])
    return ids, probability(ids), likely, ranks


def _likeliest(row: np.ndarray, most: int) -> np.ndarray:
    """The ids of the largest, in order; of equal ones the lower id first.

    They are in the groups whose own largest are the largest, or in what is left over.
    """
    groups = len(row) // _GROUP
    if groups > most:
        # A group are the ids of one remainder by the number of groups: numpy is quick that way.
        whole = row[: groups * _GROUP].reshape(_GROUP, groups).max(0)
        best = np.argpartition(-whole, most)[: most + 1]
        inside = (best + groups * np.arange(_GROUP)[:, None]).ravel()
        places = np.concatenate([inside, np.arange(groups * _GROUP, len(row))])
    else:
        places = np.arange(len(row))
    if len(places) > most:
        places = places[np.argpartition(-row[places], most)[: most + 1]]
        least = np.sort(row[places])[1]  # the last that is taken, as there is one more
        if (row[places] == least).sum() > 1:  # it may equal others
            places = np.flatnonzero(row >= least)
    places = np.sort(places)
    ids: np.ndarray = places[np.argsort(-row[places], kind="stable")[:most]]
    return ids
