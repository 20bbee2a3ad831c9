"""The header of a document: which of its keys are read, and what each must be.

Checked once, when a document is opened, so that everything after can rely on them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from activations.document.format import FORMAT
from activations.document.interventions import (
    read_effect,
    read_heads,
    read_interventions,
    read_sweep,
)
from activations.document.json_file import damaged
from activations.document.picture import are_pictures
from activations.document.predictions import read_lens, read_predictions
from activations.errors import ToolkitError


def checked_header(header: dict[str, Any], path: Path) -> dict[str, Any]:
    """The header, without keys that are null. Raises `ToolkitError` naming a key that is wrong."""
    found = {key: value for key, value in header.items() if value is not None}
    for key, value in found.items():
        rule = _TOKENS if key.endswith("_tokens") else _RULES.get(key)
        if rule is not None and not rule[0](value):
            raise damaged(path, key, f"it must be {rule[1]}")
    for key, read in _READ.items():
        try:
            read(found)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
            raise damaged(path, key, "it must be as docs/document.md says") from None
    for key, names in (("words", "tokens"), ("decoder_words", "decoder_tokens")):
        if len(found.get(key, ())) > len(found.get(names, found.get(key, ()))):
            raise damaged(path, key, f"it must be {_WORDS[1]}")
    written = found.get("format", FORMAT)
    if written != FORMAT:
        raise ToolkitError(
            f"'{path}' has the format {written[:80]!r}, and this version reads {FORMAT!r}. "
            "Capture again, or use the version that wrote it."
        )
    return found


def is_count(value: Any) -> bool:
    """Whether it is a whole number of at least 0; JSON's true is not."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _are_ids(value: Any) -> bool:
    """The ids of one text, or of a batch."""
    if not isinstance(value, list):
        return False
    return all(map(is_count, value)) or all(
        isinstance(row, list) and all(map(is_count, row)) for row in value
    )


def _are_words(value: Any) -> bool:
    return isinstance(value, list) and all(word is None or is_count(word) for word in value)


def _are_patterns(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_are_texts, value.values()))


def _is_threshold(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1


def _are_scores(value: Any) -> bool:
    """A list of {"module", "element", and for each score a number a head, or null}."""

    def is_number(item: Any) -> bool:
        return item is None or (isinstance(item, (int, float)) and not isinstance(item, bool))

    return isinstance(value, list) and all(
        isinstance(entry, dict)
        and isinstance(entry.get("module"), str)
        and isinstance(entry.get("element"), list)
        and all(
            isinstance(numbers, list) and all(map(is_number, numbers))
            for key, numbers in entry.items()
            if key not in ("module", "element")
        )
        for entry in value
    )


def _is_diagnostic(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("name"), str)
        and _are_scores(value.get("control", []))
    )


# Keys that are read as a whole: what reads them raises one of a few errors where they are damaged.
_READ: dict[str, Callable[[dict[str, Any]], object]] = {
    "predictions": read_predictions,
    "lens": read_lens,
    "interventions": read_interventions,
    "effect": read_effect,
    "sweep": read_sweep,
    "heads": read_heads,
}
_Rule = tuple[Callable[[Any], bool], str]
_TOKENS: _Rule = (_are_texts, "a list of texts")
_TEXT: _Rule = (_is_text, "a text")
_IDS: _Rule = (_are_ids, "a list of token ids, or a list of such lists")
_WORDS: _Rule = (_are_words, "a list of the numbers of words, or null, no longer than the tokens")
_POSITION: _Rule = (is_count, "a position, counted from 0")
_TEXTS = "format model prompt text_pair target source written image audio tensors"
_RULES: dict[str, _Rule] = {
    **dict.fromkeys(_TEXTS.split(), _TEXT),
    **dict.fromkeys(("input_ids", "decoder_input_ids"), _IDS),
    **dict.fromkeys(("sentence_b_start", "continuation_start"), _POSITION),
    **dict.fromkeys(("words", "decoder_words"), _WORDS),
    "tokens": _TOKENS,
    "attention_weights": (lambda value: isinstance(value, list), "a list"),
    "pictures": (are_pictures, "a list of small JPEG or PNG pictures, and which tokens they show"),
    "keep_above": (_is_threshold, "a number of at least 0 and less than 1"),
    "scores": (_are_scores, "a list of the scores of heads"),
    "diagnostic": (_is_diagnostic, "an object with a name, and the scores of its control"),
    "selected_patterns": (_are_patterns, "a list of patterns for each category"),
}
