"""Short passes that find out where a model's heads and blocks can be changed, and prove it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import Any

from activations.forward.blocks import find_blocks
from activations.forward.head_places import HeadPlaces, find_head_places
from activations.forward.output_attentions import attentions_asked
from activations.forward.short_texts import two_texts, varied_texts
from activations.inputs.request import Inputs
from activations.model.attn_implementation import attention_implementation
from activations.model.signature import arguments
from activations.model.state import fixed_seed
from activations.selection.observation import Called
from activations.session.naming import Layer
from activations.session.opening import OpenedModel

Arguments = dict[str, Any]


def short_calls(
    opened: OpenedModel, inputs: Inputs, call: Mapping[str, Any]
) -> tuple[Arguments, Arguments]:
    """The arguments of passes of two short texts, made of those of the real one."""
    text, other = two_texts(opened.model, inputs.tensors)
    return _given(opened, text, call), _given(opened, other, call)


def _given(opened: OpenedModel, tensors: Mapping[str, Any], call: Mapping[str, Any]) -> Arguments:
    others = {name: value for name, value in call.items() if name == "use_cache"}
    return {**arguments(opened.model, tensors, opened.catalog.observation.call_form), **others}


def head_places(
    opened: OpenedModel,
    inputs: Inputs,
    call: Mapping[str, Any],
    wanted: Iterable[tuple[str, int]],
) -> dict[tuple[str, int], HeadPlaces]:
    """Where the heads of these attention tensors stand side by side, of those that can be proven.

    Keys are those of `WeightsSource.tensor`. They are asked under eager attention, and stand in the
    same place under any other.
    """
    model, observation = opened.model, opened.catalog.observation
    asked = attentions_asked if observation.needs_flag else nullcontext
    with attention_implementation(model, "eager"), asked(model), fixed_seed():
        text, _ = short_calls(opened, inputs, call)
        return find_head_places(model, text, observation.weights, wanted)


def blocks(
    opened: OpenedModel,
    inputs: Inputs,
    call: Mapping[str, Any],
    calls: Mapping[Layer, list[Called]],
) -> dict[Layer, Called]:
    """The block of each layer that has one, of these calls of one category, by layer."""
    texts = [_given(opened, text, call) for text in varied_texts(opened.model, inputs.tensors)]
    return find_blocks(opened.model, texts, calls)
