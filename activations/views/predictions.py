"""What a model predicted, and what each of its layers would: as the script of a page reads it.

Texts are in the page once, in a table; everything else names them by their place in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from activations.attention.sides import tokens_of
from activations.attention.spelling import readable
from activations.attention.stack import Stack
from activations.document.predictions import Lens, Predictions, Ranked
from activations.text import printable

_OF_LENS = 10  # the likeliest of a layer that are in the page
_CHART = 5  # the predicted tokens whose ranks over the layers are
_DIGITS = 4  # of a probability


class Table:
    """Texts by their numbers, in the order in which they are first asked for."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def of(self, texts: np.ndarray) -> list[int]:
        """The numbers of these texts, flat."""
        return [self._numbers.setdefault(text, len(self._numbers)) for text in texts.flat]

    @property
    def texts(self) -> list[str]:
        return list(self._numbers)


def page_predictions(
    header: Mapping[str, Any],
    predictions: Predictions | None,
    lens: Lens | None,
    stacks: Sequence[Stack],
    looked_up: Mapping[str, Sequence[str]],
    tokens: tuple[int, int] | None = None,
) -> dict[str, Any] | None:
    """What the page knows of them, None where the document has none at these positions.

    `looked_up` has tokens that the document lacks, by its keys. `tokens` are the positions (first,
    end) that are shown, None all of them.
    """
    if predictions is None or not len(predictions.ids):
        return None
    count = len(predictions.ids)
    first, end = (0, count) if tokens is None or predictions.text is None else tokens
    end = min(end, count)
    if first >= end:
        return None
    text = _text(header, predictions, looked_up)
    table = Table()
    shown = slice(first, end)
    found = {
        "of": predictions.of,
        "start": first,
        "tokens": None if text is None else table.of(text[shown]),
        "stacks": _of_the_text(header, predictions, stacks),
        "most": predictions.ids.shape[1],
        "top": table.of(predictions.tokens[shown]),
        "probabilities": rounded(predictions.probabilities[shown]),
        "came": _came(predictions, text, table)[shown],
        "actual": _numbers(predictions.actual, shown),
        "lens": None if lens is None else _lens(lens, first, end, table),
    }
    return {**found, "texts": _shown_texts(table.texts, predictions, text)}


def rounded(probabilities: np.ndarray) -> list[float | None]:
    """Flat, with a few digits; None where there is no number."""
    return [float(f"{p:.{_DIGITS}g}") if np.isfinite(p) else None for p in probabilities.flat]


def _numbers(ranked: Ranked | None, shown: Any) -> dict[str, Any] | None:
    if ranked is None:
        return None
    return {
        "probabilities": rounded(ranked.probability[shown]),
        "ranks": ranked.rank[shown].ravel().tolist(),
    }


def _text(
    header: Mapping[str, Any], predictions: Predictions, looked_up: Mapping[str, Sequence[str]]
) -> np.ndarray | None:
    """The tokens that the positions are of; their numbers, where they are not known."""
    if predictions.text is None:
        return None
    found = header.get(predictions.text) or looked_up.get(predictions.text) or ()
    count = len(predictions.ids)
    known = list(found) if len(found) == count else [f"#{i}" for i in range(count)]
    return np.array(known, dtype=object)


def _of_the_text(
    header: Mapping[str, Any], predictions: Predictions, stacks: Sequence[Stack]
) -> list[int]:
    """The stacks whose rows are tokens of this text, by their number."""
    text = predictions.text and header.get(predictions.text)
    return [
        number
        for number, stack in enumerate(stacks)
        if text
        and stack.knows_tokens
        and stack.is_aligned
        and tokens_of(header, stack.kind) == text
    ]


def _came(predictions: Predictions, text: np.ndarray | None, table: Table) -> list[int | None]:
    """What really followed each token or stands there, as a number in the table."""
    if text is None or predictions.actual is None:
        return [None] * len(predictions.ids)
    if predictions.of == "next_token":
        return [*table.of(text[1:]), None]
    known = predictions.actual.rank > 0  # a mask is no token
    return [i if is_known else None for i, is_known in zip(table.of(text), known, strict=True)]


def _shown_texts(
    texts: Sequence[str], predictions: Predictions, text: np.ndarray | None
) -> list[str]:
    if predictions.of != "label":
        return readable(texts, None if text is None else text.tolist())
    if text is None:
        return list(map(printable, texts))
    own = dict(zip(text, readable(text.tolist()), strict=True))
    return [own.get(name) or printable(name) for name in texts]


def _lens(lens: Lens, first: int, end: int, table: Table) -> dict[str, Any] | None:
    """The lens at those of its positions that are shown."""
    (chosen,) = np.nonzero((lens.positions >= first) & (lens.positions < end))
    if not chosen.size:
        return None
    everywhere = slice(None)
    most = min(lens.ids.shape[2], _OF_LENS)
    part = everywhere, chosen, slice(most)
    ranks = lens.predicted.rank[:, chosen, :_CHART]
    return {
        "kind": lens.kind,
        "layers": layer_names(lens.layers),
        "modules": list(map(printable, lens.layers)),
        "rows": (lens.positions[chosen] - first).tolist(),
        "most": most,
        "top": table.of(lens.tokens[part]),
        "probabilities": rounded(lens.probabilities[part]),
        "predicted": ranks.ravel().tolist(),
        "charted": ranks.shape[2],
        "actual": _numbers(lens.actual, (everywhere, chosen)),
    }


def layer_names(modules: Sequence[str]) -> list[str]:
    """The layers by number, as their modules are numbered, else counted; the last is `Output`."""
    numbers = [re.findall(r"\d+", name)[-1:] for name in modules]
    distinct = all(numbers) and len({number for (number,) in filter(None, numbers)}) == len(modules)
    names = [number[0] if distinct else str(i) for i, number in enumerate(numbers)]
    return [*(f"Layer {name}" for name in names[:-1]), "Output"]
