"""Outlines of what modules returned: as large, without the numbers, for what nobody reads again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_map_only


@dataclass(frozen=True)
class _Outline:
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device

    def made(self) -> torch.Tensor:
        return torch.zeros(self.shape, dtype=self.dtype, device=self.device)


def outlined(tree: Any) -> Any:
    """The same nesting, with outlines in place of the tensors."""
    return tree_map_only(torch.Tensor, lambda t: _Outline(t.shape, t.dtype, t.device), tree)


def made(tree: Any) -> Any:
    """The same nesting, with zeros in place of the outlines."""
    return tree_map_only(_Outline, _Outline.made, tree)
