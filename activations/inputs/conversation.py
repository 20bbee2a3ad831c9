"""A conversation for `--chat`: turns with a role and a text. No torch here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from activations.errors import UsageError

Turn = dict[str, str]
_FORM = 'a list of turns such as {"role": "user", "content": "Hello"}'


def read_conversation(text: str, name: str) -> tuple[Turn, ...] | None:
    """The turns of a JSON file's text; None where it is no JSON list, but a text for one turn.

    Raises `UsageError`, naming the file, where it is meant as JSON and is wrong.
    """
    if not text.lstrip().startswith("["):
        return None
    try:
        turns = json.loads(text)
    except json.JSONDecodeError as error:
        if not name.endswith(".json"):
            return None
        raise UsageError(
            f"'{name}' is not JSON: {error.msg} in line {error.lineno}, column {error.colno}. Fix "
            "it."
        ) from None
    except (RecursionError, ValueError):
        raise UsageError(f"'{name}' is not a conversation. Write {_FORM}.") from None
    return checked_turns(turns, f"'{name}'")


def checked_turns(turns: Sequence[Any], what: str) -> tuple[Turn, ...]:
    """The turns. Raises `UsageError` where one of them lacks a role or a text."""
    for number, turn in enumerate(turns, 1):
        fields = turn if isinstance(turn, Mapping) else {}
        if not all(isinstance(fields.get(key), str) for key in ("role", "content")):
            raise UsageError(f"turn {number} of {what} has no role and content. Write {_FORM}.")
    if not turns:
        raise UsageError(f"{what} has no turns. Write {_FORM}.")
    return tuple({"role": turn["role"], "content": turn["content"]} for turn in turns)
