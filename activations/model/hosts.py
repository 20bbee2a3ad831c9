"""Hugging Face models, alone or inside other modules: a classifier around BERT, DataParallel.

Facts about a model are asked of its hosts: the outermost Hugging Face models in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn


def unwrapped(model: Any) -> Any:
    """The module that runs, out of what only distributes or compiles it."""
    from torch.nn.parallel import DataParallel, DistributedDataParallel

    while True:
        if isinstance(model, (DataParallel, DistributedDataParallel)):
            model = model.module
        elif (compiled := vars(model).get("_modules", {}).get("_orig_mod")) is not None:
            model = compiled  # torch.compile's
        else:
            return model


def hosts(model: nn.Module) -> dict[str, Any]:
    """The outermost Hugging Face models in a module, by name; a model itself is called ""."""
    from transformers import PreTrainedModel

    if isinstance(model, PreTrainedModel):
        return {"": model}
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if isinstance(module, PreTrainedModel) and not inside:
            found[name] = module
    return found


def only_host(model: nn.Module) -> Any:
    """The Hugging Face model in a module; None where there is none, or several."""
    found = list(hosts(model).values())
    return found[0] if len(found) == 1 else None


def config_of(model: nn.Module) -> Any:
    """A model's configuration; that of the one inside it; else one that says nothing."""
    from transformers import PreTrainedConfig

    own = getattr(model, "config", None)
    if isinstance(own, PreTrainedConfig):
        return own
    host = only_host(model)
    return PreTrainedConfig() if host is None else host.config


def name_of(model: nn.Module) -> str:
    """What a loaded model is called: as it was loaded, or by its class."""
    own, host = getattr(model, "name_or_path", ""), only_host(model)
    named = own if isinstance(own, str) and own else getattr(host, "name_or_path", "")
    return str(named or type(model).__name__)


def dtype_of(model: nn.Module) -> torch.dtype:
    """The dtype of the weights: of the first that are floating-point numbers."""
    import torch

    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def can_generate(model: Any) -> bool:
    """Whether the model says that it generates text."""
    says = getattr(model, "can_generate", None)
    return bool(says()) if callable(says) else False


def embeddings(model: nn.Module) -> nn.Embedding | None:
    """The table of token embeddings; None where the model has none, or another kind."""
    from torch import nn

    host = only_host(model)
    try:
        found = None if host is None else host.get_input_embeddings()
    except (NotImplementedError, AttributeError):  # a model of images, for example
        return None
    return found if isinstance(found, nn.Embedding) else None


def head_weights(model: nn.Module) -> int:
    """How many weights turn the last layer's output into logits; 0 where the model does not say."""
    host = only_host(model)
    try:
        found = None if host is None else host.get_output_embeddings()
    except (NotImplementedError, AttributeError):
        return 0
    weight = getattr(found, "weight", None)
    return 0 if weight is None else int(weight.numel())
