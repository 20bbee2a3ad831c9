"""Reads the table of errors, error_rows.txt, whose head says how a row is written."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

OUTCOME = re.compile(r"  (\d+)(?: with ([^|]+))?(?: leaving (\S+))? \|(?: (.+))?")


class Row(NamedTuple):
    item: str
    command: str
    code: int
    under: str
    leaving: str
    line: str

    @property
    def argv(self) -> list[str]:
        escaped = r"\\(?:x(..)|u(....))"
        return shlex.split(re.sub(escaped, lambda m: chr(int(m[1] or m[2], 16)), self.command))


def read_rows(text: str) -> list[Row]:
    text = re.sub(r"\{([^{}]+)\*(\d+)\}", lambda repeated: repeated[1] * int(repeated[2]), text)
    lines = [line for line in text.split("\n") if line and not line.startswith("#")]
    rows = []
    for first, second in zip(lines[::2], lines[1::2], strict=True):
        item, command = first.split(": ", 1)
        outcome = OUTCOME.fullmatch(second)
        assert outcome, f"not a row of the table: {first}\n{second}"
        code, *rest = outcome.groups(default="")
        rows.append(Row(item, command, int(code), *rest))
    return rows


ROWS = read_rows(Path(__file__).with_suffix(".txt").read_text("utf-8"))
