"""What a model says about itself: inputs, modalities, device, whether it has a decoder."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from activations.model.hosts import dtype_of, hosts, only_host

if TYPE_CHECKING:
    import torch
    from torch import nn


def main_input(model: Any) -> str:
    """The argument that a model needs, by its own account: `input_ids`, `pixel_values`."""
    return str(_said(model, "main_input_name", "input_ids"))


def modalities(model: Any) -> tuple[str, ...]:
    """What the model says it reads: "text", "image", "audio", ..."""
    said = _said(model, "input_modalities", "text")
    return (said,) if isinstance(said, str) else tuple(said)


def _said(model: Any, name: str, otherwise: Any) -> Any:
    """What the model says, or the one inside it."""
    return getattr(model, name, None) or getattr(only_host(model), name, otherwise)


def reads_text(model: Any) -> bool:
    """Whether the model reads text, alone or with an image or audio; a decoder's does not count."""
    return main_input(model) == "input_ids" or "input_ids" in _parameters(model)


def accepts(model: nn.Module, name: str) -> bool:
    """Whether the model's forward takes an argument of this name."""
    parameters = _parameters(model)
    if name in parameters:
        return True
    if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return False
    inside = hosts(model)
    if "" in inside:
        # These reach the decorated forwards of transformers 5 through **kwargs.
        return name in ("input_ids", *_OPTIONS)
    # A wrapper hands inputs on. Options it would not expect.
    handed_on = any(accepts(host, name) for host in inside.values())
    return name == "input_ids" or (handed_on and name not in _OPTIONS)


_OPTIONS = ("output_attentions", "return_dict", "use_cache", "logits_to_keep")


def _parameters(model: nn.Module) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(model.forward).parameters


def paired(config: Any) -> bool:
    """Whether this is an encoder with a decoder."""
    return bool(getattr(config, "is_encoder_decoder", False))


def input_device(model: nn.Module) -> torch.device:
    """Where a model takes its inputs; where accelerate moves its weights, where it computes."""
    import torch

    for module in model.modules():
        hook = getattr(module, "_hf_hook", None)  # accelerate's, or a sequence of them
        for part in getattr(hook, "hooks", (hook,)):
            place = getattr(part, "execution_device", None)
            if place is not None:
                return torch.device(place)
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def own_argument(model: nn.Module) -> str | None:
    """The one argument that a forward needs, where it is not called `input_ids`.

    None where the model takes its inputs by their names, or needs several others.
    """
    if main_input(model) in _parameters(model) or "" in hosts(model):
        return None
    needed = [
        name
        for name, parameter in _parameters(model).items()
        if parameter.default is parameter.empty and parameter.kind not in _ANY
    ]
    return needed[0] if len(needed) == 1 else None


_ANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def call_forms(model: nn.Module) -> tuple[str, ...]:
    """How the model may take its inputs, to be tried in this order; see `arguments`."""
    return ("names",) if own_argument(model) is None else ("ids", "mapping")


def arguments(model: nn.Module, tensors: Mapping[str, Any], form: str) -> dict[str, Any]:
    """The arguments of the model's forward, of tensors by the tokenizer's names.

    `form` is "names" where they are the forward's own; "ids" where its one argument takes
    `input_ids`, "mapping" where it takes all of them (a SentenceTransformer).
    """
    own = own_argument(model)
    if own is not None:
        return {own: tensors["input_ids"] if form == "ids" else dict(tensors)}
    if not _compares_choices(model):
        return dict(tensors)
    return {name: tensor.unsqueeze(1) for name, tensor in tensors.items()}  # one choice


def _compares_choices(model: nn.Module) -> bool:
    """Whether the model reads (batch, choices, tokens), by transformers' own account."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES

    return type(model).__name__ in MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES.values()


def takes(model: nn.Module, name: str) -> bool:
    """Whether the model is given an input of this name, alone or with others in one argument."""
    wanted = name in ("input_ids", main_input(model)) or accepts(model, name)
    return wanted or own_argument(model) is not None


def inputs_for(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Those of the tensors that the model takes, on its device, floating point in its dtype."""
    device, dtype = input_device(model), dtype_of(model)
    return {
        name: value.to(device, dtype if value.is_floating_point() else None)
        for name, value in tensors.items()
        if takes(model, name)
    }
