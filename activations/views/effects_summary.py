"""What changes in a pass did, and what a sweep found, in a few lines: for both commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from activations.attention.spelling import readable
from activations.document.interventions import (
    Intervention,
    Sweep,
    Top,
    read_effect,
    read_interventions,
    read_sweep,
)
from activations.text import counted, printable

_MOST = 5  # heads or blocks that a line names
_SMALL = 0.005  # a probability that two decimals do not tell from 0
_WAYS = {"zero": "zeros", "mean": "its mean", "source": "its value on the source"}


def effect_lines(header: Mapping[str, Any]) -> list[str]:
    """The lines of a document's header; none where nothing was changed or swept."""
    return [*_of_effect(header), *_of_sweep(header)]


def change_lines(header: Mapping[str, Any]) -> list[str]:
    """`2.5 replaced by zeros`, for each change."""
    return [
        f"{printable(one.what)} was replaced by {_WAYS[one.way]}{_positions(one)}."
        for one in read_interventions(header)
    ]


def _positions(made: Intervention) -> str:
    if made.positions is None:
        return ""
    if len(made.positions) == 1:
        return f" at position {made.positions[0]:,}"
    return f" at {counted(len(made.positions), 'position')}"


def _of_effect(header: Mapping[str, Any]) -> Iterator[str]:
    effect = read_effect(header)
    if effect is not None:
        yield f"Effect: the prediction at position {effect.position:,} moved by {nats(effect.kl)}."
        yield f"  before: {_top(effect.before, header)}"
        yield f"  after:  {_top(effect.after, header)}"


def share(likely: float) -> str:
    """A probability: `0.25`, and as many digits as it needs where it is small: `0.0006`."""
    return f"{likely:.2f}" if not 0 < likely < _SMALL else f"{likely:.1g}"


def nats(kl: float) -> str:
    return f"{kl:.3g} nats (KL divergence)"


def read_tokens(header: Mapping[str, Any]) -> Sequence[str] | None:
    """The tokens of the text whose continuation is predicted."""
    return header.get("decoder_tokens") or header.get("tokens")


def _top(top: Top, header: Mapping[str, Any]) -> str:
    pairs = zip(readable(top.tokens, read_tokens(header)), top.probabilities, strict=True)
    return ", ".join(f"{printable(token)} {share(likely)}" for token, likely in pairs)


def _of_sweep(header: Mapping[str, Any]) -> Iterator[str]:
    sweep = read_sweep(header)
    if sweep is None:
        return
    order = sweep.strongest
    what = "head" if sweep.of == "heads" else "feed-forward block"
    (top,) = readable([sweep.top], read_tokens(header))
    yield (
        f"Without each of {counted(len(order), what)}, the prediction {printable(top)} "
        f"({share(sweep.probability)}) moves most without:"
    )
    for row, column in order[:_MOST]:
        yield f"  {_cell(sweep, row, column)}"


def _cell(sweep: Sweep, row: int, column: int) -> str:
    likely = sweep.probability_of_top[row, column]
    return (
        f"{sweep.name(row, column)}: {sweep.kl[row, column]:.3g} nats, its probability then is "
        f"{share(likely)}"
    )
