"""A head map -> a figure for a paper: a heat map as SVG, PNG or PDF; see `printed.py`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from activations.errors import Warn
from activations.views.colours import LIGHT, STRONG
from activations.views.printed import DOTS, FAINT, MM, printed, printing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

_CELL = 4.5  # mm; a label of 8 pt has room beside it
_ROOMY_CELL = 8.0  # mm; room for a number of 7 pt in it
_ROOMY = 12  # tokens a side, up to which the weights are written into the cells
_WIDEST, _HIGHEST = 115.0, 180.0  # mm; with the labels it fits a page of A4 or letter
_LEAST = 20.0  # mm; for a title and a label of the axis beside it
_SINGLE_CELLS = 10_000  # are drawn as shapes; more as one picture, which stays small
_LABEL, _SMALLEST_LABEL = 8.0, 5.0  # pt
_LINE = 1.25  # a label's height in its size
_TICKS = (0, 0.1, 0.3, 0.6, 1)  # of the range, about evenly apart by the root


@dataclass(frozen=True)
class HeadMap:
    """What one figure shows: `weights` (rows, columns), masked where there is no number to show.

    `row_start` and `column_start` are the positions in the text of the first row and the first
    column. `is_raw` says that the values are not weights from 0 to 1 but scores before the softmax.
    `unit` is what rows and columns are: "token" or "word".
    """

    title: str
    subtitle: str
    weights: np.ma.MaskedArray[Any, Any]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    row_start: int
    column_start: int
    is_raw: bool
    unit: str = "token"

    @property
    def texts(self) -> str:
        """All characters in the figure that come from the document."""
        return "".join((self.subtitle, *self.rows, *self.columns))

    @property
    def range(self) -> tuple[float, float]:
        """The values at the ends of the colours.

        Weights: 0 and 1, so that one colour is one weight in all figures. Raw scores have no zero
        that means anything, so theirs go from the least to the largest.
        """
        if not self.is_raw or not self.weights.count():
            return 0.0, 1.0
        low, high = float(self.weights.min()), float(self.weights.max())
        return (low, high) if high > low else (low, low + 1.0)


def figure_files(heads: Sequence[HeadMap], form: str, warn: Warn) -> list[bytes]:
    """Each head's figure as a file; `form` is one of `choices.FIGURE_FORMATS`.

    `warn` gets one line about characters that no installed font has.
    """
    with printing("".join(head.texts for head in heads), form, warn):
        return [printed(draw(head), head.title, form) for head in heads]


# --------------------------------------------------------------------------------------- drawing


def draw(head: HeadMap) -> Figure:
    """The figure, of its size in print: cells of 4.5 mm, or as small as makes it fit a page."""
    from matplotlib.figure import Figure

    rows, columns = head.weights.shape
    cell = _ROOMY_CELL if max(rows, columns) <= _ROOMY else _CELL
    cell = min(cell, _WIDEST / columns, _HIGHEST / rows)
    width, height = max(cell * columns, _LEAST), max(cell * rows, _LEAST)
    figure = Figure(figsize=(width * MM, height * MM), dpi=DOTS)
    axes = figure.add_axes((0, 0, 1, 1))  # labels stand outside; saving makes room for them
    cells = _draw_cells(axes, head, width / columns)
    _label(axes.xaxis, head.columns, head.column_start, width / columns)
    _label(axes.yaxis, head.rows, head.row_start, height / rows)
    axes.tick_params("x", rotation=90)
    axes.set_xlabel(f"Attended {head.unit}")
    axes.set_ylabel(f"Attending {head.unit}")
    axes.set_title(head.title, loc="left", fontweight="bold", pad=17)
    axes.annotate(
        head.subtitle, (0, 1), (0, 5), "axes fraction", textcoords="offset points", va="bottom"
    )
    beside, wide, high = 4 / width, 3.5 / width, max(height, _LEAST + 5) / height
    bar = figure.add_axes((1 + beside, 1 - high, wide, high))
    _draw_bar(figure, bar, cells, head)
    return figure


def _draw_cells(axes: Axes, head: HeadMap, cell: float) -> ScalarMappable:
    """The heat map, rows from the top; what is masked is left to a hatched ground."""
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    rows, columns = head.weights.shape
    if np.ma.getmaskarray(head.weights).any():
        axes.patch.set(facecolor="#dddddd", edgecolor=FAINT, hatch="//////")
    colours: dict[str, Any] = {
        "cmap": LinearSegmentedColormap.from_list("attention", LIGHT),
        "norm": PowerNorm(0.5, *head.range),
    }
    axes.set(xlim=(0, columns), ylim=(rows, 0))
    if rows * columns > _SINGLE_CELLS:
        extent = (0, columns, rows, 0)
        return axes.imshow(
            head.weights, extent=extent, aspect="auto", interpolation="none", **colours
        )
    # Thin white lines between the cells; around small cells lines of their own colour, or viewers
    # would show gaps.
    edges: dict[str, Any] = {"edgecolors": "white", "linewidth": 0.4}
    if cell < _CELL / 2:
        edges = {"edgecolors": "face", "linewidth": 0.1}
    cells = axes.pcolormesh(head.weights, **colours, **edges)
    if max(rows, columns) <= _ROOMY:
        _write_values(axes, head, cells)
    return cells


def _write_values(axes: Axes, head: HeadMap, cells: ScalarMappable) -> None:
    """The weights to two decimals; `0` where there is none at all, as before the first token."""
    form = "z.1f" if head.is_raw else ".2f"  # z: no minus before a zero
    there = np.argwhere(~np.ma.getmaskarray(head.weights)).tolist()
    values = {(row, column): head.weights[row, column] for row, column in there}
    texts = {place: format(value, form) if value else "0" for place, value in values.items()}
    if max(map(len, texts.values()), default=0) > 6:  # they would not fit
        return
    strengths = np.asarray(cells.norm(head.weights))
    for (row, column), text in texts.items():
        axes.text(
            column + 0.5,
            row + 0.5,
            text.replace("-", "\u2212"),  # as on the colour bar
            color="white" if strengths[row, column] > STRONG else "black",
            fontsize=7,
            ha="center",
            va="center_baseline",
        )


def _label(axis: Axis, labels: Sequence[str], first: int, cell: float) -> None:
    """A token at each cell; where they would overlap, at every second, third, ... with its number.

    `cell` is the room for a label, in mm.
    """
    room = cell * MM * 72
    size = min(max(room / _LINE, _SMALLEST_LABEL), _LABEL)
    step = math.ceil(size * _LINE / room)
    places = range(0, len(labels), step)
    # Virtual tokens before the text have no number.
    texts = [
        f"{first + i}: {labels[i]}" if step > 1 and first + i >= 0 else labels[i] for i in places
    ]
    axis.set_ticks([i + 0.5 for i in places], texts, fontsize=size)


def _draw_bar(figure: Figure, axes: Axes, cells: ScalarMappable, head: HeadMap) -> None:
    low, high = head.range
    ticks = [low + (high - low) * share for share in _TICKS]
    bar = figure.colorbar(cells, cax=axes, ticks=ticks)
    bar.set_ticklabels([f"{tick:.3g}".replace("-", "\u2212") for tick in ticks])
    if bar.solids is not None:
        bar.solids.set(edgecolor="face", linewidth=0.1, rasterized=False)
    bar.outline.set(linewidth=0.5, edgecolor=FAINT)
    axes.set_ylabel("Raw attention score" if head.is_raw else "Attention weight")
