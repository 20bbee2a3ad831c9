"""A conversation for `--chat`: turns with a role and a text. No torch here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from activations.errors import UsageError

Turn = dict[str, str]
_FORM = 'a list of turns such as {"role": "user", "content": "Hello"}'


def read_conversation(text: str, name: str) -> tuple[Turn, ...] | None:
    """The turns in the text of a file: a JSON list, alone or as "messages" of an object.

    None where it is a text, for one turn. Raises `UsageError`, naming the file, where it is meant
    as a conversation and is wrong: it begins as one does, or its name ends in `.json`.
    """
    begins = "".join(text[:200].split())
    if not begins.startswith(('[{"', '{"')) and not name.endswith(".json"):
        return None
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{error.msg} in line {error.lineno}, column {error.colno}"
        raise UsageError(f"'{name}' is not JSON: {where}. Fix it.") from None
    except (RecursionError, ValueError):
        raise UsageError(f"'{name}' is not a conversation. Write {_FORM}.") from None
    turns = found.get("messages") if isinstance(found, dict) else found
    if not isinstance(turns, list):
        raise UsageError(f"'{name}' is not a conversation. Write {_FORM}.")
    return checked_turns(turns, f"'{name}'")


def checked_turns(turns: Sequence[Any], what: str) -> tuple[Turn, ...]:
    """The turns, each with a role and a text. Raises `UsageError` where one of them is wrong."""
    if not turns:
        raise UsageError(f"{what} has no turns. Write {_FORM}.")
    return tuple(_checked(turn, f"turn {number} of {what}") for number, turn in enumerate(turns, 1))


def _checked(turn: Any, what: str) -> Turn:
    fields = turn if isinstance(turn, Mapping) else {}
    if not isinstance(fields.get("role"), str) or "content" not in fields:
        raise UsageError(f"{what} has no role and content. Write {_FORM}.")
    content = fields["content"]
    if isinstance(content, list):  # in parts, as chats with images have them
        parts = [part.get("text") if isinstance(part, Mapping) else None for part in content]
        content = "".join(map(str, parts)) if all(isinstance(p, str) for p in parts) else None
    if not isinstance(content, str):
        raise UsageError(f"the content of {what} is not a text. Write one.")
    return {"role": fields["role"], "content": content}
