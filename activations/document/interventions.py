"""What was changed in a pass, what that did, and what every head or block does: keys of a document.

`interventions` says what was replaced, `effect` how the prediction moved, `sweep` how it moves
without each head, or each feed-forward block, in turn, and `heads` where the heads' own outputs
are. The effect is measured by the Kullback-Leibler divergence of the two predictions, in nats: the
sum of p log(p / q) over all that can be predicted, p being the prediction of the unchanged pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from activations.arguments import SWEEPS
from activations.document.arrays import as_texts, numbers

WAYS = ("zero", "mean", "source")  # what was put in the place


@dataclass(frozen=True)
class Intervention:
    """`what` was named, and stands in what `module` (`name@1`: its second call) returns.

    Of a head it is what the module is given: the part `first` to `end` of the last axis, or of
    `axis`, which counts from the end. `way` is "zero", "mean" (over the positions) or "source"
    (what stood there when the model read another text). `positions` are those that were written;
    None: all.
    """

    what: str
    module: str
    way: str
    positions: tuple[int, ...] | None = None
    part: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class HeadInput:
    """The heads' own outputs are in what `module` is given: `heads` equal parts of the axis `axis`,
    which counts from the end. They are those of one layer's attention of one kind.
    """

    kind: str
    layer: int
    module: str
    heads: int
    axis: int

    def split(self, given: np.ndarray) -> np.ndarray:
        """(1, tokens, heads x width) -> (heads, tokens, width). Raises `ValueError`."""
        rows = np.moveaxis(given, self.axis, -1)
        if rows.ndim < 2 or rows.shape[-1] % self.heads:
            raise ValueError("it does not fall into heads")
        parts = rows.reshape(-1, self.heads, rows.shape[-1] // self.heads)
        return parts.swapaxes(0, 1)


@dataclass(frozen=True)
class Top:
    """The likeliest tokens or labels, the likeliest first."""

    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Effect:
    """How the prediction at one position of the logits moved: `kl` is in nats."""

    kl: float
    position: int
    before: Top
    after: Top


@dataclass(frozen=True)
class Sweep:
    """What the prediction would be without each head, or each block, in turn.

    It is the one whose effect is measured: at the last position, or the first mask. `of` is "heads"
    or "mlps", `way` what was put in their place. `layers` and `kinds` say what each row is: its
    layer, and its kind of attention, or of blocks in several lists of layers the list. `kl` and
    `probability_of_top` (float64) are arrays of the shape (rows, heads), NaN where a row has no
    such head, or its place could not be proven: the divergence in nats, and the probability of
    `top`, the unchanged pass's likeliest, which was `probability`.
    """

    of: str
    way: str
    layers: tuple[int, ...]
    kinds: tuple[str, ...]
    kl: np.ndarray
    probability_of_top: np.ndarray
    top: str
    probability: float

    @property
    def strongest(self) -> list[tuple[int, int]]:
        """(row, column) of what was measured, the largest divergence first."""
        rows, columns = np.nonzero(~np.isnan(self.kl))
        order = np.argsort(-self.kl[rows, columns], kind="stable")
        return [(int(rows[i]), int(columns[i])) for i in order]

    def name(self, row: int, column: int) -> str:
        """`2.5`, `cross:0.1`, `mlp:3`, as `--ablate` takes it; of blocks in several lists of layers
        `decoder.block:mlp:3`.
        """
        layer, kind = self.layers[row], self.kinds[row]
        several = len(set(self.kinds)) > 1
        if self.of == "mlps":
            return f"{kind}:mlp:{layer}" if several else f"mlp:{layer}"
        return f"{kind}:{layer}.{column}" if several else f"{layer}.{column}"


def read_interventions(header: Mapping[str, Any]) -> tuple[Intervention, ...]:
    """What was changed, as a header has it. Raises `ValueError` where it is no such thing."""
    return tuple(map(_read_intervention, header.get("interventions", ())))


def _read_intervention(entry: Mapping[str, Any]) -> Intervention:
    what, module, way = entry["what"], entry["module"], entry["with"]
    if not isinstance(what, str) or not isinstance(module, str) or way not in WAYS:
        raise ValueError("not a text, or an unknown way")
    positions, part = entry.get("positions"), entry.get("part")
    return Intervention(
        what,
        module,
        way,
        None if positions is None else tuple(numbers(positions, np.int64, 1).tolist()),
        None if part is None else tuple(numbers(part, np.int64, 1, (3,)).tolist()),
    )


def read_heads(header: Mapping[str, Any]) -> tuple[HeadInput, ...]:
    """Where the heads' own outputs are. Raises `ValueError` where it is no such thing."""
    found = []
    for entry in header.get("heads", ()):
        kind, module = as_texts([entry["kind"], entry["module"]], (2,)).tolist()
        names = ("layer", "heads", "axis")
        layer, heads, axis = numbers([entry[name] for name in names], np.int64, 1).tolist()
        if layer < 0 or heads < 1 or axis >= 0:
            raise ValueError("out of range")
        found.append(HeadInput(kind, layer, module, heads, axis))
    return tuple(found)


def read_effect(header: Mapping[str, Any]) -> Effect | None:
    """What the changes did. Raises `ValueError` where it is no such thing."""
    value = header.get("effect")
    if value is None:
        return None
    (kl,) = numbers([value["kl"]], np.float64, 1).tolist()
    (position,) = numbers([value["position"]], np.int64, 1).tolist()
    return Effect(kl, position, _read_top(value["before"]), _read_top(value["after"]))


def _read_top(value: Mapping[str, Any]) -> Top:
    ids = numbers(value["ids"], np.int64, 1)
    tokens = as_texts(value["tokens"], ids.shape)
    likely = numbers(value["probabilities"], np.float64, 1, ids.shape)
    return Top(tuple(ids.tolist()), tuple(tokens.tolist()), tuple(likely.tolist()))


def read_sweep(header: Mapping[str, Any]) -> Sweep | None:
    """The sweep in a header. Raises `ValueError` where it is none."""
    value = header.get("sweep")
    if value is None:
        return None
    layers = numbers(value["layers"], np.int64, 1)
    kinds = as_texts(value["kinds"], layers.shape)
    kl = numbers(value["kl"], np.float64, 2)
    likely = numbers(value["probability_of_top"], np.float64, 2, kl.shape)
    (probability,) = numbers([value["probability"]], np.float64, 1).tolist()
    known = value["of"] in SWEEPS and value["with"] in WAYS and isinstance(value["top"], str)
    if not known or len(kl) != len(layers) or 0 in kl.shape:
        raise ValueError("an unknown kind, or other rows")
    return Sweep(
        value["of"],
        value["with"],
        tuple(layers.tolist()),
        tuple(kinds.tolist()),
        kl,
        likely,
        value["top"],
        probability,
    )


# ------------------------------------------------------------------------------------- as written


def intervention_entry(made: Intervention) -> dict[str, Any]:
    """One change as the document has it."""
    entry = {
        "what": made.what,
        "module": made.module,
        "with": made.way,
        "positions": None if made.positions is None else list(made.positions),
    }
    return entry if made.part is None else {**entry, "part": list(made.part)}


def head_input_entry(found: HeadInput) -> dict[str, Any]:
    """Where the outputs of one layer's heads are, as the document has it."""
    return {
        "kind": found.kind,
        "layer": found.layer,
        "module": found.module,
        "heads": found.heads,
        "axis": found.axis,
    }


def effect_entry(effect: Effect) -> dict[str, Any]:
    """The effect as the document has it."""
    return {
        "kl": effect.kl,
        "position": effect.position,
        "before": _top_entry(effect.before),
        "after": _top_entry(effect.after),
    }


def _top_entry(top: Top) -> dict[str, Any]:
    return {
        "ids": list(top.ids),
        "tokens": list(top.tokens),
        "probabilities": list(top.probabilities),
    }


def sweep_entry(sweep: Sweep) -> dict[str, Any]:
    """The sweep as the document has it; what was not measured is null."""
    return {
        "of": sweep.of,
        "with": sweep.way,
        "layers": list(sweep.layers),
        "kinds": list(sweep.kinds),
        "kl": sweep.kl,
        "probability_of_top": sweep.probability_of_top,
        "top": sweep.top,
        "probability": sweep.probability,
    }
