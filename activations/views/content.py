"""A document -> what is to be shown of it: attention with tokens and scores, and the words around.

Both the pages and what goes with them (figures, tables of scores, notebooks) start here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from activations.attention.scores import with_scores
from activations.attention.stack import Stack, take
from activations.attention.weights import read_attention
from activations.document.reader import Document
from activations.errors import ToolkitError, UsageError, Warn, ignore
from activations.text import printable


@dataclass(frozen=True)
class Caption:
    """What a page says it shows: the model, what it read, and what was left out and why.

    `texts` are further texts by their names: a second sentence, the decoder's target, an image's
    file. `capture` is an id of what was captured: a page tells by it that a link came from another.
    """

    model: str
    prompt: str
    notes: tuple[str, ...] = ()
    texts: tuple[tuple[str, str], ...] = ()
    capture: str = ""

    @property
    def read(self) -> tuple[tuple[str, str], ...]:
        """All that the model read; a model of images or audio reads no prompt."""
        prompt = (("Prompt", self.prompt),)
        return prompt + self.texts if self.prompt or not self.texts else self.texts


TokensOf = Callable[[str, Sequence[object]], list[str]]


@dataclass(frozen=True)
class Content:
    """What a page, a figure or a table shows, and the words around it."""

    caption: Caption
    stacks: tuple[Stack, ...]


def read_content(
    document: Document,
    tokens_of: TokensOf,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    tokens: tuple[int, int] | None = None,
    warn: Warn = ignore,
) -> Content:
    """The attention of these layers, heads and token positions (first, end); None is all.

    `tokens_of(model, ids)` names the tokens of a document that has only their ids. Scores are of
    the whole text, whatever part of it is shown. What is told to `warn` also stands
    among the caption's notes. Raises `ToolkitError` where there is no attention to show,
    `UsageError` for what is not there.
    """
    found = _looked_up_tokens(document, tokens_of, warn)
    notes: list[str] = []

    def note(line: str) -> None:
        shown = printable(line)  # it may name modules, and must not be reordered by them
        if shown not in notes:
            notes.append(shown)
            warn(line)

    chosen = take(read_attention(document, note, found), layers, heads, warn=note)
    stacks = take(with_scores(chosen), tokens=tokens, warn=note)
    if not stacks:
        raise UsageError("nothing is left to show: --layers, --heads and --tokens exclude all.")
    if tokens is not None:
        notes.append(f"Only the tokens {tokens[0]} to {tokens[1] - 1} are shown.")
    if any(stack.written is not None for stack in stacks):
        notes.append("Underlined tokens were written by the model itself.")
    if any(stack.split is not None for stack in stacks):
        notes.append("Tokens in italics belong to the second text.")
    caption = Caption(
        document.model, document.prompt, tuple(notes), _texts(document), _capture_id(document)
    )
    return Content(caption, tuple(stacks))


def _capture_id(document: Document) -> str:
    """The same for all pages of what one model read, whatever part of it they show.

    By the ids where there are any: tokens may have been looked up since.
    """
    ids = ["input_ids", "decoder_input_ids"]
    tokens = ids if any(key in document.header for key in ids) else ["tokens", "decoder_tokens"]
    read = [document.model, document.prompt, _texts(document)]
    known = json.dumps([*read, *map(document.header.get, tokens)])  # halves of characters too
    return hashlib.sha256(known.encode("ascii")).hexdigest()[:8]


def _texts(document: Document) -> tuple[tuple[str, str], ...]:
    """What the model read beside the prompt, or wrote itself."""
    names = {
        "text_pair": "Second",
        "target": "Target",
        "image": "Image",
        "audio": "Audio",
        "written": "Written",
    }
    header = document.header
    return tuple((name, header[key]) for key, name in names.items() if header.get(key))


def _looked_up_tokens(document: Document, tokens_of: TokensOf, warn: Warn) -> dict[str, list[str]]:
    """The tokens that the header lacks and has ids for, by key, from the model's tokenizer."""
    header = document.header
    pairs = (("tokens", "input_ids"), ("decoder_tokens", "decoder_input_ids"))
    ids = {
        names: _ids(header[key]) for names, key in pairs if names not in header if header.get(key)
    }
    try:
        return {names: tokens_of(document.model, found) for names, found in ids.items()}
    except (ToolkitError, ImportError, LookupError, TypeError, ValueError, OverflowError):
        warn(
            f"the document has no tokens and the tokenizer of '{document.model}' cannot be loaded; "
            "ids are shown."
        )
        return {names: [f"#{i}" for i in found] for names, found in ids.items()}


def _ids(rows: list[Any]) -> list[Any]:
    """The first text's ids, whether they stand in a batch or alone."""
    return rows[0] if isinstance(rows[0], list) else rows
