"""Adapters (LoRA and others of peft): weights added to those of a base model.

peft itself puts them in. transformers' `load_adapter` gives wrong numbers for some (DoRA in 5.23:
its magnitudes stay as they were made) and does not find `adapter_model.bin`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers.utils import cached_file

from activations.errors import ToolkitError, first_few
from activations.model.config_file import read_fields
from activations.model.errors import first_line
from activations.model.hosts import embeddings
from activations.model.place import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CONFIG,
    check_peft,
    holds_adapter,
    is_adapter,
)
from activations.model.weight_files import weights_file
from activations.system.signals import raise_interruption

# What the base is loaded as, where the adapter was trained with another head than the base's own.
_HEADS = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "FEATURE_EXTRACTION": "AutoModel",
}
_PREFIX = "base_model.model."  # of every weight that peft saves


@dataclass(frozen=True)
class Adapter:
    """An adapter's name or folder, the base model it is for, and its adapter_config.json.

    `where` has the options of every loading call.
    """

    name: str
    base: str
    fields: dict[str, Any]
    where: dict[str, Any]

    @property
    def type(self) -> str:
        """As peft calls it: LORA, IA3."""
        return str(self.fields.get("peft_type"))

    @property
    def class_name(self) -> str | None:
        """The class of the model it was trained in; None where that is the base's own."""
        trained_in = self.fields.get("auto_mapping")  # peft's, where there was no task_type
        named = trained_in.get("base_model_class") if isinstance(trained_in, dict) else None
        return _HEADS.get(str(self.fields.get("task_type")), named)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each of its weights, by the name of the base's weight it belongs to.

        Raises `OSError` where there are none.
        """
        files = (_file(self.name, name, self.where) for name in ADAPTER_WEIGHTS)
        path = next(filter(None, files), None)
        if path is None:
            raise OSError(f"there is no {ADAPTER_WEIGHTS[0]}")
        if path.endswith(".bin"):
            weights = torch.load(path, map_location="meta", weights_only=True)
            found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        else:
            with safe_open(path, "pt") as file:
                names = file.keys()
                found = {name: tuple(file.get_slice(name).get_shape()) for name in names}
        return {name.removeprefix(_PREFIX): shape for name, shape in found.items()}

    def labels(self) -> int | None:
        """How many labels its classifier has; None where it has none of its own."""
        heads = set(self.fields.get("modules_to_save") or ())
        saved = [
            shape
            for name, shape in self.shapes().items()
            if heads.intersection(name.split(".")) and len(shape) == 2
        ]
        # Of several layers the last one counts: the one whose outputs no other reads.
        inputs = {shape[1] for shape in saved}
        classifies = saved and "Classification" in (self.class_name or "")
        return max(saved, key=lambda shape: shape[0] not in inputs)[0] if classifies else None


def find_adapter(name: str, where: dict[str, Any]) -> Adapter | None:
    """The adapter of this name, in a folder or on the hub; None for a model of its own.

    Raises `ToolkitError` where it names no base model, or peft is not installed.
    """
    file = _file(name, ADAPTER_CONFIG, where)
    if file is None or not holds_adapter(lambda other: _file(name, other, where) is not None):
        return None
    fields = read_fields(Path(file))
    check_peft(name)
    base = fields.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ToolkitError(
            f"'{name}' is an adapter, and its adapter_config.json does not name the base model. "
            'Write it there, as "base_model_name_or_path".'
        )
    return Adapter(name, _find_base(name, base), fields, where)


def _find_base(name: str, base: str) -> str:
    """The base model's folder: the adapter's own, as it says, in it or beside it; else its name."""
    folder = Path(name)
    if (folder / CONFIG).is_file() and weights_file(folder) is not None:
        return name
    names = [base, Path(base).name] if _is_path(base) else [base]  # the hub's names are not cut
    places = [place / part for part in names for place in (folder, folder.parent)]
    for place in [Path(base), *places]:
        if place != folder and (place / CONFIG).is_file():
            return str(place)
        if place != folder and is_adapter(place):
            raise ToolkitError(
                f"'{name}' is an adapter for '{place}', which is an adapter too. Merge that one "
                "into its base model first (merge_and_unload of peft)."
            )
    if _is_path(base):
        raise ToolkitError(
            f"'{name}' is an adapter for the model '{base}', which is not there. Put it beside the "
            'adapter, or correct "base_model_name_or_path" in its adapter_config.json.'
        )
    return base


def _is_path(base: str) -> bool:
    """Whether this can be no name on the hub, which is `name` or `owner/name`."""
    path = Path(base)
    return path.is_absolute() or base.startswith(".") or base.count("/") > 1 or "\\" in base


def has_tokenizer(adapter: Adapter) -> bool:
    """Whether it comes with a tokenizer of its own (some add tokens)."""
    return _file(adapter.name, "tokenizer_config.json", adapter.where) is not None


def add_empty(model: Any, adapter: Adapter) -> Any:
    """A skeleton with the adapter's modules, without their weights."""
    with _fitting(adapter):
        _fit_vocabulary(model, adapter)
        config = _peft_config(adapter)
        config.init_lora_weights = False  # some ways compute with the base's weights
        return _put_in(model, config, empty=True).get_base_model()


def add_loaded(model: Any, adapter: Adapter) -> tuple[Any, list[str]]:
    """A base model with its adapter loaded, and warnings about the adapter's weights.

    The model is changed, and keeps its class: no module has another name than before.
    """
    with _fitting(adapter):
        _fit_vocabulary(model, adapter)
        renamed = getattr(model, "_checkpoint_conversion_mapping", None)  # since it was trained
        model = _put_in(model, _peft_config(adapter), empty=False)
        report = model.load_adapter(
            adapter.name,
            "default",
            torch_device="cpu",
            key_mapping=renamed,
            **_downloading(adapter.where),
        )
    return model.get_base_model(), [
        f"the adapter '{adapter.name}' {what}: {first_few(sorted(names))}."
        for what, names in {
            "lacks weights that it needs, so they are random": report.missing_keys,
            "holds weights for which its base model has no place": report.unexpected_keys,
        }.items()
        if names
    ]


def _put_in(model: Any, config: Any, empty: bool) -> Any:
    from peft import PeftModel

    return PeftModel(model, config, "default", low_cpu_mem_usage=empty)


def _peft_config(adapter: Adapter) -> Any:
    from peft import PeftConfig

    config = PeftConfig.from_pretrained(adapter.name, **_downloading(adapter.where))
    # What these do is done by peft's own model, around the base model's pass.
    outside = config.peft_type == "XLORA" or getattr(config, "alora_invocation_tokens", None)
    if config.is_prompt_learning or outside:
        raise ToolkitError(
            f"'{adapter.name}' is an adapter of the type {adapter.type}, which is not a part of "
            "the model's modules. Load it with peft and pass the model to capture() in Python, or "
            f"capture its base: --model {adapter.base}"
        )
    config.inference_mode = True
    if hasattr(config, "megatron_config"):
        config.megatron_config = None  # it would have a module imported
    return config


def _fit_vocabulary(model: Any, adapter: Adapter) -> None:
    """Give the model as many embeddings as the adapter was trained with (it may add tokens)."""
    tables = (embeddings(model), model.get_output_embeddings())
    own = {id(table.weight) for table in tables if table is not None}
    parameters = model.named_parameters(remove_duplicate=False)
    rows = {name: len(parameter) for name, parameter in parameters if id(parameter) in own}
    for weight, shape in adapter.shapes().items():
        there = rows.get(weight.replace(".base_layer.", "."))
        if there is not None and there != shape[0]:
            model.resize_token_embeddings(shape[0], mean_resizing=False)
            return


@contextmanager
def _fitting(adapter: Adapter) -> Iterator[None]:
    """What peft raises -> one line; its warnings are not shown."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ToolkitError:
        raise
    except Exception as error:
        raise_interruption(error)
        raise ToolkitError(
            f"the adapter '{adapter.name}' cannot be put into its base model '{adapter.base}': "
            f"{first_line(error)}. Check that they belong together, or upgrade peft."
        ) from error


def _downloading(where: dict[str, Any]) -> dict[str, Any]:
    return {key: where[key] for key in ("revision", "local_files_only") if key in where}


def _file(name: str, file: str, where: dict[str, Any]) -> str | None:
    """A file in a folder or on the hub; None where it is not there."""
    found: str | None = cached_file(
        name,
        file,
        **_downloading(where),
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return found
