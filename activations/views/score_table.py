"""The scores of every head as a table: for people (`table`) or for programs (`csv`).

`activations.attention.scores` says what the scores mean. On a terminal rich draws the table;
over a pipe or on a dumb terminal it is plain text in columns.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, TextIO

import numpy as np

from activations.arguments import numbered
from activations.attention.heads import HeadName
from activations.attention.scores import LOWEST_FIRST, SCORES, control_of
from activations.attention.stack import Stack
from activations.errors import UsageError, Warn, ignore, nearest, quoted_list, unknown_value
from activations.system.streams import is_terminal

_HEADER = ("attention", "layer", "head", *SCORES)
_CONTROLLED = "induction"
_CONTROL = f"{_CONTROLLED}_control"
_NAMED = 3  # heads for each score
_RAW = "are not attention weights between 0 and 1"
_LARGE_ONLY = "are without the small weights"


@dataclass(frozen=True)
class HeadScores:
    """One head: what its attention is called, and its scores in the order of `SCORES`.

    Scores that are not defined are NaN. `control` is its induction on a diagnostic's control, None
    where the document is no diagnostic.
    """

    attention: str
    name: HeadName
    scores: tuple[float, ...]
    control: float | None = None

    def cells(self, form: str, undefined: str) -> list[str]:
        """The row's texts, scores formatted by `form`; last the control, where there is one."""
        numbers = [*self.scores, *([] if self.control is None else [self.control])]
        cells = [undefined if np.isnan(number) else format(number, form) for number in numbers]
        return [self.attention, str(self.name.layer), str(self.name.head), *cells]


def show_summary(
    stacks: Sequence[Stack],
    form: str,
    file: TextIO,
    warn: Warn = ignore,
    lines: Sequence[str] = (),
) -> None:
    """Print the scores of all heads of these stacks; `form` is one of `choices.SUMMARY_FORMATS`.

    The table has the scores that some head has, and is followed by the strongest heads, and
    further `lines`; CSV has all. Values that are not attention weights have no scores; `warn` gets
    a line about each such stack.
    """
    heads = list(scored_heads(stacks))
    if form == "csv":  # as in RFC 4180: lines end in CR LF
        writer = csv.writer(file)
        writer.writerow([*_HEADER, *_control(heads)])
        writer.writerows(head.cells(".6f", "") for head in heads)
    else:
        if heads:
            _show_table(heads, file)
        paragraphs = [found for found in (strongest(heads), lines) if found]
        for i, found in enumerate(paragraphs):
            print(*([""] if i or heads else []), *found, sep="\n", file=file)
    _warn_of_layers_without(stacks, warn)


def score_rows(stacks: Sequence[Stack], by: str | None = None) -> list[dict[str, Any]]:
    """The scores of all heads of these stacks, which have them: a dict a head, NaN undefined.

    In the order of `ranked` where `by` names a score. Raises `UsageError` for another name.
    """
    heads = list(scored_heads(stacks))
    if by is not None:
        heads = ranked(heads, by)
    header = [*_HEADER, *_control(heads)]
    controls = [[] if head.control is None else [head.control] for head in heads]
    values = (
        (head.attention, head.name.layer, head.name.head, *head.scores, *control)
        for head, control in zip(heads, controls, strict=True)
    )
    return [dict(zip(header, row, strict=True)) for row in values]


def scored_heads(stacks: Sequence[Stack]) -> Iterator[HeadScores]:
    """The heads in the order of the stacks, their layers and heads."""
    several = len({stack.kind for stack in stacks}) > 1
    for stack in stacks:
        assert stack.scores is not None, "read_content computes them"
        kind, control = stack.kind if several else None, control_of(stack)
        for (i, layer), (j, head) in product(enumerate(stack.layers), enumerate(stack.heads)):
            scores = tuple(map(float, stack.scores[i, j]))
            beside = None if control is None else float(control[i, j])
            yield HeadScores(stack.title, HeadName(layer, head, kind), scores, beside)


def ranked(heads: Sequence[HeadScores], by: str) -> list[HeadScores]:
    """The strongest first; of entropy the lowest, which is the most focused. Undefined ones last.

    Equal ones stay in order. Raises `UsageError` where `by` is no score.
    """
    if by not in SCORES:
        close = nearest(str(by), SCORES, limit=1)
        hint = f" Did you mean {quoted_list(close)}?" if close else ""
        raise UsageError(f"{unknown_value('by', by, SCORES)}{hint}")
    sign = 1 if by == LOWEST_FIRST else -1

    def place(head: HeadScores) -> tuple[bool, float]:
        score = head.scores[SCORES.index(by)]
        return (True, 0.0) if np.isnan(score) else (False, sign * score)

    return sorted(heads, key=place)


def strongest(heads: Sequence[HeadScores]) -> list[str]:
    """A line for each score: `Previous token: 1.2 (0.96), 0.3 (0.20), 0.1 (0.14)`."""
    lines = []
    for i in _defined(heads):
        score = SCORES[i]
        title = score.replace("_", " ").capitalize()
        title += " (lowest, most focused)" if score == LOWEST_FIRST else ""
        first = [head for head in ranked(heads, score)[:_NAMED] if not np.isnan(head.scores[i])]
        named = [f"{head.name} ({head.scores[i]:.2f}{_beside(head, score)})" for head in first]
        lines.append(f"{title}: {', '.join(named)}")
    return lines


def _beside(head: HeadScores, score: str) -> str:
    """What the control has, where it is a control of this score."""
    is_of = score == _CONTROLLED and head.control is not None
    return f", control {head.control:.2f}" if is_of else ""


def _control(heads: Sequence[HeadScores]) -> list[str]:
    """The heading of the control, where the heads have one."""
    return [_CONTROL] if any(head.control is not None for head in heads) else []


def _defined(heads: Sequence[HeadScores]) -> list[int]:
    """The places in `SCORES` of those that mean something for some of these heads."""
    return [i for i in range(len(SCORES)) if not all(np.isnan(head.scores[i]) for head in heads)]


def _warn_of_layers_without(stacks: Sequence[Stack], warn: Warn) -> None:
    for stack in stacks:
        assert stack.scores is not None, "read_content computes them"
        without: dict[str, list[int]] = {}
        for number, layer, scores in zip(stack.layers, stack.weights, stack.scores, strict=True):
            if np.isnan(scores).all():
                why = _LARGE_ONLY if layer.above and layer.probabilities else _RAW
                without.setdefault(why, []).append(number)
        for why, numbers in without.items():
            layers = numbered("layer", numbers)
            warn(f"{stack.name}: the values of {layers} {why}, so they have no scores.")


# ---------------------------------------------------------------------------------------- as text


def _show_table(heads: Sequence[HeadScores], file: TextIO) -> None:
    first = len(_HEADER) - len(SCORES)
    kept = [*range(first), *(first + i for i in _defined(heads))]
    names = [*_HEADER, *_control(heads)]
    if _CONTROL in names and (induction := names.index(_CONTROLLED)) in kept:
        kept.insert(kept.index(induction) + 1, names.index(_CONTROL))
    # previous, next: short, as it is wide
    header = [names[i].removeprefix(f"{_CONTROLLED}_").split("_")[0] for i in kept]
    rows = [[cells[i] for i in kept] for cells in (head.cells(".3f", "-") for head in heads)]
    if is_terminal(file):
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
        table.add_column(header[0], overflow="fold")
        for name in header[1:]:
            table.add_column(name, justify="right", min_width=5, overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        Console(file=file).print(table)
        return
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        first, *numbers = row
        cells = [f"{cell:>{width}}" for cell, width in zip(numbers, widths[1:], strict=True)]
        print(f"{first:{widths[0]}}", *cells, sep="  ", file=file)
