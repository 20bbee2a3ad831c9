"""What differs between the attention of two documents, head by head.

The change of a head is the mean over the rows of the total variation distance between what A's row
and B's row attend to: half the sum of the differences, 0 where they attend alike, 1 where they
attend to nothing in common. Of texts that differ, rows and columns are tokens that stand for each
other (see `activations.attention.matching`); what goes to all other columns counts as one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from activations.arguments import describe_numbers, numbered
from activations.attention.layer import Layer, as_dense
from activations.attention.matching import Matching, match
from activations.attention.stack import Stack
from activations.document.interventions import read_interventions
from activations.document.predictions import Predictions
from activations.errors import ToolkitError, Warn, ignore
from activations.text import counted, printable

# What half the difference of two rows may come to where only the rounding differs: the relative
# precision of the numbers, times what a pass makes of it. Measured on the demo model: 4e-7 between
# eager attention and SDPA, 0.007 between float32 and bfloat16, 0.001 and float16; other models are
# deeper.
_ROUNDING = {"float32": 1e-4, "float64": 1e-4, "bfloat16": 0.03, "float16": 0.004}
_LEAST = 1e-12  # of a probability: its logarithm is finite
_ONE_AND_ROUNDING = 1.01  # that probabilities in half precision sum to
_FACTS = {
    "model": "models",
    "attn_implementation": "attention implementations",
    "dtype": "dtypes",
    "backend": "backends",
    "device": "devices",
    "torch": "versions of torch",
    "transformers": "versions of transformers",
}


@dataclass(frozen=True)
class Pair:
    """The attention of one kind in both documents: their stacks, and which tokens stand for which.

    `changes` (layers, heads) is the change of each head, NaN where it has no row of numbers.
    """

    a: Stack
    b: Stack
    rows: Matching
    columns: Matching
    changes: np.ndarray

    @property
    def has_same_tokens(self) -> bool:
        return self.rows.is_identity and self.columns.is_identity


@dataclass(frozen=True)
class Comparison:
    """Two documents: their pairs, how far each prediction moved, and what differs between them.

    `kl` is the divergence of B's prediction from A's at each pair of positions `at`, (positions,)
    and (positions, 2); None where one of them has none. `rounding` is the change that rounding
    alone may make, 0 where the captures were made alike; `differences` are lines that say what is
    not alike.
    """

    pairs: tuple[Pair, ...]
    kl: np.ndarray | None
    at: np.ndarray | None
    rounding: float
    differences: tuple[str, ...]

    @property
    def most(self) -> float:
        """The change of the most changed head."""
        known = [pair.changes[~np.isnan(pair.changes)] for pair in self.pairs]
        return float(np.concatenate(known).max(initial=0))

    def about_rounding(self) -> Iterator[str]:
        """Whether what differs is more than rounding, where that can be told: a line or none."""
        if self.rounding:
            who = "No head" if self.most <= self.rounding else "Some heads"
            yield (
                f"{who} changed by more than the rounding of these captures explains "
                f"({self.rounding:g})."
            )


def compare(
    headers: tuple[Mapping[str, Any], Mapping[str, Any]],
    stacks: tuple[Sequence[Stack], Sequence[Stack]],
    predictions: tuple[Predictions | None, Predictions | None] = (None, None),
    warn: Warn = ignore,
) -> Comparison:
    """Compare two documents, of which these are the headers, the attention, the predictions.

    Raises `ToolkitError` where one has layers, heads or kinds of attention that the other lacks.
    """
    pairs = tuple(_pair(a, b, warn) for a, b in _matched(*stacks))
    kl, at = _moved(*predictions, headers)
    rounding = _rounding(*headers)
    return Comparison(pairs, kl, at, rounding, tuple(_differences(headers, pairs)))


def _matched(a: Sequence[Stack], b: Sequence[Stack]) -> Iterator[tuple[Stack, Stack]]:
    """The stacks that stand for each other. Raises `ToolkitError` where one has none."""
    kinds = [tuple(dict.fromkeys(stack.kind for stack in stacks)) for stacks in (a, b)]
    if set(kinds[0]) != set(kinds[1]):
        raise ToolkitError(
            f"the documents hold other kinds of attention: {', '.join(kinds[0])} and "
            f"{', '.join(kinds[1])}. Compare captures of the same modules."
        )
    for name, what in (("layers", "layer"), ("heads", "head")):
        for kind in kinds[0]:
            numbers = [
                {n for s in stacks if s.kind == kind for n in getattr(s, name)} for stacks in (a, b)
            ]
            if numbers[0] != numbers[1]:
                both = numbered(what, numbers[0] & numbers[1])
                only = (
                    f"Choose those that both have: --{name} {both.split(' ')[1]}."
                    if numbers[0] & numbers[1]
                    else "They cannot be compared."
                )
                raise ToolkitError(
                    f"the {kind} attention has {numbered(what, numbers[0])} in one document and "
                    f"{numbered(what, numbers[1])} in the other. {only}"
                )
    if len(a) != len(b) or any(
        (x.kind, x.layers, x.heads) != (y.kind, y.layers, y.heads)
        for x, y in zip(a, b, strict=False)
    ):
        raise ToolkitError(
            "the attention of the documents has other shapes in other layers. Choose some with "
            "--layers."
        )
    yield from zip(a, b, strict=True)


def _pair(a: Stack, b: Stack, warn: Warn) -> Pair:
    rows, columns = match(a.rows, b.rows), match(a.columns, b.columns)
    if not len(rows.a) or not len(columns.a):
        raise ToolkitError("the two texts have no token in common, so nothing can be compared.")
    if not (all(a.probabilities) and all(b.probabilities)):
        warn(f"{a.name}: raw scores, not weights between 0 and 1, are not compared.")
        return Pair(a, b, rows, columns, np.full((len(a.layers), len(a.heads)), np.nan))
    changes = np.stack(
        [_of_layer(x, y, rows, columns) for x, y in zip(a.weights, b.weights, strict=True)]
    )
    return Pair(a, b, rows, columns, changes)


def _of_layer(a: Layer, b: Layer, rows: Matching, columns: Matching) -> np.ndarray:
    """(heads,): the mean distance of the rows that are numbers in both."""
    found = []
    for first, second in zip(a.each_head(), b.each_head(), strict=True):
        distances = distance(as_dense(first)[rows.a], as_dense(second)[rows.b], columns)
        sound = distances[np.isfinite(distances)]
        found.append(sound.mean() if sound.size else np.nan)
    return np.array(found)


def distance(a: np.ndarray, b: np.ndarray, columns: Matching) -> np.ndarray:
    """The total variation distance of each row, (rows,); NaN where one holds no numbers.

    All columns that are in no pair are one.
    """
    p, q = a.astype(np.float64)[:, columns.a], b.astype(np.float64)[:, columns.b]
    elsewhere = np.abs((a.sum(1, np.float64) - p.sum(1)) - (b.sum(1, np.float64) - q.sum(1)))
    whole = not any(columns.unmatched)
    found: np.ndarray = (np.abs(p - q).sum(1) + (0 if whole else elsewhere)) / 2
    return found


# ------------------------------------------------------------------------------- predictions


def _moved(
    a: Predictions | None,
    b: Predictions | None,
    headers: tuple[Mapping[str, Any], Mapping[str, Any]],
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """How far the predictions are apart at the positions that stand for each other."""
    if a is None or b is None or a.of != b.of or a.text != b.text:
        return None, None
    if any((found.probabilities.sum(1) > _ONE_AND_ROUNDING).any() for found in (a, b)):
        return None, None  # labels of which several may hold are no one distribution
    if a.text is None:
        at = np.array([[0, 0]])
    else:
        found = match(headers[0].get(a.text, ()), headers[1].get(a.text, ()))
        at = np.column_stack([found.a, found.b])
    at = at[(at[:, 0] < len(a.ids)) & (at[:, 1] < len(b.ids))]
    return np.array([_divergence(a, int(i), b, int(j)) for i, j in at]), at


def _divergence(a: Predictions, i: int, b: Predictions, j: int) -> float:
    """KL divergence, in nats, as far as the likeliest tokens of both tell it: a lower bound.

    Tokens that both hold count alone, all others together. (Merging outcomes never makes it larger:
    Cover and Thomas, theorem 2.7.1.) Of those that only one holds, the other says how likely they
    are at most: no more than its last one each.
    """
    p, q = (
        dict(zip(of.ids[k].tolist(), of.probabilities[k].astype(np.float64), strict=True))
        for of, k in ((a, i), (b, j))
    )
    both = p.keys() & q.keys()
    shared = sum(_term(p[id], q[id]) for id in both)
    rest_p, rest_q = (max(1 - sum(of[id] for id in both), 0.0) for of in (p, q))
    only_p, only_q = ([x for id, x in of.items() if id not in both] for of in (p, q))
    cap_p, cap_q = len(only_q) * min(p.values()), len(only_p) * min(q.values())
    # What is not known is where the divergence is least.
    held = sum(only_p)
    given = min(cap_q, held / rest_p * rest_q if rest_p else 0.0)
    known_p = _term(held, given) + _term(rest_p - held, rest_q - given)
    held = sum(only_q)
    given = min(cap_p, held / rest_q * rest_p if rest_q else 0.0)
    known_q = _term(given, held) + _term(rest_p - given, rest_q - held)
    return max(shared + max(known_p, known_q), 0.0)


def _term(p: float, q: float) -> float:
    """p log(p / q), of probabilities that rounding may have put below 0."""
    return p * float(np.log(p / max(q, _LEAST))) if p > 0 else 0.0


# ------------------------------------------------------------------------ what is not alike


def _differences(
    headers: tuple[Mapping[str, Any], Mapping[str, Any]], pairs: Sequence[Pair]
) -> Iterator[str]:
    a, b = ({**header.get("environment", {}), "model": header.get("model")} for header in headers)
    for key, names in _FACTS.items():
        if a.get(key) != b.get(key):
            yield f"The captures have other {names}: {a.get(key)} and {b.get(key)}."
    kept = [header.get("keep_above") for header in headers]
    if kept[0] != kept[1]:
        said = ["all weights" if of is None else f"those above {of:g}" for of in kept]
        yield f"A holds {said[0]}, B {said[1]}: what was left out counts as changed."
    changes = [_changed(header) for header in headers]
    if changes[0] != changes[1]:
        yield f"Changed in the pass: in A {changes[0]}, in B {changes[1]}."
    texts = [side for pair in pairs for side in (pair.columns, pair.rows)]
    yield from dict.fromkeys(line for text in texts for line in _about_tokens(text))


def _changed(header: Mapping[str, Any]) -> str:
    """`2.3 (zero), mlp:3 (source "The dog", at 5, 6)`; `nothing`."""
    said = []
    for one in read_interventions(header):
        source = f" {header.get('source')!r}" if one.way == "source" else ""
        at = "" if one.positions is None else f", at {describe_numbers(one.positions)}"
        said.append(f"{printable(one.what)} ({one.way}{source}{at})")
    return ", ".join(said) or "nothing"


def _about_tokens(text: Matching) -> Iterator[str]:
    """Which tokens of a text differ, and which stand for none of the other's."""
    other = int((~text.equal).sum())
    if other:
        yield f"{counted(other, 'token')} of {len(text.a):,} differ."
    left = [len(unmatched) for unmatched in text.unmatched]
    if any(left):
        yield (
            f"{counted(left[0], 'token')} of A and {left[1]:,} of B stand for none of the other "
            "text, and are left out."
        )


def _rounding(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
    """The change that rounding may make in the same capture under another dtype or implementation.

    0 where that is the same, or where something else differs as well.
    """
    first, second = (header.get("environment", {}) for header in (a, b))
    same = all(
        a.get(key) == b.get(key)
        for key in (
            *("model", "adapter", "input_ids", "decoder_input_ids"),
            *("interventions", "source", "keep_above"),
        )
    )
    alike = all(
        first.get(key) == second.get(key)
        for key in ("dtype", "attn_implementation", "device", "torch")
    )
    if not same or alike:
        return 0.0
    return max(_ROUNDING.get(str(of.get("dtype")), 0.0) for of in (first, second))


def by_change(pairs: Sequence[Pair]) -> list[tuple[Pair, int, int]]:
    """(pair, place of the layer, place of the head) of all heads, the most changed first."""
    cells = [
        (pair, int(i), int(j)) for pair in pairs for i, j in np.argwhere(~np.isnan(pair.changes))
    ]
    return sorted(cells, key=lambda cell: -cell[0].changes[cell[1], cell[2]])
