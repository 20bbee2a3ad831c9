"""Two documents -> what to show of both, and what differs between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from activations.attention.compare import Comparison, compare
from activations.document.reader import Document
from activations.errors import Warn, ignore
from activations.views.content import Content, TokensOf, read_content


@dataclass(frozen=True)
class Compared:
    """The content of A and B, and their comparison."""

    a: Content
    b: Content
    comparison: Comparison

    def about(self) -> Iterator[str]:
        """What is not alike besides the weights, a line each; what holds of all of them."""
        yield from self.comparison.differences
        yield from self.comparison.about_rounding()


def compared(
    documents: tuple[Document, Document],
    tokens_of: TokensOf,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    warn: Warn = ignore,
    pages: bool = False,
) -> Compared:
    """Compare two documents; see `read_content` for the arguments.

    Raises `ToolkitError` where they hold other layers, heads or kinds of attention.
    """
    a, b = (
        read_content(document, tokens_of, layers, heads, warn=warn, pages=pages)
        for document in documents
    )
    comparison = compare(
        (documents[0].header, documents[1].header),
        (a.stacks, b.stacks),
        (documents[0].predictions, documents[1].predictions),
        warn,
    )
    return Compared(a, b, comparison)
