"""A name or folder -> its configuration and the class that loads it. Asks the hub where needed."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import huggingface_hub
import transformers
from transformers import AutoConfig
from transformers.models.auto import modeling_auto

from activations.errors import ToolkitError, UsageError
from activations.model.adapter import Adapter, find_adapter, has_tokenizer
from activations.model.attn_implementation import implementations
from activations.model.errors import loading_errors
from activations.model.place import check_place
from activations.model.signature import paired
from activations.model.trust import check_counts, check_kernels

_HUB_TIMEOUT = 5  # seconds
# Tried in this order when the checkpoint does not name its class: most of what has a decoder head
# also has others, and BERT-like models are in the causal mapping too.
_TASKS = {
    "AutoModelForSeq2SeqLM": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING",
    "AutoModelForMaskedLM": "MODEL_FOR_MASKED_LM_MAPPING",
    "AutoModelForCausalLM": "MODEL_FOR_CAUSAL_LM_MAPPING",
}


@dataclass(frozen=True)
class Checkpoint:
    """A model that can be loaded: its name or folder, configuration and the class that loads it.

    `where` has the options of every loading call. Of an adapter all this is its base model's;
    `tokenizer` is the name and the options of the tokenizer's loading call where they are others.
    """

    name: str
    config: Any
    class_name: str
    where: dict[str, Any] = field(default_factory=dict)
    adapter: Adapter | None = None
    tokenizer: tuple[str, dict[str, Any]] | None = None

    @property
    def tokenizer_source(self) -> tuple[str, dict[str, Any]]:
        """The arguments of `load_tokenizer`."""
        return self.tokenizer or (self.name, self.where)


def open_checkpoint(
    name: str, revision: str | None = None, trust_remote_code: bool = False
) -> Checkpoint:
    """Read a checkpoint's configuration: a hub name or a local folder. Loads no weights.

    Raises `ToolkitError` when it is not there, not a checkpoint, or needs its own code to be run.
    """
    if not name:
        raise UsageError("--model is empty. Give a hub name or a checkpoint folder.")
    check_place(name)
    with loading_errors(name, "configuration"):
        where = loading_options(name, revision, trust_remote_code)
        adapter = find_adapter(name, where)
        if adapter is None:
            return _open(name, where)
    checkpoint = _open_base(adapter, trust_remote_code)
    with loading_errors(name, "weights"):
        return _with_adapter(checkpoint, adapter)


def _open(name: str, where: dict[str, Any]) -> Checkpoint:
    fields = transformers.PreTrainedConfig.get_config_dict(name, **where)[0]
    check_counts(name, fields)
    only_class = "" if "model_type" in fields else _first(fields.get("architectures"))
    if _is_model(only_class):  # an old configuration, which names only the class
        config = getattr(transformers, only_class).config_class.from_pretrained(name, **where)
    else:
        config, only_class = AutoConfig.from_pretrained(name, **where), ""
    if not where["trust_remote_code"]:
        check_kernels(name, implementations(config))
    return Checkpoint(name, config, only_class or _class_name(config), where)


def _first(architectures: Any) -> str:
    """The class that a configuration names; "" where it names none."""
    names = architectures if isinstance(architectures, list) else []
    return str(names[0]) if names else ""


def _open_base(adapter: Adapter, trust_remote_code: bool) -> Checkpoint:
    base, revision = adapter.base, adapter.fields.get("revision")
    try:
        with loading_errors(base, "configuration"):
            known = revision if isinstance(revision, str) else None
            where = loading_options(base, known, trust_remote_code)
            return _open(base, where)
    except ToolkitError as error:
        raise ToolkitError(f"'{adapter.name}' is an adapter for '{base}': {error}") from error


def _with_adapter(base: Checkpoint, adapter: Adapter) -> Checkpoint:
    """The base model as it was when the adapter was trained: its class and number of labels."""
    class_name = adapter.class_name or ""
    if not (_is_model(class_name) or _has_auto_class(class_name, base.config)):
        class_name = base.class_name
    labels = adapter.labels()
    if labels is not None:
        base.config.num_labels = labels
    tokenizer = (adapter.name, adapter.where) if has_tokenizer(adapter) else None
    return replace(base, class_name=class_name, adapter=adapter, tokenizer=tokenizer)


def _has_auto_class(name: str, config: Any) -> bool:
    """Whether this is an auto class of transformers that knows the model."""
    auto_class = getattr(transformers, name, None) if name.startswith("Auto") else None
    return auto_class is not None and type(config) in auto_class._model_mapping


def loading_options(
    name: str, revision: str | None = None, trust_remote_code: bool = False
) -> dict[str, Any]:
    """The options of every call that loads something of this name."""
    where = {"revision": revision or "main", "trust_remote_code": trust_remote_code}
    if not os.path.isdir(name) and not _hub_in_reach():
        # Otherwise each file is asked for six times, with pauses: half a minute of silence.
        return where | {"local_files_only": True}
    return where


def _hub_in_reach() -> bool:
    """Whether the hub can be reached at its address. Behind a proxy only the proxy knows."""
    if huggingface_hub.is_offline_mode():  # asked to stay off the network
        return False
    if {"https", "all"} & set(getproxies()):
        return True
    try:
        hub = urlsplit(huggingface_hub.constants.ENDPOINT)
        place = hub.hostname or "", hub.port or (80 if hub.scheme == "http" else 443)
        socket.create_connection(place, timeout=_HUB_TIMEOUT).close()
    except (OSError, ValueError):  # a port that is no number
        return False
    return True


def _class_name(config: Any) -> str:
    """The class of transformers that loads this checkpoint with the head it was saved with."""
    auto_map: dict[str, str] = getattr(config, "auto_map", None) or {}
    for auto_class in _TASKS:
        if auto_class in auto_map:  # custom code, which only the auto classes find
            return auto_class
    architectures = list(getattr(config, "architectures", None) or [])
    for auto_class, mapping in _TASKS.items():
        known = _known_class(mapping, config)
        if known is not None and (known in architectures or not architectures):
            return auto_class
    # An encoder-decoder saved without its head (bart-base) gets it back: the head is tied to the
    # embeddings, and with it the model can write the decoder's text.
    headless = _known_class("MODEL_MAPPING", config) in architectures
    if headless and paired(config) and _known_class(_TASKS["AutoModelForSeq2SeqLM"], config):
        return "AutoModelForSeq2SeqLM"
    # Any other class by its name: AutoModel would leave out a classifier, or add a decoder with
    # random weights to an encoder that was saved alone.
    if architectures and "AutoModel" not in auto_map and _is_model(str(architectures[0])):
        return str(architectures[0])
    return "AutoModel"


def _is_model(name: str) -> bool:
    """Whether transformers has a model class of this name."""
    found = getattr(transformers, name, None) if name else None
    return isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)


def _known_class(mapping: str, config: Any) -> str | None:
    try:
        known = getattr(modeling_auto, mapping)[type(config)]
    except KeyError:
        return None
    return str((known[0] if isinstance(known, tuple) else known).__name__)  # funnel has two
