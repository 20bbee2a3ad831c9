"""`--sweep`: the prediction without each head, or each feed-forward block, in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from activations.document.interventions import Sweep, sweep_entry
from activations.errors import ToolkitError, first_few, ignore
from activations.forward.divergence import divergence, likelihood
from activations.forward.edits import Place, run_watched
from activations.forward.predicted_row import PredictedRow
from activations.forward.residual_stream import ResidualStream, find_stream
from activations.forward.sweep import Cut, Sweeper
from activations.inputs.request import Inputs
from activations.model.attn_implementation import attention_implementation
from activations.model.errors import forward_errors
from activations.model.offloading import refuse_offloaded_reads
from activations.model.signature import accepts, arguments
from activations.model.state import fixed_seed, restored
from activations.session.estimate import positions_at
from activations.session.naming import attention_layers, block_calls
from activations.session.opening import OpenedModel
from activations.session.options import ABLATIONS, NO_PREDICTIONS, Options
from activations.session.places import place_of
from activations.session.predicting import head_of_model, predicted_row, spelled
from activations.session.run import Capture
from activations.session.trials import blocks, head_places, short_calls

_TOGETHER = 8  # feed-forward blocks in one pass, which begins at the first of them


def sweep(
    opened: OpenedModel,
    options: Options,
    made: Capture,
    watching: Callable[[str, int], AbstractContextManager[Callable[[str], None]]] | None = None,
) -> None:
    """Add the sweep that is wanted to what a pass returned.

    `watching(what, how many)` is entered meanwhile; what it gives is called with each name that
    is done. Raises `ToolkitError` where nothing can be cut alone.
    """
    if options.sweep is None:
        return
    assert made.inputs is not None, "it has been run"
    sweeping = Sweeping(opened, options, made.inputs)
    implementation = made.header["environment"]["attn_implementation"]
    what = f"Without each of the {options.sweep}"
    with watching(what, sweeping.total) if watching else nullcontext(ignore) as update:
        table, warnings = sweeping.run(implementation, update)
    made.header["sweep"] = sweep_entry(table)
    made.warnings += warnings


@dataclass(frozen=True)
class _Row:
    """One row of the table: the places of a layer's heads, or its block; none where not proven."""

    layer: int
    kind: str
    name: str
    places: tuple[Place, ...]


class Sweeping:
    """A sweep of the text `inputs`, which a pass has read. `total` counts what will be cut."""

    def __init__(self, opened: OpenedModel, options: Options, inputs: Inputs) -> None:
        self._opened, self._options, self._inputs = opened, options, inputs
        self.total = len(block_calls(opened.catalog, "mlp"))
        if options.sweep == "heads":
            self.total = sum(layer.heads for layer in attention_layers(opened.catalog))

    def run(
        self, implementation: str | None, progress: Callable[[str], None] = ignore
    ) -> tuple[Sweep, list[str]]:
        """The table, and lines for the user. `progress` gets the name of what was cut.

        Raises `ToolkitError` where no place can be proven, and as `run` does.
        """
        model, observation = self._opened.model, self._opened.catalog.observation
        head = head_of_model(self._opened)
        if head is None:
            raise ToolkitError(NO_PREDICTIONS)
        with (
            restored(model),
            fixed_seed(),
            forward_errors(),
            refuse_offloaded_reads(model),
            attention_implementation(model, implementation),
        ):
            given = arguments(model, self._inputs.tensors, observation.call_form)
            call = {**given, **({"use_cache": False} if accepts(model, "use_cache") else {})}
            rows = self._rows(call)
            missing = [row.name for row in rows if not row.places]
            if len(missing) == len(rows):
                raise ToolkitError(
                    f"--sweep {self._options.sweep}: no place in this model can be proven to be "
                    f"that of {'one head' if self._options.sweep == 'heads' else 'a block'} alone. "
                    "Ablate whole modules by their names instead."
                )
            warnings = []
            if missing:
                warnings.append(
                    f"--sweep leaves out {first_few(missing)}: their places cannot be proven."
                )
            predicted = predicted_row(self._opened, head, self._inputs)
            return self._sweep(rows, predicted, call, progress), warnings

    def _rows(self, call: dict[str, Any]) -> list[_Row]:
        opened, inputs = self._opened, self._inputs
        if self._options.sweep == "heads":
            layers = attention_layers(opened.catalog)
            there = head_places(opened, inputs, call, [layer.source.tensor for layer in layers])
            heads = {key: tuple(map(found.of, range(found.heads))) for key, found in there.items()}
            return [
                _Row(one.layer, one.kind, one.source.module, heads.get(one.source.tensor, ()))
                for one in layers
            ]
        calls = block_calls(opened.catalog, "mlp")
        found = blocks(opened, inputs, call, calls)
        several = len({of_list for of_list, _ in calls}) > 1
        rows = []
        for key in sorted(calls):
            of_list, layer = key
            block = found.get(key)
            places = () if block is None else (place_of(opened, block.module, block.call),)
            name = f"{of_list}.{layer}"
            rows.append(_Row(layer, of_list if several else "mlp", name, places))
        return rows

    def _sweep(
        self,
        rows: list[_Row],
        predicted: PredictedRow,
        call: dict[str, Any],
        progress: Callable[[str], None],
    ) -> Sweep:
        shape = len(rows), max(len(row.places) for row in rows)
        table = Sweep(
            of=self._options.sweep or "",
            way=self._options.ablate_with or ABLATIONS[0],
            layers=tuple(row.layer for row in rows),
            kinds=tuple(row.kind for row in rows),
            kl=np.full(shape, np.nan),
            probability_of_top=np.full(shape, np.nan),
            top="",
            probability=0.0,
        )
        tokens = self._inputs.decoder_tokens or self._inputs.tokens
        model = self._opened.model
        asked = predicted.asked(call)
        sweeper = Sweeper(model, asked, self._stream(call), predicted.of, len(tokens))
        groups = list(self._groups(rows, table.way, asked))
        for group in (groups[0], groups[-1]):
            sweeper.proven([cut for _, _, cut in group])
        top = predicted.top(
            sweeper.unchanged[:1], 1, partial(spelled, self._opened, predicted.head)
        )
        for group in groups:
            found = sweeper.without([cut for _, _, cut in group])
            for (row, column, _), logits in zip(group, found, strict=True):
                table.kl[row, column] = divergence(
                    sweeper.unchanged[0], logits, predicted.head.independent
                )
                table.probability_of_top[row, column] = likelihood(
                    logits, top.ids[0], predicted.head.independent
                )
                progress(table.name(row, column))
        return replace(table, top=top.tokens[0], probability=top.probabilities[0])

    def _stream(self, call: dict[str, Any]) -> ResidualStream | None:
        """Where the layers are, so that a pass may begin at one; None where that cannot be told."""
        try:
            return find_stream(self._opened.model, *short_calls(self._opened, self._inputs, call))
        except ToolkitError:
            return None

    def _groups(
        self, rows: list[_Row], way: str, asked: dict[str, Any]
    ) -> Iterator[list[tuple[int, int, Cut]]]:
        """What is cut in one pass: the heads of a layer, or some blocks; with row and column."""
        places = [place for row in rows for place in row.places]
        counts = self._positions(places, way, asked)
        cuts = {
            place: Cut(place, way, positions)
            for place, positions in zip(places, counts, strict=True)
        }
        cells = [
            [(number, column, cuts[place]) for column, place in enumerate(row.places)]
            for number, row in enumerate(rows)
            if row.places
        ]
        if self._options.sweep == "heads":
            yield from cells
            return
        for first in range(0, len(cells), _TOGETHER):
            yield [cell for row in cells[first : first + _TOGETHER] for cell in row]

    def _positions(
        self, places: list[Place], way: str, asked: dict[str, Any]
    ) -> list[tuple[int, ...] | None]:
        """The positions that `--at` names, at each place. Raises where a place has none."""
        at = self._options.at
        if at is None and way != "mean":
            return [None] * len(places)
        found: dict[int, tuple[int, ...]] = {}

        def see(number: int, call: int, part: Any) -> None:
            tokens = places[number].tokens
            if tokens is not None:
                found[number] = tuple(positions_at(at or (0,), part.shape[tokens]))

        run_watched(self._opened.model, asked, places, see)
        if len(found) < len(places):
            raise ToolkitError(
                "--sweep: not all places have an axis of positions, so --at and --ablate-with mean "
                "cannot be used. Leave them out."
            )
        return [None if at is None else found[number] for number in range(len(places))]
