"""The file of a lens that was trained: a matrix a layer, applied to its residual stream first.

safetensors with `layers.{layer}`, (hidden, hidden): the stream h becomes `matrix @ h`, as by
`torch.nn.functional.linear`, plus `layers.{layer}.bias` (hidden,) where there is one. So a tuned
lens (Belrose et al. 2023, arXiv 2303.08112) is I + A and b, and the mean of a Jacobian is itself. A
layer without a matrix is read as it is.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from activations.errors import ToolkitError, UsageError
from activations.text import counted

if TYPE_CHECKING:
    import torch

_NAME = re.compile(r"layers\.(\d+)(\.bias)?")
_FORM = "It must hold layers.0, layers.1, ... of the shape (hidden, hidden)"


def checked_lens(named: str | os.PathLike[str]) -> str:
    """The lens: "logit", or the path of a file of matrices. Without torch.

    Raises `ToolkitError` where it is neither, `UsageError` where it is empty.
    """
    lens = os.path.expanduser(named)  # noqa: PTH111  Path would change more
    if lens == "logit":
        return lens
    if not lens:
        raise UsageError("--lens is empty. Write --lens logit, or name a file.")
    from safetensors import SafetensorError, safe_open

    if not Path(lens).is_file():
        raise ToolkitError(f"there is no file '{lens}'. Check --lens, or write --lens logit.")
    try:
        with safe_open(lens, "np") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118  no mapping
    except (SafetensorError, OSError) as error:
        raise ToolkitError(f"'{lens}' is no safetensors file ({error}). {_FORM}.") from None
    for name, shape in shapes.items():
        match = _NAME.fullmatch(name)
        if match is None or len(shape) != (1 if match[2] else 2) or len(set(shape)) != 1:
            raise ToolkitError(f"'{lens}' holds '{name}' of the shape {tuple(shape)}. {_FORM}.")
    for name in shapes:
        if name.endswith(".bias") and name.removesuffix(".bias") not in shapes:
            raise ToolkitError(f"'{lens}' holds '{name}' without its matrix. {_FORM}.")
    if not shapes:
        raise ToolkitError(f"'{lens}' holds no matrices. {_FORM}.")
    return lens


class LensMatrices:
    """The matrices of a file that `checked_lens` has passed, for a model of so many layers.

    `hidden` is the width of its stream. Raises `ToolkitError` where they are of another model.
    """

    def __init__(self, lens: str | os.PathLike[str], layers: int, hidden: int) -> None:
        from safetensors.torch import load_file

        self._tensors = load_file(lens)
        count = max(int(match[1]) for match in map(_NAME.fullmatch, self._tensors) if match) + 1
        sizes = {tensor.shape[0] for tensor in self._tensors.values()}
        if count > layers or sizes != {hidden}:
            raise ToolkitError(
                f"'{lens}' is of another model: it has {counted(count, 'layer')} of "
                f"{max(sizes)} numbers, this one {layers} of {hidden}. Check --lens."
            )

    def apply(self, layer: int, stream: torch.Tensor) -> torch.Tensor:
        """A layer's stream (1, tokens, hidden) after its matrix, computed in float32."""
        from torch.nn.functional import linear

        matrix = self._tensors.get(f"layers.{layer}")
        if matrix is None:
            return stream
        bias = self._tensors.get(f"layers.{layer}.bias")
        changed = linear(stream.float(), matrix.to(stream.device).float())
        if bias is not None:
            changed += bias.to(stream.device).float()
        return changed.to(stream.dtype)
