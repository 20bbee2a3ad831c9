"""What the files made from a document are called: pages, figures, pictures saved from a page."""

from __future__ import annotations

import hashlib
import os
import re

from activations.document.format import DOCUMENT
from activations.system.files import safe_name

_LONGEST = 90  # characters of each, where model and document name a file: it takes at most 255
_DEFAULT = DOCUMENT.removesuffix(".json")
_FOLDER = re.compile(r"(/|~|\.{1,2}[/\\]|[A-Za-z]:[/\\]|\\\\)")  # a path starts so


def short_model(model: str) -> str:
    """The model as titles name it: of a local folder its last part, `./ckpt/run-7` -> `run-7`.

    `Qwen/Qwen2.5-0.5B` is a name on the hub, unless there is such a folder.
    """
    is_folder = _FOLDER.match(model) or model.endswith("/") or model.count("/") > 1
    if not (is_folder or os.path.isdir(model)):
        return model
    last = re.split(r"[/\\]+" if "/" not in model else "/+", model.rstrip("/\\"))[-1]
    return last if last.strip(".") else model


def capture_name(model: str, document: str) -> str:
    """What the files of a capture share in their names: `Qwen_Qwen2.5-0.5B`, `run-7_second`.

    A document (its file's name without `.json`) that has not the default name adds its own, so that
    two captures of one model do not overwrite each other's files; not one that is named like the
    model.
    """
    name = safe_name(short_model(model))
    if document in ("", _DEFAULT) or safe_name(document) == name:
        return name
    return f"{name[:_LONGEST]}_{distinct(document)}"


def distinct(name: str) -> str:
    """A safe name, with a hash where letters are lost: other names would become the same."""
    safe = safe_name(name)
    if name.isascii() and len(safe) <= _LONGEST:
        return safe
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    kept = safe[: _LONGEST - 9].strip("_")
    return f"{kept}_{digest}" if kept else digest
