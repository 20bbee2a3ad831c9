"""Capture what the modules of a Hugging Face transformer return, and look at its attention.

    from activations import capture, load

    doc = capture("gpt2", "The cat sat on the mat", select="attn:0", output="cat.json")
    doc.tensor("transformer.h.0.attn", 1)  # attention weights, (1, heads, tokens, tokens)

Importing this package imports neither torch nor transformers; `capture` does when it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from activations.version import __version__ as __version__

if TYPE_CHECKING:
    from activations.api import Document as Document
    from activations.api import capture as capture
    from activations.api import load as load
    from activations.errors import ToolkitError as ToolkitError
    from activations.errors import UsageError as UsageError

__all__ = ["Document", "ToolkitError", "UsageError", "capture", "load"]

_HOMES = {
    "Document": "api",
    "ToolkitError": "errors",
    "UsageError": "errors",
    "capture": "api",
    "load": "api",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"activations.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'activations' has no attribute '{name}'")
