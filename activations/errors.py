"""What can go wrong, as the user meets it: one line, what is wrong and what to do.

The two commands turn these into `error: ...` on stderr and an exit code; Python callers catch
`ToolkitError`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ToolkitError(Exception):
    """Something could not be done (exit code 1). `str(error)` is one line for the user."""

    exit_code = 1


class UsageError(ToolkitError):
    """The command line, an argument or an answer is wrong (exit code 2)."""

    exit_code = 2


def nearest(name: str, candidates: Iterable[str], limit: int = 3) -> list[str]:
    """The candidates most like `name`, compared by their last parts as well as whole."""
    by_tail: dict[str, list[str]] = {}
    for candidate in dict.fromkeys(candidates):
        parts = candidate.split(".")
        for start in range(len(parts)):
            by_tail.setdefault(".".join(parts[start:]), []).append(candidate)
    hits = difflib.get_close_matches(name, by_tail, n=limit * 3, cutoff=0.5)
    found = dict.fromkeys(candidate for hit in hits for candidate in by_tail[hit])
    return list(found)[:limit]


def quoted_list(names: Iterable[str]) -> str:
    """`'a', 'b' or 'c'`, for messages."""
    quoted = [f"'{name}'" for name in names]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " or " + quoted[-1]
