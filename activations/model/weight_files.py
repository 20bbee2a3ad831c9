"""Which files of weights a checkpoint folder has, seen without torch."""

from __future__ import annotations

import os
import re
from pathlib import Path

from activations.errors import ToolkitError
from activations.model.config_file import read_fields
from activations.model.place import (
    CONFIG,
    SAVED,
    broken_link,
    format_of,
    is_adapter,
    names_in,
    other_format,
)
from activations.system.kinds import kind_of

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # and their indexes
_INDEXES = tuple(f"{name}.index.json" for name in _WEIGHTS)
_VARIANT = re.compile(
    r"(?:model|pytorch_model)(?:\.(?:safetensors|bin)\.index)?\.(\w+)"
    r"(?:-\d+-of-\d+)?\.(?:safetensors|bin|json)"
)


def check_weights(name: str) -> None:
    """Raise `ToolkitError` where a local checkpoint has no weights that transformers loads."""
    folder = Path(name)
    if not os.path.isdir(name) or not (folder / CONFIG).is_file() or is_adapter(folder):
        return
    for file in _needed(folder):
        _check_there(file)
    if isinstance(read_fields(folder / CONFIG).get("quantization"), dict):
        raise ToolkitError(other_format(folder, "weights that MLX quantized"))
    if not has_weights(folder) and variant_of(folder) is None:
        raise ToolkitError(_missing(folder))


def _needed(folder: Path) -> list[Path]:
    """The files that are read, as far as their names say; not pickles beside safetensors."""
    names = names_in(folder)
    safe = any(name.endswith(".safetensors") for name in names)
    endings = (".json", ".model", ".txt", ".safetensors" if safe else ".bin")
    return [folder / name for name in names if name.endswith(endings)]


def _check_there(file: Path) -> None:
    """Raise `ToolkitError` where a file is only a reference to one that was not fetched."""
    if not file.exists():
        raise ToolkitError(broken_link(file))
    kind = kind_of(file)
    if kind and "Git LFS" in kind:
        raise ToolkitError(
            f"'{file}' is {kind}, not the file itself. Fetch it: run git lfs pull in its folder."
        )


def _missing(folder: Path) -> str:
    found = format_of(folder)
    if found is not None:
        return other_format(folder, found)
    part = next((name for name in names_in(folder) if re.search(r"-\d+-of-\d+\.", name)), None)
    if part is not None:
        return (
            f"the weights of '{folder}' are in several files such as {part}, and their index is "
            f"missing, {_INDEXES[part.endswith('.bin')]}. Get it from where the files come from."
        )
    return f"the weights of '{folder}' are missing: there is no {_WEIGHTS[0]}. {SAVED}"


def has_weights(folder: Path) -> bool:
    """Whether a folder has weights under the names that transformers looks for."""
    return any((folder / name).exists() for name in (*_WEIGHTS, *_INDEXES))


def variant_of(folder: Path) -> str | None:
    """`fp16` where the weights are there as model.fp16.safetensors alone."""
    if has_weights(folder):
        return None
    found = (match[1] for match in map(_VARIANT.fullmatch, names_in(folder)) if match)
    return next((name for name in found if name != "index"), None)
