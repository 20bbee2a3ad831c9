"""The user's text -> what a model gets: tensors, and what their tokens are called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from activations.errors import UsageError
from activations.inputs.chat_template import in_form
from activations.inputs.diagnostic import make_diagnostic
from activations.inputs.generation import add_continuation, add_decoder, decoder_prefix
from activations.inputs.languages import check_target_language, generates_language, languages
from activations.inputs.request import (
    NO_DECODER,
    Encoded,
    Inputs,
    Request,
    check_lengths,
    check_request,
    count_to_generate,
    encode_target,
)
from activations.inputs.text_warnings import text_warnings
from activations.inputs.words import words_said
from activations.model.errors import tokenizer_errors
from activations.model.hosts import can_generate, config_of, embeddings
from activations.model.signature import accepts, inputs_for, paired
from activations.model.vocabulary import decoded, spell
from activations.outputs.shapes import Lengths


def has_decoder(model: Any, request: Request) -> bool:
    """Whether the model gets a decoder's text. Raises `UsageError` where it cannot generate one."""
    found = paired(config_of(model)) and accepts(model, "decoder_input_ids")
    if request.target is not None and not found:
        raise UsageError(NO_DECODER)
    if request.max_new_tokens and not can_generate(model):
        raise UsageError("--max-new-tokens needs a model that generates text. Leave it out.")
    return found


def encode_text(model: Any, tokenizer: Any, request: Request) -> Encoded:
    """The user's text as the tokenizer encodes it, or the user's token ids.

    The model may lack its weights, so that what does not fit is refused before they are loaded.
    Raises `UsageError` when the prompt is empty or longer than the model takes, or asks for what
    this model or its tokenizer cannot do.
    """
    check_request(model, request)
    with languages(tokenizer, request):
        if request.diagnostic is not None:
            made = make_diagnostic(model, tokenizer, request.diagnostic)
            encoded = replace(_encoded_ids(model, tokenizer, made.ids), diagnostic=made)
        elif request.ids is not None:
            encoded = _encoded_ids(model, tokenizer, request.ids)
        else:
            encoded = _encoded_prompt(tokenizer, request)
        if has_decoder(model, request) and (request.target is not None or can_generate(model)):
            check_target_language(model, tokenizer, request)
            if request.target is None and generates_language(tokenizer):
                encoded.decoder_prefix = decoder_prefix(model, tokenizer)
        encode_target(encoded, tokenizer, request.target)
    check_lengths(model, request, encoded)
    return encoded


def _encoded_prompt(tokenizer: Any, request: Request) -> Encoded:
    with tokenizer_errors(request.chat):
        if request.chat:
            found, prompt = _apply_template(tokenizer, request)
        else:
            found = tokenizer(request.prompt, request.text_pair, return_tensors="pt")
            prompt = request.prompt or ""
        count = found["input_ids"].shape[-1]
    if not prompt or count == 0:
        raise UsageError("the prompt is empty. Give a text with --prompt or --prompt-file.")
    tensors = {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}
    encoded = Encoded(tensors, prompt=prompt, words=words_said(tokenizer, found))
    if request.text_pair is not None:
        encoded.sentence_b_start, separated = _sentence_b_start(found)
        if not separated:
            encoded.warnings.append(
                "the tokenizer puts nothing between the two texts: this model may not be made for "
                "pairs."
            )
    ids = found["input_ids"][0].tolist()
    encoded.warnings += text_warnings(tokenizer, "" if request.chat else prompt, ids)
    return encoded


def _encoded_ids(model: Any, tokenizer: Any, ids: Sequence[int]) -> Encoded:
    """Token ids as they are, (1, tokens). Raises `UsageError` where the model has no such token."""
    table = embeddings(model)
    wrong = [i for i in ids if i < 0 or (table is not None and i >= table.num_embeddings)]
    if wrong:
        there = "" if table is None else f" They go from 0 to {table.num_embeddings - 1}."
        raise UsageError(f"--ids: this model has no token {wrong[0]}.{there}")
    if not ids:
        raise UsageError("--ids is empty. Write token ids, as in --ids 50256,12,7.")
    tensor = torch.tensor([list(ids)])
    prompt = "" if tokenizer is None else decoded(tokenizer, ids)
    return Encoded({"input_ids": tensor, "attention_mask": torch.ones_like(tensor)}, prompt=prompt)


def _apply_template(tokenizer: Any, request: Request) -> tuple[Any, str]:
    """The conversation as the chat template writes it: tensors, and the text of the request.

    A prompt is its own text; of a conversation it is all that the template wrote.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise UsageError("--chat needs a tokenizer with a chat template. Leave it out.")
    turns = in_form(tokenizer, request.turns)
    asks = turns[-1]["role"] != "assistant"
    found = tokenizer.apply_chat_template(
        turns, add_generation_prompt=asks, return_tensors="pt", return_dict=True
    )
    if request.conversation is None:
        return found, request.prompt or ""
    text = tokenizer.apply_chat_template(turns, add_generation_prompt=asks, tokenize=False)
    return found, str(text)


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
        inputs.words = encoded.words
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
        if can_generate(model):
            most = encoded.decoder_begins + count_to_generate(model, request, encoded)
            return Lengths(read, most, at_most=True)
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
