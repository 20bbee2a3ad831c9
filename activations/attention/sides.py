"""What rows and columns of attention weights are: which of a document's tokens, or positions.

As a rule both are all tokens of a text. Rows may be fewer than columns: the last tokens, where the
others were read before (one step of a generation with a cache), or all tokens, where there are
columns before the text (prefix tuning).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from activations.document.picture import Picture, pictures_of
from activations.errors import Warn

_READS_TOKENS = ("self", "encoder", "text")  # other kinds have tokens only under their own name
STEPS, PREFIX = "steps", "prefix"  # why there are fewer rows than columns
Header = Mapping[str, Any]


@dataclass(frozen=True)
class Sides:
    """The names of rows and columns, and what `activations.attention.stack.Stack` says of them.

    `fits` is False where the document has other tokens than these.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    start: int = 0
    is_aligned: bool = True
    knows_tokens: bool = True
    fits: bool = True

    @property
    def offset(self) -> int | None:
        """Row i is the token of column i + offset; None where rows are pooled. (Of one text.)"""
        return len(self.columns) - len(self.rows) if self.is_aligned else None


def find_sides(
    header: Header, kind: str, shape: tuple[int, int], fewer_rows: Mapping[str, str], warn: Warn
) -> Sides:
    """The sides of weights of this kind and shape (rows, columns).

    `fewer_rows` is what `why_fewer_rows` found. `warn` gets a line where tokens do not fit.
    """
    if kind.endswith("cross"):
        return _sides_of_two_texts(header, kind, shape, fewer_rows, warn)
    rows, columns = shape
    before = columns - rows
    tokens = tokens_of(header, kind)
    if tokens is None:
        names = _positions(columns)
        return Sides(names[before:], names, knows_tokens=False)
    why = fewer_rows.get(kind) if before else None
    if len(tokens) == columns and (not before or why == STEPS):
        return Sides(tuple(tokens[before:]), tuple(tokens))
    if len(tokens) == rows and why == PREFIX:
        prefix = (f"prefix {i}" for i in range(before))
        return Sides(tuple(tokens), (*prefix, *tokens), start=-before)
    _warn_of_positions(len(tokens), f"{rows} x {columns}" if before else f"{rows}", warn)
    return Sides(
        _positions(rows),
        _positions(columns),
        is_aligned=not before,
        knows_tokens=False,
        fits=False,
    )


def _sides_of_two_texts(
    header: Header, kind: str, shape: tuple[int, int], fewer_rows: Mapping[str, str], warn: Warn
) -> Sides:
    """Rows of the decoder's text, columns of the encoder's."""
    texts = ("decoder", "encoder") if kind == "cross" else (kind, kind)
    attending, attended = (tokens_of(header, text) for text in texts)
    if attending is not None and fewer_rows.get(texts[0]) == STEPS:
        attending = attending[-shape[0] :]
    names = []
    for tokens, count in zip((attending, attended), shape, strict=True):
        fits = tokens is None or len(tokens) == count
        if not fits:
            _warn_of_positions(len(tokens or ()), f"{count}", warn)
        names.append(tuple(tokens) if tokens is not None and fits else None)
    rows, columns = names
    return Sides(
        rows or _positions(shape[0]),
        columns or _positions(shape[1]),
        knows_tokens=None not in names,
    )


def _positions(count: int) -> tuple[str, ...]:
    return tuple(f"#{i}" for i in range(count))


def _warn_of_positions(tokens: int, places: str, warn: Warn) -> None:
    warn(f"the document has {tokens} tokens for {places} positions; positions are shown by number.")


def why_fewer_rows(header: Header, sizes: Iterable[tuple[str, int, int]]) -> dict[str, str]:
    """Why there are fewer rows than columns, by kind of attention, where that is known.

    `STEPS`: the rows are the last tokens of a text, its others being in a cache. All layers have as
    many rows; where only some have fewer than tokens, these are pooled (Funnel). This toolkit reads
    a whole text in one pass, so in its own documents fewer rows are always pooled ones.
    `PREFIX`: the rows are all tokens, and columns stand before them. All layers have as many; where
    only some do, these are keys of several tokens (DeepSeek-V4). `sizes` are the kind, the rows and
    the columns of every layer.
    """
    environment = header.get("environment")
    is_ours = isinstance(environment, dict) and "toolkit" in environment
    shapes: dict[str, set[tuple[int, int]]] = {}
    for kind, rows, columns in sizes:
        if not kind.endswith("cross"):
            shapes.setdefault(kind, set()).add((rows, columns))
    found: dict[str, str] = {}
    for kind, of_kind in shapes.items():
        count = len(tokens_of(header, kind) or ())
        as_many_rows = len({rows for rows, _ in of_kind}) == 1
        if as_many_rows and any(rows < columns == count for rows, columns in of_kind):
            found |= {} if is_ours else {kind: STEPS}
        elif len(of_kind) == 1 and any(columns > rows == count for rows, columns in of_kind):
            found[kind] = PREFIX
    return found


def tokens_of(header: Header, kind: str) -> list[str] | None:
    """The tokens that attend in this kind of attention, if the document has them."""
    found: list[str] | None = header.get(_key_of(header, kind))
    return found


def words_of(header: Header, kind: str) -> list[int | None]:
    """What the tokenizer said of `tokens_of`: the numbers of their words, None for special tokens.

    Of the tokens that it read; a model may have generated others after them. Empty where it said
    nothing.
    """
    text = "decoder" if kind == "cross" else kind
    same = tokens_of(header, kind) == header.get("tokens")
    found: list[int | None] = header.get(f"{text}_words") or (same and header.get("words")) or []
    return found


def _key_of(header: Header, kind: str) -> str:
    """Under which key a document has the tokens that attend in this kind of attention."""
    text = "decoder" if kind == "cross" else kind
    key = f"{text}_tokens"
    return "tokens" if text in _READS_TOKENS and header.get(key) is None else key


def picture_of(header: Header, kind: str, sides: Sides) -> Picture | None:
    """The picture whose patches or frames are among the columns, if the document has one."""
    key = _key_of(header, "encoder" if kind == "cross" else kind)
    tokens = header.get(key)
    if tokens is None or sides.columns[max(-sides.start, 0) :] != tuple(tokens):
        return None
    found = (picture for picture in pictures_of(header) if picture.tokens == key)
    return next((p for p in found if p.start + p.parts <= len(tokens)), None)


def column_of(header: Header, key: str, kind: str, sides: Sides) -> int | None:
    """The column of a position that the document gives among its `tokens`, but the first."""
    position: int | None = header.get(key)
    if position is None or kind not in ("self", "encoder") or not sides.fits:
        return None
    column = position - sides.start
    return column if position > 0 and column < len(sides.columns) else None
