"""Two short texts of one length for a model, made of what it is to read: trials compare them."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from activations.model.hosts import can_generate
from activations.model.limits import longest

_TOKENS = 7
_OTHER = 1  # a token where a text has no two: that of the probe
Tensors = dict[str, torch.Tensor]


def two_texts(
    model: torch.nn.Module, tensors: Mapping[str, torch.Tensor]
) -> tuple[Tensors, Tensors]:
    """The inputs of a pass, shortened, and the same with another text.

    An encoder reads the same in both, its decoder another text. Of a model that reads an image or
    audio without a decoder it is the image that differs: its places in the text must stay.
    """
    if "decoder_input_ids" in tensors and not can_generate(model):
        # A classifier's decoder reads what its encoder reads, and looks for its end (BART).
        ids = tensors["decoder_input_ids"]
        turned = torch.cat([ids[:, :1], ids[:, 1:-1].flip(1), ids[:, -1:]], 1)
        return dict(tensors), {**tensors, "decoder_input_ids": turned}
    if "decoder_input_ids" in tensors:
        return _varied(tensors, "decoder_input_ids", longest(model, "decoder"))
    media = [name for name, tensor in tensors.items() if tensor.is_floating_point()]
    if media or "input_ids" not in tensors:
        return dict(tensors), {**tensors, **{name: tensors[name] / 2 for name in media}}
    return _varied(tensors, "input_ids", longest(model, "prompt"))


def varied_texts(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> list[Tensors]:
    """The same two, and where an encoder reads something beside a decoder, one more: the first with
    something else for the encoder.
    """
    text, other = two_texts(model, tensors)
    if "decoder_input_ids" not in tensors or not can_generate(model):
        return [text, other]
    changed = {name: x / 2 for name, x in text.items() if x.is_floating_point()}
    if "input_ids" in text:
        ids = text["input_ids"].clone()
        middle = ids[:, 1:-1]
        ids[:, 1:-1] = torch.where(middle > 0, middle - 1, middle + 1)
        changed["input_ids"] = ids
    return [text, other, {**text, **changed}]


def _varied(
    tensors: Mapping[str, torch.Tensor], name: str, most: int | None
) -> tuple[Tensors, Tensors]:
    """With other tokens between the first and the last; what goes with each token is cut alike."""
    ids = tensors[name]
    count = min(_TOKENS, most or _TOKENS)
    there = sorted(set(ids[0].tolist()))
    pair = (there[0], there[-1]) if len(there) > 1 else (there[0], _OTHER - (there[0] == _OTHER))
    places = torch.arange(count, device=ids.device).clamp(max=ids.shape[1] - 1)
    cut = {
        key: tensor[:, places] if tensor.shape == ids.shape and _goes_with(key, name) else tensor
        for key, tensor in tensors.items()
    }
    made = []
    for turn in (0, 1):
        text = torch.tensor([[pair[(place // 2 + turn) % 2] for place in range(count)]])
        text[:, 0], text[:, -1] = ids[0, 0], ids[0, -1]
        made.append({**cut, name: text.to(ids.device)})
    return made[0], made[1]


def _goes_with(key: str, name: str) -> bool:
    """Whether a tensor has a number for each of these tokens; a decoder's are called so."""
    return key.startswith("decoder_") == name.startswith("decoder_")
