"""Attention weights as a page carries them: 16-bit steps, deflated, base64."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from activations.attention.stack import Stack, showable
from activations.text import encodable
from activations.views.tokens import labels

NOT_A_NUMBER = 65535  # stands for NaN and infinities among the 16-bit weights
_STEPS = 10_000  # 4 decimals


def pack_weights(stacks: Sequence[Stack]) -> tuple[list[dict[str, Any]], bytes]:
    """Stacks -> what the page's script knows of each, and all their weights as base64 text.

    The weights are little-endian 16-bit integers q, layer by layer, (heads, rows, columns) each; a
    weight is `base + q / steps`. Ordinarily base is 0 and steps 10,000 (4 decimals); scores that
    are not probabilities get a base and a step that fit their range. `NOT_A_NUMBER` is left out.
    """
    squeeze = zlib.compressobj(1)
    packed, pieces, first = [], [], 0
    for stack in stacks:
        base, steps = _scale(stack.weights)
        for weights in stack.weights:
            pieces.append(squeeze.compress(_quantised(weights, base, steps).tobytes()))
        row_tokens, column_tokens = labels(stack)
        described = {
            "layers": stack.layers,
            "heads": stack.heads,
            "rowTokens": row_tokens,
            "columnTokens": column_tokens,
            "second": stack.split,
            "generated": stack.written,
            "start": stack.start,
            "offset": stack.offset,
            "wholeRows": stack.has_whole_rows,
            "probabilities": all(stack.probabilities),
            # In the page's JSON, NaN becomes null.
            "scores": None if stack.scores is None else stack.scores.round(6).tolist(),
            "first": first,
            "base": base,
            "steps": steps,
        }
        parts = _sentence_parts(stack, len(stacks) > 1)
        packed += [
            {**described, "name": encodable(n), "rows": r, "columns": c} for n, r, c in parts
        ]
        first += len(stack.layers) * len(stack.heads) * len(row_tokens) * len(column_tokens)
    pieces.append(squeeze.flush())
    return packed, base64.b64encode(b"".join(pieces))


def _sentence_parts(
    stack: Stack, is_one_of_several: bool
) -> list[tuple[str, tuple[int, int], tuple[int, int]]]:
    """The filters bertviz offers for a pair of sentences: (name, rows, columns)."""
    rows, columns = (0, len(stack.rows)), (0, len(stack.columns))
    if stack.split is None or stack.offset is None:
        return [(stack.title, rows, columns)]
    row_split = max(stack.split - stack.offset, 0)  # 0 where all rows are of the second sentence
    row_sides = {"A": (0, row_split), "B": (row_split, len(stack.rows))}
    column_sides = {"A": (stack.prefix, stack.split), "B": (stack.split, len(stack.columns))}
    arrows = [("A", "A"), ("B", "B"), ("A", "B"), ("B", "A")]
    title = f"{stack.title}: " if is_one_of_several else ""
    parts = [
        (f"{title}Sentence {a} -> Sentence {b}", row_sides[a], column_sides[b])
        for a, b in arrows
        if row_split or a == "B"
    ]
    return [(f"{title}All", rows, columns), *parts]


def _scale(layers: Sequence[np.ndarray]) -> tuple[float, float]:
    shown = [weights[showable(weights)] for weights in layers]
    low = min((float(w.min()) for w in shown if w.size), default=0.0)
    high = max((float(w.max()) for w in shown if w.size), default=0.0)
    largest = NOT_A_NUMBER - 1
    if low >= 0 and high <= largest / _STEPS:
        return 0.0, float(_STEPS)
    return low, min(float(_STEPS), largest / max(high - low, 1e-30))


def _quantised(weights: np.ndarray, base: float, steps: float) -> np.ndarray:
    shown = showable(weights)
    # float64: in float32 0.00005 could round to either side.
    q = np.rint((np.where(shown, weights, base).astype(np.float64) - base) * steps)
    return np.where(shown, q, NOT_A_NUMBER).astype("<u2")
