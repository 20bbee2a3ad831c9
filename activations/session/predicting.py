"""What the pass is to predict, beside what its modules return: `--predict` and `--lens`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from activations.document.predictions import Lens, Predictions
from activations.errors import ToolkitError, UsageError, first_few
from activations.forward.hooks import hooked
from activations.forward.predicted_row import PredictedRow
from activations.forward.predictions import Wanted, is_prediction, predict, read_layers
from activations.forward.residual_stream import NO_LENS, find_stream
from activations.forward.tail import Tail
from activations.inputs.request import Inputs
from activations.model.head import Head, head_of, logits_of
from activations.model.signature import accepts
from activations.model.vocabulary import spell
from activations.session.estimate import positions_at
from activations.session.opening import OpenedModel
from activations.session.options import NO_PREDICTIONS, Options
from activations.session.trials import short_calls
from activations.system.memory import LOGITS_AT_ONCE
from activations.text import counted

_OF_POSITIONS = 3  # dimensions; logits of the whole text have two


@dataclass(frozen=True)
class Predicted:
    """What came of it: nothing of a model that predicts nothing."""

    predictions: Predictions | None = None
    lens: Lens | None = None
    lens_file: str | None = None
    warnings: tuple[str, ...] = ()


class Predicting:
    """The predictions of one pass. Run it with the arguments `call`, within `watching`."""

    def __init__(
        self,
        opened: OpenedModel,
        options: Options,
        most: int,
        inputs: Inputs,
        call: Mapping[str, Any],
        sees_logits: bool,
    ) -> None:
        """`call` are all arguments of the pass; `sees_logits`: whether they are to be captured.

        Raises `ToolkitError` where a lens is wanted and the layers cannot be told.
        """
        self.call = dict(call)
        self.most = most
        self._opened, self._options, self._inputs = opened, options, inputs
        self.head = _head(opened, options) if most else None
        self._logits: Any = None
        self._tail: Tail | None = None
        large = not sees_logits and _are_large(opened)
        if self.head is not None and (options.lens or large):
            self._tail = self._find_tail()
        self._in_parts = large and self._tail is not None and self._tail.chooses
        needs_all = sees_logits or (self.head is not None and not self._in_parts)
        if not needs_all and accepts(opened.model, "logits_to_keep"):
            self.call["logits_to_keep"] = 1

    def _find_tail(self) -> Tail | None:
        opened, inputs = self._opened, self._inputs
        model, observation = opened.model, opened.catalog.observation
        text, other = short_calls(opened, inputs, self.call)
        vocabulary = observation.logits.sizes[-1] if observation.logits else 0
        assert isinstance(vocabulary, int), "it follows no text"
        lens = self._options.lens is not None
        try:
            stream = find_stream(model, text, other)
            return Tail(model, self.call, stream, vocabulary, last_only=not lens)
        except Exception:
            if lens:
                raise
            return None  # nobody asked for it: all logits at once, as the model makes them

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Keep what the predictions need of the pass in the block."""
        with ExitStack() as stack:
            if self._tail is not None:
                stack.enter_context(self._tail.watching())
            if self.head is not None:
                stack.enter_context(hooked(self._opened.model, [""], self._keep))
            yield

    def _keep(self, name: str, output: Any) -> None:
        self._logits = logits_of(output)

    def result(self) -> Predicted:
        """The predictions of the pass that was watched.

        Raises `UsageError` where `--at` names no position of the text, `ToolkitError` where the
        last layer's lens is not what the model predicts.
        """
        if self.head is None:
            return Predicted()
        if self._logits is None or head_of(self._opened.model, self._logits.shape) is None:
            if self._options.predict or self._options.lens:
                raise UsageError(NO_PREDICTIONS)
            return Predicted()  # other than in the trial run
        rows = self._rows()
        wanted = self._wanted(self.head, rows)
        at = range(rows) if self._options.at is None else positions_at(self._options.at, rows)
        if self._in_parts:
            assert self._tail is not None
            parts = self._tail.parts(self._tail.layers - 1, range(rows))
        else:
            logits, self._logits = self._logits, None
            parts = iter([logits[0] if logits.dim() == 3 else logits])
            del logits  # as large as all the rest: gone before a layer's are made
        predictions = predict(parts, rows, wanted)
        if self._in_parts and not is_prediction(predictions, self._logits[0, -1:], wanted):
            raise ToolkitError(f"{NO_LENS}, so the logits of this text cannot be made in parts.")
        odd = int(np.isnan(predictions.probabilities[:, 0]).sum())
        warnings = [f"the logits of {counted(odd, 'position')} are not finite."] if odd else []
        if self._options.lens is None or self._tail is None:
            return Predicted(predictions, warnings=tuple(warnings))
        lens = read_layers(self._tail, list(at), predictions, wanted, self._options.lens)
        file = None if lens.kind == "logit" else Path(self._options.lens).name
        if self._tail.others:
            warnings.append(
                f"the lens reads {len(lens.layers)} layers, {lens.layers[0]} to "
                f"{lens.layers[-1]}, and cannot look into others ({first_few(self._tail.others)})."
            )
        return Predicted(predictions, lens, file, tuple(warnings))

    def _rows(self) -> int:
        if not self._in_parts:
            return int(self._logits.shape[1]) if self._logits.dim() == 3 else 1
        tensors = self._inputs.tensors
        return int(tensors.get("decoder_input_ids", tensors["input_ids"]).shape[1])

    def _wanted(self, head: Head, rows: int) -> Wanted:
        """What to rank at each position, and of which text the positions are."""
        inputs, tokenizer = self._inputs, self._opened.tokenizer
        side = "" if inputs.decoder_tokens is None else "decoder_"
        tokens = inputs.tokens if inputs.decoder_tokens is None else inputs.decoder_tokens
        logits = self._opened.catalog.observation.logits
        assert logits is not None, "it has a head"
        text = (
            f"{side}tokens" if len(tokens) == rows and len(logits.sizes) == _OF_POSITIONS else None
        )
        ids = inputs.tensors.get(f"{side}input_ids") if text and head.of != "label" else None
        actual = None
        if ids is not None:
            read = np.array(ids[0].tolist())
            actual = np.append(read[1:], -1)
            if head.of == "masked_token":
                actual = np.where(read == getattr(tokenizer, "mask_token_id", None), -1, read)
        return Wanted(head, self.most, partial(spell, tokenizer), text, actual)


def _head(opened: OpenedModel, options: Options) -> Head | None:
    """Raises `UsageError` where predictions were asked for and there are none."""
    found = head_of_model(opened)
    if found is None and (options.predict or options.lens):
        raise UsageError(NO_PREDICTIONS)
    return found


def head_of_model(opened: OpenedModel) -> Head | None:
    """What the model predicts; None where it is no prediction."""
    logits = opened.catalog.observation.logits
    return None if logits is None else head_of(opened.model, logits.sizes)


def predicted_row(opened: OpenedModel, head: Head, inputs: Inputs) -> PredictedRow:
    """The prediction that effects are measured on."""
    mask = getattr(opened.tokenizer, "mask_token_id", None)
    return PredictedRow(opened.model, head, inputs.tensors, mask)


def spelled(opened: OpenedModel, head: Head, ids: np.ndarray) -> np.ndarray:
    """What is predicted, by its ids, in words."""
    return Wanted(head, len(ids), partial(spell, opened.tokenizer)).tokens(ids)


def _are_large(opened: OpenedModel) -> bool:
    """Whether the logits of the whole text are better not made at once."""
    logits = opened.catalog.observation.logits
    try:
        return logits is not None and prod(logits.known(opened.lengths.letters)) > LOGITS_AT_ONCE
    except KeyError:  # how long it is follows from the data
        return False
