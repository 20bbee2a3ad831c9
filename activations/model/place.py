"""What a local name given as a model is, when it is no checkpoint: said before torch is imported.

Importing torch takes seconds; and transformers says only that a file is not there.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from activations.errors import ToolkitError, first_few
from activations.model.config_file import read_fields
from activations.system.kinds import kind_of

CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
SAVED = "Name a folder made by save_pretrained()."
# What other libraries save, by the names of their files.
_FORMATS = {
    "*.gguf": "weights in GGUF (of llama.cpp)",
    "*.onnx": "a model in ONNX",
    "onnx/*.onnx": "a model in ONNX",
    "tf_model.h5": "weights of TensorFlow",
    "saved_model.pb": "weights of TensorFlow",
    "*.ckpt.index": "weights of TensorFlow",
    "*.h5": "weights of Keras",
    "*.keras": "weights of Keras",
    "flax_model.msgpack": "weights of Flax",
    "weights.npz": "weights of MLX",
    "*.npz": "an archive of NumPy arrays",
    "*.nemo": "a model of NeMo",
    "consolidated.*": "weights in the original format (consolidated.*), not transformers'",
}


def check_place(name: str) -> None:
    """Raise `ToolkitError` where this is a file, or a folder that is no checkpoint.

    Not checked: names on the hub, and whether the weights can be loaded.
    """
    path = Path(name)
    if os.path.isfile(name):
        raise ToolkitError(_file(path))
    if not os.path.isdir(name):
        return
    if is_adapter(path):
        read_fields(path / ADAPTER_CONFIG)
        check_peft(name)
    elif (path / CONFIG).is_file():
        read_fields(path / CONFIG)
    elif not (path / CONFIG).exists():  # a device may have no end
        link = (path / CONFIG).is_symlink()
        raise ToolkitError(broken_link(path / CONFIG) if link else _folder(path))


def is_adapter(folder: Path) -> bool:
    """Whether this folder holds an adapter: weights to be added to those of a base model.

    A whole model that only mentions one is none.
    """
    return holds_adapter(lambda name: (folder / name).is_file())


def holds_adapter(has: Callable[[str], bool]) -> bool:
    """The same of any place, local or on the hub, by which files it has."""
    return has(ADAPTER_CONFIG) and (not has(CONFIG) or any(map(has, ADAPTER_WEIGHTS)))


def check_peft(name: str) -> None:
    """Raise `ToolkitError` where the package is missing that loads adapters."""
    if find_spec("peft") is None:
        raise ToolkitError(
            f"'{name}' is an adapter, which is loaded on its base model with the package peft, and "
            "that is not installed. Install it: pip install peft"
        )


def _file(path: Path) -> str:
    kind = kind_of(path)
    named = (what for glob, what in _FORMATS.items() if path.match(glob))
    other = next(named, _FORMATS["*.gguf"] if kind and "GGUF" in kind else None)
    if other is not None:
        return other_format(path, other)
    if kind in ("a zip archive", "a tar archive", "a compressed file"):
        return f"'{path}' is {kind}. Unpack it, and name the folder with --model."
    beside = any((path.parent / name).exists() for name in (CONFIG, ADAPTER_CONFIG))
    if beside or kind is None:
        return f"'{path}' is a file. Name the checkpoint's folder with --model."
    return f"'{path}' is a single file ({kind}), without the config.json it needs. {SAVED}"


def broken_link(path: Path) -> str:
    return (
        f"'{path}' is a link that leads nowhere. Copy the files themselves (cp -rL), or get the "
        "checkpoint again."
    )


def other_format(path: Path, what: str) -> str:
    return (
        f"'{path}' holds {what}, which cannot be loaded here. Get the model in transformers' "
        "format, or convert it."
    )


def _folder(path: Path) -> str:
    """Why a folder without a config.json is no checkpoint, and which one to name instead."""
    cached = re.fullmatch(r"models--(.+)", path.name or path.resolve().name)
    if cached:
        hub_name = cached[1].replace("--", "/", 1)
        inside = "".join(f", or {folder}" for folder in _checkpoints_in(path / "snapshots")[:1])
        return f"'{path}' is the hub's cache of '{hub_name}'. Write --model {hub_name}{inside}"
    parts = _checkpoints_in(path)
    name_one = f"Name one of its folders: --model {parts[0]}" if parts else ""
    if len(parts) > 1:
        name_one += f" (there are also {first_few(parts[1:])})"
    if (path / "model_index.json").exists():
        return f"'{path}' is a pipeline of diffusers, not one model. {name_one or SAVED}"
    what = format_of(path)
    if parts or what is None:
        return (
            f"the folder '{path}' is not a checkpoint: it has no config.json. {name_one or SAVED}"
        )
    return other_format(path, what)


def _checkpoints_in(folder: Path) -> list[str]:
    """The folders in this one that are checkpoints, the last ones first (checkpoint-500).

    Quoted where a shell needs it.
    """
    inside = [folder / name for name in names_in(folder) if (folder / name).is_dir()]
    found = sorted(filter(_is_checkpoint, inside), key=_by_number, reverse=True)
    return [shlex.quote(str(path)) for path in found]


def _is_checkpoint(folder: Path) -> bool:
    """Pooling layers and schedulers have a config.json too, but it names no model."""
    if is_adapter(folder):
        return True
    try:
        fields = read_fields(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    except ToolkitError:
        return False
    return "model_type" in fields or "architectures" in fields


def _by_number(folder: Path) -> list[Any]:
    parts = re.split(r"(\d+)", folder.name)
    return [int(part) if part.isdigit() else part for part in parts]


def format_of(folder: Path) -> str | None:
    found = (what for glob, what in _FORMATS.items() if next(folder.glob(glob), None))
    return next(found, None)


def names_in(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:
        return []
