"""The module that holds all that a layer's attention, or its feed-forward part, adds to the stream.

Asked of the model, in short passes with modules returning zeros. What carries the residual stream
itself is no block: without it, all texts give the same logits. And what is left without the block
must not depend on the other modules of its kind: else it is not all of it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from activations.forward.edits import Edits, Place, Write, first_tensor
from activations.model.head import logits_of
from activations.model.state import fixed_seed
from activations.outputs.tree import at
from activations.selection.observation import Called

_PASSING_ON = (nn.Dropout, nn.Identity)  # in a pass without training they return what they get


Key = TypeVar("Key")  # what names a layer
Run = Callable[[int], torch.Tensor]  # the number of a text -> logits, or what the model returns


def find_blocks(
    model: nn.Module,
    texts: Sequence[Mapping[str, Any]],
    calls: Mapping[Key, Sequence[Called]],
) -> dict[Key, Called]:
    """The block of each layer that has one, out of the calls of one category in the layer.

    `texts` are the arguments of passes of the same length. Each differs from the first in something
    that the model reads.
    """

    def run(number: int) -> torch.Tensor:
        with torch.no_grad(), fixed_seed():
            returned = model(**texts[number])
        logits = logits_of(returned)
        if logits is not None:
            return logits
        found: torch.Tensor = at(returned, first_tensor(returned) or ())
        return found

    alike: dict[tuple[str, ...], list[Key]] = defaultdict(list)
    parts = dict(model.named_modules(remove_duplicate=False))
    ordered: dict[Key, list[Called]] = {}
    for layer, of_layer in calls.items():
        active = [c for c in of_layer if not isinstance(parts[c.module], _PASSING_ON)]
        ordered[layer] = sorted(active, key=lambda called: (-called.ended, called.began))
        alike[tuple(re.sub(r"\d+", "*", c.module) for c in ordered[layer])].append(layer)
    plain = [run(number) for number in range(len(texts))]
    others = [i for i in range(1, len(texts)) if not torch.equal(plain[i], plain[0])]
    found: dict[Key, Called] = {}
    for names, layers in alike.items():
        for number in range(len(names)):
            blocks = {layer: ordered[layer][number] for layer in layers}
            without = _run_without(model, run, blocks.values())
            if without is None or not others:
                continue  # it returns no numbers
            changed = [_run_without(model, run, blocks.values(), i) for i in others]
            if any(x is None or torch.equal(without, x) for x in changed):
                continue  # it carries the stream
            beside = [
                other
                for layer, block in blocks.items()
                for other in ordered[layer]
                if not (other.is_around(block) or block.is_around(other))
                and other.ended < block.ended
            ]
            both = _run_without(model, run, [*blocks.values(), *beside], all_of_them=False)
            if both is not None and torch.equal(without, both):
                found |= blocks
            break
    return found


def _run_without(
    model: nn.Module,
    run: Run,
    blocks: Iterable[Called],
    number: int = 0,
    all_of_them: bool = True,
) -> torch.Tensor | None:
    """What a pass gives in which these calls return zeros; None where one returns no numbers."""
    edits = Edits([Write(Place(block.module, block.call)) for block in blocks])
    with edits.active(model):
        found = run(number)
    return None if all_of_them and edits.unreached else found
