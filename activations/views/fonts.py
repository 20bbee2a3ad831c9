"""Which fonts a figure needs, so that every token in it can be read.

matplotlib brings DejaVu Sans, which has Latin, Greek, Cyrillic, Arabic, Hebrew and most signs.
For what it lacks (Chinese, Japanese, Korean, emoji) the fonts installed on the machine are asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import matplotlib
from matplotlib.font_manager import FontProperties, findfont, fontManager
from matplotlib.ft2font import FT2Font, LoadFlags

FIRST = "DejaVu Sans"


def families_for(characters: Iterable[str]) -> tuple[list[str], str]:
    """Font families that have these characters, the first being `FIRST`; and those in none.

    Each time the family with most of what is missing is taken, of equal ones the first by name.
    Other fonts than `FIRST` are only opened when it does not do.
    """
    first = _opened(FIRST)
    missing = {c for c in characters if first is None or not first.get_char_index(ord(c))}
    families = [FIRST]
    drawn = {name: _drawn(name, missing) for name in _others()} if missing else {}
    while drawn:
        best = max(drawn, key=lambda name: len(drawn[name] & missing))
        if not drawn[best] & missing:
            break
        families.append(best)
        missing -= drawn.pop(best)
    return families, "".join(sorted(missing))


def _others() -> list[str]:
    """The families installed. Those that come with matplotlib are for formulas, or draw boxes."""
    bundled = matplotlib.get_data_path()
    found = {e.name for e in fontManager.ttflist if not Path(e.fname).is_relative_to(bundled)}
    return sorted(found - {FIRST})


def _opened(family: str) -> FT2Font | None:
    """The file that matplotlib takes for ordinary text in this family; None if it is gone."""
    try:
        found = findfont(FontProperties(family=family), fallback_to_default=False)
        return FT2Font(found.path, face_index=found.face_index)
    except (OSError, RuntimeError, ValueError):
        return None


def _drawn(family: str, characters: set[str]) -> set[str]:
    """Those of these characters for which the family has an outline.

    Fonts of coloured emoji hold pictures instead, which matplotlib would leave out in silence.
    """
    font = _opened(family)
    if font is None or not font.scalable:
        return set()
    found = {c for c in characters if font.get_char_index(ord(c))}
    return {c for c in found if _has_outline(font, c)}


def _has_outline(font: FT2Font, character: str) -> bool:
    try:
        font.load_char(ord(character), flags=LoadFlags.NO_SCALE)
    except RuntimeError:
        return False
    vertices, _ = font.get_path()
    return len(vertices) > 0
