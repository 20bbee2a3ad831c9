"""A document -> attention matrices with their layers, kinds and tokens. numpy only."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from activations.document import Document
from activations.errors import ToolkitError, UsageError, ignore
from activations.observation import Element
from activations.selection import describe_numbers

EXPECTED = "(batch, heads, seq_len, seq_len)"
# Kinds of attention in the order in which they are shown; the towers of a model come after.
_KINDS = ("self", "encoder", "decoder", "cross")
_KIND = re.compile(r"[a-z0-9_]{1,60}")
_READS_TOKENS = ("self", "encoder", "text")  # other kinds have tokens under their own name alone
_MANY = 1_000_000  # layers; more is no layer number
_CROSS_NAME = re.compile(r"cross|encoder_attn|EncDec", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """Where one layer's attention weights stand in the document."""

    module: str
    element: Element
    layer: int
    kind: str


@dataclass(frozen=True)
class Stack:
    """Attention of one kind over layers of one shape, as one view can show it.

    `weights` holds an array (heads, rows, columns) for each of `layers`; rows are the tokens that
    attend (queries), columns those attended to (keys). `heads` are the heads' real numbers.
    `split` is the row and column at which a second sentence starts, if there is one.
    """

    name: str
    kind: str
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    weights: tuple[np.ndarray, ...]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    split: int | None = None


Warn = Callable[[str], None]


def read_attention(document: Document, warn: Warn | None = None) -> list[Stack]:
    """All attention weights of a document, stacked by kind and shape.

    Layers that cannot be shown token by token are left out with a warning. Raises `ToolkitError`
    when the document holds no attention weights, a batch of more than one, or nothing of the shape
    `(batch, heads, seq_len, seq_len)`.
    """
    places = find_weights(document)
    if not places:
        raise ToolkitError(_nothing_there(document))
    found: list[tuple[Place, np.ndarray]] = []
    problems: list[str] = []
    for place in places:
        weights = document.tensor(place.module, *place.element)
        problem = _problem(place, weights.shape)
        if problem is None:
            found.append((place, weights[0]))
        else:
            problems.append(problem)
    if not found:
        raise ToolkitError(problems[0])
    warn = warn or ignore
    odd = sum(int(np.isnan(weights).sum()) for _, weights in found)
    if odd:
        warn(f"{odd} attention weights are no finite numbers; they are not drawn.")
    for problem in problems:
        warn(problem)
    own = [(place, weights) for place, weights in found if not _handed_on(place, weights, found)]
    return _stacked(document, own, warn)


def _handed_on(place: Place, weights: np.ndarray, found: list[tuple[Place, np.ndarray]]) -> bool:
    """Whether an outer module hands out the same weights (BERT's attention does)."""
    return any(
        place.kind == other.kind
        and place.module.startswith(f"{other.module}.")
        and np.array_equal(weights, seen, equal_nan=True)
        for other, seen in found
    )


# --------------------------------------------------------------------------------- where they are


def find_weights(document: Document) -> list[Place]:
    """Where the attention weights are: as the capture noted it, else by looking.

    Looking takes a square 4-D element 1, then any other element that is a batch of attention
    matrices.
    """
    noted = document.attention_weights
    if noted is not None:
        return [_noted(document, entry) for entry in noted]
    names = document.names_of("attention") or document.names
    return [place for name in names if (place := _look(document, name)) is not None]


def _noted(document: Document, entry: Any) -> Place:
    try:
        kind = entry["kind"]
        if not _KIND.fullmatch(kind):
            raise ValueError(kind)
        layer = int(entry["layer"])
        if not 0 <= layer < _MANY:
            raise ValueError(layer)
        return Place(str(entry["module"]), tuple(entry["element"]), layer, kind)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ToolkitError(
            f"'{document.path}' is damaged: an entry of 'attention_weights' does not say module, "
            "element, layer and kind. Capture again."
        ) from None


def _look(document: Document, name: str) -> Place | None:
    sizes = document.element_shapes(name)
    candidates = sorted(sizes, key=lambda element: element != (1,))  # element 1 first
    square = [e for e in candidates if len(sizes[e]) == 4 and sizes[e][2] == sizes[e][3]]
    # An element 1 of another shape is what the user meant to show: let the error name it.
    chosen = square[0] if square else (1,) if len(sizes.get((1,), ())) > 1 else None
    if chosen is None:
        return None
    numbers = re.findall(r"(?:^|\.)(\d{1,6})(?=\.|$)", name)
    return Place(name, chosen, int(numbers[0]) if numbers else 0, _kind_of(document, name))


def _kind_of(document: Document, name: str) -> str:
    if "decoder_tokens" not in document.header and "decoder_input_ids" not in document.header:
        return "self"
    if _CROSS_NAME.search(name):
        return "cross"
    return "decoder" if "decoder" in name else "encoder"


def _problem(place: Place, shape: tuple[int, ...]) -> str | None:
    where = f"{place.module}, element {'/'.join(map(str, place.element)) or 'output'}"
    square = place.kind.endswith("cross") or shape[-2:-1] == shape[-1:]
    if len(shape) != 4 or not square or 0 in shape:
        return (
            f"Attention tensor does not have correct dimensions: {where} has the shape "
            f"{tuple(shape)}, expected {EXPECTED}. Choose other --layers, or capture modules that "
            "hand out attention weights."
        )
    if shape[0] != 1:
        return (
            f"{where} holds a batch of {shape[0]} texts (or windows of an image), and a view shows "
            "one. Capture one prompt at a time."
        )
    return None


def _nothing_there(document: Document) -> str:
    selected = document.header.get("selected_patterns")
    lists = selected.values() if isinstance(selected, dict) else []
    patterns = [pattern for found in lists if isinstance(found, list) for pattern in found]
    held = ", ".join(map(str, patterns[:6])) or ", ".join(document.names[:6]) or "no modules"
    return (
        f"no attention weights in '{document.path}': it holds {held}. Capture the attention "
        'modules: python agnostic_capture.py --auto-select "attn:weights"'
    )


# ------------------------------------------------------------------------------------- in stacks


def _stacked(document: Document, found: list[tuple[Place, np.ndarray]], warn: Warn) -> list[Stack]:
    """Group by kind and shape, a second attention of the same layer apart, layers in order."""
    groups: dict[tuple[Any, ...], dict[int, np.ndarray]] = {}
    for place, weights in found:
        again = 0
        while place.layer in groups.get((place.kind, weights.shape, again), {}):
            again += 1
        groups.setdefault((place.kind, weights.shape, again), {})[place.layer] = weights
    many = {kind: sum(key[0] == kind for key in groups) for kind, _, _ in groups}
    stacks = []
    in_order = sorted(groups.items(), key=lambda item: _rank(item[0][0]))
    for (kind, (heads, rows, columns), again), layers in in_order:
        name = kind.replace("_", " ").capitalize()
        if many[kind] > 1:
            name += f", layers {describe_numbers(layers)}, {heads} heads of {rows} x {columns}"
            name += f" ({again + 1})" if again else ""
        order = tuple(sorted(layers))
        stacks.append(
            Stack(
                name=name,
                kind=kind,
                layers=order,
                heads=tuple(range(heads)),
                weights=tuple(layers[layer] for layer in order),
                rows=_labels(document, "decoder" if kind == "cross" else kind, rows, warn),
                columns=_labels(document, "encoder" if kind == "cross" else kind, columns, warn),
                split=_split(document, kind, rows),
            )
        )
    return stacks


def _rank(kind: str) -> int:
    return _KINDS.index(kind) if kind in _KINDS else len(_KINDS)


def _labels(document: Document, side: str, count: int, warn: Warn) -> tuple[str, ...]:
    tokens = document.header.get(f"{side}_tokens")
    if tokens is None and side in _READS_TOKENS:
        tokens = document.header.get("tokens")
    if isinstance(tokens, list) and len(tokens) == count:
        return tuple(map(str, tokens))
    if isinstance(tokens, list):
        warn(
            f"the document has {len(tokens)} tokens for {count} positions; positions are shown "
            "by number."
        )
    return tuple(f"#{i}" for i in range(count))


def _split(document: Document, kind: str, rows: int) -> int | None:
    start = document.header.get("sentence_b_start")
    if kind in ("self", "encoder") and isinstance(start, int) and 0 < start < rows:
        return start
    return None


# ---------------------------------------------------------------------------------------- a part


def take(
    stacks: Sequence[Stack],
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    tokens: tuple[int, int] | None = None,
) -> list[Stack]:
    """Only these layers, heads and token positions (first, end). Raises `UsageError`."""
    found = list(stacks)
    if layers is not None:
        _check(layers, {n for s in found for n in s.layers}, "layer", "--layers")
        found = [_take_layers(stack, layers) for stack in found]
    if heads is not None:
        _check(heads, {n for s in found for n in s.heads}, "head", "--heads")
        found = [_take_heads(stack, heads) for stack in found]
    if tokens is not None:
        longest = max(len(side) for stack in found for side in (stack.rows, stack.columns))
        if tokens[1] > longest or tokens[0] >= tokens[1]:
            raise UsageError(
                f"--tokens {tokens[0]}:{tokens[1]} is outside the text: there are tokens "
                f"0:{longest}."
            )
        found = [_take_tokens(stack, *tokens) for stack in found]
    return [s for s in found if s.layers and s.heads and s.rows and s.columns]


def _check(wanted: Sequence[int], there: set[int], what: str, flag: str) -> None:
    missing = [number for number in wanted if number not in there]
    if missing:
        raise UsageError(
            f"{flag}: there is no {what} {missing[0]} in the document. It has {what}s "
            f"{describe_numbers(there)}."
        )


def _take_layers(stack: Stack, layers: Sequence[int]) -> Stack:
    kept = [i for i, layer in enumerate(stack.layers) if layer in layers]
    return replace(
        stack,
        layers=tuple(stack.layers[i] for i in kept),
        weights=tuple(stack.weights[i] for i in kept),
    )


def _take_heads(stack: Stack, heads: Sequence[int]) -> Stack:
    kept = [i for i, head in enumerate(stack.heads) if head in heads]
    return replace(
        stack,
        heads=tuple(stack.heads[i] for i in kept),
        weights=tuple(weights[kept] for weights in stack.weights),
    )


def _take_tokens(stack: Stack, start: int, end: int) -> Stack:
    split = stack.split - start if stack.split is not None else None
    rows = stack.rows[start:end]
    return replace(
        stack,
        weights=tuple(weights[:, start:end, start:end] for weights in stack.weights),
        rows=rows,
        columns=stack.columns[start:end],
        split=split if split is not None and 0 < split < len(rows) else None,
    )
