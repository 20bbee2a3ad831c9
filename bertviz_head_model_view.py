#!/usr/bin/env python3
"""Draw the attention weights of a captured document: bertviz's head view and model view as HTML.

python bertviz_head_model_view.py
python bertviz_head_model_view.py --input capture.json --output-dir pages --view head
python bertviz_head_model_view.py --layers 0,4-7 --heads 0-3 --tokens 0:64
"""

from __future__ import annotations

import argparse
import re
import sys
from contextlib import ExitStack
from pathlib import Path

from activations import __version__
from activations.cli import Parser, Talk, run_command
from activations.errors import ToolkitError, UsageError


def main(argv: list[str] | None = None) -> int:
    """Run the command. Returns the exit code: 0 done, 1 could not be done, 2 wrong usage."""
    return run_command(build_parser(), argv, write_views)


def build_parser() -> Parser:
    parser = Parser(
        prog="bertviz_head_model_view.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--input",
        metavar="FILE",
        default="agnostic_activations.json",
        help="the captured document (agnostic_activations.json)",
    )
    add(
        "--output-dir",
        metavar="DIR",
        default="bertviz",
        help="where the pages go; made if its parent is there (bertviz)",
    )
    add("--view", metavar="VIEWS", default="head,model", help="head, model or both (head,model)")
    add("--layers", metavar="LIST", help="only these layers, as in 0,4-7")
    add("--heads", metavar="LIST", help="only these heads, as in 0-3")
    add("--tokens", metavar="FROM:TO", help="only these token positions, as in 0:64")
    add(
        "--min-weight",
        metavar="W",
        type=float,
        default=0.01,
        help="lines with a weight of W or less are not drawn; the numbers stay (0.01)",
    )
    add("--open", action="store_true", help="open the pages in the browser")
    add("--quiet", action="store_true", help="print only results, warnings and errors")
    add("--debug", action="store_true", help="show the traceback of an error")
    add("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def write_views(args: argparse.Namespace, talk: Talk) -> None:
    """Read the document, write the pages, print their paths."""
    from activations.selection import parse_numbers

    views = _views(args.view)
    if not 0 <= args.min_weight < 1:
        raise UsageError("--min-weight takes a number from 0 up to, but not, 1.")
    layers = None if args.layers is None else parse_numbers(args.layers, "--layers")
    heads = None if args.heads is None else parse_numbers(args.heads, "--heads")
    tokens = None if args.tokens is None else _token_range(args.tokens)
    folder = _output_folder(args.output_dir)

    from activations.document import load
    from activations.files import check_inside, replacing
    from activations.showing import read_shown
    from activations.views import build_pages, page_name

    with load(args.input) as document:
        shown = read_shown(document, layers, heads, tokens, talk.warn)
    pages = build_pages(views, shown.caption, shown.stacks, args.min_weight)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ToolkitError(
            f"--output-dir: '{args.output_dir}' cannot be made ({error.strerror}). Name another."
        ) from None
    paths = {view: folder / page_name(view, shown.caption.model) for view in views}
    for path in paths.values():
        check_inside(path, folder)
    with ExitStack() as both:  # all pages are written whole before the first takes its place
        for view, path in paths.items():
            both.enter_context(replacing(path, needed=len(pages[view]))).write(pages[view])
    for path in paths.values():
        talk.result(str(path))
        if args.open:
            _open(path, talk)


def _views(text: str) -> list[str]:
    views = [view.strip() for view in text.split(",") if view.strip()]
    if not views or any(view not in ("head", "model") for view in views):
        raise UsageError(f"--view does not know '{text}'. Write head, model or head,model.")
    return list(dict.fromkeys(views))


def _token_range(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"\s*(\d{1,7})\s*:\s*(\d{1,7})\s*", text)
    if not match:
        raise UsageError(f"--tokens cannot read '{text}'. Write first and end, as in 0:64.")
    if int(match[2]) <= int(match[1]):
        raise UsageError(f"--tokens {text} is empty. Write first and end, as in 0:64.")
    return int(match[1]), int(match[2])


def _output_folder(name: str) -> Path:
    folder = Path(name)
    if folder.exists() and not folder.is_dir():
        raise ToolkitError(f"--output-dir: '{name}' is a file. Name a folder.")
    if not folder.exists() and not folder.resolve().parent.is_dir():
        raise ToolkitError(
            f"--output-dir: the folder above '{name}' does not exist. Make it, or name another."
        )
    return folder


def _open(path: Path, talk: Talk) -> None:
    import webbrowser

    if not webbrowser.open(path.resolve().as_uri()):
        talk.warn(f"no browser could be started; open '{path}' yourself.")


if __name__ == "__main__":
    sys.exit(main())
