"""A document -> attention matrices with their layers, kinds and tokens. numpy only."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from activations.arguments import numbered
from activations.attention.layer import Layer, Opened, are_same, sums_of
from activations.attention.scores import SCORES
from activations.attention.sides import (
    Header,
    column_of,
    find_sides,
    picture_of,
    tokens_of,
    why_fewer_rows,
)
from activations.attention.stack import Stack
from activations.attention.words import words_of_sides
from activations.document.header import is_count
from activations.document.json_file import damaged
from activations.document.reader import Document
from activations.errors import ToolkitError, Warn, ignore
from activations.outputs.sparse import Sparse, are_probabilities
from activations.outputs.tree import Element
from activations.program import CAPTURE, command_line

# Kinds of attention in the order in which they are shown; the towers of a model come after.
_KINDS = ("self", "encoder", "decoder", "cross")
_KIND = re.compile(r"[a-z0-9_]{1,60}")
_MAX_LAYER = 1_000_000  # a layer number is smaller
_MAX_PLACES = 10_000  # each takes space in the page, however small it is
_CROSS_NAME = re.compile(r"cross|encoder_attn|EncDec", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """Where one layer's attention weights are in the document.

    `axes` turns them into (batch, heads, rows, columns), where they are in another order (XLNet).
    """

    module: str
    element: Element
    layer: int
    kind: str
    axes: tuple[int, ...] | None = None

    @property
    def where(self) -> str:
        return f"{self.module}, element {'/'.join(map(str, self.element)) or 'output'}"

    @property
    def pattern(self) -> str:
        """The module's name with its layer number replaced."""
        return re.sub(r"(^|(?<=\.))\d+(?=\.|$)", "{layer}", self.module.split("@")[0], count=1)


def read_attention(
    document: Document, warn: Warn = ignore, tokens: Mapping[str, list[str]] | None = None
) -> list[Stack]:
    """All attention weights of a document, stacked by kind and shape.

    `tokens` are those that were looked up for a document that has only ids, by their keys in a
    header ("tokens", "decoder_tokens"). Layers that cannot be shown token by token are left out
    with a warning. Raises `ToolkitError` when the document holds no attention weights, a batch of
    more than one, or nothing of the shape `(batch, heads, seq_len, seq_len)`; there may be fewer
    rows than columns.
    """
    places = find_weights(document)
    if not places:
        raise ToolkitError(_nothing_there(document))
    if len(places) > _MAX_PLACES:
        raise ToolkitError(
            f"'{document.path}' holds {len(places)} tensors of attention weights, and no view "
            f"shows more than {_MAX_PLACES}. Capture fewer modules."
        )
    header = {**document.header, **(tokens or {})}
    found: list[_Found] = []
    problems: dict[_Problem, list[str]] = {}
    for place in places:
        one = _Found(document, place)
        problem = _problem(one, len(tokens_of(header, place.kind) or ()))
        if problem is None:
            found.append(one)
        else:
            problems.setdefault(problem, []).append(place.where)
    if not found:
        problem, wheres = next(iter(problems.items()))
        raise ToolkitError(f"{problem.title}{wheres[0]} {problem.fact}. {problem.advice}")
    for problem, wheres in problems.items():
        more = f" (and {len(wheres) - 1} more)" if len(wheres) > 1 else ""
        warn(f"{problem.title}{wheres[0]}{more} {problem.fact}. Left out.")
    return _stacked(header, _without_duplicates(found), warn)


class _Found:
    """Attention weights in a document: where, and of what shape. Nothing is read yet."""

    def __init__(self, document: Document, place: Place) -> None:
        self._document, self.place = document, place
        self.shape = _shape(document, place)
        # What a document says of a shape is believed where it has room for so many numbers.
        if len(self.shape) == 4 and math.prod(self.shape) > document.text_size(place.module):
            self._open()

    @cached_property
    def layer(self) -> Layer:
        heads, rows, columns = self.shape[1:]
        header = self._document.header
        lists = header.get("scores", ()), header.get("diagnostic", {}).get("control", ())
        known, control = (_scores_in(entries, self.place, heads) for entries in lists)
        stored, memory = self._document.cost(self.place.module, self.place.element)
        return replace(
            Layer.whole(self._open, heads, rows, columns),
            stored=stored,
            memory=memory,
            known_scores=known,
            control=control,
        )

    def _open(self) -> Opened:
        document, place = self._document, self.place
        found = document.matrices(place.module, place.element, place.axes)
        if not isinstance(found, Sparse):
            return found
        if found.shape != self.shape:
            raise damaged(document.path, place.module, "two shapes of one tensor differ")
        return found.part

    @property
    def sums_to_one(self) -> bool:
        """Whether these are attention weights: rows sum to 1, or to less where there are sinks."""
        most, finite = 0.0, False
        for head in self.layer.each_head():
            if isinstance(head, np.ndarray) and not are_probabilities(head):
                return False
            sums = sums_of(head)
            finite = finite or bool(np.isfinite(sums).any())
            most = max(most, float(sums.max(initial=0, where=np.isfinite(sums))))
        return 0 < most <= 1.05 or not finite

    def same_as(self, other: _Found) -> bool:
        """Whether two tensors hold the same numbers."""
        return self.shape == other.shape and all(
            are_same(a, b)
            for a, b in zip(self.layer.each_head(), other.layer.each_head(), strict=True)
        )


def _shape(document: Document, place: Place) -> tuple[int, ...]:
    """The tensor's (batch, heads, rows, columns), where it has four dimensions."""
    sizes = None
    if document.shape(place.module) is not None:
        sizes = document.element_shapes(place.module).get(place.element)
    if sizes is None:  # by another program, or it is not there
        sizes = document.tensor(place.module, *place.element).shape
    if place.axes and sorted(place.axes) == list(range(len(sizes))):
        return tuple(sizes[axis] for axis in place.axes)
    return sizes


def _scores_in(entries: Iterable[Mapping[str, Any]], place: Place, heads: int) -> np.ndarray | None:
    """The scores that a document has of a tensor's heads: (heads, scores), NaN where it has none.

    None where it has no entry of so many heads. They were computed when it was captured.
    """
    for entry in entries:
        if entry["module"] == place.module and tuple(entry["element"]) == place.element:
            numbers = [v for k, v in entry.items() if k not in ("module", "element")]
            if max(map(len, numbers), default=0) != heads:
                return None
            found = np.full((heads, len(SCORES)), np.nan)
            for i, name in enumerate(SCORES):
                known = entry.get(name) or []
                found[: len(known), i] = [np.nan if value is None else value for value in known]
            return found
    return None


def _without_duplicates(found: list[_Found]) -> list[_Found]:
    """Drop duplicates: an outer module returns the inner one's weights again (BERT's attention)."""
    seen: dict[tuple[str, str], list[_Found]] = {}
    for one in found:
        seen.setdefault((one.place.kind, one.place.module), []).append(one)

    def is_own(one: _Found) -> bool:
        kind, module = one.place.kind, one.place.module
        ends = [dot.start() for dot in re.finditer(r"\.", module)]
        outer = [seen.get((kind, module[:end]), []) for end in ends]
        return not any(one.same_as(other) for some in outer for other in some)

    return [one for one in found if is_own(one)]


# --------------------------------------------------------------------------------- where they are


def find_weights(document: Document) -> list[Place]:
    """Where the attention weights are: as the capture noted, else by their shapes.

    That is a square 4-D element 1, else any other element that is a batch of attention matrices;
    else one with fewer rows than columns.
    """
    noted = document.attention_weights
    if noted is not None:
        places = [_noted(document, entry) for entry in noted]
        if len({(place.module, place.element) for place in places}) < len(places):
            raise damaged(document.path, "attention_weights", "it names one tensor twice")
        return places
    names = document.names_of("attention") or document.names
    return [place for name in names if (place := _guessed(document, name)) is not None]


def _noted(document: Document, entry: Any) -> Place:
    match entry:
        case {"module": str(module), "element": [*element], "layer": layer, "kind": str(kind)}:
            axes = entry.get("axes")
            if (
                all(isinstance(step, str) or _is_number(step) for step in element)
                and _is_number(layer)
                and _KIND.fullmatch(kind)
                and (axes is None or (isinstance(axes, list) and all(map(_is_number, axes))))
            ):
                return Place(module, tuple(element), layer, kind, tuple(axes or ()) or None)
    raise ToolkitError(
        f"'{document.path}' is damaged: an entry of 'attention_weights' does not say module, "
        "element, layer and kind. Capture again."
    )


def _is_number(value: Any) -> bool:
    return is_count(value) and value < _MAX_LAYER


def _guessed(document: Document, name: str) -> Place | None:
    sizes = document.element_shapes(name)
    candidates = sorted(sizes, key=lambda element: element != (1,))  # element 1 first
    kind = _kind_of(document, name)
    matrices = [e for e in candidates if len(sizes[e]) == 4]
    fitting = [e for e in matrices if sizes[e][2] == sizes[e][3]] or [
        e
        for e in matrices
        if _fits(kind, sizes[e]) and _holds_weights(document, Place(name, e, 0, kind))
    ]
    # The user meant an element 1 of another shape: let the error name it.
    meant = [(1,)] if len(sizes.get((1,), ())) > 1 else []
    numbers = re.findall(r"(?:^|\.)(\d{1,6})(?=\.|$)", name)
    layer = int(numbers[0]) if numbers else 0
    return next((Place(name, e, layer, kind) for e in [*fitting, *meant]), None)


def _kind_of(document: Document, name: str) -> str:
    if "decoder_tokens" not in document.header and "decoder_input_ids" not in document.header:
        return "self"
    if _CROSS_NAME.search(name):
        return "cross"
    return "decoder" if "decoder" in name else "encoder"


def _fits(kind: str, shape: tuple[int, ...]) -> bool:
    """Whether weights of this kind can have this shape.

    Rows may be fewer than columns: those of the last tokens, after others that are in a cache, or
    of all tokens, after virtual ones (prefix tuning).
    """
    return len(shape) == 4 and 0 not in shape and (kind.endswith("cross") or shape[2] <= shape[3])


def _holds_weights(document: Document, place: Place) -> bool:
    """Whether a tensor's numbers are attention weights: keys and values are oblong too."""
    try:
        return _Found(document, place).sums_to_one
    except ToolkitError:  # no tensor: its shape is a guess by its first rows
        return False


@dataclass(frozen=True)
class _Problem:
    """Why a tensor cannot be shown: `{title}{where} {fact}. {advice}`."""

    fact: str
    advice: str
    title: str = ""


def _problem(found: _Found, tokens: int) -> _Problem | None:
    place, shape = found.place, found.shape
    is_square = place.kind.endswith("cross") or shape[-2:-1] == shape[-1:]
    if not _fits(place.kind, shape) or (shape[0] == 1 and not is_square and not found.sums_to_one):
        return _Problem(
            f"has the shape {shape}, expected (batch, heads, seq_len, seq_len)",
            "Choose other --layers, or capture modules that return attention weights.",
            "Attention tensor does not have correct dimensions: ",
        )
    if shape[0] != 1:
        return _Problem(
            f"holds a batch of {shape[0]} texts (or windows of an image), and a view shows one",
            "Capture one prompt at a time.",
        )
    # Linear attention returns its state, (batch, heads, width, width), in the same place.
    if tokens and shape[-2] != tokens and not found.layer.probabilities:
        return _Problem(
            f"has the shape {shape} for {tokens} tokens, and its values are not attention weights",
            "Choose other --layers.",
        )
    return None


def _nothing_there(document: Document) -> str:
    selected = document.header.get("selected_patterns", {})
    patterns = [pattern for found in selected.values() for pattern in found]
    held = ", ".join(patterns[:6]) or ", ".join(document.names[:6]) or "no modules"
    return (
        f"no attention weights in '{document.path}': it holds {held}. Capture the attention "
        f'modules: {command_line(CAPTURE)} --auto-select "attn:weights"'
    )


# ------------------------------------------------------------------------------------- in stacks


def _stacked(header: Header, found: list[_Found], warn: Warn) -> list[Stack]:
    """Group by kind and shape, layers in order; several modules of one layer apart."""
    alike: dict[tuple[str, tuple[int, ...]], list[tuple[Place, Layer]]] = {}
    for one in found:
        alike.setdefault((one.place.kind, one.shape[1:]), []).append((one.place, one.layer))
    in_order = sorted(alike.items(), key=lambda item: _rank(item[0][0]))
    sizes = ((one.place.kind, one.shape[2], one.shape[3]) for one in found)
    fewer_rows = why_fewer_rows(header, sizes)
    stacks = []
    shapes = Counter(kind for kind, _ in alike)
    for (kind, shape), members in in_order:
        for module, matrices in _once_a_layer(members).items():
            name = kind.replace("_", " ").capitalize()
            if shapes[kind] > 1:
                layers = numbered("layer", matrices)
                name += f", {layers}, {shape[0]} heads of {shape[1]} x {shape[2]}"
            stacks.append(_stack(header, name + module, kind, matrices, fewer_rows, warn))
    return stacks


def _rank(kind: str) -> int:
    return _KINDS.index(kind) if kind in _KINDS else len(_KINDS)


def _once_a_layer(
    members: list[tuple[Place, Layer]],
) -> dict[str, dict[int, Layer]]:
    """{what to add to the name: {layer: weights}}, so that each has a layer once."""
    if len({place.layer for place, _ in members}) == len(members):
        return {"": {place.layer: weights for place, weights in members}}
    groups: dict[str, dict[int, Layer]] = {}
    times: Counter[tuple[str, int]] = Counter()
    for place, weights in members:
        name, layer = place.pattern, place.layer
        times[name, layer] += 1
        again = times[name, layer]  # a document may say so
        groups.setdefault(f", {name}" + (f" ({again})" if again > 1 else ""), {})[layer] = weights
    return groups


def _stack(
    header: Header,
    name: str,
    kind: str,
    layers: dict[int, Layer],
    fewer_rows: Mapping[str, str],
    warn: Warn,
) -> Stack:
    order = tuple(sorted(layers))
    heads, rows, columns = layers[order[0]].shape
    sides = find_sides(header, kind, (rows, columns), fewer_rows, warn)
    row_words, column_words = words_of_sides(header, kind, sides)
    return Stack(
        name=name,
        kind=kind,
        layers=order,
        heads=tuple(range(heads)),
        weights=tuple(layers[layer] for layer in order),
        rows=sides.rows,
        columns=sides.columns,
        start=sides.start,
        is_aligned=sides.is_aligned,
        knows_tokens=sides.knows_tokens,
        split=column_of(header, "sentence_b_start", kind, sides),
        written=column_of(header, "continuation_start", kind, sides),
        row_words=row_words,
        column_words=column_words,
        picture=picture_of(header, kind, sides),
    )
