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

from activations.arguments import describe_numbers
from activations.cli.messages import TITLES
from activations.errors import UsageError
from activations.selection.answers import (
    AnswerError,
    format_spec,
    names_category,
    resolve_answer,
)
from activations.selection.catalog import CATEGORIES, Catalog, Pattern
from activations.system.streams import is_terminal

HELP_KEY, BACK = "?", "<"
_WIDEST_OUTPUT = 60
_WIDTH_FOR_COUNTS, _WIDTH_FOR_OUTPUTS = 32, 56  # of a terminal
_WIDTH_OF_THE_REST = 32  # what a row takes besides the name: indices, counts, 12 for outputs
INTRODUCTION = (
    "Which modules to capture? Answer each question with an index, a name, weights or all; Enter "
    "selects none. ? shows all forms of an answer, < goes back."
)
HELP = """\
An answer is a comma-separated list of:
  0, 0-2     the pattern with this index, or these patterns
  self_attn  the end of a pattern that fits no other, or a whole pattern, such
             as model.layers.{layer}.self_attn
  weights    every pattern that returns attention weights, each tensor once
  all        every pattern of this category
Enter alone selects none. < goes back to the question before.
A pattern stands for all its layers; --layers keeps some of them.
A shape is that of one module's output: [1,T,64] is 1 text, T tokens, 64 numbers
for each; [1,4,T,T] is the attention of 4 heads; 2T is twice as many."""
_FIRST = "This is the first question: there is none before it."


def ask(catalog: Catalog) -> dict[str, str]:
    """Show each category's patterns and ask; valid answers by category.

    After an invalid answer it says why and asks again; `<` asks the question before once more.
    Raises `UsageError` when standard input ends early.
    """
    asked = [category for category in CATEGORIES if catalog.of(category)]
    answers: dict[str, str] = {}
    read = _terminal_reader() if sys.stdin.isatty() and is_terminal(sys.stderr) else _read_plain
    _say(INTRODUCTION)
    at = 0
    while at < len(asked):
        _show_question(catalog, asked[at], legend=not answers)
        try:
            answer = _ask_until_valid(catalog, asked[at], read, is_first=at == 0)
        except EOFError:
            raise _ended_early(catalog, answers) from None
        if answer == BACK:
            at -= 1
        else:
            answers[asked[at]] = answer
            at += 1
        if at == len(asked) and not any(resolve_answer(answers[c], c, catalog) for c in asked):
            _say("Nothing is selected. Choose at least one pattern.")
            at = 0
    return {category: answers.get(category, "") for category in CATEGORIES}


def _show_question(catalog: Catalog, category: str, legend: bool) -> None:
    print(file=sys.stderr)
    show_category(catalog, category, sys.stderr)
    if legend and (line := shapes_legend(catalog)):
        _say(line)
    _say(usual_line(catalog, category))


def _ended_early(catalog: Catalog, answers: dict[str, str]) -> UsageError:
    suggested = {category: usual_answer(catalog, category) for category in CATEGORIES}
    if any(answers.values()):
        suggested |= answers
    return UsageError(
        "standard input ended before all questions were answered. Give the answers with "
        f'--auto-select "{format_spec(suggested)}".'
    )


def usual_answer(catalog: Catalog, category: str) -> str:
    """The answer that most want: the attention weights, the first MLP pattern, nothing else."""
    if category == "other" or not catalog.of(category):
        return ""
    starred = [pattern for pattern in catalog.of(category) if pattern.weights]
    return "weights" if len(starred) > 1 else "0"


def usual_line(catalog: Catalog, category: str) -> str:
    """The usual answer, and what `weights` selects where that may be asked."""
    answer = usual_answer(catalog, category)
    if answer != "weights":
        return f"Usual answer: {answer or 'none (Enter)'}."
    patterns = catalog.of(category)
    chosen = map(patterns.index, resolve_answer(answer, category, catalog))
    return (
        f"Usual answer: weights, which is {describe_numbers(chosen)} here: every attention tensor "
        "once."
    )


def shapes_legend(catalog: Catalog) -> str:
    """What the letters in the shapes count; empty where there are none."""
    shapes = " ".join(pattern.outputs for pattern in catalog.patterns)
    if re.search(r"\b\d*S\b", shapes):
        return "In shapes, S is the number of the encoder's tokens, T that of the decoder's."
    return "In shapes, T is the number of tokens." if re.search(r"\b\d*T\b", shapes) else ""


Reader = Callable[[str, Sequence[Pattern]], str]  # (question, its patterns) -> the answer


def _ask_until_valid(catalog: Catalog, category: str, read: Reader, is_first: bool) -> str:
    """A valid answer, or `BACK`."""
    while True:
        answer = read(f"{TITLES[category]} to capture (? for help): ", catalog.of(category)).strip()
        if answer == BACK and not is_first:
            return answer
        if answer in (HELP_KEY, BACK):
            _say(HELP if answer == HELP_KEY else _FIRST)
            continue
        try:
            check_answer(answer, category, catalog)
        except UsageError as error:
            _say(str(error))
            continue
        return answer


def check_answer(answer: str, category: str, catalog: Catalog) -> None:
    """Raise `UsageError` where a question cannot take this answer."""
    if named := names_category(answer):
        raise UsageError(
            f"Leave out '{named}': this question is about {category} only. Answer 0, for example."
        )
    try:
        resolve_answer(answer, category, catalog)
    except AnswerError as error:
        raise UsageError(f"{error.what} ? shows all forms of an answer.") from None


def _say(line: str, file: TextIO | None = None) -> None:
    """A line for the user, on stderr by default; on a terminal wrapped between words."""
    file = file or sys.stderr
    if is_terminal(file):
        Console(file=file).print(Text(line))
    else:
        print(line, file=file)


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
    if legend := shapes_legend(catalog):
        _say(f"\n{legend}", file)


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
    notes = [_called(pattern) for pattern in patterns]
    widest = max(map(len, notes))
    print(f"{TITLES[category]} ({_mark_legend(patterns)})", file=file)
    for i, (pattern, note) in enumerate(zip(patterns, notes, strict=True)):
        mark = "*" if pattern.weights else " "
        modules = f"{len(pattern.names):3} x{note:{widest}}"
        line = f"{i:4} {mark} {pattern.text:{width}}  {modules}  {_outputs(pattern)}"
        print(line.rstrip(), file=file)


def _mark_legend(patterns: Sequence[Pattern]) -> str:
    if any(pattern.weights for pattern in patterns):
        return f"{len(patterns)} patterns; * returns attention weights"
    return f"{len(patterns)} patterns"


def _called(pattern: Pattern) -> str:
    """`, called 12 times` where a pass calls a module again."""
    most = max(pattern.calls, default=0)
    if most < 2:
        return ""
    if len(pattern.names) == 1:
        return f", called {most} times"
    if min(pattern.calls) == most:
        return f", called {most} times each"
    return f", called {sum(pattern.calls)} times in all"


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
        table.add_column("modules", justify="right", overflow="fold")
    if outputs:
        table.add_column("output", overflow="fold", style="dim")
    for i, pattern in enumerate(patterns):
        mark = "*" if pattern.weights else ""
        modules = f"{len(pattern.names)}{_called(pattern)}"
        cells = [str(i), mark, pattern.text, modules, _outputs(pattern)]
        table.add_row(*(Text(cell) for cell in cells[: len(table.columns)]))
    return table
