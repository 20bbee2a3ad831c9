"""Predictions and a lens in documents: what is read of them, and what is refused in one line."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from activations import load
from activations.document.predictions import lens_entry, predictions_entry
from activations.errors import ToolkitError

IDS = [[3, 1], [0, 2], [1, 3]]
RANKED = {"probability": [0.5, 1e-30, None], "rank": [1, 399, None]}
PREDICTIONS = {
    "of": "next_token",
    "text": "tokens",
    "ids": IDS,
    "tokens": [["d", "b"], ["a", "c"], ["b", "d"]],
    "probabilities": [[0.5, 0.25], [0.75, None], [0.1, 0.0]],
    "actual": RANKED,
}
LENS = {
    "kind": "logit",
    "layers": ["h.0", "h.1", "h.1@1"],
    "positions": [0, 2],
    "ids": [[[0, 1], [1, 3]], [[3, 0], [2, 3]], [[3, 1], [1, 3]]],
    "tokens": [[["", "b"], ["b", "d"]], [["d", ""], ["c", "d"]], [["d", "b"], ["b", "d"]]],
    "probabilities": [[[0.5, 0.25]] * 2] * 3,
    "predicted": {"probability": [[[0.5, 0.25]] * 2] * 3, "rank": [[[1, 2]] * 2] * 3},
    "actual": {"probability": [[0.5, None]] * 3, "rank": [[1, None]] * 3},
}
Change = Callable[[dict[str, Any]], Any]


def written(path: Path, **keys: Any) -> Path:
    captured = {f"{name}_outputs": {} for name in ("attention", "mlp", "other")}
    path.write_text(json.dumps({"model": "m", **keys, "captured": captured}))
    return path


def test_as_arrays_and_back(tmp_path: Path) -> None:
    document = load(written(tmp_path / "d.json", predictions=PREDICTIONS, lens=LENS))
    predictions, lens = document.predictions, document.lens
    assert predictions is not None
    assert lens is not None
    assert predictions.ids.dtype == lens.ids.dtype == np.int64
    assert predictions.probabilities.dtype == lens.probabilities.dtype == np.float32
    assert np.isnan(predictions.probabilities[1, 1])
    assert predictions.actual is not None
    assert predictions.actual.rank.tolist() == [1, 399, 0]
    assert np.round(predictions.surprise[:2], 2).tolist() == [1.0, 99.66]
    assert np.isnan(predictions.surprise[2])
    assert lens.tokens[1, 1].tolist() == ["c", "d"]
    assert lens.stays_from.tolist() == [1, 2]  # at position 2 b, c, b: not from layer 0 on
    again = {"predictions": predictions_entry(predictions), "lens": lens_entry(lens)}
    for key, whole in (("predictions", PREDICTIONS), ("lens", LENS)):
        plain = json.loads(json.dumps(again[key], default=lambda array: array.tolist()))
        same = json.dumps(plain).replace("NaN", "null")
        assert json.loads(same)["ids"] == whole["ids"]
        assert json.loads(same).keys() == whole.keys()
        assert json.loads(same)["actual"]["rank"] == whole["actual"]["rank"]


def test_documents_without(tmp_path: Path) -> None:
    document = load(written(tmp_path / "d.json", predictions=None))
    assert document.predictions is None
    assert document.lens is None


def without(name: str) -> Change:
    return lambda it: {key: value for key, value in it.items() if key != name}


def replaced(**keys: Any) -> Change:
    return lambda it: {**it, **keys}


ODD: dict[str, tuple[str, Change]] = {
    "no kind": ("predictions", without("of")),
    "another kind": ("predictions", replaced(of="next_word")),
    "no ids": ("predictions", without("ids")),
    "one row of ids": ("predictions", replaced(ids=[3, 1])),
    "rows of two lengths": ("predictions", replaced(ids=[[3, 1], [0], [1, 3]])),
    "fewer rows": ("predictions", replaced(tokens=PREDICTIONS["tokens"][:2])),
    "ids that are texts": ("predictions", replaced(ids=PREDICTIONS["tokens"])),
    "half an id": ("predictions", replaced(ids=[[3, 1.5], [0, 2], [1, 3]])),
    "ids as texts": ("predictions", replaced(tokens=IDS)),
    "probabilities that are texts": ("predictions", replaced(probabilities=[["x", "y"]] * 3)),
    "a text that is no name": ("predictions", replaced(text=["tokens"])),
    "ranks of other positions": ("predictions", replaced(actual={**RANKED, "rank": [1, 2]})),
    "no ranks": ("predictions", replaced(actual={"probability": [1, 1, 1]})),
    "a list": ("predictions", lambda it: [it]),
    "a text": ("predictions", lambda it: "next"),
    "a lens of another kind": ("lens", replaced(kind="x-ray")),
    "no layers": ("lens", replaced(layers=[])),
    "more layers": ("lens", replaced(layers=["h.0", "h.1"])),
    "layers without names": ("lens", replaced(layers=[0, 1, 2])),
    "positions out of order": ("lens", replaced(positions=[2, 0])),
    "positions beyond the text": ("lens", replaced(positions=[0, 3])),
    "nothing of what is predicted": ("lens", without("predicted")),
    "ranks of one layer": ("lens", replaced(predicted={"probability": [[1]], "rank": [[1]]})),
    "a lens that is a number": ("lens", lambda it: 7),
}


@pytest.mark.parametrize("what", ODD)
def test_what_is_no_such_thing(what: str, tmp_path: Path) -> None:
    key, change = ODD[what]
    keys = {"predictions": copy.deepcopy(PREDICTIONS), "lens": copy.deepcopy(LENS)}
    keys[key] = change(keys[key])
    with pytest.raises(ToolkitError, match=f"damaged at '{key}': it must be as docs/document.md"):
        load(written(tmp_path / "d.json", **keys))


def test_a_lens_without_predictions(tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match="damaged at 'lens'"):
        load(written(tmp_path / "d.json", lens=LENS))
