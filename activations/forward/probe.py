"""What a model is made of, found by two short passes with a hook on every module.

Which module returns which attention tensor is found by identity: the tensors that the model returns
as its attentions are searched for among everything its modules returned. No names are needed.

Where possible, the passes run on a skeleton of the model on PyTorch's meta device (shapes only, no
weights, milliseconds), so that a model can be listed, or a bad answer refused, before gigabytes are
loaded; otherwise on the model itself.
"""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from activations.forward.hooks import hooked
from activations.forward.output_attentions import attentions_asked
from activations.model.head import logits_of
from activations.model.hosts import can_generate, config_of, embeddings, head_weights
from activations.model.limits import longest
from activations.model.signature import (
    accepts,
    arguments,
    call_forms,
    input_device,
    paired,
    reads_text,
    takes,
)
from activations.outputs.shapes import Seen, Shape, outlines
from activations.outputs.tree import Element, map_leaves, walk
from activations.selection.observation import Module, Observation, WeightsSource

PROBE_TOKENS = 11
PROBE_TARGET_TOKENS = 7
_MORE = 3, 2  # tokens of the second pass, so that a size shows which of the two it follows
_MAX_FAKE_VALUES = 20_000
_MODEL = ""  # its name among those of its modules
# (module name, call number, element, tensor)
_Seen = list[tuple[str, int, Element, torch.Tensor]]


def observe(model: nn.Module, media: Mapping[str, torch.Tensor] | None = None) -> Observation:
    """Run two short passes and report the modules, their calls, outputs and attention weights.

    The first pass has no options; models that replace their own modules in their first pass
    (big_bird) do so there. The second has more tokens, which shows what sizes follow the text, and
    asks for attentions. `media` is an image or audio as tensors, which the model gets in addition
    to a few tokens, or instead of them. Errors of the model are raised unchanged; where its inputs
    may be given in several forms, that of the first. The model must be in `eval()` mode.
    """
    errors: list[Exception] = []
    for form in call_forms(model):
        try:
            return _observe(model, media or {}, form, _most_tokens(model))
        except Exception as error:
            errors.append(error)
    raise errors[0]


def _most_tokens(model: nn.Module) -> tuple[int, int]:
    """How many tokens a trial reads at most, and its decoder: never more than the model takes."""
    text, target = longest(model, "prompt"), longest(model, "decoder")
    most_text, most_target = text or PROBE_TOKENS, target or PROBE_TARGET_TOKENS
    return min(PROBE_TOKENS, most_text), min(PROBE_TARGET_TOKENS, most_target)


def _observe(
    model: nn.Module, media: Mapping[str, torch.Tensor], form: str, most: tuple[int, int]
) -> Observation:
    fewer = [max(count - more, 1) for count, more in zip(most, _MORE, strict=True)]
    before = {name: id(module) for name, module in model.named_modules()}
    plain = _Pass(model, probe_inputs(model, media, *fewer), form)
    after = {name: id(module) for name, module in model.named_modules()}
    returned: dict[str, list[Any]] = {}
    with attentions_asked(model, returned):
        asked = _Pass(model, probe_inputs(model, media, *most), form)
    attentions = list(_attentions(_of_towers(returned)))
    sources, positions = _sources(asked.seen, attentions)
    found = {source.tensor for source in sources}
    there = [(kind, i) for kind, tensors in attentions for i in range(len(tensors))]
    without_flag = {(name, call, element) for name, call, element, _ in plain.seen}
    needs_flag = any((s.module, s.call, s.element) not in without_flag for s in sources)
    # The outputs of the real pass, which asks for attentions only where that is needed.
    shown, other = (asked, plain) if needs_flag or before != after else (plain, asked)
    outputs, unexplained = outlines(shown.in_shapes(), other.in_shapes(), _causal(model, sources))
    logits = outputs.pop(_MODEL)
    return Observation(
        modules=list_modules(model),
        calls=asked.calls,
        outputs=outputs,
        unsure=frozenset((asked.unsure | unexplained) - {_MODEL}),
        weights=sources,
        positions=positions,
        spans=dict(asked.spans),
        lost=tuple(dict.fromkeys(kind for kind, i in there if (kind, i) not in found)),
        call_form=form,
        needs_flag=needs_flag,
        warm_up=before != after,
        logits=logits,
        head=head_weights(model),
    )


def list_modules(model: nn.Module) -> tuple[Module, ...]:
    """All modules but the root, in the model's order, outer before inner."""
    return tuple(
        Module(name, type(module).__name__) for name, module in model.named_modules() if name
    )


def probe_inputs(
    model: Any,
    media: Mapping[str, torch.Tensor],
    tokens: int = PROBE_TOKENS,
    target_tokens: int = PROBE_TARGET_TOKENS,
) -> dict[str, torch.Tensor]:
    """Inputs for any model: (1, 11) `input_ids`, (1, 7) `decoder_input_ids`, and `media`.

    A model that reads no text gets no `input_ids`. Nor are they added where `media` has some.
    """
    ids = torch.ones(1, tokens, dtype=torch.long)
    inputs = dict(media)
    if reads_text(model) and "input_ids" not in inputs:
        inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if paired(config_of(model)) and accepts(model, "decoder_input_ids"):
        count = target_tokens
        if not can_generate(model):
            # A classifier's decoder reads what its encoder reads, and looks for its end (BART).
            count = tokens
            end, known = config_of(model).eos_token_id, embeddings(model)
            if isinstance(end, int) and 0 <= end < (0 if known is None else known.num_embeddings):
                ids[:, -1] = end
        inputs["decoder_input_ids"] = ids[:, :count].clone()
    device = input_device(model)
    return {
        name: value.to(device)
        for name, value in inputs.items()
        if name in media or takes(model, name)
    }


class _Pass:
    """One pass with a hook on every module. Keeps every output, so that no `id` is used again."""

    def __init__(self, model: nn.Module, inputs: dict[str, torch.Tensor], form: str) -> None:
        self.calls: dict[str, int] = {name: 0 for name, _ in model.named_modules() if name}
        self.first: dict[str, Any] = {}
        self.seen: _Seen = []
        self.spans: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self._lengths = _lengths(inputs)
        self.unsure: set[str] = set()
        self._running: list[int] = []  # when each module that runs was called
        self._picked_at: int | None = None  # the depth of the module that picked rows
        self._clock = count()
        options = {"use_cache": False} if accepts(model, "use_cache") else {}
        names = list(self.calls)
        with torch.no_grad(), _FakeValues(self._on_rows_picked), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with hooked(model, names, self._on_call, self._on_entry):
                returned = model(**arguments(model, inputs, form), **options)
        self._logits = logits_of(returned)

    def in_shapes(self) -> Seen:
        """What modules returned; the logits by the name of the model itself, which is empty."""
        shapes = {name: map_leaves(out, _shape_of) for name, out in self.first.items()}
        return Seen(self._lengths, {**shapes, _MODEL: _shape_of(self._logits, ())})

    def _on_entry(self, name: str, given: Any) -> None:
        if self._picked_at is not None:
            self.unsure.add(name)
        self._running.append(next(self._clock))

    def _on_rows_picked(self) -> None:
        """The data decides how many rows the modules get that the running module calls next."""
        depth = len(self._running)
        self._picked_at = depth if self._picked_at is None else min(depth, self._picked_at)

    def _on_call(self, name: str, output: Any) -> None:
        began = self._running.pop()
        if self._picked_at is not None and len(self._running) < self._picked_at:
            self._picked_at = None
        self.spans[name].append((began, next(self._clock)))
        call = self.calls[name]
        self.calls[name] = call + 1
        self.first.setdefault(name, output)
        self.seen.extend((name, call, element, tensor) for element, tensor in _tensors(output))


def _lengths(inputs: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """How many tokens a pass reads, by the letters of `activations.outputs.shapes.Count`."""
    read = {"input_ids": "T"}
    if "decoder_input_ids" in inputs:
        read = {"input_ids": "S", "decoder_input_ids": "T"}
    return {letter: inputs[name].shape[-1] for name, letter in read.items() if name in inputs}


def _shape_of(leaf: Any, _: Element) -> Any:
    """A `Shape` in place of a tensor, the name of the class in place of anything else."""
    if isinstance(leaf, torch.Tensor):
        return Shape(tuple(leaf.shape), str(leaf.dtype).removeprefix("torch."))
    return None if leaf is None else type(leaf).__name__


def _tensors(output: Any) -> list[tuple[Element, torch.Tensor]]:
    return [(path, leaf) for path, leaf in walk(output) if isinstance(leaf, torch.Tensor)]


def _sources(
    seen: _Seen, attentions: Iterable[tuple[str, list[torch.Tensor]]]
) -> tuple[tuple[WeightsSource, ...], dict[str, int]]:
    """Every place where a module returned one of the attentions that the model returned.

    And the number of positions of each kind of attention, where all its matrices agree.
    """
    places = _Places(seen)
    sources, positions = [], {}
    for kind, tensors in attentions:
        for position, tensor in enumerate(tensors):
            sources += [
                WeightsSource(name, call, element, kind, position, axes)
                for name, call, element, axes in places.of(tensor)
            ]
        # One matrix a head, no windows of an image in place of a batch.
        if all(t.dim() == 4 and t.shape[0] == 1 and t.shape[2] == t.shape[3] for t in tensors):
            lengths = {tensor.shape[-1] for tensor in tensors}
            if len(lengths) == 1:
                positions[kind] = lengths.pop()
    return tuple(sources), positions


_Place = tuple[str, int, Element, tuple[int, ...] | None]  # module, call, element, axes


class _Places:
    """Where each tensor was returned, except by containers that only collect.

    Such a container (a stack, the model) returns the attentions of all its layers at once.
    """

    def __init__(self, seen: _Seen) -> None:
        self._same: dict[int, list[_Place]] = defaultdict(list)
        self._sharing: dict[int, list[tuple[_Place, torch.Tensor]]] = defaultdict(list)
        for name, call, element, tensor in seen:
            if not any(isinstance(step, str) and step.endswith("attentions") for step in element):
                place = (name, call, element, None)
                self._same[id(tensor)].append(place)
                self._sharing[_storage(tensor)].append((place, tensor))

    def of(self, tensor: torch.Tensor) -> list[_Place]:
        """The places of the tensor itself, else of the same numbers with other axes (XLNet)."""
        if id(tensor) in self._same:
            return self._same[id(tensor)]
        return [
            (*place[:3], axes)
            for place, seen in self._sharing.get(_storage(tensor), ())
            if (axes := _axes_of(seen, tensor)) is not None
        ]


def _storage(tensor: torch.Tensor) -> int:
    """Which memory a tensor is a view of. Not by address: on the meta device all are 0."""
    return int(tensor.untyped_storage()._cdata)


def _axes_of(seen: torch.Tensor, tensor: torch.Tensor) -> tuple[int, ...] | None:
    """The axes for which `seen.permute(axes)` is `tensor`, both views of the same memory."""
    if seen.storage_offset() != tensor.storage_offset() or seen.dim() != tensor.dim():
        return None
    left = list(enumerate(zip(seen.shape, seen.stride(), strict=True)))
    axes = []
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        # The stride of an axis of size 1 means nothing.
        fits = [i for i, found in left if found == (size, stride) or found[0] == size == 1]
        if not fits:
            return None
        axes.append(fits[0])
        left = [item for item in left if item[0] != fits[0]]
    return tuple(axes)


def _of_towers(returned: Mapping[str, list[Any]]) -> Any:
    """What one model returned; of several in one module, or several calls, each by its own name."""
    calls = [(name, output) for name, outputs in returned.items() for output in outputs]
    if len(calls) == 1:
        return calls[0][1]
    found: dict[str, Any] = {}
    for name, output in calls:
        kind, again = _as_kind(name), 2
        while f"{kind}_output" in found:
            kind, again = f"{_as_kind(name)}_{again}", again + 1
        found[f"{kind}_output"] = output
    return found


def _as_kind(name: str) -> str:
    """A module's name in the letters and the length that a kind of attention may have."""
    return re.sub(r"[^a-z0-9]", "_", name.lower())[-40:].strip("_") or "model"


def _attentions(returned: Any) -> Iterator[tuple[str, list[torch.Tensor]]]:
    """The attentions a model returned, by kind; those of several towers are one level deeper."""
    if not isinstance(returned, Mapping):
        return
    for key, value in returned.items():
        if str(key).endswith("attentions"):
            kind = str(key).removesuffix("attentions").rstrip("_") or "self"
            yield kind, [tensor for _, tensor in _tensors(value)]
        elif isinstance(value, Mapping):
            tower = re.sub(r"(_model)?_outputs?$", "", str(key))  # vision_model_output
            for kind, tensors in _attentions(value):
                yield tower if kind == "self" else f"{tower}_{kind}", tensors


def _causal(model: nn.Module, sources: Sequence[WeightsSource]) -> set[tuple[str, Element]]:
    """Where, by module and element, the weights of a causal attention are returned.

    An attention module says whether it is causal; the modules around it that return its weights do
    not.
    """
    says = {s.module: getattr(model.get_submodule(s.module), "is_causal", None) for s in sources}
    causal = {source.tensor for source in sources if says[source.module] is True}
    return {(s.module, s.element) for s in sources if not s.call and s.tensor in causal}


class _FakeValues(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Lets code that looks at values run on the meta device, which has no values.

    A value that is asked for (`if mask.all():`) is 1, and comparisons of it with a number agree
    with that; picked rows (`nonzero`, `x[mask]`) are one row. The structure of the outputs, which
    is all that the probe reads, does not depend on them. Their count is limited, since a loop may
    wait for a value that never comes.

    On any device, `on_rows_picked` is called where the data decides how many rows there are.
    """

    def __init__(self, on_rows_picked: Callable[[], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._fake = 0
        self._on_rows_picked = on_rows_picked

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        tensor = args[0] if args and isinstance(args[0], torch.Tensor) else None
        if func in _COUNTING or (
            func is torch.ops.aten.index.Tensor and any(map(_is_mask, args[1]))
        ):
            self._on_rows_picked()
        if tensor is not None and tensor.device.type == "meta":
            if func is torch.ops.aten._local_scalar_dense.default:
                self._fake += 1
                if self._fake > _MAX_FAKE_VALUES:
                    raise RuntimeError("the model waits for values the meta device does not have")
                return getattr(tensor, "_fake", torch.ones((), dtype=tensor.dtype).item())
            if func is torch.ops.aten.eq.Scalar and tensor.dim() == 0:
                equal = func(*args)
                equal._fake = args[1] == 1  # a mixture's loop: is this expert the last?
                return equal
            if func is torch.ops.aten.nonzero.default:
                return _one_row(tensor)
            if func in _PICKING:
                picked = [
                    column
                    for index in args[1]
                    for column in (_one_row(index).unbind(1) if _is_mask(index) else (index,))
                ]
                args = (tensor, picked, *args[2:])
        return func(*args, **(kwargs or {}))


_COUNTING = (torch.ops.aten.nonzero.default, torch.ops.aten.masked_select.default)
_PICKING = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default)


def _is_mask(index: Any) -> bool:
    return isinstance(index, torch.Tensor) and index.dtype == torch.bool


def _one_row(tensor: torch.Tensor) -> torch.Tensor:
    """Like `nonzero` of a tensor with one element that is not 0: (1, dimensions)."""
    return torch.zeros((1, tensor.dim()), dtype=torch.long, device="meta")


def try_model(model: Any, tensors: Mapping[str, torch.Tensor]) -> Observation:
    """Observe the model on the tensors that were prepared for it; see `observe`."""
    texts = ("input_ids", "attention_mask", "token_type_ids")
    media = {name: value for name, value in tensors.items() if name not in texts}
    if len(media) < len(tensors) and reads_text(model):
        try:
            return observe(model, media)  # with any text (CLIP) ...
        except Exception:
            return observe(model, tensors)  # ... or only in its place in the text (LLaVA)
    return observe(model, tensors)
