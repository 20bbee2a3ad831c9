"""Which files of weights a checkpoint folder has, seen without torch."""

from __future__ import annotations

import json
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
_IN_ORDER = (_WEIGHTS[0], _INDEXES[0], _WEIGHTS[1], _INDEXES[1])  # as transformers looks for them
_VARIANT = re.compile(
    r"(?:model|pytorch_model)(?:\.(?:safetensors|bin)\.index)?\.(\w+)"
    r"(?:-\d+-of-\d+)?\.(?:safetensors|bin|json)"
)


def check_weights(name: str) -> None:
    """Raise `ToolkitError` where a local checkpoint has no weights that transformers loads."""
    folder = Path(name)
    if not os.path.isdir(name) or not (folder / CONFIG).is_file() or is_adapter(folder):
        return
    for file in _read(folder):
        _check_there(file)
    if isinstance(read_fields(folder / CONFIG).get("quantization"), dict):
        raise ToolkitError(other_format(folder, "weights that MLX quantized"))
    if weights_file(folder) is None:
        raise ToolkitError(_missing(folder))


def _read(folder: Path) -> list[Path]:
    """The files that are read, as far as their names say; of the weights only what is loaded."""
    there = names_in(folder)
    others = [folder / name for name in there if name.endswith((".json", ".model", ".txt"))]
    file = weights_file(folder)
    if file is None:
        return others
    return [*others, file, *(folder / name for name in indexed(file) if name in there)]


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
    if named := _named(folder):
        return (
            f"the weights of '{folder}' are missing: there is no {named}, which its config.json "
            "names. Get it from where the files come from."
        )
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


def weights_file(folder: Path) -> Path | None:
    """The file of weights that transformers reads, or their index; None where there is none.

    A link counts, wherever it leads.
    """
    named, variant = _named(folder), variant_of(folder)
    names = [named] if named else [_as_variant(name, variant) for name in _IN_ORDER]
    return next((folder / name for name in names if os.path.lexists(folder / name)), None)


def _named(folder: Path) -> str | None:
    """The file of weights that config.json itself names."""
    fields = read_fields(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    named = fields.get("transformers_weights")
    return named if isinstance(named, str) else None


def _as_variant(name: str, variant: str | None) -> str:
    stem, _, ending = name.rpartition(".")
    return name if variant is None else f"{stem}.{variant}.{ending}"


def indexed(weights: Path) -> list[str]:
    """The files that an index names; none for a single file, or where it is broken."""
    try:
        if weights.suffix != ".json" or not weights.is_file():  # a device may have no end
            return []
        return [str(name) for name in json.loads(weights.read_bytes())["weight_map"].values()]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return []  # then loading says so


def variant_of(folder: Path) -> str | None:
    """`fp16` where the weights are there as model.fp16.safetensors alone."""
    there = names_in(folder)
    if set(there) & set(_IN_ORDER):
        return None
    found = (match[1] for match in map(_VARIANT.fullmatch, there) if match)
    return next((name for name in found if name != "index"), None)
