"""Heads of a document -> figures of them: file names, titles, labels, values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from activations.attention.heads import HeadName, stacks_with
from activations.attention.layer import as_dense
from activations.attention.stack import Stack, showable
from activations.attention.words import can_merge, column_words, merged, row_words
from activations.errors import UsageError, Warn, ignore
from activations.outputs.sparse import Sparse
from activations.text import printable
from activations.views.content import Caption
from activations.views.heat_map import HeadMap, figure_files
from activations.views.names import capture_name
from activations.views.tokens import labels, labels_of_words, short_labels, shortened

MOST_TOKENS = 3000  # a side; in print, at 600 dpi, each is one dot
_LABEL_WIDTH = 20  # Latin letters; a Chinese character counts as two


def build_figures(
    heads: Sequence[HeadName],
    caption: Caption,
    stacks: Sequence[Stack],
    form: str = "svg",
    warn: Warn = ignore,
    words: bool = False,
) -> dict[str, bytes]:
    """{file name: its content}, a figure for each head in each kind of attention that has it.

    `form` is one of `choices.FIGURE_FORMATS`; with `words`, tokens are merged to words where they
    can be. `warn` gets a line about characters that no
    installed font has. Raises `UsageError` for a head that is not there and for more than
    `MOST_TOKENS` tokens.
    """
    found = [(name, stack) for name in heads for stack in stacks_with(name, stacks, "--figure")]
    maps = {}
    for name, stack in found:
        merges = words and can_merge(stack)
        file = _file_name(name, caption, stack, stacks, merges)
        maps[f"{file}.{form}"] = head_map(name, caption, stack, stacks, merges)
    return dict(zip(maps, figure_files(list(maps.values()), form, warn), strict=True))


def head_map(
    name: HeadName, caption: Caption, stack: Stack, stacks: Sequence[Stack], words: bool = False
) -> HeadMap:
    """What to draw of a head. `stack` has it; it is one of all `stacks` of the document.

    With `words`, which takes weights, tokens are merged to words. Raises `UsageError` where there
    are more than `MOST_TOKENS` of what is drawn.
    """
    row_labels, column_labels = labels_of_words(stack) if words else labels(stack)
    unit = "word" if words else "token"
    most = max(len(row_labels), len(column_labels))
    if most > MOST_TOKENS:
        raise UsageError(
            f"--figure {name}: a figure of {most} {unit}s is unreadable. Show at most "
            f"{MOST_TOKENS}, as in --tokens 0:{MOST_TOKENS}."
        )
    subtitle = shortened(printable(caption.title), 60)
    if len(stacks) > 1:
        is_only_one = sum(other.kind == stack.kind for other in stacks) == 1
        kind = f"{stack.kind.replace('_', ' ')} attention"
        subtitle += f", {kind if is_only_one else stack.title}"
    layer = stack.layers.index(name.layer)
    head = stack.weights[layer].head(stack.heads.index(name.head))
    starts = (stack.row_start, stack.start)
    if words:
        sides = row_words(stack), column_words(stack)
        head, starts = merged(head, *sides), (int(sides[0][0]), int(sides[1][0]))
    weights = as_dense(head).astype(np.float64)
    if isinstance(head, Sparse):
        subtitle += f", weights above {head.above:g}"
    return HeadMap(
        title=f"Layer {name.layer}, Head {name.head}",
        subtitle=subtitle,
        weights=np.ma.masked_array(weights, ~showable(weights)),
        rows=short_labels(row_labels, _LABEL_WIDTH),
        columns=short_labels(column_labels, _LABEL_WIDTH),
        row_start=starts[0],
        column_start=starts[1],
        is_raw=not stack.probabilities[layer],
        unit=unit,
    )


def _file_name(
    name: HeadName, caption: Caption, stack: Stack, stacks: Sequence[Stack], words: bool
) -> str:
    """`attention_figure_{model}_layer_3_head_5`, with the kind where several have this head."""
    alike = [other for other in stacks if name.layer in other.layers and name.head in other.heads]
    kind = ""
    if len(alike) > 1:
        of_kind = [other for other in alike if other.kind == stack.kind]
        number = 1 + next(i for i, other in enumerate(of_kind) if other is stack)
        kind = f"{stack.kind}_" if number == 1 else f"{stack.kind}_{number}_"
    head = f"layer_{name.layer}_head_{name.head}" + ("_words" if words else "")
    return f"attention_figure_{capture_name(caption.model, caption.document)}_{kind}{head}"
