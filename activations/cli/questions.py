"""The three questions: which attention, MLP and other patterns to capture.

On a terminal the tables are drawn by rich and the answers completed by prompt_toolkit; over a pipe
or on a dumb terminal both are plain text, one line an answer. Everything goes to stderr.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from activations.cli.messages import TITLES
from activations.errors import UsageError
from activations.selection.answers import format_spec, resolve_answer
from activations.selection.catalog import CATEGORIES, Catalog, Pattern
from activations.system.streams import is_terminal

_WIDEST_OUTPUT = 60
_WIDTH_FOR_COUNTS, _WIDTH_FOR_OUTPUTS = 32, 56  # of a terminal
_WIDTH_OF_THE_REST = 32  # what a row takes besides the name: indices, counts, 12 for outputs
HELP = (
    "An answer is a comma-separated list of: an index (0) or several (0-2), a pattern "
    "(model.layers.{layer}.self_attn), the end of one that fits no other (self_attn), all, or "
    "weights (every pattern that returns attention weights). Empty: none."
)


def ask(catalog: Catalog) -> dict[str, str]:
    """Show each category's patterns and ask; valid answers by category.

    After an invalid answer it says why and asks again. Raises `UsageError` when standard input ends
    early.
    """
    # What is suggested where standard input ends: the first attention and MLP pattern.
    suggested = {c: "0" if catalog.of(c) and c != "other" else "" for c in CATEGORIES}
    answers: dict[str, str] = {}
    read = _terminal_reader() if sys.stdin.isatty() and is_terminal(sys.stderr) else _read_plain
    _say(HELP)
    for category in CATEGORIES:
        print(file=sys.stderr)
        show_category(catalog, category, sys.stderr)
        try:
            answers[category] = _ask_until_valid(catalog, category, read)
        except EOFError:
            if any(answers.values()):
                suggested |= answers
            raise UsageError(
                "standard input ended before all questions were answered. Give the answers with "
                f'--auto-select "{format_spec(suggested)}".'
            ) from None
    return answers


Reader = Callable[[str, Sequence[Pattern]], str]  # (question, its patterns) -> the answer


def _ask_until_valid(catalog: Catalog, category: str, read: Reader) -> str:
    if not catalog.of(category):
        return ""
    while True:
        answer = read(f"{TITLES[category]} to capture (? for help): ", catalog.of(category)).strip()
        if answer == "?":
            _say(HELP)
            show_category(catalog, category, sys.stderr)
            continue
        try:
            resolve_answer(answer, category, catalog)
        except UsageError as error:
            _say(str(error))
            continue
        return answer


def _say(line: str) -> None:
    """A line for the user; on a terminal wrapped between words."""
    if is_terminal(sys.stderr):
        Console(stderr=True).print(Text(line))
    else:
        print(line, file=sys.stderr)


# --------------------------------------------------------------------------------------- reading


def _read_plain(question: str, patterns: Sequence[Pattern]) -> str:
    print(question, end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not sys.stdin.isatty():
        print(line.rstrip("\n"), file=sys.stderr)  # so that the record reads as a conversation
    if not line:
        raise EOFError
    return line


def _terminal_reader() -> Reader:
    """Reads with completion by the tab key; the arrow keys bring earlier answers back."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.output import create_output

    def completer(patterns: Sequence[Pattern]) -> WordCompleter:
        meanings = completions(patterns)
        between_commas = re.compile(r"[^,\s]*")
        return WordCompleter(list(meanings), meta_dict=meanings, pattern=between_commas)

    session: PromptSession[str] = PromptSession(
        complete_while_typing=False,  # or a tab key pressed at once would only open the menu
        output=create_output(stdout=sys.stderr),
    )
    return lambda question, patterns: session.prompt(question, completer=completer(patterns))


def completions(patterns: Sequence[Pattern]) -> dict[str, str]:
    """What an answer may consist of, and what each means.

    `all` and `weights`, the indices, then each pattern's shortest unique suffix and its whole name.
    """
    found = {"all": f"all {len(patterns)} patterns"}
    if any(pattern.weights for pattern in patterns):
        found["weights"] = "what holds the attention weights"
    found |= {str(i): pattern.text for i, pattern in enumerate(patterns)}
    for pattern in patterns:
        suffix = _shortest_suffix(pattern, patterns)
        if suffix is not None:
            found.setdefault(suffix, pattern.text)
        mark = "attention weights, " if pattern.weights else ""
        found[pattern.text] = f"{mark}{len(pattern.names)} x {_outputs(pattern)}".rstrip()
    return found


def _shortest_suffix(pattern: Pattern, patterns: Sequence[Pattern]) -> str | None:
    parts = pattern.text.split(".")
    for size in range(1, len(parts)):
        suffix = ".".join(parts[-size:])
        if sum(f".{other.text}".endswith(f".{suffix}") for other in patterns) == 1:
            return suffix
    return None


# ---------------------------------------------------------------------------------------- tables


def show_catalog(catalog: Catalog, file: TextIO) -> None:
    """All categories' tables, as `--list` prints them."""
    for i, category in enumerate(CATEGORIES):
        if i:
            print(file=file)
        show_category(catalog, category, file)


def show_category(catalog: Catalog, category: str, file: TextIO) -> None:
    """One category's numbered patterns: module count, what they return, a mark for weights."""
    patterns = catalog.of(category)
    if not patterns:
        print(f"{TITLES[category]}: none in this model.", file=file)
        return
    if is_terminal(file):
        console = Console(file=file)
        console.print(_table(category, patterns, console.width))
        return
    width = max(len(pattern.text) for pattern in patterns)
    counts = [_modules(pattern) for pattern in patterns]
    widest = max(5, *map(len, counts))
    print(f"{TITLES[category]} ({_mark_legend(patterns)})", file=file)
    for i, (pattern, count) in enumerate(zip(patterns, counts, strict=True)):
        mark = "*" if pattern.weights else " "
        line = f"{i:4} {mark} {pattern.text:{width}}  {count:>{widest}}  {_outputs(pattern)}"
        print(line.rstrip(), file=file)


def _mark_legend(patterns: Sequence[Pattern]) -> str:
    if any(pattern.weights for pattern in patterns):
        return f"{len(patterns)} patterns; * returns attention weights"
    return f"{len(patterns)} patterns"


def _modules(pattern: Pattern) -> str:
    """`4 x`; `1 x, called 12 times` where a pass calls a module again."""
    modules, most = len(pattern.names), max(pattern.calls, default=0)
    if most < 2:
        return f"{modules} x"
    if modules == 1:
        return f"1 x, called {most} times"
    if min(pattern.calls) == most:
        return f"{modules} x, called {most} times each"
    return f"{modules} x, called {sum(pattern.calls)} times in all"


def _outputs(pattern: Pattern) -> str:
    text = pattern.outputs
    return text if len(text) <= _WIDEST_OUTPUT else text[: _WIDEST_OUTPUT - 1] + "…"


def _table(category: str, patterns: Sequence[Pattern], width: int) -> Table:
    """The patterns as a table.

    On a narrow terminal the outputs are folded before the names, then left out, then the counts
    are; the indices never fold.
    """
    table = Table(
        title=f"{TITLES[category]} ({_mark_legend(patterns)})", title_justify="left", box=None
    )
    counts, outputs = width >= _WIDTH_FOR_COUNTS, width >= _WIDTH_FOR_OUTPUTS
    longest = max(len(pattern.text) for pattern in patterns)
    names = min(longest, width - _WIDTH_OF_THE_REST) if outputs else None  # rich finds it
    table.add_column("", justify="right", style="bold", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("pattern", overflow="fold", width=names)
    if counts:
        table.add_column("modules", justify="right", no_wrap=True)
    if outputs:
        table.add_column("output", overflow="fold", style="dim")
    for i, pattern in enumerate(patterns):
        mark = "*" if pattern.weights else ""
        cells = [str(i), mark, pattern.text, str(len(pattern.names)), _outputs(pattern)]
        table.add_row(*(Text(cell) for cell in cells[: len(table.columns)]))
    return table
