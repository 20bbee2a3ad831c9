"""What each layer would predict, as a figure for a paper: a grid of layers and tokens.

A cell has the likeliest token, tinted by its probability, and a dot where it is what really came. A
text that is wider than a page goes on in a band below; see `printed.py` for the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from activations.arguments import numbered
from activations.attention.spelling import readable
from activations.document.predictions import Lens, Predictions
from activations.document.reader import Document
from activations.errors import ToolkitError, UsageError, Warn, ignore
from activations.text import printable
from activations.views.colours import LIGHT, STRONG
from activations.views.names import capture_name, short_model
from activations.views.printed import DOTS, FAINT, INK, MM, printed, printing
from activations.views.tokens import short_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDE, _HIGH = 12.0, 5.5  # mm of a cell
_BAND, _BETWEEN = 14, 6.0  # cells side by side, and mm between bands: a page of A4 or letter
_PAGE = 240.0  # mm
_LETTERS = 8  # in a cell
_SIZE = 7.0  # pt
NO_LENS = "the document has no lens. Capture with --lens logit."


@dataclass(frozen=True)
class LensGrid:
    """What the figure shows: `probability`, `tokens` and `hits` are (layers, columns)."""

    title: str
    layers: tuple[str, ...]
    columns: tuple[str, ...]
    probability: np.ndarray
    tokens: np.ndarray
    hits: np.ndarray
    came: tuple[str, ...] | None
    where: str
    came_title: str

    @property
    def texts(self) -> str:
        """All characters in the figure that come from the document."""
        return "".join((self.title, *self.columns, *(self.came or ()), *self.tokens.flat))


def build_lens_figure(
    document: Document,
    form: str = "svg",
    layers: Sequence[int] | None = None,
    tokens: tuple[int, int] | None = None,
    warn: Warn = ignore,
) -> dict[str, bytes]:
    """{file name: its content} of these layers and token positions (first, end); None is all.

    Raises `ToolkitError` where the document has no lens, `UsageError` where nothing is left, or
    more than a page.
    """
    grid = lens_grid(document, layers, tokens)
    name = f"attention_figure_{capture_name(document.model, document.path.stem)}_lens.{form}"
    with printing(grid.texts, form, warn):
        return {name: printed(draw(grid), grid.title, form)}


def lens_grid(
    document: Document, layers: Sequence[int] | None, tokens: tuple[int, int] | None
) -> LensGrid:
    """What to draw of a document's lens; see `build_lens_figure`."""
    predictions, lens = document.predictions, document.lens
    if predictions is None or lens is None:
        raise ToolkitError(f"--figure lens: {NO_LENS}")
    first, end = tokens or (0, len(predictions.ids))
    places = np.flatnonzero((lens.positions >= first) & (lens.positions < end))
    if not len(places):
        raise UsageError("--figure lens: the lens has none of these --tokens. Choose others.")
    rows = _rows(layers, len(lens.layers))
    _check_size(len(rows), len(places))
    text = document.header.get(predictions.text or "")
    named = readable(text) if text and len(text) == len(predictions.ids) else None
    positions = lens.positions[places]
    return LensGrid(
        f"{short_model(document.model)}, what each layer would predict",
        tuple("Output" if row == len(lens.layers) - 1 else f"Layer {row}" for row in rows),
        _columns(predictions, named, positions),
        lens.probabilities[rows][:, places, 0],
        _tokens(lens.tokens[rows][:, places, 0], predictions.of, text),
        _hits(lens, rows, places),
        _came(predictions, named, positions),
        {"next_token": "After", "masked_token": "At"}.get(predictions.of, "Of"),
        "What came" if predictions.of == "next_token" else "In the text",
    )


def _rows(layers: Sequence[int] | None, count: int) -> list[int]:
    if layers is None:
        return list(range(count))
    found = sorted({layer + count if layer < 0 else layer for layer in layers})
    if not found or found[0] < 0 or found[-1] >= count:
        there = numbered("layer", range(count))
        raise UsageError(f"--figure lens: there is no such layer. The lens has {there}.")
    return found


def _check_size(rows: int, columns: int) -> None:
    """Raise `UsageError` where that does not fit a page; one band may be as high as it is."""
    bands = max(int(_PAGE // ((rows + 2) * _HIGH + _BETWEEN)), 1)
    if columns > bands * _BAND:
        most = bands * _BAND
        raise UsageError(
            f"--figure lens: {columns} tokens in {rows} layers do not fit a page. Show at most "
            f"{most}, as in --tokens 0:{most}, or fewer --layers."
        )


def _columns(
    predictions: Predictions, named: list[str] | None, positions: np.ndarray
) -> tuple[str, ...]:
    if named is not None:
        return short_labels([named[position] for position in positions], _LETTERS)
    return ("",) if len(predictions.ids) == 1 else tuple(map(str, positions))


def _tokens(tokens: np.ndarray, of: str, like: Sequence[str] | None) -> np.ndarray:
    plain = tokens.ravel().tolist()
    shown = list(map(printable, plain)) if of == "label" else readable(plain, like)
    return np.array(short_labels(shown, _LETTERS), dtype=object).reshape(tokens.shape)


def _hits(lens: Lens, rows: list[int], places: np.ndarray) -> np.ndarray:
    """Where the likeliest is what really came."""
    ranks = np.zeros(lens.ids.shape[:2]) if lens.actual is None else lens.actual.rank
    hits: np.ndarray = ranks[rows][:, places] == 1
    return hits


def _came(
    predictions: Predictions, named: list[str] | None, positions: np.ndarray
) -> tuple[str, ...] | None:
    if predictions.actual is None or named is None:
        return None
    ahead = int(predictions.of == "next_token")
    came = [named[p + ahead] if p + ahead < len(named) else "\u2013" for p in positions]
    return short_labels(came, _LETTERS)


# --------------------------------------------------------------------------------------- drawing


def draw(grid: LensGrid) -> Figure:
    """The figure, of its size in print."""
    from matplotlib.figure import Figure

    rows, columns = grid.probability.shape
    wide = min(columns, _BAND)
    bands = [range(first, min(first + _BAND, columns)) for first in range(0, columns, _BAND)]
    high = (rows + 2) * _HIGH + _BETWEEN
    figure = Figure(figsize=(wide * _WIDE * MM, high * len(bands) * MM), dpi=DOTS)
    for number, band in enumerate(bands):
        bottom = 1 - (number + 1) / len(bands)
        axes = figure.add_axes((0, bottom, len(band) / wide, 1 / len(bands)))
        cells = _draw_band(axes, grid, band, high / _HIGH)
        if not number:
            axes.set_title(grid.title, loc="left", fontweight="bold", pad=6)
            _draw_bar(figure, cells, wide, bands, rows, high)
    return figure


def _draw_band(axes: Axes, grid: LensGrid, band: range, high: float) -> Any:
    """The columns of a band: what they are called above, what came below. `high` is in cells."""
    from matplotlib.colors import LinearSegmentedColormap

    rows = len(grid.layers)
    axes.set(xlim=(0, len(band)), ylim=(high - 1, -1))
    axes.axis("off")
    shown = np.ma.masked_invalid(grid.probability[:, band])
    colours = LinearSegmentedColormap.from_list("attention", LIGHT)
    cells = axes.pcolormesh(shown, cmap=colours, vmin=0, vmax=1, edgecolors="white", linewidth=0.8)
    for row, name in enumerate(grid.layers):
        _write(axes, -0.1, row, name, "right")
    _write(axes, -0.1, -1, grid.where if any(grid.columns) else "", "right")
    if grid.came is not None:
        _write(axes, -0.1, rows, grid.came_title, "right")
    for place, column in enumerate(band):
        _write(axes, place + 0.06, -1, grid.columns[column])
        if grid.came is not None:
            _write(axes, place + 0.06, rows, grid.came[column])
        for row in range(rows):
            probability = grid.probability[row, column]
            ink = "white" if probability > STRONG else "black"
            _write(axes, place + 0.06, row, grid.tokens[row, column], color=ink)
            if grid.hits[row, column]:
                axes.plot(place + 0.93, row + 0.18, "o", color=ink, markersize=1.6)
    return cells


def _write(
    axes: Axes, x: float, row: int, text: str, align: str = "left", color: str = INK
) -> None:
    axes.text(x, row + 0.5, text, color=color, fontsize=_SIZE, ha=align, va="center_baseline")


def _draw_bar(
    figure: Figure, cells: Any, wide: int, bands: Sequence[range], rows: int, high: float
) -> None:
    whole = high * len(bands)
    top, height = 1 - _HIGH / whole, max(rows * _HIGH, 20.0) / whole
    axes = figure.add_axes((1 + 4 / (wide * _WIDE), top - height, 3.5 / (wide * _WIDE), height))
    bar = figure.colorbar(cells, cax=axes, ticks=[0, 0.5, 1])
    bar.set_ticklabels(["0", ".5", "1"])
    if bar.solids is not None:
        bar.solids.set(edgecolor="face", linewidth=0.1, rasterized=False)
    bar.outline.set(linewidth=0.5, edgecolor=FAINT)
    axes.set_ylabel("Probability")
