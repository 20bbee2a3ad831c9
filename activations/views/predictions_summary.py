"""What a document's predictions come to, in a line or two for `--summary`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from activations.document.predictions import Lens, Predictions
from activations.document.reader import Document
from activations.text import counted, printable


def summary_lines(document: Document) -> list[str]:
    """The lines of a document; none where it has no predictions."""
    predictions, lens = document.predictions, document.lens
    if predictions is None:
        return []
    lines = _of_labels(predictions) if predictions.of == "label" else _of_tokens(predictions)
    return [*lines, *([] if lens is None else _of_lens(lens))]


def _of_labels(predictions: Predictions) -> Iterator[str]:
    """`Label: positive (0.98)`; of labels of tokens nothing can be said in a line."""
    if len(predictions.ids) == 1:
        name, likely = predictions.tokens[0, 0], predictions.probabilities[0, 0]
        yield f"Label: {printable(name)} ({likely:.2f})"


def _of_tokens(predictions: Predictions) -> Iterator[str]:
    surprise, actual = predictions.surprise, predictions.actual
    known = ~np.isnan(surprise)
    if actual is None or not known.any():
        return
    mean = surprise[known].mean()
    first = int((actual.rank[known] == 1).sum())
    yield (
        f"Surprise: {mean:.1f} bits a token on average; {first:,} of "
        f"{counted(int(known.sum()), 'token')} were the likeliest."
    )


def _of_lens(lens: Lens) -> Iterator[str]:
    stays, last = lens.stays_from, len(lens.layers) - 1
    yield (
        f"Lens: the final prediction stays from layer {stays.mean():.1f} of {last} on, on average "
        f"(at position {lens.positions[-1]:,}, from layer {stays[-1]})."
    )
