"""What the config.json of a checkpoint folder says, read without transformers.

Importing transformers takes seconds; what is clearly wrong is refused before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from activations.errors import ToolkitError, UsageError

_COUNTS = {"num_hidden_layers", "num_layers", "n_layer", "n_layers"}
_ANY_COUNT = re.compile(r"layer|block|depth|stage|conv")  # layer_types, num_conv_layers, depths


def read_fields(path: Path) -> dict[str, Any]:
    """The JSON object in a checkpoint's file. Raises `ToolkitError` that says what it is instead.

    Of a file that is no JSON, the line and column where that shows.
    """
    repair = "Fix it, or get the checkpoint again."
    try:
        raw = path.read_bytes()
        fields = json.loads(raw.decode())
    except OSError as error:
        raise ToolkitError(f"'{path}' cannot be read: {error.strerror}. Check the path.") from None
    except UnicodeDecodeError:
        encoding = "UTF-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "another encoding"
        raise ToolkitError(
            f"'{path}' is not text in UTF-8 but in {encoding}. Save it as UTF-8."
        ) from None
    except json.JSONDecodeError as error:
        if raw.startswith(b"\xef\xbb\xbf"):
            raise ToolkitError(
                f"'{path}' begins with a byte order mark. Save it as UTF-8 without one."
            ) from None
        where = f"{error.msg} in line {error.lineno}, column {error.colno}"
        why = where if raw.strip() else "it is empty"
        raise ToolkitError(f"'{path}' is not JSON: {why}. {repair}") from None
    except (ValueError, RecursionError):  # a number of thousands of digits, endless nesting
        raise ToolkitError(f"'{path}' is not JSON that can be read. {repair}") from None
    if not isinstance(fields, dict):
        raise ToolkitError(f"'{path}' holds no JSON object, which begins with {{. {repair}")
    return fields


def check_layers(folder: str, layers: Sequence[int] | None) -> None:
    """Raise `UsageError` where the model cannot have one of these layers.

    The limit is the longest list of modules that the configuration names. Not checked: names on the
    hub, files that cannot be read, custom code (it may run its layers several times), and models of
    several parts (encoder and decoder, image and text), whose configurations leave out the defaults
    of a part.
    """
    path = Path(folder, "config.json")
    try:
        if not layers or not path.is_file():  # a device may have no end
            return
        fields = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return
    if not isinstance(fields, dict) or not _COUNTS & fields.keys() or _has_parts(fields):
        return
    sizes = list(_sizes([value for key, value in fields.items() if _ANY_COUNT.search(key)]))
    if not sizes or "auto_map" in fields:  # where there is no number, loading says so
        return
    most = max(sizes)
    missing = [layer for layer in layers if not -most <= layer < most]
    if missing:
        raise UsageError(
            f"--layers: there is no layer {missing[0]}. The model's config.json names at most "
            f"{most} layers, 0-{most - 1}."
        )


def _has_parts(fields: dict[str, Any]) -> bool:
    return bool(fields.get("is_encoder_decoder")) or any(
        isinstance(value, dict) and key.endswith("_config") for key, value in fields.items()
    )


def _sizes(values: list[Any]) -> Iterator[int]:
    """What may be the length of a list of layers: numbers, and lengths of lists (`layer_types`)."""
    for value in values:
        if isinstance(value, int):
            yield value
        elif isinstance(value, list):
            yield len(value)
            yield from _sizes(value)
