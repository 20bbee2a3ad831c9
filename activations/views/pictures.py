"""The pictures of a page: what was seen or heard, and which columns are its patches or frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from activations.attention.stack import Stack
from activations.document.picture import Picture


def page_pictures(
    stacks: Sequence[Stack],
) -> tuple[list[dict[str, Any]], list[dict[str, int] | None]]:
    """The pictures, once each, and for each stack which of them it has: {"index", "first"}.

    `first` is the column of the first patch or frame. A stack that has only some of them as its
    columns has no picture.
    """
    used = [s.picture if s.first_part is not None else None for s in stacks]
    pictures = list(dict.fromkeys(picture for picture in used if picture is not None))
    places = [
        None if picture is None else {"index": pictures.index(picture), "first": s.first_part or 0}
        for s, picture in zip(stacks, used, strict=True)
    ]
    return list(map(_described, pictures)), places


def _described(picture: Picture) -> dict[str, Any]:
    """What the page's script knows of it."""
    return {
        "kind": picture.kind,
        "type": picture.media_type,
        "data": picture.data,
        "grid": picture.grid,
        "seconds": picture.seconds,
    }
