"""Documents with predictions and a lens of any size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from browser import Layer, write_capture

from activations.document.predictions import (
    Lens,
    Predictions,
    Ranked,
    lens_entry,
    predictions_entry,
)

VOCABULARY = ("Ġthe", "Ġcat", "Ġsat", "Ġon", "Ġmat", ".", "ing", "Ġ", "Ġand", "x")


def write_predicted(
    path: Path,
    tokens: int = 8,
    layers: int = 3,
    most: int = 5,
    of: str = "next_token",
    at: list[int] | None = None,
    words: tuple[str, ...] = VOCABULARY,
    lens: bool = True,
) -> dict[str, Any]:
    """A capture of two heads, and of what random logits of these words predict; its header.

    The last layer's lens is what is predicted.
    """
    random = np.random.default_rng(tokens)
    likely = np.exp(random.normal(size=(layers, tokens, len(words))) * 2).astype(np.float32)
    likely /= likely.sum(-1, keepdims=True)
    order = np.argsort(-likely, -1, kind="stable")
    ranks = np.argsort(order, -1) + 1
    text = [words[i % len(words)] for i in range(tokens)]
    step = int(of == "next_token")
    came = np.array([(i + step) % len(words) for i in range(tokens)])
    there = np.arange(tokens) + step < tokens

    def ranked(ids: np.ndarray) -> Ranked:
        return Ranked(*(np.take_along_axis(table, ids, -1) for table in (likely, ranks)))

    def actual() -> Ranked | None:
        found = ranked(np.broadcast_to(came[:, None], (layers, tokens, 1)))
        likely_too = np.where(there, found.probability[..., 0], np.nan)
        return None if of == "label" else Ranked(likely_too, np.where(there, found.rank[..., 0], 0))

    ids, names = order[..., :most], np.array(words, dtype=object)
    own, whole = ranked(ids), actual()
    last = None if whole is None else Ranked(whole.probability[-1], whole.rank[-1])
    predictions = Predictions(of, "tokens", ids[-1], names[ids[-1]], own.probability[-1], last)
    keys = {"predictions": predictions_entry(predictions)}
    if lens:
        places = list(range(tokens)) if at is None else at
        of_final = ranked(np.broadcast_to(ids[-1], ids.shape))
        read = Lens(
            "logit",
            tuple(f"h.{layer}" for layer in range(layers)),
            np.array(places),
            ids[:, places],
            names[ids[:, places]],
            own.probability[:, places],
            Ranked(of_final.probability[:, places], of_final.rank[:, places]),
            None if whole is None else Ranked(whole.probability[:, places], whole.rank[:, places]),
        )
        keys["lens"] = lens_entry(read)
    weights = np.tril(np.ones((2, tokens, tokens), np.float32))
    weights /= weights.sum(-1, keepdims=True)
    write_capture(path, [Layer(0, weights)], tokens=text, **keys)
    return header_of(path)


def header_of(path: Path) -> dict[str, Any]:
    """All of a document but the outputs, by Python's own json."""
    document: dict[str, Any] = json.loads(path.read_text())
    del document["captured"]
    return document


def change(path: Path, **keys: Any) -> None:
    """The same document with other keys in its header."""
    document = json.loads(path.read_text())
    captured = document.pop("captured")
    path.write_text(json.dumps({**document, **keys, "captured": captured}))
