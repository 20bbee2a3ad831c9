"""The tensors of a document in a safetensors file beside it, each in its own dtype.

The document then holds `{"tensor": "model.layers.0.self_attn/1"}` in place of each tensor. Format:
https://huggingface.co/docs/safetensors. Two files cannot be replaced in one step, so both carry an
id, by which tensors of another capture are noticed.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import orjson
from safetensors import SafetensorError, safe_open

from activations.document.format import FORMAT, leads_away, path_beside
from activations.errors import ToolkitError
from activations.outputs.tensor import Tensor
from activations.outputs.tree import Element

# What safetensors calls numpy's dtypes; bfloat16, which numpy lacks, is BF16.
_DTYPES = {"bool": "BOOL", "float16": "F16", "float32": "F32", "float64": "F64"}
_DTYPES |= {f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)}
_DTYPES |= {f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)}
_NUMPY_TOO = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS  # as the document is written
_BYTES = {kind: np.dtype(name).itemsize for name, kind in _DTYPES.items()} | {"BF16": 2}


def key_of(module: str, element: Element) -> str:
    """What a tensor is called: `model.layers.0.self_attn/1`; a plain output by its module alone."""
    return "/".join([module, *map(str, element)])


def input_name(module: str) -> str:
    """What stands for the module in the names of what it was given: no module is called so."""
    return f"{module}:input"


def identify(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    """An id of these tensors in this document: of all names and shapes, and how each begins."""
    digest = hashlib.sha256(orjson.dumps(header, option=_NUMPY_TOO))
    for key, tensor in tensors.items():
        digest.update(f"{key} {tensor.dtype} {tensor.shape}".encode())
        digest.update(tensor.data.reshape(-1)[:1024].tobytes())
    return digest.hexdigest()[:32]


def write_tensors(file: BinaryIO, tensors: Mapping[str, Tensor], id: str) -> None:
    """Write the file as safetensors would, without a copy of the numbers.

    safetensors' own function writes a temporary file of any name, which stays behind if the process
    is killed.
    """
    # The widest numbers first, so that all are aligned in memory.
    in_order = sorted(tensors.items(), key=lambda item: (-item[1].data.itemsize, item[0]))
    header: dict[str, Any] = {"__metadata__": {"document": id, "written as": FORMAT}}
    end = 0
    for key, tensor in in_order:
        start, end = end, end + tensor.data.nbytes
        dtype = "BF16" if tensor.dtype == "bfloat16" else _DTYPES[tensor.data.dtype.name]
        header[key] = {"dtype": dtype, "shape": tensor.data.shape, "data_offsets": (start, end)}
    text = orjson.dumps(header)
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for _, tensor in in_order:
        file.write(tensor.data.reshape(-1).view(np.uint8).data)


def is_ours(path: str | os.PathLike[str]) -> bool:
    """Whether a file holds a document's tensors, and not a model's weights or anything else."""
    try:
        with safe_open(path, framework="np") as file:
            found: dict[str, str] = file.metadata() or {}
    except (SafetensorError, OSError):
        return False
    return "document" in found and found.get("written as") == FORMAT


class TensorFile:
    """The tensors beside a document, each read when it is asked for.

    Raises `ToolkitError` where the file is missing, not safetensors, or of another capture.
    """

    def __init__(self, document: Path, id: str) -> None:
        self.path = path_beside(document)
        import ml_dtypes  # noqa: F401  numpy knows bfloat16 by name then

        if leads_away(self.path, document):
            raise ToolkitError(
                f"'{self.path}' leads out of the folder of '{document}', and is not followed. Put "
                "the file itself there."
            )
        try:
            if self.path.exists() and not self.path.is_file():
                raise OSError("it is not an ordinary file")  # reading a pipe would wait
            self._file = cast(Any, safe_open(self.path, framework="np"))
        except FileNotFoundError:
            raise ToolkitError(
                f"the tensors of '{document}' are missing: '{self.path.name}' must be in "
                "the same folder. Put it there, or capture again."
            ) from None
        except (SafetensorError, OSError) as error:
            raise ToolkitError(
                f"'{self.path}' is damaged or not a safetensors file: {error}. Capture again."
            ) from None
        if (self._file.metadata() or {}).get("document") != id:
            raise ToolkitError(
                f"'{self.path}' holds the tensors of another capture than '{document}'. "
                "Capture again."
            )

    def shape(self, key: str, module: str, element: Element) -> tuple[int, ...]:
        """The shape of a module's tensor. Raises `ValueError` as `numbers` does."""
        return tuple(self._slice(key, module, element).get_shape())

    def size(self, module: str, element: Element, parts: Iterable[str]) -> int:
        """How many bytes a module's tensor takes, or the tensors of these names that stand for it;
        0 where there are none.
        """
        own = key_of(module, element)
        return sum(self._sizes.get(key, 0) for key in (own, *(f"{own}/{part}" for part in parts)))

    @cached_property
    def _sizes(self) -> dict[str, int]:
        """The bytes of each tensor."""
        found = {key: self._file.get_slice(key) for key in self._file.keys()}  # noqa: SIM118
        return {
            key: math.prod(tensor.get_shape()) * _BYTES.get(tensor.get_dtype(), 0)
            for key, tensor in found.items()
        }

    def numbers(
        self, key: str, module: str, element: Element, part: tuple[int, ...] = ()
    ) -> np.ndarray:
        """The values of a module's tensor, or a part of it, as `Tensor.numbers` gives them.

        Raises `ValueError` if it is missing or invalid.
        """
        found = self._slice(key, module, element)
        values = found[part] if part else self._file.get_tensor(key)
        name = values.dtype.name
        data = values.view(np.uint16) if name == "bfloat16" else values
        return Tensor(name, values.shape, data).numbers()

    def _slice(self, key: str, module: str, element: Element) -> Any:
        """What reads a module's tensor.

        Only the module's own name for it is accepted: a document that names one tensor many times
        would need far more memory than its size.
        """
        if key != key_of(module, element):
            raise ValueError(f"it refers to a tensor of another name, '{key}'")
        try:
            found = self._file.get_slice(key)
            dtype = found.get_dtype()
        except SafetensorError:
            raise ValueError(f"the tensor '{key}' is not in '{self.path.name}'") from None
        if dtype not in (*_DTYPES.values(), "BF16"):
            raise ValueError(f"no document has tensors of {dtype}, as '{self.path.name}' does")
        return found
