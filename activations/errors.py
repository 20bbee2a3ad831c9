"""Errors for the user: one line, what is wrong and what to do.

The two commands turn these into `error: ...` on stderr and an exit code; Python callers catch
`ToolkitError`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence


class ToolkitError(Exception):
    """Something could not be done (exit code 1). `str(error)` is one line for the user."""

    exit_code = 1


class UsageError(ToolkitError):
    """The command line, an argument or an answer is wrong (exit code 2)."""

    exit_code = 2


_LONGEST_NAME = 500  # characters; the time to compare grows with their square


def unknown_value(flag: str, value: object, known: Sequence[str]) -> UsageError:
    """The error for a value that is not among those that an option takes."""
    listed = " or ".join(filter(None, (", ".join(known[:-1]), known[-1])))
    return UsageError(f"{flag} takes {listed}, not '{value}'.")


def ignore(line: str) -> None:
    """For callers who want no warnings or progress: does nothing with the line."""


def first_few(names: Sequence[str], count: int = 3) -> str:
    """`a, b, c and 4 more`."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


Warn = Callable[[str], None]


def causes(error: BaseException | None) -> list[BaseException]:
    """The error, and those that led to it."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def nearest(name: str, candidates: Iterable[str], limit: int = 3) -> list[str]:
    """The candidates that contain `name`, shortest first; else those with a similar spelling.

    Spelling is compared with the candidates' last parts as well as with the whole.
    """
    if len(name) > _LONGEST_NAME:
        return []
    known = [c for c in dict.fromkeys(candidates) if len(c) <= _LONGEST_NAME]
    containing = sorted((c for c in known if name and name.lower() in c.lower()), key=len)
    if containing:
        return containing[:limit]
    by_tail: dict[str, list[str]] = {}
    for candidate in known:
        parts = candidate.split(".")
        for start in range(len(parts)):
            by_tail.setdefault(".".join(parts[start:]), []).append(candidate)
    alike = difflib.get_close_matches(name, by_tail, n=limit * 3, cutoff=0.5)
    return list(dict.fromkeys(c for tail in alike for c in by_tail[tail]))[:limit]


def quoted_list(names: Iterable[str]) -> str:
    """`'a', 'b' or 'c'`, for messages."""
    quoted = [f"'{name}'" for name in names]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " or " + quoted[-1]
