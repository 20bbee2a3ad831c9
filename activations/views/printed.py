"""A figure for a paper, drawn by matplotlib -> a file as SVG, PNG or PDF.

By its object API, never pyplot: no display is needed and no state is shared. The same call gives
the same bytes on one machine: there are no dates in the files, ids come from what they stand for,
and a user's own matplotlib settings are not read. Text stays text in SVG and PDF, so that it can
be searched and edited.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from activations.errors import Warn

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MM = 1 / 25.4  # inches
DOTS = 600  # an inch: what journals ask for where a picture holds text
INK, FAINT = "#222222", "#999999"
_NAMED = 10  # characters
_DATES = {"svg": "Date", "pdf": "CreationDate"}  # what matplotlib calls the date of a file


def printed(figure: Figure, title: str, form: str) -> bytes:
    """The file's content: as large as what is drawn, and without a date."""
    metadata: dict[str, str | None] = {"Title": title}
    if form in _DATES:
        metadata[_DATES[form]] = None
    content = io.BytesIO()
    figure.savefig(content, format=form, bbox_inches="tight", pad_inches=0.04, metadata=metadata)
    return content.getvalue()


@contextmanager
def printing(characters: str, form: str, warn: Warn) -> Iterator[None]:
    """Inside the block, matplotlib has its defaults, changed by ours, and fonts that have these
    characters. `warn` gets one line about characters that no installed font has.
    """
    with _quiet():
        import matplotlib

        from activations.views.fonts import families_for

        families, missing = families_for(characters)
        if missing and form != "svg":  # an SVG is drawn with the fonts of the machine that opens it
            more = " ..." * (len(missing) > _NAMED)
            warn(
                f"no installed font has {' '.join(missing[:_NAMED])}{more}; boxes are drawn "
                "instead. Install a font that does, or use --output-format svg."
            )
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            settings: Any = {**_STYLE, "font.family": families}
            matplotlib.rcParams.update(settings)
            yield


_STYLE: dict[str, Any] = {
    "font.size": 8,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.linewidth": 0.5,
    "axes.edgecolor": FAINT,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.major.size": 2,
    "ytick.major.size": 2,
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "hatch.linewidth": 0.4,
    "text.parse_math": False,  # a dollar sign is a dollar sign
    "svg.fonttype": "none",
    "svg.hashsalt": "agnostic-activations",
    "pdf.fonttype": 42,  # TrueType, as publishers want it
}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without matplotlib's messages about fonts and caches; ours is about missing fonts."""
    logger = logging.getLogger("matplotlib")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="matplotlib")
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            yield
    finally:
        logger.setLevel(before)
