"""Which fonts a figure needs, so that every token in it can be read.

matplotlib brings DejaVu Sans, which has Latin, Greek, Cyrillic, Arabic, Hebrew and most signs.
For what it lacks (Chinese, Japanese, Korean, emoji) it takes the next family of a list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import matplotlib
from matplotlib.font_manager import findfont, fontManager, get_font

from activations.text import is_seen

FIRST = "DejaVu Sans"
_NO_OUTLINES = re.compile(r"Colou?r Emoji|Last ?Resort")  # pictures, or boxes for all characters


def families_for(characters: Iterable[str]) -> tuple[list[str], str]:
    """Font families that have these characters, the first being `FIRST`; and those in none."""
    needed = set(filter(is_seen, characters))  # others shape their neighbours, and are not drawn
    families, missing = [FIRST], needed - _drawn(FIRST, needed)
    for name in _others() if missing else ():
        if found := _drawn(name, missing):
            families.append(name)
            missing -= found
    return families, "".join(sorted(missing))


def _others() -> list[str]:
    """The families installed; those that come with matplotlib are for formulas, or draw boxes."""
    bundled = matplotlib.get_data_path()
    found = {e.name for e in fontManager.ttflist if not Path(e.fname).is_relative_to(bundled)}
    names = (name for name in found if not _NO_OUTLINES.search(name))
    return sorted(names, key=lambda name: (not name.startswith("Noto Sans"), name))


def _drawn(family: str, characters: Iterable[str]) -> set[str]:
    """Those of these characters that the family has."""
    try:
        font = get_font(findfont(family, fallback_to_default=False))
    except (OSError, RuntimeError, ValueError):  # gone since matplotlib made its list
        return set()
    return {c for c in characters if font.get_char_index(ord(c))}
