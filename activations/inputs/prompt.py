"""The user's text -> what a model gets: tensors, and what their tokens are called."""

from __future__ import annotations

from typing import Any

import torch

from activations.errors import UsageError
from activations.inputs.generation import add_continuation, add_decoder
from activations.inputs.request import (
    NO_DECODER,
    Inputs,
    Request,
    check_length,
    check_request,
    count_to_write,
    spell,
)
from activations.model.errors import tokenizer_errors
from activations.model.signature import accepts, input_device, paired
from activations.outputs.shapes import Lengths


def has_decoder(model: Any, request: Request) -> bool:
    """Whether the model gets a decoder's text. Raises `UsageError` where it cannot write."""
    found = paired(model.config) and accepts(model, "decoder_input_ids")
    if request.target is not None and not found:
        raise UsageError(NO_DECODER)
    if request.max_new_tokens and not model.can_generate():
        raise UsageError("--max-new-tokens needs a model that writes text. Leave it out.")
    return found


def tokenize(config: Any, tokenizer: Any, request: Request) -> Any:
    """The user's text as the tokenizer encodes it, (1, tokens) tensors by name.

    Needs no model, so that what does not fit is refused before one is loaded. Raises `UsageError`
    when the prompt is empty or longer than the model takes, or asks for what this model or its
    tokenizer cannot do.
    """
    check_request(config, request)
    if request.chat and not getattr(tokenizer, "chat_template", None):
        raise UsageError("--chat needs a tokenizer with a chat template. Leave it out.")
    with tokenizer_errors(request.chat):
        if request.chat:
            encoded = tokenizer.apply_chat_template(
                _turn(tokenizer, request.prompt or ""),
                add_generation_prompt=True,
                return_tensors="pt",
                return_dict=True,
            )
        else:
            encoded = tokenizer(request.prompt, request.text_pair, return_tensors="pt")
        count = encoded["input_ids"].shape[-1]
    if not request.prompt or count == 0:
        raise UsageError("the prompt is empty. Give a text with --prompt or --prompt-file.")
    check_length("the prompt is", count, config)
    with tokenizer_errors():
        check_lengths_written(config, tokenizer, request, count)
    return encoded


def _turn(tokenizer: Any, prompt: str) -> list[dict[str, Any]]:
    """The prompt as a user's turn, in the form that the chat template reads: a text, or parts.

    A template made for the one leaves out the other without a word: then every prompt gives the
    same text. Raises `UsageError` where both are left out.
    """

    def written(turn: list[dict[str, Any]]) -> str:
        return str(tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False))

    def in_parts(text: str) -> list[dict[str, str]]:
        return [{"type": "text", "text": text}]

    for form in (str, in_parts):
        turn, other = ([{"role": "user", "content": form(p)}] for p in (prompt, f"{prompt}."))
        if written(turn) != written(other):
            return turn
    raise UsageError("the tokenizer's chat template leaves the prompt out. Leave --chat out.")


def encode(model: Any, tokenizer: Any, request: Request) -> Inputs:
    """The user's text -> what the model gets, on the model's device; see `tokenize` for errors."""
    encoded = tokenize(model.config, tokenizer, request)
    with_decoder = has_decoder(model, request)
    device = input_device(model)
    tensors = {
        key: value.to(device)
        for key, value in encoded.items()
        if isinstance(value, torch.Tensor) and (key == "input_ids" or accepts(model, key))
    }
    inputs = Inputs(tensors, spell(tokenizer, encoded["input_ids"][0]))
    if request.text_pair is not None:
        inputs.sentence_b_start, parted = _sentence_b_start(encoded)
        if not parted:
            inputs.warnings.append(
                "the tokenizer puts nothing between the two texts: this model may not be made for "
                "pairs."
            )
    if with_decoder:
        add_decoder(inputs, model, tokenizer, request)
    elif request.max_new_tokens:
        add_continuation(inputs, model, tokenizer, request.max_new_tokens)
    return inputs


def check_lengths_written(config: Any, tokenizer: Any, request: Request, prompt: int) -> None:
    """Raise `UsageError` when the target, or what follows `prompt` tokens, is too long."""
    if request.target is not None:
        count = _target_length(tokenizer, request.target)
        check_length("the target (--target) is", count, config, "decoder")
    if request.max_new_tokens is not None:
        before, side = (1, "decoder") if paired(config) else (prompt, "prompt")
        what = f"with --max-new-tokens {request.max_new_tokens} the text is"
        check_length(what, before + request.max_new_tokens, config, side)


def _target_length(tokenizer: Any, target: str) -> int:
    """How many tokens the decoder reads: a start takes the place of the mark of the end."""
    labels = tokenizer(text_target=target)["input_ids"]
    ends = bool(labels) and labels[-1] in tokenizer.all_special_ids
    return len(labels) + (not ends)


def lengths(model: Any, tokenizer: Any, request: Request, read: int | None) -> Lengths:
    """How many tokens the pass will be about, where the tokenizer made `read` of the text.

    A model without weights will do. Raises `UsageError` where it cannot write and is asked to.
    """
    if has_decoder(model, request):
        if request.target is not None:
            return Lengths(read, _target_length(tokenizer, request.target))
        if model.can_generate():
            return Lengths(read, 1 + count_to_write(model.config, request), at_most=True)
        return Lengths(read, read or 1)
    if request.max_new_tokens:
        return Lengths((read or 0) + request.max_new_tokens, at_most=True)
    return Lengths(read)


def _sentence_b_start(encoded: Any) -> tuple[int | None, bool]:
    """Where the second text begins, and whether a special token stands before it."""
    try:
        owners = encoded.sequence_ids(0)
    except ValueError:  # only fast tokenizers know
        return None, True
    if 1 not in owners:
        return None, True
    start = owners.index(1)
    return start, start > 0 and owners[start - 1] is None
