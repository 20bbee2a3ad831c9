"""What the positions of a model of images or audio are: patches and frames, by their names.

Nothing here knows an architecture. A place is named only where all that is known of the model makes
exactly as many positions as the trial has counted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch

from activations.inputs.media import Places, frame_places, patch_places, sides_of
from activations.inputs.pictures import picture_of
from activations.inputs.processor import extractor_of
from activations.inputs.request import Inputs
from activations.model.hosts import config_of
from activations.model.signature import main_input, modalities
from activations.selection.observation import Observation

# The parameters of special tokens before the patches, by a part of their names.
_SPECIAL = {"cls": "CLS", "class": "CLS", "distillation": "DIST", "register": "REG"}
_SPECIAL_NAME = re.compile(rf"(?:.*\.)?({'|'.join(_SPECIAL)})_(?:tokens?|embedding)")
# What configurations call the sides of a square of patches that become one token, or their inverse.
_MERGES, _INVERSE_MERGES = ("spatial_merge_size", "scale_factor"), ("downsample_ratio",)


def name_positions(inputs: Inputs, model: Any, processor: Any, observation: Observation) -> None:
    """Name the patches and frames of each tower whose positions the trial has counted.

    And keep a picture of what they show.
    """
    for kind, count in observation.positions.items():
        module = next(source.module for source in observation.weights if source.kind == kind)
        towers = _towers(model, module)
        places = _places(towers, count, inputs.tensors, processor)
        if places is None:
            continue
        key = f"{kind}_tokens"
        if not inputs.tokens and kind in ("self", "encoder"):
            key, inputs.tokens = "tokens", list(places.names)
        else:
            inputs.tower_tokens[key] = list(places.names)
        shown = picture_of(inputs.tensors, main_input(towers[0]), processor, places)
        inputs.add_picture(shown, key)
    places = _places_in_text(inputs, model, processor)
    if places is not None:
        shown = picture_of(inputs.tensors, "pixel_values", processor, places)
        inputs.add_picture(shown, "tokens")


def _towers(model: Any, module: str) -> list[Any]:
    """The models around a module with the main input of the innermost, from that one outwards.

    The innermost has the configuration; the parameters may be further out.
    """
    parts = module.split(".")
    around = [model.get_submodule(".".join(parts[:end])) for end in range(len(parts), 0, -1)]
    towers = [found for found in around if hasattr(found, "main_input_name")] + [model]
    return [tower for tower in towers if main_input(tower) == main_input(towers[0])]


def _places(
    towers: list[Any], count: int, tensors: Mapping[str, torch.Tensor], processor: Any
) -> Places | None:
    tower = towers[0]
    read, given = modalities(tower), tensors.get(main_input(tower))
    if given is None or main_input(tower) == "input_ids":
        return None
    if "image" in read and given.dim() == 4:
        patch = getattr(tower.config, "patch_size", None)
        special = next(filter(None, map(_special_tokens, towers)), [])
        return patch_places(count, given.shape[2:], patch, special)
    seconds = _frame_seconds(given, count, tower.config, extractor_of(processor))
    return None if seconds is None or "audio" not in read else frame_places(count, seconds)


def _special_tokens(tower: Any) -> list[str]:
    """The names of the special tokens before the patches, from those of their parameters."""
    found = []
    for name, parameter in tower.named_parameters():
        match = _SPECIAL_NAME.fullmatch(name)
        if match:
            word, many = _SPECIAL[match[1]], parameter.numel() // parameter.shape[-1]
            found += [f"[{word}]"] if many == 1 else [f"[{word}{i}]" for i in range(many)]
    return found


def _frame_seconds(given: torch.Tensor, count: int, config: Any, extractor: Any) -> float | None:
    """How long a position lasts, of samples (1, n) or features (1, bands, n) or (1, n, bands)."""
    rate = getattr(extractor, "sampling_rate", 0)
    if given.dim() == 2:
        step = getattr(config, "inputs_to_logits_ratio", None)
        # The last window may reach over the end.
        if step and rate and 0 <= given.shape[1] - count * step < 2 * step:
            return float(step / rate)
        return None
    hop, bands = getattr(extractor, "hop_length", 0), getattr(extractor, "feature_size", 0)
    lengths = [size for size in given.shape[1:] if size != bands]
    if hop and rate and len(lengths) == 1 and lengths[0] % count == 0:
        return float(lengths[0] // count * hop / rate)
    return None


# --------------------------------------------------------------------------- patches inside a text


def _places_in_text(inputs: Inputs, model: Any, processor: Any) -> Places | None:
    """Where the patches of an image stand among the tokens of a text (LLaVA).

    None unless the image's tokens are one run of as many as the patches, or as the squares of
    patches that the configuration says become one token. (Whether the model attends to the text
    token by token is seen where its weights are shown.)
    """
    ids, pixels = (inputs.tensors.get(name) for name in ("input_ids", "pixel_values"))
    mark, patch = getattr(processor, "image_token_id", None), _patch_of_images(model)
    if ids is None or pixels is None or pixels.dim() != 4 or mark is None or patch is None:
        return None
    places = (ids[0] == mark).nonzero().flatten().tolist()
    if not places or places[-1] - places[0] + 1 != len(places):
        return None
    rows, columns = pixels.shape[2] // patch[0], pixels.shape[3] // patch[1]
    merge = _merge(model, rows * columns, len(places))
    if merge is None or rows % merge or columns % merge:
        return None
    names = tuple(inputs.tokens[place] for place in places)
    area = rows * patch[0], columns * patch[1]
    return Places(names, places[0], (rows // merge, columns // merge), area)


def _patch_of_images(model: Any) -> tuple[int, int] | None:
    """The sides of a patch, where all parts of the model that read images alone agree."""
    found = {
        sides_of(getattr(part.config, "patch_size", None))
        for part in model.modules()
        if hasattr(part, "main_input_name") and modalities(part) == ("image",)
    }
    return found.pop() if len(found) == 1 else None


def _merge(model: Any, patches: int, count: int) -> int | None:
    """How many patches a side become one token; None where the model does not say so."""
    side = math.isqrt(patches // count)
    if side == 0 or side * side * count != patches:
        return None
    config = config_of(model)
    configs = [config, getattr(config, "vision_config", None)]
    said = {getattr(each, name, None) for each in configs for name in _MERGES}
    said |= {
        1 / ratio
        for each in configs
        for name in _INVERSE_MERGES
        if isinstance(ratio := getattr(each, name, None), float) and ratio > 0
    }
    pooled = getattr(config, "mm_tokens_per_image", None)  # Gemma 3 pools an image to so many
    return side if side == 1 or side in said or pooled == count else None
