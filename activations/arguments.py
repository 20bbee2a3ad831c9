"""Values of arguments, checked: a mistake is one line, not a traceback."""

from __future__ import annotations

import operator
import re
import reprlib
from collections.abc import Iterable
from typing import Any

from activations.errors import UsageError

DIAGNOSTICS = ("induction",)  # texts that are made for a model
SWEEPS = ("heads", "mlps")  # what is ablated in turn


def check(wanted: str, *kinds: type, **asked: Any) -> None:
    """Raise `UsageError` where an argument is not of these types; `wanted` describes them."""
    for name, value in asked.items():
        if not isinstance(value, kinds):
            raise UsageError(f"{name} takes {wanted}, not {reprlib.repr(value)}.")


def check_new_tokens(count: int | None) -> None:
    """Raise `UsageError` where the count is less than one."""
    if count is not None and count < 1:
        raise UsageError("--max-new-tokens takes a number of at least 1.")


def number(asked: Any, name: str, kind: Any, example: str) -> Any:
    """The number as a `kind`. Raises `UsageError` where it is not a number."""
    try:
        if isinstance(asked, (bool, str)):
            raise TypeError
        return kind(asked)
    except (TypeError, ValueError, OverflowError):
        raise UsageError(
            f"{name} takes a number, as in {name}={example}, not {reprlib.repr(asked)}."
        ) from None


def numbers(asked: int | Iterable[int] | None, name: str) -> list[int] | None:
    """One number, or several, as a list; None is None. Raises `UsageError` for anything else."""
    if asked is None:
        return None
    try:
        items = list(asked) if isinstance(asked, Iterable) else [asked]
        if any(isinstance(item, bool) for item in items):  # a mask: it would be read as 0 and 1
            raise TypeError
        return [operator.index(item) for item in items]
    except TypeError:
        raise UsageError(
            f"{name} takes numbers, as in {name}=[0, 4] or {name}=range(4), not "
            f"{reprlib.repr(asked)}."
        ) from None


def parse_layers(text: str) -> list[int]:
    """`"0,4-7,-1"` -> [-1, 0, 4, 5, 6, 7]: as `parse_numbers`, and -1 is the last layer."""
    return _parse(text, r"-\d{1,6}", "--layers", "0,4-7,-1")


def parse_positions(text: str) -> tuple[int, ...]:
    """`"0,5-7,-1"` -> (-1, 0, 5, 6, 7): as `parse_layers`; -1 is the last."""
    return tuple(_parse(text, r"-\d{1,6}", "--at", "0,5-7,-1"))


def parse_numbers(text: str, flag: str) -> list[int]:
    """`"0,4-7"` -> [0, 4, 5, 6, 7], sorted, each once. Raises `UsageError`, naming the flag."""
    return _parse(text, "", flag, "0,4-7")


def _parse(text: str, also: str, flag: str, example: str) -> list[int]:
    """Numbers and ranges, and single numbers of the form `also`."""
    numbers: set[int] = set()
    for part in map(str.strip, text.split(",")):
        match = re.fullmatch(r"(\d{1,6})\s*(?:-\s*(\d{1,6}))?", part)
        if match and int(match[2] or match[1]) >= int(match[1]):
            numbers.update(range(int(match[1]), int(match[2] or match[1]) + 1))
        elif also and re.fullmatch(also, part):
            numbers.add(int(part))
        else:
            raise UsageError(
                f"{flag} cannot read '{text}'. Write numbers and ranges, as in {flag} {example}."
            )
    return sorted(numbers)


def parse_ids(text: str) -> tuple[int, ...]:
    """`"50256,12,7"` -> (50256, 12, 7), token ids in their order. Raises `UsageError`."""
    parts = [part.strip() for part in text.strip(" []").split(",")]
    if not all(re.fullmatch(r"\d{1,9}", part) for part in parts):
        raise UsageError(f"--ids cannot read '{text}'. Write token ids, as in --ids 50256,12,7.")
    return tuple(map(int, parts))


def numbered(what: str, numbers: Iterable[int]) -> str:
    """`layer 3`, `layers 0-2,5`: things by their numbers."""
    there = set(numbers)
    return f"{what}{'' if len(there) == 1 else 's'} {describe_numbers(there)}"


def describe_numbers(numbers: Iterable[int]) -> str:
    """[0, 1, 2, 5] -> "0-2,5": the inverse of `parse_numbers`."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)
