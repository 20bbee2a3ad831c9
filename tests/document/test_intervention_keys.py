"""The keys of what was changed, as any program may write them; what is damaged is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Layer, random_weights, write_capture

from activations import load
from activations.errors import ToolkitError

TOP = {"ids": [3, 1], "tokens": ["a", "b"], "probabilities": [0.75, 0.25]}
EFFECT = {"kl": 1.5, "position": 2, "before": TOP, "after": TOP}
CHANGE = {"what": "1.0", "module": "m.o", "with": "zero", "positions": [0, 2], "part": [-1, 0, 8]}
SWEEP = {
    "of": "heads",
    "with": "mean",
    "layers": [0, 2],
    "kinds": ["self", "self"],
    "kl": [[0.5, None], [0.25, 2.0]],
    "probability_of_top": [[0.5, None], [0.25, 0.125]],
    "top": "a",
    "probability": 0.75,
}
HEADS = {"kind": "self", "layer": 0, "module": "m.o", "heads": 2, "axis": -1}


def written(path: Path, **header: Any) -> Path:
    write_capture(path, [Layer(0, random_weights(0, 2, 3))], **header)
    return path


def test_they_are_read(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.json", interventions=[CHANGE], effect=EFFECT, sweep=SWEEP, heads=[HEADS]
    )
    document = load(path)
    (made,) = document.interventions
    assert (made.what, made.module, made.way) == ("1.0", "m.o", "zero")
    assert (made.positions, made.part) == ((0, 2), (-1, 0, 8))
    assert document.effect is not None
    assert (document.effect.kl, document.effect.before.tokens) == (1.5, ("a", "b"))
    sweep = document.sweep
    assert sweep is not None
    np.testing.assert_array_equal(sweep.kl, [[0.5, np.nan], [0.25, 2]])
    assert [sweep.name(*place) for place in sweep.strongest] == ["2.1", "0.0", "2.0"]


def test_without_them_there_is_nothing(tmp_path: Path) -> None:
    document = load(written(tmp_path / "a.json"))
    assert (document.interventions, document.effect, document.sweep) == ((), None, None)


@pytest.mark.parametrize(
    ("kinds", "of", "names"),
    [
        (["self", "cross"], "heads", ["self:0.0", "cross:2.1"]),
        (["mlp", "mlp"], "mlps", ["mlp:0", "mlp:2"]),
        (
            ["encoder.block", "decoder.block"],
            "mlps",
            ["encoder.block:mlp:0", "decoder.block:mlp:2"],
        ),
    ],
)
def test_names(kinds: list[str], of: str, names: list[str], tmp_path: Path) -> None:
    sweep = load(written(tmp_path / "a.json", sweep={**SWEEP, "kinds": kinds, "of": of})).sweep
    assert sweep is not None
    assert [sweep.name(0, 0), sweep.name(1, 1)] == names


DAMAGED = [
    ("interventions", [{**CHANGE, "with": "ones"}]),
    ("interventions", [{**CHANGE, "part": [1, 2]}]),
    ("interventions", [{**CHANGE, "positions": ["a"]}]),
    ("interventions", "2.5"),
    ("effect", {**EFFECT, "kl": "much"}),
    ("effect", {**EFFECT, "before": {**TOP, "tokens": ["a"]}}),
    ("effect", {"kl": 1}),
    ("sweep", {**SWEEP, "of": "layers"}),
    ("sweep", {**SWEEP, "kl": [[1, 2]]}),
    ("sweep", {**SWEEP, "layers": [0]}),
    ("sweep", {**SWEEP, "kl": [], "layers": [], "kinds": [], "probability_of_top": []}),
    ("heads", [{**HEADS, "axis": 1}]),
    ("heads", [{**HEADS, "heads": 0}]),
]


@pytest.mark.parametrize(("key", "value"), DAMAGED, ids=str)
def test_what_is_damaged_is_named(key: str, value: Any, tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", **{key: value})
    with pytest.raises(ToolkitError, match=f"'{key}'"):
        load(path)
