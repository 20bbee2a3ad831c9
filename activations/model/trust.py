"""What a checkpoint's files may not make this process do, checked before they are used.

transformers runs no code from a checkpoint without `trust_remote_code`, and torch unpickles nothing
but tensors. Refused here: a configuration that asks for an endless model, for kernels from the hub,
or for weights outside its folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from activations.errors import ToolkitError
from activations.model.weight_files import indexed, weights_file

# The most of what is made one by one, much of it as soon as the configuration is read.
_COUNTED = {
    re.compile(r"(layers?|experts|blocks?|depths?)$"): 10_000,
    re.compile(r"labels$"): 1_000_000,
}


def check_counts(name: str, fields: Mapping[str, Any]) -> None:
    """Refuse a configuration with more layers, labels or experts than any model has.

    transformers makes lists of that length while it reads one. Raises `ToolkitError`.
    """
    for key, value in fields.items():
        if isinstance(value, Mapping):
            check_counts(name, value)
        numbers = [n for n in (value if isinstance(value, list) else [value]) if type(n) is int]
        for counted, most in _COUNTED.items():
            if counted.search(key) and max(numbers, default=0) > most:
                raise ToolkitError(
                    f"the configuration of '{name}' asks for more than {most:,} "
                    f"({key[:60]}), which no model has. Fix its config.json."
                )


def check_kernels(name: str, implementations: Mapping[str, Any]) -> None:
    """Refuse a configuration that names code on the hub for its attention (`owner/kernel`).

    With the package `kernels` transformers would fetch and run it. Raises `ToolkitError`.
    """
    for value in implementations.values():
        if isinstance(value, str) and "/" in value:
            raise ToolkitError(
                f"the configuration of '{name}' names attention code on the hub, '{value[:80]}', "
                "which is not run by default. Review it, then pass --trust-remote-code."
            )


def check_index(folder: str) -> None:
    """Refuse a local checkpoint whose index names weights outside its folder.

    (Of a checkpoint on the hub, huggingface_hub refuses them.) Raises `ToolkitError`.
    """
    index = weights_file(Path(folder))
    for file in () if index is None else indexed(index):
        path = PurePath(file)
        if path.is_absolute() or ".." in path.parts:
            raise ToolkitError(
                f"'{index}' names weights outside its folder, '{file[:200]}', which are not "
                "loaded. Fix it, or get the checkpoint again."
            )
