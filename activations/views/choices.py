"""The choices that users make by name, listed once for the parser, the checks and the messages.

Nothing is imported here, because `--help` reads this file.
"""

from __future__ import annotations

VIEWS = ("head", "model")  # of pages
FIGURE_FORMATS = ("svg", "png", "pdf")
LENS = "lens"  # a figure beside those of heads
SUMMARY_FORMATS = ("table", "csv")
