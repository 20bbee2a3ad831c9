"""About how many bytes a capture will take, on the disk and in memory, before it is made.

The same rule (`activations.document.format.document_bytes`) is used when it is written, so that a
disk without room is refused before the run wherever that can be known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from activations.document.format import Numbers, document_bytes
from activations.errors import ToolkitError, UsageError, Warn
from activations.outputs.shapes import CELLS, Lengths, Shape
from activations.outputs.tree import walk
from activations.selection.observation import Observation
from activations.session.naming import check_changes
from activations.session.options import Options
from activations.system.memory import LOGITS_AT_ONCE, free_memory
from activations.system.sizes import size_text

if TYPE_CHECKING:
    from activations.selection.answers import Selection
    from activations.session.opening import OpenedModel

_LARGE = 1_000_000_000  # bytes of attention weights that are worth a word
_KEEP = 0.01  # what is advised
_LONG = 2e12  # products: about half a minute on two cores
_PREDICTED, _PREDICTION, _READ = 30, 26, 44  # bytes a position, and each prediction, a lens's too
_A_ROW = 12  # weights above 0.01 in a row, as measured; at 0.001 some three times as many


@dataclass(frozen=True)
class Estimate:
    """A number of bytes; `bound` is "about", "at least", "up to" or, if both, "roughly".

    `memory` is what the captured tensors take in memory, `weights` the part of it that is attention
    weights as a whole, and `kept` what would be kept of these above 0.01.
    """

    bytes: int
    bound: str
    memory: int = 0
    weights: int = 0
    kept: int = 0

    def __str__(self) -> str:
        return f"{self.bound} {size_text(self.bytes)}"


def forecast(
    opened: OpenedModel, selection: Selection, options: Options, format: str, warn: Warn
) -> Estimate:
    """What a capture will take. `warn` gets a line where that is absurd.

    Raises `ToolkitError` where the memory cannot hold it, `UsageError` where only large weights are
    to be kept and none are selected.
    """
    observation = opened.catalog.observation
    if options.keep_above is not None and not selection.weights(observation):
        raise UsageError(
            "--keep-above: no attention weights are selected. Leave it out, or select them, as in "
            "--auto-select attn:weights."
        )
    check_changes(opened.catalog, options)
    most = options.predictions(selection, observation)
    counts = selection.counts(observation)
    found = expected_size(observation, counts, opened.lengths, format, options.keep_above)
    found = _with_predictions(found, opened, options, most, warn)
    if options.with_inputs and found.bound in ("about", "up to"):  # nobody has measured these
        found = replace(found, bound="at least" if found.bound == "about" else "roughly")
    _check_memory(found, warn)
    return found


def _with_predictions(
    found: Estimate, opened: OpenedModel, options: Options, most: int, warn: Warn
) -> Estimate:
    """The same with what predictions and a lens add. `warn` gets a line where a lens takes long.

    Raises `UsageError` where the lens is to look at a position that the text does not have.
    """
    observation, lengths = opened.catalog.observation, opened.lengths
    logits = observation.logits
    if not most or logits is None:
        return found
    try:
        sizes = logits.known(lengths.letters)
    except KeyError:  # a length is not known
        return replace(found, bound="at least" if found.bound == "about" else found.bound)
    rows = sizes[1] if len(sizes) > len(("batch", "labels")) else 1
    most, layers = min(most, sizes[-1]), 0
    looked_at: Sequence[int] = ()
    if options.lens is not None:
        layers = max((pattern.depth for pattern in opened.catalog.patterns), default=0)
        at = options.at
        looked_at = range(rows) if at is None or lengths.at_most else positions_at(at, rows)
        if 2 * layers * len(looked_at) * observation.head > _LONG:
            rows_of_logits = f"{layers * len(looked_at):,} times {sizes[-1]:,} logits"
            warn(
                f"a lens of {layers} layers at {len(looked_at):,} positions computes "
                f"{rows_of_logits}, which may take minutes. Choose positions with --at: --at -1 is "
                "the last."
            )
    cells = layers * len(looked_at)
    text = rows * (_PREDICTED + most * _PREDICTION) + cells * (_PREDICTED + most * _READ)
    memory = 4 * min(rows * sizes[-1], LOGITS_AT_ONCE)
    return replace(found, bytes=found.bytes + text, memory=found.memory + text + memory)


def positions_at(at: Sequence[int], rows: int) -> list[int]:
    """The positions that `--at` names, each once and in order; -1 is the last.

    Raises `UsageError` where there is no such position.
    """
    wrong = [position for position in at if not -rows <= position < rows]
    if wrong:
        raise UsageError(
            f"--at: there is no position {wrong[0]}. They go from 0 to {rows - 1}; -1 is the last."
        )
    return sorted({position + rows if position < 0 else position for position in at})


def expected_size(
    observation: Observation,
    calls: Mapping[str, int],
    lengths: Lengths,
    format: str = "json",
    keep_above: float | None = None,
) -> Estimate:
    """What the document of these modules will take, from what the trial run showed of them.

    `calls` counts the calls of each that are kept.

    What cannot be known before the run (modules that get rows picked by the data, and those of a
    model that could not be tried) is left out, and the estimate is "at least".
    """
    known: list[list[Numbers]] = []
    whole: list[Numbers] = []
    kept: list[Numbers] = []
    all_known = observation.probed
    axes = {(s.module, s.element): s.axes for s in observation.weights}
    for name, count in calls.items():
        shapes = [(path, leaf) for path, leaf in walk(observation.outputs.get(name))]
        try:
            tensors: list[Numbers] = []
            for path, shape in shapes:
                if not isinstance(shape, Shape):
                    continue
                numbers = _numbers(shape, lengths.letters)
                if (name, path) not in axes:
                    tensors.append(numbers)
                    continue
                sizes = shape.known(lengths.letters)
                whole += [numbers] * count
                kept += _sparse(sizes, axes[name, path], shape.dtype, _KEEP) * count
                if keep_above is None:
                    tensors.append(numbers)
                else:
                    tensors += _sparse(sizes, axes[name, path], shape.dtype, keep_above)
        except KeyError:  # a length is not known
            all_known = False
            continue
        if name in observation.unsure:
            all_known = False
        else:
            known += [tensors] * count
    if lengths.at_most:
        bound = "up to" if all_known else "roughly"
    else:
        bound = "about" if all_known else "at least"
    return Estimate(
        document_bytes(known, format),
        bound,
        document_bytes(known, "safetensors"),
        document_bytes([whole], "safetensors"),
        document_bytes([kept], "safetensors"),
    )


def _numbers(shape: Shape, letters: Mapping[str, int]) -> Numbers:
    count, zeros = shape.numbers(letters)
    return Numbers(count, shape.dtype, zeros)


def _sparse(
    sizes: Sequence[int], axes: tuple[int, ...] | None, dtype: str, above: float
) -> list[Numbers]:
    """About what is kept of a tensor of attention weights: see `activations.outputs.sparse`."""
    if len(sizes) != 4:
        return [Numbers(prod(sizes), dtype)]
    batch, heads, rows, columns = (sizes[i] for i in axes or range(4))
    usual = _A_ROW * (_KEEP / above) ** 0.5 if above else columns
    in_a_row = min(columns, usual, 1 / above if above else columns)
    lines = batch * heads * rows
    entries = int(lines * in_a_row)
    cells = batch * heads * min(rows, CELLS) * min(columns, CELLS)
    return [
        Numbers(lines + 1, "uint32"),
        Numbers(entries, "uint16"),
        Numbers(entries, dtype),
        Numbers(lines, "float32"),
        Numbers(cells, "float16", cells // 2),  # most cells of most heads hold next to nothing
    ]


def _check_memory(estimate: Estimate, warn: Warn) -> None:
    """Say what is absurd about a capture before it is made, and what to do instead.

    Raises `ToolkitError` where the memory that is free cannot hold what it captures.
    """
    advice = "Choose fewer --layers or modules."
    if estimate.weights > estimate.memory / 2:
        advice = f"Keep only large weights (--keep-above {_KEEP}: about {size_text(estimate.kept)})"
        advice += ", or choose fewer --layers."
    free = free_memory()
    if free is not None and estimate.memory > free and estimate.bound in ("about", "at least"):
        raise ToolkitError(
            f"this capture needs {estimate.bound} {size_text(estimate.memory)} of memory, and "
            f"{size_text(free)} are free. {advice}"
        )
    if estimate.memory > _LARGE and estimate.weights > estimate.memory / 2:
        warn(f"the attention weights take about {size_text(estimate.weights)}. {advice}")
