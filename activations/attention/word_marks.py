"""Which tokens make a word: as the tokenizer said when it read the text, else by its marks.

WordPiece marks a piece that goes on with a word (`##ing`), fairseq one that does not end it
(`play@@`), CLIP and XLM its end (`</w>`). Byte-level BPE and SentencePiece mark the space before a
word (`Ġ`, `▁`, a space): there a token without a mark goes on with the word.

In any case a character that is split into bytes stays whole, punctuation does not belong to the
word beside it, special tokens stand alone, and so do tokens of scripts written without spaces: what
stands between spaces there is a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from unicodedata import category

from activations.attention.spelling import are_special, bytes_of, is_byte_level, readable, texts

Said = Sequence[int | None]  # the number of each token's word; None for special tokens
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # how SentencePiece spells one
_BYTES = re.compile(rf"(?:{_BYTE.pattern})+")
_PIECE = re.compile(r"##\S")
# Thai, Lao, Burmese and Khmer; kana, Bopomofo and ideographs. Korean has spaces.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3031-\u3035\u3040-\u312f\u31a0-\u31bf"
    "\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uaa60-\uaa7f\uf900-\ufaff\uff66-\uff9f"
    "\U0001b000-\U0001b16f\U00020000-\U0003ffff]"
)
_WORD, _PUNCTUATION, _SIGN, _ALONE = "word", "punctuation", "sign", "alone"  # kinds of tokens
_LIKE_NEXT, _LIKE_LAST = "space", "joiner"  # and those that take after the one beside them
_SPACES, _PIECES, _CONTINUED, _ENDS = "Ġ", "##", "@@", "</w>"  # ways to mark words


def word_numbers(
    tokens: Sequence[str], said: Said = (), cuts: Collection[int] = ()
) -> tuple[int, ...]:
    """The number of each token's word in the text, from 0.

    `said` is what the tokenizer said of the tokens that it read; the marks decide about those after
    it, which the model generated, or about all. No word goes on over a position in `cuts`.
    """
    firsts = _first_of_characters(tokens, cuts)
    ends = [*firsts[1:], len(tokens)] if tokens else []
    units = ["".join(tokens[first:end]) for first, end in zip(firsts, ends, strict=True)]
    way = _way_of(units)
    kinds = _kinds(units, [first < len(said) for first in firsts], way == _SPACES)
    marked = list(_go_on(units, way))
    numbers: list[int] = []
    for place, (first, end) in enumerate(zip(firsts, ends, strict=True)):
        goes_on = _is_said_to_go_on(said, first) if first < len(said) else marked[place]
        is_like_last = place > 0 and kinds[place] == kinds[place - 1] != _ALONE
        joins = goes_on and is_like_last and first not in cuts
        number = numbers[-1] + (not joins) if numbers else 0
        numbers += [number] * (end - first)
    return tuple(numbers)


def word_labels(tokens: Sequence[str], numbers: Sequence[int]) -> list[str]:
    """The words as a person reads them. `numbers` are those of the tokens' words."""
    way = _way_of(tokens)
    words = []
    for _, found in groupby(zip(numbers, tokens, strict=True), key=lambda pair: pair[0]):
        pieces = [token for _, token in found]
        if way == _PIECES:
            pieces[1:] = [piece.removeprefix("##") for piece in pieces[1:]]
        elif way == _CONTINUED:
            pieces[:-1] = [piece.removesuffix("@@") for piece in pieces[:-1]]
        elif way == _ENDS:
            pieces = [piece.removesuffix("</w>") for piece in pieces]
        words.append(_read_bytes("".join(pieces)) if len(pieces) > 1 else pieces[0])
    return readable(words, like=tokens)


def _is_said_to_go_on(said: Said, token: int) -> bool:
    return token > 0 and said[token] is not None and said[token] == said[token - 1]


# ------------------------------------------------------------------------------------- characters


def _first_of_characters(tokens: Sequence[str], cuts: Collection[int]) -> list[int]:
    """The tokens that do not begin inside a character of several bytes."""
    byte_level = is_byte_level([token.removesuffix("</w>") for token in tokens])
    found, before = [], b""
    for i, token in enumerate(tokens):
        raw = _raw(token, byte_level)
        inside = bool(raw) and 0x80 <= raw[0] < 0xC0 and _is_cut_short(before)
        if not inside or i in cuts:
            found.append(i)
        before = before[-3:] + raw if inside else raw
    return found


def _raw(token: str, byte_level: bool) -> bytes:
    """The bytes that a token spells, none where it spells characters."""
    if match := _BYTE.fullmatch(token):
        return bytes.fromhex(match[1])
    return (bytes_of(token.removesuffix("</w>")) or b"") if byte_level else b""


def _is_cut_short(raw: bytes) -> bool:
    """Whether a UTF-8 character at the end lacks bytes."""
    for back, byte in enumerate(reversed(raw[-3:]), 1):
        if not 0x80 <= byte < 0xC0:
            return back < (4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1)
    return False


def _read_bytes(text: str) -> str:
    """The text with the bytes in it, which SentencePiece spells out, as characters."""

    def decoded(spelled: re.Match[str]) -> str:
        raw = bytes.fromhex("".join(_BYTE.findall(spelled[0])))
        return raw.decode("utf-8", "backslashreplace")

    return _BYTES.sub(decoded, text)


# ------------------------------------------------------------------------------------------ kinds


def _kinds(units: Sequence[str], said: Sequence[bool], by_spaces: bool) -> list[str]:
    """The kinds of tokens. Where spaces alone mark words, a sign (`$`, an emoji) is no letter."""
    shown = [_read_bytes(text) for text in texts(units)]
    kind_of = {text: _kind(text) for text in set(shown)}
    found = []
    for is_special, is_said, text in zip(are_special(units), said, shown, strict=True):
        # A tokenizer says of an unknown piece which word it is of.
        kind = _ALONE if is_special and not is_said else kind_of[text]
        found.append(_WORD if kind == _SIGN and (is_said or not by_spaces) else kind)
    for i in range(1, len(found)):
        if found[i] == _LIKE_LAST:
            found[i] = found[i - 1]
    for i in range(len(found) - 2, -1, -1):
        if found[i] == _LIKE_NEXT:
            found[i] = found[i + 1]
    return found


def _kind(text: str) -> str:
    """The kind of a token's text. A space goes with what follows, a joiner with what it joins."""
    if text and not text.strip(" "):
        return _LIKE_NEXT
    if _UNSPACED.search(text):
        return _ALONE
    found = {category(c) for c in text.removeprefix("##").removesuffix("@@") if not c.isspace()}
    found -= {"Mn", "Me", "Cf"}
    if not found:
        return _WORD if not text or text.isspace() else _LIKE_LAST
    if all(name[0] == "P" for name in found):
        return _PUNCTUATION
    return _SIGN if all(name[0] in "PS" for name in found) else _WORD


# ------------------------------------------------------------------------------------------ marks


def _way_of(tokens: Sequence[str]) -> str | None:
    """How these tokens mark words; None where none of them has a mark."""
    if any(token.endswith("</w>") for token in tokens):
        return _ENDS
    if is_byte_level(tokens) or any(token.startswith(("▁", " ")) for token in tokens):
        return _SPACES
    if any(map(_PIECE.match, tokens)):
        return _PIECES
    return _CONTINUED if any(map(_is_continued, tokens)) else None


def _is_continued(token: str) -> bool:
    return len(token) > 2 and token.endswith("@@")


def _go_on(units: Sequence[str], way: str | None) -> Iterator[bool]:
    """For each token, whether its marks say that it goes on with the word before."""
    before = ""
    for unit, text in zip(units, map(_read_bytes, texts(units)), strict=True):
        if way == _SPACES:
            yield not text[:1].isspace() and not _ends_a_word(before)
            before = text
        else:
            yield (
                (way == _PIECES and bool(_PIECE.match(unit)))
                or (way == _CONTINUED and _is_continued(before))
                or (way == _ENDS and not before.endswith("</w>"))
            )
            before = unit


def _ends_a_word(text: str) -> bool:
    """Whether white space ends it; a space alone is the mark of the word that follows."""
    return text[-1:].isspace() and text.strip(" ") != ""
