"""What a model predicts at each position, and what each of its layers would."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from activations.document.predictions import Lens, Predictions, Ranked
from activations.errors import ToolkitError
from activations.forward.lens_matrices import LensMatrices
from activations.forward.ranking import Ranking, rank
from activations.forward.residual_stream import NO_LENS
from activations.forward.tail import Tail
from activations.model.head import Head

_NEARLY = 1e-3  # of a probability: in other shapes, sums have other last bits
_ROUGHLY = 0.05  # in half precision
_PRECISE = 4  # bytes of a number


@dataclass(frozen=True)
class Wanted:
    """`most` predictions at each position, spelled by `spell(ids)`.

    `text` is the key of the tokens that the positions are of, and `actual` the ids that are to be
    found among the predictions, (positions,), -1 for none; None of labels.
    """

    head: Head
    most: int
    spell: Callable[[Sequence[int]], list[str]]
    text: str | None = None
    actual: np.ndarray | None = None

    def tokens(self, ids: np.ndarray) -> np.ndarray:
        """What the ids are called, in an array of the same shape."""
        unique, where = np.unique(ids, return_inverse=True)
        names = self.head.labels
        plain = unique.tolist()
        spelled = self.spell(plain) if names is None else [names.get(i, f"#{i}") for i in plain]
        return np.array(spelled, dtype=object)[where].reshape(ids.shape)


def predict(logits: Iterable[torch.Tensor], positions: int, wanted: Wanted) -> Predictions:
    """The predictions at all positions, whose logits (rows, vocabulary) come part by part."""
    found = wanted.actual
    sought = np.full((positions, 1), -1) if found is None else found[:, None]
    ranking = rank(logits, wanted.most, sought, wanted.head.independent)
    actual = Ranked(ranking.wanted.probability[:, 0], ranking.wanted.rank[:, 0])
    return Predictions(
        wanted.head.of,
        wanted.text,
        ranking.ids,
        wanted.tokens(ranking.ids),
        ranking.probabilities,
        None if found is None else actual,
    )


def _agree(found: np.ndarray, expected: np.ndarray, precise: bool) -> bool:
    """Whether these probabilities are the same, but for sums in another order."""
    return np.allclose(found, expected, 0, _NEARLY if precise else _ROUGHLY, equal_nan=True)


def is_prediction(predictions: Predictions, last: torch.Tensor, wanted: Wanted) -> bool:
    """Whether the last prediction is that of these logits, (1, vocabulary)."""
    own = predictions.ids[-1:]
    found = rank([last], own.shape[1], own, wanted.head.independent).wanted.probability
    return _agree(found, predictions.probabilities[-1:], last.element_size() >= _PRECISE)


def read_layers(
    tail: Tail, at: Sequence[int], predictions: Predictions, wanted: Wanted, lens: str
) -> Lens:
    """What each layer would predict at these positions; `lens` is "logit" or a file of matrices.

    Raises `ToolkitError` where the last layer's stream does not give what the model predicted.
    """
    own = predictions.ids[at]
    followed = None if wanted.actual is None else wanted.actual[at]
    sought = own if followed is None else np.column_stack([own, followed])
    matrices = None if lens == "logit" else LensMatrices(lens, tail.layers, tail.width)

    def read(parts: Iterable[torch.Tensor]) -> Ranking:
        return rank(parts, own.shape[1], sought, wanted.head.independent)

    # The last one comes last, so that it also shows whether reading the others did harm.
    found = list(map(read, tail.every_layer(at, None if matrices is None else matrices.apply)))
    proof = found[-1] if matrices is None else read(tail.parts(tail.layers - 1, at))
    if not _agree(
        proof.wanted.probability[:, : own.shape[1]], predictions.probabilities[at], tail.precise
    ):
        raise ToolkitError(f"{NO_LENS}: the last one's stream does not give the model's logits.")
    ids = np.stack([ranking.ids for ranking in found])
    probability, ranks = (
        np.stack([getattr(ranking.wanted, name) for ranking in found])
        for name in ("probability", "rank")
    )
    most = own.shape[1]
    return Lens(
        "logit" if matrices is None else "matrices",
        tail.names,
        np.asarray(at),
        ids,
        wanted.tokens(ids),
        np.stack([ranking.probabilities for ranking in found]),
        Ranked(probability[:, :, :most], ranks[:, :, :most]),
        None if followed is None else Ranked(probability[:, :, most], ranks[:, :, most]),
    )
