"""What is about to be captured, in lines for the user. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from activations.document.picture import parts_in_words, pictures_of
from activations.outputs.shapes import Lengths
from activations.selection.answers import Selection
from activations.session.targets import Target
from activations.text import counted

TITLES = {"attention": "Attention", "mlp": "MLP", "other": "Other"}
_MOST_NAMED = 4  # patterns of a category


def lens_in_words(lens: str, at: Sequence[int] | None) -> str:
    """`the logit lens`, `the lens of tuned.safetensors at 3 positions`."""
    which = "the logit lens" if lens == "logit" else f"the lens of {Path(lens).name}"
    return which + ("" if at is None else f" at {counted(len(at), 'position')}")


def changes_in_words(
    ablate: Sequence[Target], ablate_with: str | None, patch: Sequence[Target]
) -> str:
    """`without 2.5 and 3.1`, `mlp:3 at its mean`, `2.5 from the source`; empty for no changes."""
    named = [" and ".join(target.text for target in targets) for targets in (ablate, patch)]
    mean = ablate_with == "mean"
    parts = [
        (f"{named[0]} at its mean" if mean else f"without {named[0]}") if ablate else "",
        f"{named[1]} from the source" if patch else "",
    ]
    return ", ".join(filter(None, parts))


def chosen_lines(selection: Selection, calls: Mapping[str, int]) -> list[str]:
    """One line a category: its patterns, each with its number of selected modules.

    `calls` counts the selected calls of each module.
    """
    lines = []
    for category, patterns in selection.patterns.items():
        counts = [[calls[name] for name in p.names if name in calls] for p in patterns]
        named = [
            f"{p.text} ({modules_and_calls(n)})" for p, n in zip(patterns, counts, strict=True)
        ]
        if more := counts[_MOST_NAMED:]:
            named[_MOST_NAMED:] = [f"and {len(more)} more ({modules_and_calls(chain(*more))})"]
        if named:
            lines.append(f"{TITLES[category]}: {', '.join(named)}")
    return lines


def modules_and_calls(calls: Iterable[int]) -> str:
    """`8 modules`; `1 module in 12 calls` where some are called more than once."""
    counts = list(calls)
    again = f" in {counted(sum(counts), 'call')}" if any(count > 1 for count in counts) else ""
    return counted(len(counts), "module") + again


def tokens_read(header: Mapping[str, Any]) -> str:
    """`24 tokens`, `2 encoder and 9 decoder tokens`; empty where a document has none.

    With pictures `10 tokens: [CLS] and 3 × 3 patches`, `1,500 frames and 9 decoder tokens`.
    """
    named = {key: len(found) for key, found in header.items() if key.endswith("tokens")}
    pictures = {picture.tokens: picture for picture in pictures_of(header)}
    if list(named) == ["tokens"]:
        if "tokens" in pictures:
            shown = pictures["tokens"]
            return parts_in_words(header["tokens"], shown, shown.start)
        return counted(named["tokens"], "token")
    first = "encoder" if "decoder_tokens" in named else "text"
    sides = {key: first if key == "tokens" else key.removesuffix("_tokens") for key in named}
    whole = [key for key in named if key in pictures and pictures[key].parts == named[key]]
    if whole:  # then not all of them are tokens
        return " and ".join(
            counted(count, pictures[key].part if key in whole else f"{sides[key]} token")
            for key, count in named.items()
        )
    parts = [f"{count:,} {sides[key]}" for key, count in named.items()]
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
