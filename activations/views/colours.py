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
    *("#16181c", "#1e2d40", "#214368", "#265b8c", "#3674ab"),
    *("#458ecb", "#67a7e1", "#92c1ec", "#b9dcf7"),
]
# Of heads and of layers, in their order: bertviz's own on white, softer ones on a dark page.
HEADS_LIGHT = [
    *("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd"),
    *("#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf"),
]
HEADS_DARK = [
    *("#6aaede", "#f7ab63", "#74c476", "#ee8181", "#b79ad6"),
    *("#c49c94", "#eda9d5", "#b5b5b5", "#d3d46e", "#6fd5e0"),
]
# Of the colours; beyond, a number is read better in the paper's colour than in ink.
STRONG, STRONG_DARK = 0.638, 0.53
# Of a difference, from -1 through 0, the paper, to 1: by the root of its size. Protan, deutan and
# tritan readers can tell equal steps of the two signs apart.
DIFFERENCE_LIGHT = [
    *("#8a2a08", "#be552b", "#e48960", "#f7c4a6", "#ffffff"),
    *("#abcfe7", "#689ccb", "#2b6ba7", "#0c3a78"),
]
DIFFERENCE_DARK = [
    *("#fbd3bd", "#e68f65", "#ae5b34", "#6b3219", "#16181c"),
    *("#214368", "#3674ab", "#67a7e1", "#b9dcf7"),
]
