"""The user's text -> what a model gets: tensors, and what their tokens are called."""

from __future__ import annotations

from typing import Any

import torch

from activations.errors import UsageError
from activations.inputs.generation import add_continuation, add_decoder
from activations.inputs.request import (
    NO_DECODER,
    Encoded,
    Inputs,
    Request,
    check_lengths,
    check_request,
    count_to_write,
    encode_target,
)
from activations.model.errors import tokenizer_errors
from activations.model.signature import accepts, inputs_for, paired
from activations.model.vocabulary import spell
from activations.outputs.shapes import Lengths


def has_decoder(model: Any, request: Request) -> bool:
    """Whether the model gets a decoder's text. Raises `UsageError` where it cannot generate one."""
    found = paired(model.config) and accepts(model, "decoder_input_ids")
    if request.target is not None and not found:
        raise UsageError(NO_DECODER)
    if request.max_new_tokens and not model.can_generate():
        raise UsageError("--max-new-tokens needs a model that generates text. Leave it out.")
    return found


def encode_text(config: Any, tokenizer: Any, request: Request) -> Encoded:
    """The user's text as the tokenizer encodes it.

    Needs no model, so that what does not fit is refused before one is loaded. Raises `UsageError`
    when the prompt is empty or longer than the model takes, or asks for what this model or its
    tokenizer cannot do.
    """
    check_request(config, request)
    if request.chat and not getattr(tokenizer, "chat_template", None):
        raise UsageError("--chat needs a tokenizer with a chat template. Leave it out.")
    with tokenizer_errors(request.chat):
        if request.chat:
            found = tokenizer.apply_chat_template(
                _turn(tokenizer, request.prompt or ""),
                add_generation_prompt=True,
                return_tensors="pt",
                return_dict=True,
            )
        else:
            found = tokenizer(request.prompt, request.text_pair, return_tensors="pt")
        count = found["input_ids"].shape[-1]
    if not request.prompt or count == 0:
        raise UsageError("the prompt is empty. Give a text with --prompt or --prompt-file.")
    tensors = {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}
    encoded = Encoded(tensors)
    if request.text_pair is not None:
        encoded.sentence_b_start, separated = _sentence_b_start(found)
        if not separated:
            encoded.warnings.append(
                "the tokenizer puts nothing between the two texts: this model may not be made for "
                "pairs."
            )
    encode_target(encoded, tokenizer, request.target)
    check_lengths(config, request, encoded)
    return encoded


def _turn(tokenizer: Any, prompt: str) -> list[dict[str, Any]]:
    """The prompt as a user's turn, in the form that the chat template reads: a text, or parts.

    A template made for one form silently leaves out the other: then every prompt gives the same
    text. Raises `UsageError` where both are left out.
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


def complete(model: Any, tokenizer: Any, request: Request, encoded: Encoded) -> Inputs:
    """What the model gets of what is encoded, on its device, with the decoder's text.

    The model may generate that, or a continuation of the prompt. Raises `UsageError` where it
    cannot.
    """
    inputs = Inputs(
        inputs_for(model, encoded.tensors),
        [],
        sentence_b_start=encoded.sentence_b_start,
        warnings=list(encoded.warnings),
    )
    if encoded.tokens:
        inputs.tokens = spell(tokenizer, encoded.tensors["input_ids"][0].tolist())
    if has_decoder(model, request):
        add_decoder(inputs, model, tokenizer, request, encoded)
    elif request.max_new_tokens:
        add_continuation(inputs, model, tokenizer, request.max_new_tokens)
    return inputs


def lengths(model: Any, request: Request, encoded: Encoded) -> Lengths:
    """How many tokens the pass will read; the model may lack its weights.

    Raises `UsageError` where the model is to generate text and cannot.
    """
    read = encoded.tokens
    if has_decoder(model, request):
        if encoded.target_tokens is not None:
            return Lengths(read, encoded.target_tokens)
        if model.can_generate():
            return Lengths(read, 1 + count_to_write(model.config, request), at_most=True)
        return Lengths(read, read or 1)
    if request.max_new_tokens:
        return Lengths((read or 0) + request.max_new_tokens, at_most=True)
    return Lengths(read)


def _sentence_b_start(found: Any) -> tuple[int | None, bool]:
    """Where the second text begins, and whether a special token stands before it."""
    try:
        owners = found.sequence_ids(0)
        start = owners.index(1)
    except ValueError:  # only fast tokenizers know; the second text has no tokens
        return None, True
    return start, start > 0 and owners[start - 1] is None
