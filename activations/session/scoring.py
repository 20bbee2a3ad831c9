"""Adding up the scores of heads while a pass runs, before small weights are left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from activations.attention.scores import SCORES, Plans, RowScores
from activations.attention.sides import find_sides, why_fewer_rows
from activations.errors import ignore
from activations.forward.keeping import AddsUp, Scorer
from activations.outputs.shapes import Lengths, Shape
from activations.outputs.tree import at
from activations.selection.observation import Observation


def scorer(header: Mapping[str, Any], observation: Observation, lengths: Lengths) -> Scorer:
    """What adds up the scores of a kind of attention, by the tokens that the header has.

    The reader of a document would say the same of it: which tokens the rows and columns are.
    """
    known = list(_sizes(observation, lengths))
    made: dict[tuple[str, int, int], Plans] = {}
    ours = {**header, "environment": {"toolkit": ""}}  # which reads a whole text in one pass

    def adds_up(kind: str, heads: int, rows: int, columns: int) -> AddsUp:
        if (kind, rows, columns) not in made:
            made[kind, rows, columns] = plans(kind, rows, columns)
        return RowScores(heads, made[kind, rows, columns])

    def plans(kind: str, rows: int, columns: int) -> Plans:
        fewer = why_fewer_rows(ours, known or [(kind, rows, columns)])
        sides = find_sides(header, kind, (rows, columns), fewer, ignore)
        return Plans(sides, kind.endswith("cross"))

    return adds_up


def _sizes(observation: Observation, lengths: Lengths) -> Any:
    """The kind, the rows and the columns of each attention tensor, where they are known."""
    for source in observation.weights:
        shape = at(observation.outputs.get(source.module), source.element, None)
        if not isinstance(shape, Shape) or len(shape.sizes) != 4:
            continue
        axes = source.axes or (0, 1, 2, 3)
        try:
            sizes = shape.known(lengths.letters)
        except KeyError:  # how long it is follows from the data
            continue
        yield source.kind, sizes[axes[2]], sizes[axes[3]]


def score_entry(module: str, element: list[int | str], means: np.ndarray) -> dict[str, Any]:
    """The scores of one tensor's heads, as the document has them: null where not defined."""
    named = zip(SCORES, means.T, strict=True)
    return {
        "module": module,
        "element": element,
        **{name: [None if np.isnan(v) else float(v) for v in values] for name, values in named},
    }
