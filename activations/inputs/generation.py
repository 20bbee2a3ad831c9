"""Text that the model generates first, greedily; and the decoder's input."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

import torch

from activations.inputs.request import Encoded, Inputs, Request, count_to_write, spell, text_of
from activations.model.signature import accepts, input_device
from activations.system.signals import signals_deferred


def add_decoder(
    inputs: Inputs, model: Any, tokenizer: Any, request: Request, encoded: Encoded
) -> None:
    """The decoder's input: the target shifted right, or what the model generates greedily."""
    if encoded.labels is not None:
        labels = encoded.labels.to(input_device(model))
        ids = _shifted_right(model, tokenizer, labels, encoded.labels_end)
    elif model.can_generate():
        count, start_id = count_to_write(model.config, request), _decoder_start(model)
        ids = _generate(model, inputs.tensors, count, decoder_start_token_id=start_id)
        inputs.written = text_of(tokenizer, ids[0, 1:])
    elif "input_ids" in inputs.tensors:  # a classifier's decoder reads what its encoder does (BART)
        ids = _with_start(model, inputs.tensors["input_ids"][:, :-1])
    else:
        ids = _with_start(model, torch.empty((1, 0), dtype=torch.long, device=input_device(model)))
    inputs.tensors["decoder_input_ids"] = ids
    inputs.decoder_tokens = spell(tokenizer, ids[0])


def _shifted_right(model: Any, tokenizer: Any, labels: torch.Tensor, ends: bool) -> torch.Tensor:
    """What the decoder reads to write `labels`: a start, then all but the mark of the end.

    Both are (1, tokens); `ends` says whether the labels have that mark. Models that know how
    (mBART's start is the language) are asked.
    """
    prefix = getattr(tokenizer, "prefix_tokens", None)
    if prefix and prefix[0] == int(labels[0, 0]) == _decoder_start(model):
        labels = labels[:, 1:]  # Whisper's tokenizer writes the start itself
    if ends and hasattr(model, "prepare_decoder_input_ids_from_labels"):
        try:
            shifted: torch.Tensor = model.prepare_decoder_input_ids_from_labels(labels=labels)
        except ValueError:  # its configuration names no start, or no padding
            return _with_start(model, labels[:, :-1])
        return shifted
    return _with_start(model, labels[:, :-1] if ends else labels)


def _with_start(model: Any, ids: torch.Tensor) -> torch.Tensor:
    start = torch.full((1, 1), _decoder_start(model), dtype=ids.dtype, device=ids.device)
    return torch.cat([start, ids], dim=1)


def _decoder_start(model: Any) -> int:
    for key in ("decoder_start_token_id", "bos_token_id", "pad_token_id"):
        for holder in (getattr(model, "generation_config", None), model.config):
            found = getattr(holder, key, None)
            if isinstance(found, int):
                return found
    return 0


def add_continuation(inputs: Inputs, model: Any, tokenizer: Any, count: int) -> None:
    """Let a decoder-only model generate `count` tokens; inputs are prompt and continuation then."""
    start = inputs.tensors["input_ids"].shape[-1]
    ids = _generate(model, inputs.tensors, count)
    more = ids.shape[-1] - start
    media = {k: v for k, v in inputs.tensors.items() if v.shape != (1, start)}
    if media:  # its tokens are marked in tensors beside the ids; what follows is text, marked 0
        marks = {k: v for k, v in inputs.tensors.items() if k not in media}
        media |= {k: torch.nn.functional.pad(v, (0, more)) for k, v in marks.items()}
    inputs.tensors = {**media, "input_ids": ids}
    if accepts(model, "attention_mask"):
        inputs.tensors["attention_mask"] = torch.ones_like(ids)
    inputs.tokens = spell(tokenizer, ids[0])
    inputs.continuation_start = start
    inputs.written = text_of(tokenizer, ids[0, start:])


def _generate(
    model: Any, tensors: dict[str, torch.Tensor], count: int, **options: Any
) -> torch.Tensor:
    # Whisper's sequences lack their start unless they come in a dict.
    options |= {"max_new_tokens": count, "return_dict_in_generate": True}
    with _greedy_settings(model), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        written = model.generate(**tensors, **options)
    return written if isinstance(written, torch.Tensor) else written.sequences


# What stays of a checkpoint's settings for writing: its special tokens, what its text begins with
# (mBART's language) and must not hold (Marian's padding, Whisper's marks); and how it is computed.
_SETTINGS_KEPT = {"bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"}
_SETTINGS_KEPT |= {"forced_bos_token_id", "bad_words_ids", "suppress_tokens"}
_SETTINGS_KEPT |= {"begin_suppress_tokens", "use_cache"}


@contextmanager
def _greedy_settings(model: Any) -> Iterator[None]:
    """Let a model generate the likeliest token each time, whatever its checkpoint's settings are.

    Arguments of `generate` would not do: what they leave out is filled in from the settings. A
    part may write in the model's place, by its own (BLIP).
    """
    own = [(part, vars(part).get("generation_config")) for part in model.modules()]
    own = [(part, settings) for part, settings in own if settings is not None]
    with signals_deferred() as gate:
        try:
            for part, settings in own:
                part.generation_config = _greedy(settings)
            gate.open()
            yield
        finally:
            gate.shut = True
            for part, settings in own:
                part.generation_config = settings


def _greedy(settings: Any) -> Any:
    """Without what changes the choice of a token; what only this model knows stays (Whisper)."""
    plain = copy(settings)
    for name, value in vars(type(settings)()).items():  # nothing chosen: greedily
        if name not in _SETTINGS_KEPT:
            setattr(plain, name, value)
    return plain
