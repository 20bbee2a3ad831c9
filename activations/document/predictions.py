"""What a model predicts, and what each of its layers would: two keys of a document.

`predictions` has the likeliest tokens (or labels) at every position, `lens` the same as each
layer's residual stream would give them through the model's own last norm and head (nostalgebraist,
2020, "interpreting GPT: the logit lens"). Both may have been written by another program.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from activations.document.arrays import as_texts, numbers

KINDS = ("next_token", "masked_token", "label")  # what is predicted
LENSES = ("logit", "matrices")


@dataclass(frozen=True)
class Ranked:
    """How likely given tokens were: their `probability` (float32), and `rank`, 1 the likeliest.

    Where there is no such token: NaN, and rank 0.
    """

    probability: np.ndarray
    rank: np.ndarray


@dataclass(frozen=True)
class Predictions:
    """The K likeliest at each position, the likeliest first.

    `of` is "next_token" (what follows the token), "masked_token" (what stands in its place) or
    "label" (of the token, or of the whole text in one position). `text` is the key of the
    document's tokens that the positions are of ("tokens", "decoder_tokens"), None where they are of
    none. `ids` (int64), `tokens` (texts, as the tokenizer spells them, or the names of labels) and
    `probabilities` (float32) are arrays of the shape (positions, K). `actual` is the token that
    really followed, or of a masked model stands there: arrays of the shape (positions,); None for
    labels.
    """

    of: str
    text: str | None
    ids: np.ndarray
    tokens: np.ndarray
    probabilities: np.ndarray
    actual: Ranked | None = None

    @property
    def surprise(self) -> np.ndarray:
        """Bits, -log2 of the probability of the actual token: (positions,), NaN where none is."""
        probability = np.full(len(self.ids), np.nan)
        if self.actual is not None:
            probability = self.actual.probability.astype(np.float64)
        with np.errstate(divide="ignore"):
            bits: np.ndarray = -np.log2(probability)
        return bits


@dataclass(frozen=True)
class Lens:
    """What each layer's residual stream would predict through the model's own tail.

    `kind` is "logit", or "matrices" where one was applied to each layer's stream first (a tuned or
    Jacobian lens). `layers` are the modules whose output it is, the last being the model's own
    prediction; `positions` (int64) are those of the text that were looked at. `ids`, `tokens` and
    `probabilities` are arrays of the shape (layers, positions, K). `predicted` says where the K
    tokens of `Predictions` stand in each layer, (layers, positions, K), and `actual` the token that
    followed, (layers, positions).
    """

    kind: str
    layers: tuple[str, ...]
    positions: np.ndarray
    ids: np.ndarray
    tokens: np.ndarray
    probabilities: np.ndarray
    predicted: Ranked
    actual: Ranked | None = None

    @property
    def stays_from(self) -> np.ndarray:
        """The layer from which on the likeliest token is the last layer's: (positions,) of int."""
        first = self.ids[:, :, 0]
        differs = first != first[-1]
        from_end = np.argmax(differs[::-1], axis=0)  # 0 also where no layer differs
        stays: np.ndarray = np.where(differs.any(axis=0), len(first) - from_end, 0)
        return stays


def read_predictions(header: Mapping[str, Any]) -> Predictions | None:
    """The predictions in a header. Raises `ValueError` where they are no such thing."""
    value = header.get("predictions")
    if value is None:
        return None
    of, text = value["of"], value.get("text")
    if of not in KINDS or not isinstance(text, (str, type(None))):
        raise ValueError("unknown kind")
    ids = numbers(value["ids"], np.int64, 2)
    return Predictions(
        of,
        text,
        ids,
        as_texts(value["tokens"], ids.shape),
        numbers(value["probabilities"], np.float32, 2, ids.shape),
        _ranked(value.get("actual"), ids.shape[:1]),
    )


def read_lens(header: Mapping[str, Any]) -> Lens | None:
    """The lens in a header. Raises `ValueError` where it is none, or not of its predictions."""
    value, predictions = header.get("lens"), read_predictions(header)
    if value is None:
        return None
    if predictions is None or value["kind"] not in LENSES:
        raise ValueError("no predictions, or an unknown kind")
    layers, positions = value["layers"], numbers(value["positions"], np.int64, 1)
    count, most = predictions.ids.shape
    ids = numbers(value["ids"], np.int64, 3, (len(layers), len(positions), most))
    if not all(isinstance(name, str) for name in layers) or 0 in ids.shape:
        raise ValueError("no layers or positions")
    if (np.diff(positions) <= 0).any() or positions[0] < 0 or positions[-1] >= count:
        raise ValueError("positions that are not those of the predictions")
    predicted = _ranked(value["predicted"], ids.shape)
    if predicted is None:
        raise ValueError("no ranks of what is predicted")
    return Lens(
        value["kind"],
        tuple(layers),
        positions,
        ids,
        as_texts(value["tokens"], ids.shape),
        numbers(value["probabilities"], np.float32, 3, ids.shape),
        predicted,
        _ranked(value.get("actual"), ids.shape[:2]),
    )


def _ranked(value: Any, shape: tuple[int, ...]) -> Ranked | None:
    if value is None:
        return None
    dims = len(shape)
    return Ranked(
        numbers(value["probability"], np.float32, dims, shape),
        numbers(value["rank"], np.int64, dims, shape),
    )


# ------------------------------------------------------------------------------------- as written


def predictions_entry(predictions: Predictions) -> dict[str, Any]:
    """The predictions as the document has them; arrays are written as nested lists."""
    return {
        "of": predictions.of,
        "text": predictions.text,
        "ids": _plain(predictions.ids),
        "tokens": predictions.tokens.tolist(),
        "probabilities": _plain(predictions.probabilities),
        **({} if predictions.actual is None else {"actual": _ranked_entry(predictions.actual)}),
    }


def lens_entry(lens: Lens, file: str | None = None) -> dict[str, Any]:
    """The lens as the document has it; `file` is the name of that with its matrices."""
    return {
        "kind": lens.kind,
        **({} if file is None else {"file": file}),
        "layers": list(lens.layers),
        "positions": _plain(lens.positions),
        "ids": _plain(lens.ids),
        "tokens": lens.tokens.tolist(),
        "probabilities": _plain(lens.probabilities),
        "predicted": _ranked_entry(lens.predicted),
        **({} if lens.actual is None else {"actual": _ranked_entry(lens.actual)}),
    }


def _ranked_entry(ranked: Ranked) -> dict[str, Any]:
    ranks = ranked.rank.astype(object)
    ranks[ranked.rank == 0] = None
    return {"probability": _plain(ranked.probability), "rank": ranks.tolist()}


_plain = np.ascontiguousarray  # as the writer takes it
