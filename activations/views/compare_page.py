"""Two captures on one page: A, B, and A - B, which the page works out from the weights of both."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

import numpy as np

from activations.attention.compare import Comparison, Pair
from activations.attention.matching import Matching
from activations.attention.scores import SCORES
from activations.text import html_text, printable
from activations.views import assets
from activations.views.choices import VIEWS
from activations.views.content import Caption, Content
from activations.views.names import capture_name, distinct
from activations.views.packing import BUDGET, pack
from activations.views.page import base_data, facts_of, filled_pages, text_row
from activations.views.pictures import page_pictures
from activations.views.tokens import labels

CHANGE = "change"
_STEPS = 10_000  # of a weight, as they are packed
_LONGEST = 120  # characters of the title's line, for each text


def build_comparison(
    views: Sequence[str],
    a: Content,
    b: Content,
    comparison: Comparison,
    min_weight: float = 0.01,
    budget: int = BUDGET,
) -> dict[str, list[bytes]]:
    """The page of each view, as pieces of UTF-8; see `activations.views.page.build_pages`.

    The weights of both are in it, once.
    """
    stacks = [stack for pair in comparison.pairs for stack in (pair.a, pair.b)]
    packed = pack(stacks, 2 * budget)
    pictures, places = page_pictures(stacks)
    known = {entry["id"]: entry for entry in reversed(packed.stacks)}  # whole texts come first
    data = base_data(f"{a.caption.capture}-{b.caption.capture}", min_weight, words=False)
    data["scores"] = [*SCORES, CHANGE]
    data["pictures"] = pictures
    data["stacks"] = [
        entry
        for number, pair in enumerate(comparison.pairs)
        for entry in _entries(number, pair, known, places)
    ]
    data["comparison"] = {
        "rounding": comparison.rounding,
        "moved": _moved(a, comparison),
    }
    names = {view: comparison_name(view, a.caption, b.caption) for view in VIEWS}
    return filled_pages(names, _titles(views, a, b), data, _fields(a, b, comparison), packed)


def comparison_name(view: str, a: Caption, b: Caption) -> str:
    """`attention_head_view_demo_model_a_vs_b.html`, by the names of the documents."""
    name = capture_name(a.model, a.document or "a")
    return f"attention_{view}_view_{name}_vs_{distinct(b.document or 'b')}.html"


def _entries(
    number: int, pair: Pair, known: Mapping[int, dict[str, Any]], places: Sequence[Any]
) -> Iterator[dict[str, Any]]:
    """A - B, A and B of one kind of attention, as the page's script takes stacks."""
    ids = 2 * number, 2 * number + 1
    none = [[[None] * (len(SCORES) + 1) for _ in heads] for heads in pair.changes]
    both = [known[id] for id in ids]
    if not any(entry["raw"] for entry in both):
        yield _difference(number, pair, both)
    for side, entry in zip("AB", both, strict=True):
        scores = none
        if entry["scores"] is not None:
            scores = [[[*head, None] for head in layer] for layer in entry["scores"]]
        yield {
            **entry,
            "name": printable(pair.a.name),
            "side": side,
            "kind": number,
            "rows": [0, len(entry["rowTokens"])],
            "columns": [0, len(entry["columnTokens"])],
            "scores": scores,
            "picture": places[entry["id"]],
        }


def _difference(number: int, pair: Pair, both: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A - B: of the tokens that stand for each other, in steps around 0."""
    sides = zip(labels(pair.a), labels(pair.b), (pair.rows, pair.columns), strict=True)
    (rows, row_pairs), (columns, column_pairs) = [_both(*side) for side in sides]
    changes = pair.changes.round(6).tolist()  # in the page's JSON, NaN becomes null
    nothing = [None] * len(SCORES)
    return {
        "id": f"difference-{number}",
        "name": printable(pair.a.name),
        "side": "A-B",
        "kind": number,
        "layers": pair.a.layers,
        "heads": pair.a.heads,
        "rowTokens": rows,
        "columnTokens": columns,
        "rowWords": None,
        "columnWords": None,
        "rows": [0, len(rows)],
        "columns": [0, len(columns)],
        "second": None,
        "generated": None,
        "start": pair.a.start,
        "offset": pair.a.offset if rows == columns or pair.has_same_tokens else None,
        "wholeRows": False,
        "probabilities": False,
        "raw": {"base": -1, "steps": _STEPS},
        "difference": {
            "a": both[0]["id"],
            "b": both[1]["id"],
            "row": _places(pair.rows, pair.has_same_tokens),
            "column": _places(pair.columns, pair.has_same_tokens),
            "rowPairs": row_pairs,
            "columnPairs": column_pairs,
        },
        "scores": [[[*nothing, change] for change in layer] for layer in changes],
        "above": max(entry["above"] for entry in both),
        "keptAbove": max(entry["keptAbove"] for entry in both),
        "cell": both[0]["cell"] if pair.has_same_tokens else [1, 1],
        "cells": both[0]["cells"] if pair.has_same_tokens else [len(rows), len(columns)],
        "bytes": 0,
        "picture": None,
    }


def _places(found: Matching, is_same: bool) -> list[list[int]] | None:
    """The positions of the pairs in A and in B; None where both are 0, 1, 2, ..."""
    return None if is_same else [found.a.tolist(), found.b.tolist()]


def _both(
    a: Sequence[str], b: Sequence[str], found: Matching
) -> tuple[list[str], list[list[str] | None]]:
    """What each pair is called, and both names where they differ."""
    pairs = [
        None if equal else [a[i], b[j]]
        for i, j, equal in zip(found.a.tolist(), found.b.tolist(), found.equal, strict=True)
    ]
    names = [
        a[i] if pair is None else " ".join(pair)
        for i, pair in zip(found.a.tolist(), pairs, strict=True)
    ]
    return names, pairs


def _moved(a: Content, comparison: Comparison) -> dict[str, Any] | None:
    """How far the prediction moved at each token of A."""
    if comparison.kl is None or comparison.at is None:
        return None
    return {
        "at": comparison.at[:, 0].tolist(),
        "kl": [None if np.isnan(kl) else round(float(kl), 4) for kl in comparison.kl],
        "tokens": a.tokens,
    }


# ------------------------------------------------------------------------------ the words around it


def _titles(views: Sequence[str], a: Content, b: Content) -> dict[str, str]:
    names = f"{a.caption.document or 'A'} and {b.caption.document or 'B'}"
    return {view: printable(f"Attention {view} view: {names} compared") for view in views}


def _fields(a: Content, b: Content, comparison: Comparison) -> dict[str, str]:
    sides = ("A", a.caption), ("B", b.caption)
    texts = [
        (f"{side}: {caption.document}", " ⟩ ".join(text for _, text in caption.read))
        for side, caption in sides
    ]
    notes = [*comparison.differences, *comparison.about_rounding()]
    for side, caption in sides:
        notes += [f"{side}: {note}" for note in caption.notes]
    models = dict.fromkeys([a.caption.model, b.caption.model])
    return {
        "model": html_text(" and ".join(models)),
        "start": _differing(*(text for _, text in texts)),
        "facts": html_text(facts_of([pair.a for pair in comparison.pairs])),
        "texts": "".join(text_row(name, text) for name, text in texts),
        "notes": "".join(f"<li>{html_text(note)}</li>" for note in notes),
        "effect": "",
        "how_predictions": assets.static_file("how_compare.html"),
    }


def _differing(a: str, b: str) -> str:
    """Both texts in one line, the words that differ in the colours of A and B."""
    first, second = (re.findall(r"\s+|[^\s]+", text[: 4 * _LONGEST]) for text in (a, b))
    parts = []
    for tag, i, j, k, m in SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        ours, theirs = "".join(first[i:j]), "".join(second[k:m])
        if tag == "equal":
            parts.append(html_text(ours))
            continue
        parts += [f'<b class="of-a">{html_text(ours)}</b>'] if ours.strip() else []
        parts += [f' <b class="of-b">{html_text(theirs)}</b>'] if theirs.strip() else []
    return "".join(parts) or "Shown"
