"""What a model says about itself: inputs, modalities, device, whether it has a decoder."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn


def main_input(model: Any) -> str:
    """The argument that a model needs, by its own account: `input_ids`, `pixel_values`."""
    return str(getattr(model, "main_input_name", "input_ids"))


def modalities(model: Any) -> tuple[str, ...]:
    """What the model says it reads: "text", "image", "audio", ..."""
    said = getattr(model, "input_modalities", "text")
    return (said,) if isinstance(said, str) else tuple(said)


def reads_text(model: Any) -> bool:
    """Whether the model reads text, alone or with an image or audio; a decoder's does not count."""
    return main_input(model) == "input_ids" or "input_ids" in _parameters(model)


def accepts(model: nn.Module, name: str) -> bool:
    """Whether the model's forward takes an argument of this name."""
    parameters = _parameters(model)
    if name in parameters:
        return True
    # These reach the decorated forwards of transformers 5 through **kwargs.
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    return takes_any and name in ("input_ids", "output_attentions", "return_dict", "use_cache")


def _parameters(model: nn.Module) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(model.forward).parameters


def paired(config: Any) -> bool:
    """Whether this is an encoder with a decoder."""
    return bool(getattr(config, "is_encoder_decoder", False))


def input_device(model: Any) -> torch.device:
    """Where a model takes its inputs; of a model spread by accelerate, where it computes."""
    import torch

    places = getattr(model, "hf_device_map", None)
    if not places:
        return next((p.device for p in model.parameters()), torch.device("cpu"))
    # As accelerate chooses: the first accelerator, else the CPU.
    devices = [torch.device(place) for place in places.values() if place != "disk"]
    return next((device for device in devices if device.type != "cpu"), torch.device("cpu"))


def inputs_for(model: Any, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Those of the tensors that the model takes, on its device, floating point in its dtype."""
    return {
        name: value.to(input_device(model), model.dtype if value.is_floating_point() else None)
        for name, value in tensors.items()
        if name in ("input_ids", main_input(model)) or accepts(model, name)
    }
