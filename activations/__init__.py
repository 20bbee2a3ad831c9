"""Capture what the modules of a Hugging Face transformer put out, and look at its attention.

    from activations import capture, load

    doc = capture("gpt2", "The cat sat on the mat", select="attn:0", output="cat.json")
    doc.tensor("transformer.h.0.attn", 1)  # attention weights, (1, heads, tokens, tokens)

Importing this package imports neither torch nor transformers; `capture` does when it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from activations.document import Document as Document
    from activations.document import load as load
    from activations.errors import ToolkitError as ToolkitError
    from activations.errors import UsageError as UsageError
    from activations.session import capture as capture

__version__ = "1.0.0"
__all__ = ["Document", "ToolkitError", "UsageError", "capture", "load"]

_HOMES = {
    "Document": "document",
    "ToolkitError": "errors",
    "UsageError": "errors",
    "capture": "session",
    "load": "document",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"activations.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'activations' has no attribute '{name}'")
