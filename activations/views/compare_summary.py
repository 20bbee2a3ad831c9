"""`--summary --compare`: the most changed heads as a table, all of them as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import TextIO

import numpy as np

from activations.attention.compare import Comparison, Pair, by_change
from activations.errors import ToolkitError
from activations.text import counted

_MOST = 20  # heads in a table


def show_comparison(comparison: Comparison, form: str, file: TextIO) -> None:
    """Print the change of each head, the most changed first; `form` is one of
    `choices.SUMMARY_FORMATS`.
    """
    cells = by_change(comparison.pairs)
    if form == "csv":  # as in RFC 4180: lines end in CR LF
        writer = csv.writer(file)
        writer.writerow(["attention", "layer", "head", "change"])
        for pair, layer, head in cells:
            numbers = pair.a.layers[layer], pair.a.heads[head]
            writer.writerow([pair.a.kind, *numbers, f"{pair.changes[layer, head]:.6f}"])
        return
    several = len({pair.a.kind for pair in comparison.pairs}) > 1
    print("Head".ljust(16), "Change", sep="", file=file)
    for pair, layer, head in cells[:_MOST]:
        change = pair.changes[layer, head]
        told = "  (rounding)" if 0 < comparison.rounding >= change else ""
        print(f"{head_name(pair, layer, head, several):16}{change:.4f}{told}", file=file)
    if len(cells) > _MOST:
        print(f"and {len(cells) - _MOST:,} more; --summary csv has all.", file=file)
    print(*_of_predictions(comparison), sep="", end="", file=file)


def head_name(pair: Pair, layer: int, head: int, several: bool) -> str:
    """`2.0`; `cross:2.0` where there are several kinds of attention."""
    name = f"{pair.a.layers[layer]}.{pair.a.heads[head]}"
    return f"{pair.a.kind}:{name}" if several else name


def _of_predictions(comparison: Comparison) -> Iterator[str]:
    kl, at = comparison.kl, comparison.at
    if kl is None or at is None or not np.isfinite(kl).any():
        return
    most = int(np.nanargmax(kl))
    yield (
        f"\nPredictions: over {counted(len(kl), 'position')} they moved by at least "
        f"{np.nanmean(kl):.3g} nats on average (KL divergence), the most at position "
        f"{at[most, 0]:,}: {kl[most]:.3g}.\n"
    )


def too_far(comparison: Comparison, most: float) -> None:
    """Raise `ToolkitError` where the most changed head changed by more than this."""
    if comparison.most <= most:
        return
    pair, layer, head = by_change(comparison.pairs)[0]
    several = len({pair.a.kind for pair in comparison.pairs}) > 1
    raise ToolkitError(
        f"head {head_name(pair, layer, head, several)} changed by {comparison.most:.4f}, which is "
        f"more than --fail-above {most:g}."
    )
