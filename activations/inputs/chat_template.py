"""Conversations in the form that a chat template reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from activations.errors import UsageError
from activations.inputs.conversation import Turn


def in_form(tokenizer: Any, turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """The turns, their contents in the form that the chat template reads: a text, or parts.

    A template made for one form silently leaves out the other: then every text gives the same.
    Raises `UsageError` where both are left out.
    """

    def formed(form: Callable[[str], Any], more: str = "") -> list[dict[str, Any]]:
        return [{**turn, "content": form(turn["content"] + more)} for turn in turns]

    def written(conversation: list[dict[str, Any]]) -> str:
        return str(tokenizer.apply_chat_template(conversation, tokenize=False))

    for form in (str, in_parts):
        if written(formed(form)) != written(formed(form, more=".")):
            return formed(form)
    raise UsageError("the tokenizer's chat template leaves the prompt out. Leave --chat out.")


def in_parts(text: str) -> list[dict[str, str]]:
    """A text as the content of a turn that may hold images and audio too."""
    return [{"type": "text", "text": text}]
