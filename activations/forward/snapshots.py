"""What modules are given and return, copied at the time of the call: plain data on the CPU."""

from __future__ import annotations

import re
from typing import Any

import torch

from activations.outputs.tensor import Tensor
from activations.outputs.tree import map_leaves
from activations.text import encodable

# torch stores these as bits and cannot read numbers from them.
_NO_NUMBERS = re.compile(r"u?int[1-7]$|bits|float4")
_INTEGERS = (-(2**63), 2**64 - 1)  # what the document's writer accepts


def snapshot(output: Any) -> Any:
    """A copy of a module's output on the CPU: `Tensor`s, lists, dicts, None, numbers and strings.

    Tuples, lists, namedtuples and nested tensors become lists of their elements, dicts and
    ModelOutputs dicts. Anything else (a Cache, or a tensor whose numbers cannot be read) becomes
    the name of its class.
    """
    return map_leaves(output, lambda leaf, _: snapshot_leaf(leaf))


def snapshot_leaf(leaf: Any) -> Any:
    """The same of what is no tuple, list or mapping."""
    if isinstance(leaf, torch.Tensor):
        return _snapshot_tensor(leaf)
    if isinstance(leaf, str):
        return encodable(leaf)
    if isinstance(leaf, float):
        return float(leaf)  # JSON does not accept subclasses
    if leaf is None or (isinstance(leaf, int) and _INTEGERS[0] <= leaf <= _INTEGERS[1]):
        return leaf
    return type(leaf).__name__


def _snapshot_tensor(tensor: torch.Tensor) -> Any:
    if tensor.is_nested:
        return [snapshot(part) for part in tensor.unbind()]
    # Such a class stores its numbers in its own way (MaskedTensor), and torch cannot read them.
    if type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        return type(tensor).__name__
    if tensor.is_meta:
        return "Tensor on meta"
    dtype = str(tensor.dtype).removeprefix("torch.")
    return f"Tensor of {dtype}" if _NO_NUMBERS.match(dtype) else _copy(tensor, dtype)


def _copy(tensor: torch.Tensor, dtype: str) -> Tensor:
    shape, plain = tuple(tensor.shape), tensor.detach()
    if plain.is_quantized:
        plain = plain.dequantize()
    if plain.layout != torch.strided:
        plain = plain.to_dense()
    if plain.is_complex():
        plain = torch.view_as_real(plain.resolve_conj())
    # Always copied: the model may change its own tensor in place afterwards.
    plain = plain.to("cpu", copy=True).contiguous()
    if plain.dtype == torch.bfloat16:
        data = plain.view(torch.uint16).numpy()
    elif plain.is_floating_point() and plain.element_size() == 1:
        data = plain.to(torch.float32).numpy()  # 8-bit floats: exact in float32
    else:
        data = plain.resolve_neg().numpy()
    return Tensor(dtype, shape, data)
