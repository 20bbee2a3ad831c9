"""What Jupyter shows of a document or a view: the same page as the command's, in a frame.

The page stands inside the output, in an iframe's `srcdoc`: it draws with the network off, in an
export too, and several in one notebook do not disturb each other. The frame is sandboxed without
`allow-same-origin`: nothing in a document from elsewhere can reach the notebook around it.

What is shown never raises: Jupyter would print a traceback in its place.
"""

from __future__ import annotations

import html
import json
import math
import operator
import os
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass

from activations.arguments import number, numbers
from activations.attention.weights import find_weights
from activations.document.format import SECTIONS
from activations.document.reader import Document
from activations.errors import ToolkitError, UsageError
from activations.outputs.tree import walk
from activations.system.atomic import write_file
from activations.system.sizes import size_text
from activations.text import html_text
from activations.views.choices import VIEWS
from activations.views.content import TokensOf, read_content
from activations.views.page import build_pages, heading

HEIGHT = 700  # pixels by default; the frame's lower edge can be dragged
LARGEST = 20_000_000  # bytes of a page that is shown: the notebook's file holds every one of them
MOST_WEIGHTS = 50_000_000  # of a document that shows itself: reading more would take long
MOST_ROWS = 450_000  # where only large weights were kept: the page of more would be larger
_FRAME_SIZE = 1_000_000  # bytes of a page besides its weights, at most
_MANY_MODULES = 12  # more are folded
_MOST_MODULES = 1000
_LONG = 80  # characters of a shape; a longer one is folded
# Figures and tables are saved from the frame, and links to a head copied.
_FRAME = (
    '<iframe title="{title}" sandbox="allow-scripts allow-downloads" allow="clipboard-write" '
    'style="width:100%;height:{height}px;border:1px solid #8886;resize:vertical" '
    'srcdoc="{page}">{instead}</iframe>'
)
# The text inside a frame is shown only where frames are removed: Jupyter does so until a notebook
# from elsewhere is trusted.
_INSTEAD = "The attention is not shown here. Trust the notebook, or run the cell again."


@dataclass(frozen=True, repr=False)
class View:
    """A page that shows itself in a notebook, and can be saved.

    `page` is the HTML as UTF-8, `height` the frame's in pixels.
    """

    title: str
    page: bytes
    height: int = HEIGHT

    def __repr__(self) -> str:
        return f"<View {self.title!r}, {size_text(len(self.page))}; save(path) writes it>"

    def _repr_html_(self) -> str:
        if self.too_large:
            return _line(self.too_large)
        page = html.escape(self.page.decode("utf-8"))
        return _FRAME.format(
            title=html_text(self.title), height=self.height, page=page, instead=_INSTEAD
        )

    @property
    def too_large(self) -> str:
        """Why the page is not shown in a notebook, and what to do; empty where it is."""
        if len(self.page) <= LARGEST:
            return ""
        return (
            f"This view takes {size_text(len(self.page))}, and a notebook shows at most "
            f"{size_text(LARGEST)}. Show a part of it, as in document.view(layers=[0, 1]), or save "
            "it and open the file: document.view().save('attention.html')."
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page to a file, whole or not at all. Raises `ToolkitError` where that fails."""
        write_file(path, [self.page])


def make_view(
    document: Document,
    tokens_of: TokensOf,
    view: str = "head",
    layers: int | Iterable[int] | None = None,
    heads: int | Iterable[int] | None = None,
    tokens: tuple[int, int] | None = None,
    min_weight: float = 0.01,
    height: int | None = None,
    words: bool = False,
) -> View:
    """The page of `Document.view`, made at once, so that a wrong argument raises there."""
    if view not in VIEWS:
        known = " or ".join(map(repr, VIEWS))
        raise UsageError(f"view takes {known}, not {reprlib.repr(view)}.")
    if not 0 <= number(min_weight, "min_weight", float, "0.01") < 1:
        raise UsageError("min_weight takes a number of at least 0 and less than 1.")
    pixels = HEIGHT if height is None else number(height, "height", operator.index, str(HEIGHT))
    if pixels <= 0:
        raise UsageError(f"height takes a number of pixels, as in height={HEIGHT}.")
    content = read_content(
        document,
        tokens_of,
        numbers(layers, "layers"),
        numbers(heads, "heads"),
        _pair(tokens),
        words=words,
    )
    pages = build_pages(
        [view],
        content.caption,
        content.stacks,
        float(min_weight),
        LARGEST - _FRAME_SIZE,
        content.first,
        words,
        content.predictions,
        content.effect,
        content.sweep,
    )
    return View(f"{heading(view)}: {content.caption.title}", b"".join(pages[view]), pixels)


def document_html(document: Document, tokens_of: TokensOf) -> str:
    """The head view of a document; a table of its modules where that cannot be shown, and why."""
    try:
        reason = _too_many(document)
        if not reason:
            view = make_view(document, tokens_of)
            reason = view.too_large
            if not reason:
                return view._repr_html_()
    except Exception as error:
        reason = _message(error)
    try:
        return _line(reason) + _table(document)
    except Exception as error:
        return _line(f"{document!r} cannot be shown. {_message(error)}")


def _too_many(document: Document) -> str:
    """Why a document is too large to show, judged by its sizes alone; empty where it is not."""
    places = find_weights(document)
    shapes = [document.element_shapes(p.module).get(p.element, ()) for p in places]
    count = sum(map(math.prod, shapes))
    rows = sum(math.prod(shape[:-1]) for shape in shapes)
    if count <= MOST_WEIGHTS or ("keep_above" in document.header and rows <= MOST_ROWS):
        return ""
    return (
        f"The document holds {count:,} attention weights, too many to show at once in a notebook. "
        "Show a part of them, as in document.view(layers=[0, 1], tokens=(0, 64))."
    )


def _message(error: Exception) -> str:
    return str(error) if isinstance(error, ToolkitError) else f"{type(error).__name__}: {error}"


def _pair(tokens: tuple[int, int] | None) -> tuple[int, int] | None:
    """The first token and the end. Raises `UsageError` for anything else."""
    if tokens is None:
        return None
    try:
        first, end = map(operator.index, tokens)
        if 0 <= first < end:
            return first, end
    except (TypeError, ValueError):
        pass  # said below
    raise UsageError(
        f"tokens takes the first token and the end, as in tokens=(0, 64), not "
        f"{reprlib.repr(tokens)}."
    )


# --------------------------------------------------------------------------------- text and tables


def _line(text: str) -> str:
    return f"<p>{html_text(text)}</p>"


def _folded(summary: str, inside: str, is_open: bool = False) -> str:
    state = " open" if is_open else ""
    return f"<details{state}><summary>{summary}</summary>{inside}</details>"


def _table(document: Document) -> str:
    """The modules of a document by category, with the shapes and dtypes of what they returned."""
    found = [f"<p><b>{html_text(document.model)}</b> {html_text(document.prompt[:200])}</p>"]
    for category in SECTIONS:
        names = document.names_of(category)
        if names:
            rows = "".join(_row(document, name) for name in names[:_MOST_MODULES])
            more = len(names) - _MOST_MODULES
            rest = f"<p>and {more:,} more; document.names lists them.</p>" if more > 0 else ""
            table = f"<table><tr>{_cells('module', 'shape', 'dtype', tag='th')}</tr>{rows}</table>"
            summary = f"{category}, {len(names):,} {'module' if len(names) == 1 else 'modules'}"
            found.append(_folded(summary, table + rest, len(names) <= _MANY_MODULES))
    return "".join(found)


def _row(document: Document, name: str) -> str:
    shape, dtype = document.shape(name), document.dtype(name)
    sizes = "not stated" if shape is None else json.dumps(shape, ensure_ascii=False)
    shown = html_text(sizes)
    if len(sizes) > _LONG:
        shown = _folded(html_text(sizes[: _LONG - 1]) + "…", shown)
    dtypes = dict.fromkeys(str(leaf) for _, leaf in walk(dtype) if leaf is not None)
    return f"<tr>{_cells(html_text(name), shown, html_text(', '.join(dtypes)))}</tr>"


def _cells(*texts: str, tag: str = "td") -> str:
    """Cells of escaped text. Jupyter aligns its tables to the right, as suits numbers."""
    return "".join(f'<{tag} style="text-align:left">{text}</{tag}>' for text in texts)
