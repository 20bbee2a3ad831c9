"""Write docs/options.md: every option of both commands, as their parsers have them.

    python docs/write_options.py [--check]

`--check` writes nothing, and fails where the page is out of date.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import agnostic_capture
import bertviz_head_model_view

PAGE = ROOT / "docs" / "options.md"
START = """\
<!-- Written by docs/write_options.py. Do not edit. -->
# All options

[`agnostic_capture.py`](#agnostic_capturepy) ·
[`bertviz_head_model_view.py`](#bertviz_head_model_viewpy) ·
[Exit codes](#exit-codes)

[Tasks](tasks.md) shows the options at work.
"""
END = """\
## Exit codes

Both commands end with one of these:

| code | meaning |
|---|---|
| 0 | done |
| 1 | could not be done |
| 2 | the command line or an answer is wrong |
| 130 | interrupted with Ctrl-C |

Results go to standard output. Questions, progress, warnings and errors go to standard error.
An error is one line; `--debug` shows its traceback too. A failed or interrupted run leaves the
previous output as it was. Where the reader of standard output has gone (`| head`), the code is 1
and nothing is said; files that were to be written are there.
"""


def main(argv: list[str] | None = None) -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="fail if the page is out of date")
    check = arguments.parse_args(argv).check
    text = page()
    if not check:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        print(
            "error: docs/options.md is out of date. Run: python docs/write_options.py",
            file=sys.stderr,
        )
        return 1
    return 0


def page() -> str:
    """The whole page."""
    parsers = [agnostic_capture.build_parser(), bertviz_head_model_view.build_parser()]
    return "\n".join([START, *map(section, parsers), END])


def section(parser: argparse.ArgumentParser) -> str:
    """One command: a table for each group of its options, argparse's own groups last."""
    own = ("positional arguments", "options")
    tables: dict[str, list[argparse.Action]] = {}
    for group in sorted(parser._action_groups, key=lambda group: group.title in own):
        title = "general" if group.title in own else group.title or ""
        tables.setdefault(title, []).extend(group._group_actions)
    parts = [f"## {parser.prog}\n"]
    for title, actions in tables.items():
        if len(tables) > 1:
            parts.append(f"### {title.capitalize()}\n")
        parts.append("| option | what it does | default |\n|---|---|---|")
        parts += [*map(row, actions), ""]
    for one_of in parser._mutually_exclusive_groups:
        flags = [f"`{action.option_strings[-1]}`" for action in one_of._group_actions]
        parts.append(f"{' and '.join(flags)} cannot be combined.\n")
    return "\n".join(parts)


def row(action: argparse.Action) -> str:
    text = (action.help or "").replace("%(prog)s", "the command").replace("|", "\\|")
    default = ""
    if stated := re.search(r" \(default: (.*)\)$", text):
        text, default = text[: stated.start()], stated[1]
    elif action.default not in (None, False, argparse.SUPPRESS):
        text, default = text.removesuffix(f" ({action.default})"), f"`{action.default}`"
    return f"| {spelling(action)} | {text} | {default} |"


def spelling(action: argparse.Action) -> str:
    """The option with what it takes: `--layers LIST`, `--format json` or `safetensors`."""
    if not action.option_strings:
        return f"`[{action.metavar}]`"
    flag = action.option_strings[-1]
    if action.nargs == 0:
        return f"`{flag}`"
    if action.choices:
        first, *others = map(str, action.choices)
        return ", ".join([f"`{flag} {first}`", *(f"`{choice}`" for choice in others)])
    value = action.metavar or action.dest.upper()
    return f"`{flag} [{value}]`" if action.nargs == "?" else f"`{flag} {value}`"


if __name__ == "__main__":
    sys.exit(main())
