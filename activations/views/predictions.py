"""Predictions and a lens, as a page carries them: `predictions.js` shows them.

Each text of a token is there once, and probabilities to 4 digits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from activations.attention.spelling import readable
from activations.document.predictions import Lens, Predictions, Ranked
from activations.document.reader import Document
from activations.text import printable

_DIGITS = 4


def page_predictions(
    document: Document,
    looked_up: Mapping[str, list[str]],
    tokens: tuple[int, int] | None = None,
) -> dict[str, Any] | None:
    """What the page shows of a document's predictions; None where it has none.

    `looked_up` are tokens that the document lacks, by key; `tokens` are the positions to show
    (first, end), None being all.
    """
    found = document.predictions
    if found is None:
        return None
    known = looked_up.get(found.text or "", document.header.get(found.text or "", ()))
    text = known if len(known) == len(found.ids) else None
    first, end = (0, len(found.ids)) if tokens is None else tokens
    if first >= len(found.ids):
        return None
    return _packed(found, document.lens, text, first, min(end, len(found.ids)))


def _packed(
    found: Predictions, lens: Lens | None, text: Sequence[str] | None, first: int, end: int
) -> dict[str, Any]:
    rows = slice(first, end)
    at = np.empty(0) if lens is None else lens.positions
    places: np.ndarray = np.flatnonzero((at >= first) & (at < end))
    read = None if lens is None or not len(places) else lens
    tables = [found.tokens[rows], *([] if read is None else [read.tokens[:, places]])]
    names, where = np.unique(
        np.concatenate([table.ravel() for table in tables]), return_inverse=True
    )
    likeliest = where[: tables[0].size].reshape(tables[0].shape)
    spelled = names.tolist()
    made = {
        "of": found.of,
        "first": first,
        "positions": len(found.ids),
        "text": None if text is None else readable(text),
        "names": list(map(printable, spelled)) if found.of == "label" else readable(spelled, text),
        "likeliest": likeliest.tolist(),
        "probability": _rounded(found.probabilities[rows]),
        "actual": _ranked(found.actual, rows),
        "lens": None,
    }
    if read is not None:
        made["lens"] = {
            "kind": read.kind,
            "layers": list(map(printable, read.layers)),
            "rows": (read.positions[places] - first).tolist(),
            "likeliest": where[likeliest.size :].reshape(tables[1].shape).tolist(),
            "probability": _rounded(read.probabilities[:, places]),
            "predicted": read.predicted.rank[:, places].tolist(),
            "actual": _ranked(read.actual, (slice(None), places)),
        }
    return made


def _ranked(ranked: Ranked | None, part: Any) -> dict[str, Any] | None:
    if ranked is None:
        return None
    return {"probability": _rounded(ranked.probability[part]), "rank": ranked.rank[part].tolist()}


def _rounded(probabilities: np.ndarray) -> list[Any]:
    """To so many digits, as nested lists; None where it is not a number."""
    with np.errstate(divide="ignore", invalid="ignore"):
        size = 10.0 ** (_DIGITS - 1 - np.floor(np.log10(probabilities.astype(np.float64))))
        rounded = np.where(probabilities > 0, np.rint(probabilities * size) / size, probabilities)
    plain = rounded.astype(object)
    plain[np.isnan(rounded)] = None
    made: list[Any] = plain.tolist()
    return made
