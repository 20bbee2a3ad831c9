"""The effects of a sweep of heads as one more score of each head, for the page's map and bars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from activations.attention.scores import SCORES
from activations.attention.stack import Stack
from activations.document.interventions import Sweep

EFFECT = "effect"


def with_effect(entry: Mapping[str, Any], stack: Stack, sweep: Sweep | None) -> Any:
    """The scores of a stack's heads on the page, (layers, heads, scores), and after them the effect
    (nats). None where there is none.
    """
    scores = entry["scores"]
    if sweep is None or sweep.of != "heads":
        return scores
    rows = dict(zip(zip(sweep.kinds, sweep.layers, strict=True), sweep.kl, strict=True))
    none = [None] * len(SCORES)

    def effect(layer: int, head: int) -> float | None:
        row = rows.get((stack.kind, layer), np.empty(0))
        found = float(row[head]) if head < len(row) else np.nan
        return None if np.isnan(found) else round(found, 6)

    return [
        [
            [*(none if scores is None else scores[i][j]), effect(layer, head)]
            for j, head in enumerate(stack.heads)
        ]
        for i, layer in enumerate(stack.layers)
    ]
