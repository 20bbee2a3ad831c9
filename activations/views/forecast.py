"""What reading the weights and making pages will take, said before it begins."""

from __future__ import annotations

from collections.abc import Sequence

from activations.attention.stack import Stack
from activations.errors import ToolkitError, Warn
from activations.system.memory import free_memory
from activations.system.sizes import size_text
from activations.views.packing import BUDGET, LARGEST, too_large

_LARGE = 1_000_000_000  # bytes to read that are worth a word
_LARGE_PAGE = 100_000_000  # bytes of a page: it takes a browser some seconds
_A_ROW = 45  # bytes in a page for the weights above 0.01 of a row, as measured
_A_ROW_AT_MOST = 300  # with all 4 decimals


def forecast(stacks: Sequence[Stack], pages: bool, warn: Warn) -> None:
    """Check what it takes to read these stacks, and to make pages of them if `pages`.

    `warn` gets a line where it is much. Raises `ToolkitError` where the memory cannot hold it, or
    no browser the page.
    """
    rows = sum(len(stack.layers) * len(stack.heads) * len(stack.rows) for stack in stacks)
    page = max(rows * _A_ROW, min(rows * _A_ROW_AT_MOST, BUDGET)) if pages else 0
    if page > 2 * LARGEST:  # else it is tried: few weights a row may be large
        raise too_large(page)
    layers = [layer for stack in stacks for layer in stack.weights]
    memory, free = max((layer.memory for layer in layers), default=0), free_memory()
    if free is not None and memory > free:
        raise ToolkitError(
            f"reading a layer needs about {size_text(memory)} of memory, and {size_text(free)} are "
            "free. Capture with --keep-above 0.01, or with --format safetensors."
        )
    read = sum(layer.stored for layer in layers)
    if read > _LARGE or page > _LARGE_PAGE:
        makes = f" and makes pages of up to {size_text(page)}" if pages else ""
        warn(
            f"this reads {size_text(read)} of attention weights{makes}. Choose a part of it with "
            f"--layers or --heads{', or --tokens for smaller pages' if pages else ''}."
        )
