"""Text made safe to show: on a terminal, in HTML, in JSON."""

from __future__ import annotations

import html


def printable(text: str) -> str:
    """The text with what cannot be printed spelled out: `\\x1b`. No escape code is left in it."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def encodable(text: str) -> str:
    """JSON may hold halves of characters, which UTF-8 does not."""
    return text.encode("utf-8", "replace").decode("utf-8")


def html_text(text: str) -> str:
    """Escaped for HTML text and attributes. A carriage return would be read as a newline."""
    return html.escape(encodable(text).replace("\0", "\ufffd")).replace("\r", "&#13;")
