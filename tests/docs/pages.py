"""The pages of the documentation, taken apart: blocks, commands, links, anchors, options."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_QUESTION = re.compile(r"^\w+ to capture \(\? for help\): (.*)$")


@dataclass(frozen=True)
class Command:
    """What follows `$ `, and the lines that the page shows under it."""

    line: str
    shown: list[str]

    @property
    def answers(self) -> str:
        """What the page answers to the questions; an empty line for those it leaves out."""
        given = [match[1] for line in self.shown if (match := _QUESTION.match(line))]
        return "\n".join(given + [""] * 4)

    @property
    def fails(self) -> bool:
        return any(line.startswith("error: ") for line in self.shown)

    def not_in(self, printed: list[str]) -> list[str]:
        """The first lines shown that are not printed, in this order and with nothing between.

        Empty where all are; `...` stands for any lines that the page leaves out.
        """
        printed = [line.rstrip() for line in printed]
        start = 0
        for piece in _pieces(self.shown):
            places = range(start, len(printed) - len(piece) + 1)
            found = next((i for i in places if printed[i : i + len(piece)] == piece), None)
            if found is None:
                return piece
            start = found + len(piece)
        return []


def _pieces(lines: list[str]) -> list[list[str]]:
    pieces: list[list[str]] = [[]]
    for line in lines:
        if line == "...":
            pieces.append([])
        else:
            pieces[-1].append(line.rstrip())
    return [piece for piece in pieces if piece]


def blocks(text: str) -> list[tuple[str, str]]:
    """(language, content) of every fenced block, in order."""
    return _BLOCK.findall(text)


def without_blocks(text: str) -> str:
    return _BLOCK.sub("", text)


def commands(console: str) -> list[Command]:
    found: list[Command] = []
    for line in console.replace("\\\n", " ").splitlines():  # a command may go over several lines
        if line.startswith("$ "):
            found.append(Command(line[2:], []))
        else:
            found[-1].shown.append(line)
    return found


def links(text: str) -> list[str]:
    """The targets of all links and pictures."""
    prose = without_blocks(text)
    return re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(r'src="([^"]+)"', prose)


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", without_blocks(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def options(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", text))


def code_words(text: str) -> set[str]:
    """The words between backticks, outside of blocks."""
    return {
        word for span in re.findall(r"`([^`\n]+)`", without_blocks(text)) for word in span.split()
    }
