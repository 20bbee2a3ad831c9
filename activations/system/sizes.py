"""Numbers of bytes, as people read them."""

from __future__ import annotations


def size_text(count: int) -> str:
    """`3.6 kB`, `400 MB`: two digits, as more would promise too much."""
    from rich.filesize import decimal  # not at the top: the command lines import this

    return decimal(int(float(f"{count:.1e}"))).replace(".0 ", " ")
