"""Changing a pass: `--ablate` and `--patch`, checked, proven, written, and what they did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from activations.document.interventions import Effect, Intervention
from activations.errors import ToolkitError, UsageError, first_few
from activations.forward.edits import (
    SOURCE,
    ZERO,
    Edits,
    Place,
    Write,
    read_values,
    run_watched,
)
from activations.forward.hooks import hooked
from activations.forward.predicted_row import PredictedRow
from activations.inputs.prompt import complete
from activations.inputs.request import Inputs
from activations.model.signature import arguments
from activations.session.estimate import positions_at
from activations.session.opening import OpenedModel
from activations.session.options import Options
from activations.session.places import find_places
from activations.session.predicting import spelled
from activations.session.targets import Target


@dataclass(frozen=True)
class Changed:
    """What was written, what that did to the prediction, and lines for the user."""

    interventions: tuple[Intervention, ...] = ()
    effect: Effect | None = None
    warnings: tuple[str, ...] = ()


class Changing:
    """The changes of one pass. Made before it, with short passes and one of the whole text.

    `call` are the arguments of the pass; `row` is the prediction whose change is measured, None
    where nothing is predicted. Run the pass with `edits`, within `watching`; then ask for `result`.
    """

    def __init__(
        self,
        opened: OpenedModel,
        options: Options,
        inputs: Inputs,
        call: Mapping[str, Any],
        row: PredictedRow | None,
    ) -> None:
        """Raises `ToolkitError` where a place cannot be proven, or the pass does not come to it."""
        self._opened, self._options, self._inputs, self._row = opened, options, inputs, row
        self._before: Any | None = None
        self._after: Any | None = None
        named = [("--ablate", target) for target in options.ablate]
        named += [("--patch", target) for target in options.patch]
        self._targets = [target for _, target in named]
        self._places = [
            place
            for flag, targets in (("--ablate", options.ablate), ("--patch", options.patch))
            for place in (find_places(opened, inputs, call, targets, flag) if targets else ())
        ]
        self._refuse_overlaps()
        counts = self._unchanged_pass(call)
        self._writes = [
            self._write(flag, target, place, counts[number])
            for number, ((flag, target), place) in enumerate(zip(named, self._places, strict=True))
        ]
        if options.patch:
            self._writes = self._with_values(self._writes, call)
        self.edits = Edits(self._writes)

    def _refuse_overlaps(self) -> None:
        ablated = self._places[: len(self._options.ablate)]
        for patched, target in zip(self._places[len(ablated) :], self._options.patch, strict=True):
            if any(patched.overlaps(place) for place in ablated):
                raise UsageError(
                    f"--ablate and --patch both change {target.text}. Leave it out of one."
                )

    def _unchanged_pass(self, call: Mapping[str, Any]) -> list[int | None]:
        """How many positions each place has. Keeps what is predicted without the changes."""
        counts: dict[int, int | None] = {}

        def see(number: int, call: int, part: Any) -> None:
            tokens = self._places[number].tokens
            counts[number] = None if tokens is None else part.shape[tokens]

        returned = run_watched(self._opened.model, call, self._places, see)
        if self._row is not None:
            self._before = self._row.of(returned)
        unseen = [t.text for i, t in enumerate(self._targets) if i not in counts]
        if unseen:
            raise ToolkitError(
                f"{first_few(unseen)}: not called in this pass, or without numbers, so there is "
                "nothing to change. Name what runs."
            )
        return [counts[number] for number in range(len(self._places))]

    def _write(self, flag: str, target: Target, place: Place, count: int | None) -> Write:
        way = SOURCE if flag == "--patch" else self._options.ablate_with or ZERO
        at = self._options.at
        if count is None and (at is not None or way == "mean"):
            other = "--ablate-with mean" if at is None else "--at"
            raise ToolkitError(
                f"{flag} {target.text}: what stands there has no axis of positions, so {other} "
                "cannot be used. Leave it out."
            )
        positions = None if at is None or count is None else tuple(positions_at(at, count))
        return Write(place, way, positions)

    def _with_values(self, writes: list[Write], call: Mapping[str, Any]) -> list[Write]:
        """The writes of `--patch`, with what stands there when the model reads the source."""
        patched = [write for write in writes if write.way == SOURCE]
        given = source_call(self._opened, self._inputs, call)
        values = read_values(self._opened.model, given, [write.place for write in patched])
        others = [write for write in writes if write.way != SOURCE]
        return [*others, *(replace(w, values=v) for w, v in zip(patched, values, strict=True))]

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Keep what is predicted in the pass in the block."""
        row = self._row

        def keep(name: str, output: Any) -> None:
            assert row is not None
            self._after = row.of(output)

        with hooked(self._opened.model, [] if row is None else [""], keep):
            yield

    def result(self, most: int) -> Changed:
        """What was done, with the `most` likeliest tokens before and after.

        Raises `ToolkitError` where something was not done.
        """
        unreached = {place.module for place in self.edits.unreached}
        if unreached:
            raise ToolkitError(f"the pass did not come to {first_few(sorted(unreached))}.")
        effect, warnings = None, []
        if self._row is not None and self._before is not None and self._after is not None:
            spell = partial(spelled, self._opened, self._row.head)
            effect = self._row.effect(self._before, self._after, most, spell)
        if not self.edits.moved:
            warnings.append("what was written is what stood there before: nothing was changed.")
        elif effect is not None and effect.kl == 0:
            warnings.append("the changes did not move the prediction.")
        elif effect is None:
            warnings.append("this model predicts nothing, so the effect was not measured.")
        made = map(self._made, self._targets, self._writes)
        return Changed(tuple(made), effect, tuple(warnings))

    def _made(self, target: Target, write: Write) -> Intervention:
        place = write.place
        module = f"{place.module}@{place.call}" if place.call else place.module
        part = None if place.axis is None else (place.axis, place.first, place.end)
        return Intervention(target.text, module, write.way, write.positions, part)


def source_call(opened: OpenedModel, inputs: Inputs, call: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the pass of `--source`. A decoder reads what it reads in the real one."""
    assert opened.source is not None, "was encoded when the model was opened"
    request = replace(opened.request, prompt=opened.request.source, ids=None, diagnostic=None)
    other = complete(opened.model, opened.tokenizer, request, opened.source)
    kept = {k: v for k, v in inputs.tensors.items() if k.startswith("decoder_")}
    tensors = {**other.tensors, **kept}
    given = arguments(opened.model, tensors, opened.catalog.observation.call_form)
    options = {name: call[name] for name in ("use_cache", "logits_to_keep") if name in call}
    return {**given, **options}
