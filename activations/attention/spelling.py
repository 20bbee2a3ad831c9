"""Tokens as a tokenizer spells them -> as a person reads them.

Byte-level tokenizers (GPT-2, Llama 3, Qwen) write every byte as one printable character: `Ġ` is a
space, `Ċ` a newline, `é` the two characters `Ã©`. SentencePiece writes a space as `▁`. Both are
undone; a space is shown as `·`, a newline as `↵`, so that they stay visible. Bytes that are only a
part of a character are shown as `\\xf0`. The end of a word (`</w>`; CLIP writes it behind bytes) is
taken away; WordPiece's `##`, which goes on with one, stays.

The byte table is GPT-2's `bytes_to_unicode`: printable Latin-1 stands for itself, the other bytes
follow from U+0100 on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from unicodedata import category

from activations.text import spelled_out

_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in set(_PRINTABLE)]
_BYTE_OF = {chr(byte): byte for byte in _PRINTABLE} | {
    chr(0x100 + i): byte for i, byte in enumerate(_OTHERS)
}
_OTHER_SPELLING = re.compile(r"▁|##\w")  # a token starts so: SentencePiece, WordPiece
# But not `<0x0A>`, a byte, and `[unused1]`, which no text has.
_SPECIAL = re.compile(r"\[/?[A-Z][A-Z0-9_]*\]|<(?!0x[0-9A-F]{2}>)/?[^<>\s]+>")
_CONTROL = re.compile(r"[\0-\x1f\x7f]")
_LETTER = re.compile(rb"[A-Za-z]")
_VISIBLE = {" ": "·", "\n": "↵", "\r": "␍", "\t": "→", "\u00a0": "⍽"}


def readable(tokens: Sequence[str], like: Sequence[str] | None = None) -> list[str]:
    """The tokens' texts, spaces and line breaks made visible; never an empty string.

    `like` are tokens that are spelled in the same way, where these do not show it.
    """
    return [_shown(text) or "∅" for text in texts(tokens, like)]


def are_punctuation(tokens: Sequence[str]) -> list[bool]:
    """Which tokens are punctuation alone, by Unicode's categories (P...)."""
    bare = (text.removeprefix("##").strip() for text in texts(tokens))
    return [text != "" and all(category(c)[0] == "P" for c in text) for text in bare]


def are_special(tokens: Sequence[str]) -> list[bool]:
    """Which tokens are spelled as tokenizers spell special ones: `[SEP]`, `</s>`, `<|im_end|>`."""
    return [bool(_SPECIAL.fullmatch(token)) for token in tokens]


def texts(tokens: Sequence[str], like: Sequence[str] | None = None) -> list[str]:
    """What the tokens stand for in a text, a space where they begin with one. See `readable`."""
    bare, known = ([_bare(token) for token in of] for of in (tokens, like or tokens))
    byte_level = is_byte_level(known)
    return [_text(token, byte_level) for token in bare]


def _bare(token: str) -> str:
    return token.removesuffix("</w>")


def is_byte_level(tokens: Sequence[str]) -> bool:
    """Whether these tokens are spelled in bytes.

    The marks of space and newline show it. They are also letters (of Maltese), so they do not count
    if a word would not be UTF-8, or if a token is spelled in another way. Tokens without letters
    are not checked: a generated text may hold parts of characters. In a text without marks, all
    characters together must be UTF-8; there `ā` or `č` are letters, not control characters.
    """
    if any(map(_OTHER_SPELLING.match, tokens)):
        return False
    beyond_ascii = [token for token in tokens if not token.isascii()]
    encoded = [raw for token in beyond_ascii if (raw := bytes_of(token)) is not None]
    if any(mark in token for token in beyond_ascii for mark in "ĠĊ"):
        return all(map(_is_utf8, filter(_LETTER.search, encoded)))
    text = b"".join(encoded)
    return bool(text) and _is_utf8(text) and not _CONTROL.search(text.decode())


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def bytes_of(token: str) -> bytes | None:
    """The bytes that a byte-level token spells, None where it is not one."""
    try:
        return bytes(_BYTE_OF[character] for character in token)
    except KeyError:  # a special token, or one the user added
        return None


def _text(token: str, byte_level: bool) -> str:
    if byte_level:
        raw = bytes_of(token)
        return token if raw is None else raw.decode("utf-8", "backslashreplace")
    return token.replace("▁", " ")


def _shown(text: str) -> str:
    """Spaces and control characters as something that can be seen."""
    return spelled_out(text, lambda c: _VISIBLE.get(c) or f"\\u{ord(c):04x}")
