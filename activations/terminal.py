"""Whether somebody is looking: a terminal that moves its cursor, or a file, pipe or dumb one."""

from __future__ import annotations

import os
from typing import TextIO


def is_terminal(file: TextIO) -> bool:
    """Whether tables, bars and other things that are more than lines of text may go there."""
    return file.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")
