"""Text made safe to show: on a terminal, in HTML, in JSON.

Characters that cannot be seen, or that turn the direction of the text around them, are spelled out:
nobody is to be misled by them. Some that cannot be seen on their own belong to others that can:
joiners in Persian, Indic scripts and emoji, variation selectors, the tags of a flag. There they are
shown as they are.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from unicodedata import category, combining, east_asian_width

_FORMAT = {"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"}  # categories of what is not seen
# Of them, signs that stand around a number (Arabic, Syriac, Kaithi), and can be seen.
_SEEN = frozenset(
    "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
)
# In other categories: fillers, vowels that are not written, an empty braille cell.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_JOINERS = frozenset("\u034f\u180e\u200c\u200d")
_VARIATION = re.compile("[\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
# England's: a black flag, the letters of the region as tags, a tag that ends them.
_FLAG = re.compile("\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{1,6}\U000e007f")
_VIRAMA = 9  # the combining class of signs that let the next letter join


def printable(text: str) -> str:
    """The text with what cannot be printed spelled out: `\\x1b`. No escape code is left in it."""
    if text.isprintable() and text.isascii():
        return text
    found = spelled_out(text, lambda c: c if c == " " else ascii(c)[1:-1])
    # Nor are characters that only their owners or later versions of Unicode know.
    return "".join(ascii(c)[1:-1] if category(c) in ("Cn", "Co") else c for c in found)


def spelled_out(text: str, spell: Callable[[str], str]) -> str:
    """The text with `spell(c)` in place of every character that cannot be seen, spaces too."""
    if text.isascii() and text.isprintable() and " " not in text:
        return text
    in_flags = {i for flag in _FLAG.finditer(text) for i in range(*flag.span())}
    found = []
    before = ""  # the character before, where it is shown as it is
    for i, c in enumerate(text):
        is_shown = i in in_flags or is_seen(c) or _is_part(c, before, text[i + 1 : i + 2])
        found.append(c if is_shown else spell(c))
        before = c if is_shown else ""
    return "".join(found)


def is_seen(c: str) -> bool:
    """Whether a character can be seen on its own, and is one at all."""
    if c.isascii():
        return " " < c < "\x7f"
    is_none = ord(c) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(c) <= 0xFDEF  # which XML cannot hold
    if is_none or c in _BLANK or _VARIATION.match(c):
        return False
    return c in _SEEN or category(c) not in _FORMAT


def _is_part(c: str, before: str, after: str) -> bool:
    """Whether it changes how its neighbours look."""
    if not before:
        return False
    if c in _JOINERS:
        return _is_joined(before, after)
    return bool(_VARIATION.match(c)) and is_seen(before)


def _is_joined(before: str, after: str) -> bool:
    """Whether a joiner between these has something to join; a virama is changed by it alone."""
    if combining(before) == _VIRAMA:
        return True
    return bool(after) and is_seen(after) and (_can_join(before) or _can_join(after))


def _can_join(c: str) -> bool:
    """Marks, symbols (emoji) and letters of scripts without case, but not Chinese or Korean."""
    kind = category(c)
    if kind in ("Lo", "Lm"):
        return east_asian_width(c) != "W"
    return not c.isascii() and (kind[0] == "M" or kind in ("Sk", "Sm", "So"))


def counted(number: int, what: str) -> str:
    """`1 token`, `1,500 frames`, `9 patches`."""
    ending = "" if number == 1 else "es" if what.endswith("ch") else "s"
    return f"{number:,} {what}{ending}"


def encodable(text: str) -> str:
    """JSON may hold halves of characters, which UTF-8 does not."""
    return text.encode("utf-8", "replace").decode("utf-8")


def html_text(text: str) -> str:
    """Escaped for HTML text and attributes. A carriage return would be read as a newline."""
    return html.escape(encodable(text).replace("\0", "\ufffd")).replace("\r", "&#13;")
