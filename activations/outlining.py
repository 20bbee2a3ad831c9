"""What modules put out in two passes of unlike length -> outlines: shapes, and what they follow.

With one pass only, a width of 11 could not be told from 11 tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from activations.observation import Element, WeightsSource
from activations.shapes import Count, Shape

Place = tuple[str, Element]  # the module and where in its output


def outlines(
    outputs: Mapping[str, Any],
    lengths: Mapping[str, int],
    others: Mapping[Place, torch.Tensor],
    other_lengths: Mapping[str, int],
    causal: set[Place],
) -> tuple[dict[str, Any], set[str]]:
    """`Shape`s in the place of tensors in each module's output, nested as it nested them.

    `others` are the tensors of a pass of `other_lengths`. And the names of modules of which that
    shows only that sizes follow the text, not how (Reformer fills it up to whole chunks).
    """
    unexplained: set[str] = set()

    def shape(name: str, tensor: torch.Tensor, element: Element) -> Shape:
        other = others.get((name, element))
        sizes: list[int | Count] = []
        for i, size in enumerate(tensor.shape):
            before = None if other is None or other.dim() != tensor.dim() else other.shape[i]
            sizes.append(_size(size, lengths, before, other_lengths))
            if isinstance(sizes[-1], int) and before not in (None, size):
                unexplained.add(name)
        dtype = str(tensor.dtype).removeprefix("torch.")
        return Shape(tuple(sizes), dtype, (name, element) in causal)

    def outline(name: str, output: Any, element: Element = ()) -> Any:
        if isinstance(output, torch.Tensor):
            return shape(name, output, element)
        if isinstance(output, Mapping):
            pairs = ((str(key), value) for key, value in output.items())
            return {key: outline(name, value, (*element, key)) for key, value in pairs}
        if isinstance(output, (tuple, list)):
            return [outline(name, item, (*element, i)) for i, item in enumerate(output)]
        return None if output is None else type(output).__name__

    return {name: outline(name, output) for name, output in outputs.items()}, unexplained


def _size(
    size: int, lengths: Mapping[str, int], other: int | None, other_lengths: Mapping[str, int]
) -> int | Count:
    """What a size follows, that was `other` in the other pass (None where it was not there)."""
    found = []
    for letter, length in lengths.items():
        more = length - other_lengths[letter]
        if other is None or not more:
            found += [Count(letter)] if size == length else []
        elif size != other and (size - other) % more == 0 and (size - other) // more > 0:
            times = (size - other) // more
            found.append(Count(letter, times, size - times * length))
    return min(found, key=lambda count: abs(count.plus), default=size)


def lengths_of(inputs: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """How many tokens a pass is about, by the letters of `Count`."""
    read = {"input_ids": "T"}
    if "decoder_input_ids" in inputs:
        read = {"input_ids": "S", "decoder_input_ids": "T"}
    return {letter: inputs[name].shape[-1] for name, letter in read.items() if name in inputs}


def causal_places(model: nn.Module, sources: Iterable[WeightsSource]) -> set[Place]:
    """Where the weights of a causal attention are handed out, in the first calls.

    An attention module says itself whether it is causal; those that hand its weights on do not.
    """
    sources = list(sources)
    says = {source.module: _is_causal(model.get_submodule(source.module)) for source in sources}
    causal = {source.tensor for source in sources if says[source.module]}
    return {(s.module, s.element) for s in sources if not s.call and s.tensor in causal}


def _is_causal(module: nn.Module) -> bool:
    return getattr(module, "is_causal", None) is True
