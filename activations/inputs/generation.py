"""Text that the model generates first, greedily; and the decoder's input."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import copy
from typing import Any

import torch

from activations.inputs.request import Encoded, Inputs, Request, count_to_generate
from activations.inputs.words import shifted
from activations.model.errors import tokenizer_errors
from activations.model.hosts import can_generate, config_of
from activations.model.signature import accepts, input_device
from activations.model.vocabulary import decoded, spell
from activations.system.signals import signals_deferred


def add_decoder(
    inputs: Inputs, model: Any, tokenizer: Any, request: Request, encoded: Encoded
) -> None:
    """The decoder's input: the target shifted right, or what the model generates greedily."""
    if encoded.labels is not None:
        labels = encoded.labels.to(input_device(model))
        ids = _shifted_right(model, tokenizer, labels, encoded.labels_end)
    elif can_generate(model):
        count = count_to_generate(model, request, encoded)
        ids = _generate(model, inputs.tensors, count, **_begun(model, encoded))
        inputs.written = _text_of(tokenizer, ids[0, 1:])
    elif "input_ids" in inputs.tensors:  # a classifier's decoder reads what its encoder does (BART)
        ids = _with_start(model, inputs.tensors["input_ids"][:, :-1])
    else:
        ids = _with_start(model, torch.empty((1, 0), dtype=torch.long, device=input_device(model)))
    inputs.tensors["decoder_input_ids"] = ids
    inputs.decoder_tokens = spell(tokenizer, ids[0].tolist())
    if encoded.labels is not None:
        target = encoded.labels[0].tolist()
        inputs.decoder_words = shifted(encoded.label_words, target, ids[0].tolist())


def _begun(model: Any, encoded: Encoded) -> dict[str, Any]:
    """What the decoder's text begins with, as arguments of `generate`."""
    prefix = encoded.decoder_prefix
    if prefix is None:
        return {"decoder_start_token_id": decoder_start(model)}
    # Where the text does not begin with the start token, one would be put before it.
    ids = prefix.to(input_device(model))
    return {"decoder_input_ids": ids, "decoder_start_token_id": int(ids[0, 0])}


def decoder_prefix(model: Any, tokenizer: Any) -> torch.Tensor:
    """What the decoder reads before any text in the tokenizer's target language, (1, tokens).

    That is what two texts share: a start and the language (NLLB), or the language alone (mBART).
    """
    with tokenizer_errors():
        texts = [
            tokenizer(text_target=text, return_tensors="pt")["input_ids"] for text in ("", "a")
        ]
    empty, other = (_shifted_right(model, tokenizer, labels, ends=True) for labels in texts)
    shared = min(empty.shape[-1], other.shape[-1])
    differs = (empty[0, :shared] != other[0, :shared]).nonzero()
    return empty[:, : int(differs[0]) if len(differs) else shared]


def _shifted_right(model: Any, tokenizer: Any, labels: torch.Tensor, ends: bool) -> torch.Tensor:
    """What the decoder reads to generate `labels`: a start, then all but the end token.

    Both are (1, tokens); `ends` says whether the labels have an end token. Models that can do this
    (mBART's start is the language) do it themselves.
    """
    prefix = getattr(tokenizer, "prefix_tokens", None)
    if prefix and prefix[0] == int(labels[0, 0]) == decoder_start(model):
        labels = labels[:, 1:]  # Whisper's tokenizer writes the start itself
    if ends and hasattr(model, "prepare_decoder_input_ids_from_labels"):
        with suppress(ValueError):  # its configuration names no start, or no padding
            shifted: torch.Tensor = model.prepare_decoder_input_ids_from_labels(labels=labels)
            return shifted
    return _with_start(model, labels[:, :-1] if ends else labels)


def _with_start(model: Any, ids: torch.Tensor) -> torch.Tensor:
    start = torch.full((1, 1), decoder_start(model), dtype=ids.dtype, device=ids.device)
    return torch.cat([start, ids], dim=1)


def decoder_start(model: Any) -> int:
    """The token that a decoder's text begins with, unless it has a language."""
    for key in ("decoder_start_token_id", "bos_token_id", "pad_token_id"):
        for holder in (getattr(model, "generation_config", None), config_of(model)):
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
    if media:  # its tokens are marked in other tensors, (1, tokens); generated text is marked 0
        marks = {k: v for k, v in inputs.tensors.items() if k not in media}
        media |= {k: torch.nn.functional.pad(v, (0, more)) for k, v in marks.items()}
    inputs.tensors = {**media, "input_ids": ids}
    if accepts(model, "attention_mask"):
        inputs.tensors["attention_mask"] = torch.ones_like(ids)
    inputs.tokens = spell(tokenizer, ids[0].tolist())
    inputs.continuation_start = start
    inputs.written = _text_of(tokenizer, ids[0, start:])


def _text_of(tokenizer: Any, ids: torch.Tensor) -> str | None:
    return None if tokenizer is None else decoded(tokenizer, ids.tolist(), special=False)


def _generate(
    model: Any, tensors: dict[str, torch.Tensor], count: int, **options: Any
) -> torch.Tensor:
    # Whisper's sequences lack their start unless they come in a dict.
    options |= {"max_new_tokens": count, "return_dict_in_generate": True}
    with _greedy_settings(model), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        written = model.generate(**tensors, **options)
    return written if isinstance(written, torch.Tensor) else written.sequences


# What stays of a checkpoint's generation settings: its special tokens, what its text begins with
# (mBART's language) and must not hold (Marian's padding, Whisper's marks); and the cache.
_SETTINGS_KEPT = {"bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"}
_SETTINGS_KEPT |= {"forced_bos_token_id", "bad_words_ids", "suppress_tokens"}
_SETTINGS_KEPT |= {"begin_suppress_tokens", "use_cache"}


@contextmanager
def _greedy_settings(model: Any) -> Iterator[None]:
    """Let a model generate the likeliest token each time, despite its checkpoint's settings.

    Arguments of `generate` are not enough: what they leave out is filled in from the settings. In
    some models a part generates, by its own settings (BLIP).
    """
    found = [(part, vars(part).get("generation_config")) for part in model.modules()]
    own = [(part, settings) for part, settings in found if settings is not None]
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
    """The settings without what changes the choice of a token; a model's own stay (Whisper's)."""
    plain = copy(settings)
    for name, value in vars(type(settings)()).items():  # the defaults: greedy
        if name not in _SETTINGS_KEPT:
            setattr(plain, name, value)
    return plain
