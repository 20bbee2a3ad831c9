"""How heat maps are coloured: in the pages and in the figures alike, so that they can be compared.

The colour goes by the root of the weight, from none at 0 to full at 1: most weights are a few
percent, and by the weight itself they would hardly be seen. Raw scores, whose zero means nothing,
go from the least to the largest.

One hue, so that nobody's colour vision matters; no attention is the paper's own colour. Each list
is evenly spaced in lightness (CIE L*, computed from the luminance of sRGB, IEC 61966-2-1), so that
equal steps look equal, in grey too; between its colours it is interpolated in sRGB.
"""

from __future__ import annotations

LIGHT = [
    *("#ffffff", "#d4e5f3", "#a6cce6", "#79b3d9", "#5298ca"),
    *("#347db8", "#1f62a1", "#124987", "#08306b"),
]
DARK = [
    *("#000000", "#081c30", "#0e3052", "#154774", "#205e96"),
    *("#3177b5", "#4b91cf", "#6cabe3", "#93c5f2"),
]
STRONG = 0.638  # of the colours; beyond, a number is read better in the paper's colour than in ink
