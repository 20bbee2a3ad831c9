"""What is about to be captured, in lines for the user. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from activations.outputs.shapes import Lengths
from activations.selection.answers import Selection
from activations.selection.catalog import CATEGORIES, Pattern
from activations.session.estimate import Estimate

TITLES = {"attention": "Attention", "mlp": "MLP", "other": "Other"}
_MOST_NAMED = 3


def chosen_lines(selection: Selection) -> list[str]:
    """One line a category: its patterns, each with its number of modules."""
    return [
        f"{TITLES[category]}: {_named(selection, category)}"
        for category in CATEGORIES
        if selection.patterns[category]
    ]


def _named(selection: Selection, category: str) -> str:
    patterns, chosen = selection.patterns[category], set(selection.modules[category])
    named = patterns if len(patterns) <= _MOST_NAMED + 1 else patterns[:_MOST_NAMED]
    rest = patterns[len(named) :]
    found = [f"{pattern.text} ({counted(_count(pattern, chosen))})" for pattern in named]
    if rest:
        more = sum(_count(pattern, chosen) for pattern in rest)
        found.append(f"and {len(rest)} more ({counted(more)})")
    return ", ".join(found)


def _count(pattern: Pattern, chosen: set[str]) -> int:
    return len(chosen.intersection(pattern.names))


def counted(number: int, what: str = "module") -> str:
    """`1 module`, `8 modules`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def run_line(name: str, modules: int, tokens: str, manner: list[str], size: Estimate) -> str:
    """`Capturing 8 modules of demo_model, 24 tokens: about 61 kB.`"""
    parts = [f"{counted(modules)} of {name}", tokens, *manner]
    return f"Capturing {', '.join(part for part in parts if part)}: {size}."


def tokens_read(header: Mapping[str, Any]) -> str:
    """`24 tokens`, `2 encoder and 9 decoder tokens`; empty where a document has none."""
    counts = {
        key.removesuffix("tokens").rstrip("_"): len(found)
        for key, found in header.items()
        if key == "tokens" or key.endswith("_tokens")
    }
    if list(counts) == [""]:
        return counted(counts[""], "token")
    if "" in counts:
        counts = {"encoder" if "decoder" in counts else "text": counts.pop("")} | counts
    parts = [f"{count:,} {side}" for side, count in counts.items()]
    return f"{' and '.join(parts)} tokens" if parts else ""


def tokens_in_words(lengths: Lengths, positions: dict[str, int]) -> str:
    """`24 tokens`, `6 encoder and up to 17 decoder tokens`.

    Without a text the patches or frames are the tokens: `positions` counts them by kind of
    attention. Empty where that is not known.
    """
    most = "up to " if lengths.at_most else ""
    read = lengths.text
    if lengths.target is not None:
        encoder = positions.get("encoder") if read is None else read
        before = "" if encoder is None else f"{encoder:,} encoder and "
        return f"{before}{most}{lengths.target:,} decoder tokens"
    if read is None:
        read = positions.get("self", positions.get("encoder"))
    return "" if read is None else most + counted(read, "token")
