#!/usr/bin/env python3
"""Draw the attention weights of a captured document: bertviz's head view and model view as HTML,
single heads as figures, the scores of all heads as a table.

  python bertviz_head_model_view.py
  python bertviz_head_model_view.py capture.json --output-dir pages --view head
  python bertviz_head_model_view.py --layers 0,4-7 --heads 0-3 --tokens 0:64
  python bertviz_head_model_view.py --summary
  python bertviz_head_model_view.py --figure 1.2,3.1 --output-format pdf
  python bertviz_head_model_view.py before.json --compare after.json
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from activations.arguments import parse_layers, parse_numbers
from activations.attention.heads import HeadName, parse_heads
from activations.cli.command import Console, Parser, run_command
from activations.document.format import DOCUMENT
from activations.errors import UsageError, unknown_value
from activations.model.vocabulary import tokens_of
from activations.program import VIEW
from activations.system.atomic import Pieces, write_together
from activations.system.files import check_output_folder
from activations.system.streams import standard_output
from activations.views.choices import FIGURE_FORMATS, LENS, SUMMARY_FORMATS, VIEWS

if TYPE_CHECKING:
    from activations.attention.stack import Stack
    from activations.document.reader import Document
    from activations.views.compared import Compared
    from activations.views.content import Content

_VIEW_CHOICES = f"{', '.join(VIEWS)} or {','.join(VIEWS)}"


def main(argv: list[str] | None = None) -> int:
    """Run the command. Returns the exit code: 0 done, 1 could not be done, 2 wrong usage."""
    return run_command(build_parser(), argv, show_attention)


def build_parser() -> Parser:
    parser = Parser(VIEW, __doc__)
    add = parser.add_argument
    add(
        "file",
        metavar="FILE",
        nargs="?",
        help=f"the captured document (default: {DOCUMENT})",
    )
    add("--input", metavar="FILE", help="the same as FILE")
    add(
        "--output-dir",
        metavar="DIR",
        default="bertviz",
        help="the folder for pages and figures, created if its parent exists (bertviz)",
    )
    add(
        "--view",
        metavar="VIEWS",
        help=f"pages: {_VIEW_CHOICES} (default: both; none with --figure or --summary)",
    )
    add("--figure", metavar="HEADS", help="figures of these heads, as in 3.5,cross:0.1; or lens")
    add("--output-format", choices=FIGURE_FORMATS, help="format of the figures (default: svg)")
    add(
        "--summary",
        metavar=f"{{{','.join(SUMMARY_FORMATS)}}}",
        nargs="?",
        const="table",
        help="print the scores of every head over the whole text; without a format: table",
    )
    add("--compare", metavar="FILE", help="another document: A, B and A - B on the pages")
    add(
        "--fail-above",
        metavar="X",
        type=float,
        help="exit 1 where the most changed head of --compare changed by more than X (0 to 1)",
    )
    add("--layers", metavar="LIST", help="only these layers, as in 0,4-7,-1; -1 is the last")
    add("--heads", metavar="LIST", help="only these heads, as in 0-3")
    add("--tokens", metavar="FROM:TO", help="only these token positions, as in 0:64")
    add("--words", action="store_true", help="merge the pieces of each word, in pages and figures")
    add(
        "--min-weight",
        metavar="W",
        type=float,
        help="do not draw the lines of weights of W or less; the page keeps the numbers "
        "(default: 0.01)",
    )
    add("--open", action="store_true", help="open the files in the browser")
    parser.add_common_options()
    return parser


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for: which files, of which part of which document, and how."""

    document: str
    views: list[str]
    figures: list[HeadName]
    lens_figure: bool
    output_format: str
    summary: str | None
    min_weight: float
    layers: list[int] | None
    heads: list[int] | None
    tokens: tuple[int, int] | None
    words: bool
    compare: str | None
    fail_above: float | None

    @property
    def files(self) -> bool:
        """Whether files are to be written."""
        return bool(self.views or self.figures or self.lens_figure)

    def shows_attention(self, document: Document) -> bool:
        """Whether the attention is needed, or may be missing, as predictions are all there is."""
        if self.views or self.figures:
            return True
        has_none = document.attention_weights == [] and document.predictions is not None
        return self.summary == "csv" or (self.summary == "table" and not has_none)


def show_attention(args: argparse.Namespace, console: Console) -> None:
    """Read the document, write pages and figures, print the summary and the paths."""
    wanted = read_wanted(args)
    if wanted.compare is not None:
        compare_captures(args, wanted, console)
        return

    # Not at the top, as these import numpy: --help and wrong options are answered without it.
    from activations.document.reader import Document
    from activations.views.content import read_content
    from activations.views.effects_summary import effect_lines
    from activations.views.predictions_summary import summary_lines

    if wanted.files:
        check_output_folder(args.output_dir)
    with Document(wanted.document) as document:
        files = make_lens_figure(wanted, document, console)
        stacks: Sequence[Stack] = ()
        if wanted.shows_attention(document):
            content = read_content(
                document,
                tokens_of,
                wanted.layers,
                wanted.heads,
                wanted.tokens,
                console.warn,
                pages=bool(wanted.views),
                words=wanted.words,
            )
            stacks = content.stacks
            # The weights are read as they are needed, a layer at a time.
            files |= {**make_pages(wanted, content), **make_figures(wanted, content, console)}
        lines = []
        if wanted.summary == "table":
            lines = [*summary_lines(document), *effect_lines(document.header)]
    paths = write_together(Path(args.output_dir), files) if files else []
    if wanted.summary:
        from activations.views.score_table import show_summary

        with standard_output() as file:
            show_summary(stacks, wanted.summary, file, console.warn, lines)
    for path in paths:
        console.result(str(path))
        if args.open:
            _open(path, console)


def compare_captures(args: argparse.Namespace, wanted: Wanted, console: Console) -> None:
    """Write the pages of two documents, print how they differ. Raises `ToolkitError` where the most
    changed head is above `--fail-above`.
    """
    from activations.document.reader import Document
    from activations.views.compare_summary import show_comparison, too_far
    from activations.views.compared import compared

    if wanted.files:
        check_output_folder(args.output_dir)
    assert wanted.compare is not None, "was asked for"
    with Document(wanted.document) as first, Document(wanted.compare) as second:
        found = compared(
            (first, second),
            tokens_of,
            wanted.layers,
            wanted.heads,
            console.warn,
            pages=bool(wanted.views),
        )
        for line in found.about():
            console.note(line)
        files = make_comparison(wanted, found)
    paths = write_together(Path(args.output_dir), files) if files else []
    if wanted.summary:
        with standard_output() as file:
            show_comparison(found.comparison, wanted.summary, file)
    for path in paths:
        console.result(str(path))
        if args.open:
            _open(path, console)
    if wanted.fail_above is not None:
        too_far(found.comparison, wanted.fail_above)


def make_comparison(wanted: Wanted, found: Compared) -> dict[str, Pieces]:
    """{file name: its content} of the pages of two documents."""
    if not wanted.views:
        return {}
    from activations.views.compare_page import build_comparison, comparison_name

    pages = build_comparison(wanted.views, found.a, found.b, found.comparison, wanted.min_weight)
    captions = found.a.caption, found.b.caption
    return {comparison_name(view, *captions): page for view, page in pages.items()}


def make_lens_figure(wanted: Wanted, document: Document, console: Console) -> dict[str, Pieces]:
    """{file name: its content} of the lens, if its figure is wanted."""
    if not wanted.lens_figure:
        return {}
    from activations.views.lens_figure import build_lens_figure

    found = build_lens_figure(
        document, wanted.output_format, wanted.layers, wanted.tokens, console.warn
    )
    return {name: [figure] for name, figure in found.items()}


def make_pages(wanted: Wanted, content: Content) -> dict[str, Pieces]:
    """{file name: its content} of the pages that are wanted."""
    if not wanted.views:
        return {}
    from activations.views.page import build_pages, page_name

    caption = content.caption
    pages = build_pages(
        wanted.views,
        caption,
        content.stacks,
        wanted.min_weight,
        first=content.first,
        words=wanted.words,
        predictions=content.predictions,
        effect=content.effect,
        sweep=content.sweep,
    )
    return {page_name(v, caption.model, caption.document): page for v, page in pages.items()}


def make_figures(wanted: Wanted, content: Content, console: Console) -> dict[str, Pieces]:
    """{file name: its content} of the figures that are wanted."""
    if not wanted.figures:
        return {}
    from activations.views.figure import build_figures

    figures = build_figures(
        wanted.figures,
        content.caption,
        content.stacks,
        wanted.output_format,
        console.warn,
        wanted.words,
    )
    return {name: [figure] for name, figure in figures.items()}


# ------------------------------------------------------------------------------ the command line


def read_wanted(args: argparse.Namespace) -> Wanted:
    """The arguments, read and checked against each other. Raises `UsageError`."""
    pages_too = args.view is not None or (args.figure is None and args.summary is None)
    document, summary = _document_and_summary(args)
    figures, lens_figure = _figures(args.figure)
    wanted = Wanted(
        document=document,
        views=_views(args.view) if pages_too else [],
        figures=figures,
        lens_figure=lens_figure,
        output_format=args.output_format or "svg",
        summary=summary,
        min_weight=0.01 if args.min_weight is None else args.min_weight,
        layers=None if args.layers is None else parse_layers(args.layers),
        heads=None if args.heads is None else parse_numbers(args.heads, "--heads"),
        tokens=None if args.tokens is None else _token_range(args.tokens),
        words=args.words,
        compare=args.compare,
        fail_above=args.fail_above,
    )
    named = {
        "FILE": args.file,
        "--input": args.input,
        "--compare": args.compare,
        "--output-dir": args.output_dir,
    }
    for flag, name in named.items():
        if name == "":
            raise UsageError(f"{flag} is empty. Leave it out, or name one.")
    if not 0 <= wanted.min_weight < 1:
        raise UsageError("--min-weight takes a number of at least 0 and less than 1.")
    _refuse_unused_options(args, wanted)
    _check_comparison(args, wanted)
    return wanted


def _document_and_summary(args: argparse.Namespace) -> tuple[str, str | None]:
    """Which document, and as what to print its scores. Raises `UsageError`."""
    file, summary = args.file, args.summary
    if summary is not None and summary not in SUMMARY_FORMATS:
        is_document = summary.endswith(".json") or os.path.isfile(summary)
        if not is_document or file or args.input:
            raise unknown_value("--summary", summary, SUMMARY_FORMATS)
        file, summary = summary, "table"  # of `--summary FILE`, argparse takes FILE for the format
    if file is not None:
        _check_file(file, args.input)
    return file or args.input or DOCUMENT, summary


def _check_file(file: str, other: str | None) -> None:
    if file and not file.endswith(".json") and not os.path.lexists(file):
        raise UsageError(
            f"there is no file '{file}'. Several values of an option have commas between them, as "
            "in --view head,model."
        )
    if other is not None:
        raise UsageError("FILE and --input cannot be combined. Give one of them.")


def _refuse_unused_options(args: argparse.Namespace, wanted: Wanted) -> None:
    if args.output_format is not None and not (wanted.figures or wanted.lens_figure):
        raise UsageError("--output-format is for figures. Leave it out, or add --figure.")
    if args.min_weight is not None and not wanted.views:
        raise UsageError("--min-weight is for pages. Leave it out, or add --view.")
    if wanted.tokens is not None and not wanted.files:
        raise UsageError(
            "--tokens: scores are of the whole text. Leave it out, or add --view or --figure."
        )
    if wanted.words and not (wanted.views or wanted.figures):
        raise UsageError("--words: scores are of tokens. Leave it out, or add --view or --figure.")
    if args.open and not wanted.files:
        raise UsageError("--open: --summary only prints. Leave it out, or add --view or --figure.")
    if wanted.summary == "csv" and wanted.files:
        raise UsageError(
            "--summary csv cannot be combined with --view or --figure. Run them as two commands."
        )


def _check_comparison(args: argparse.Namespace, wanted: Wanted) -> None:
    if wanted.fail_above is not None and wanted.compare is None:
        raise UsageError("--fail-above is for --compare. Leave it out, or add --compare FILE.")
    if wanted.fail_above is not None and not 0 <= wanted.fail_above <= 1:
        raise UsageError("--fail-above takes a number of at least 0 and at most 1, as in 0.1.")
    for flag in ("figure", "tokens", "words"):
        if wanted.compare is not None and getattr(args, flag):
            raise UsageError(f"--{flag} cannot be combined with --compare. Leave it out.")


def _figures(text: str | None) -> tuple[list[HeadName], bool]:
    """The heads, and whether the lens is named among them."""
    parts = [] if text is None else text.split(",")
    heads = [part for part in parts if part.strip() != LENS]
    found = parse_heads(",".join(heads), "--figure", f", or {LENS}") if heads else []
    return found, len(heads) < len(parts)


def _views(text: str | None) -> list[str]:
    if text is None:
        return list(VIEWS)
    views = [view.strip() for view in text.split(",") if view.strip()]
    if not views or not set(views) <= set(VIEWS):
        raise UsageError(f"--view takes {_VIEW_CHOICES}, not '{text}'.")
    return list(dict.fromkeys(views))


def _token_range(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"\s*(\d{1,7})\s*:\s*(\d{1,7})\s*", text)
    if not match:
        raise UsageError(f"--tokens cannot read '{text}'. Write first and end, as in 0:64.")
    if int(match[2]) <= int(match[1]):
        raise UsageError(f"--tokens {text} is empty. Write first and end, as in 0:64.")
    return int(match[1]), int(match[2])


def _open(path: Path, console: Console) -> None:
    if not webbrowser.open(path.resolve().as_uri()):
        console.warn(f"no browser could be started. Open '{path}' yourself.")


if __name__ == "__main__":
    sys.exit(main())
