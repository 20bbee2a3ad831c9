"""Languages of a translation model: its tokenizer marks texts with their codes (NLLB, mBART)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from activations.errors import UsageError, nearest, quoted_list
from activations.inputs.generation import decoder_start
from activations.inputs.request import Request
from activations.model.vocabulary import spell

_SIDES = {"source": "src_lang", "target": "tgt_lang"}  # the tokenizers' attributes


@contextmanager
def languages(tokenizer: Any, request: Request) -> Iterator[None]:
    """Inside the block, the tokenizer marks texts with the request's languages.

    Raises `UsageError` where it knows no such language, or none at all.
    """
    asked = {"source": request.source_language, "target": request.target_language}
    wanted = {side: code for side, code in asked.items() if code is not None}
    for side, code in wanted.items():
        _check(tokenizer, side, code)
    before = {side: getattr(tokenizer, _SIDES[side]) for side in wanted}
    try:
        for side, code in wanted.items():
            setattr(tokenizer, _SIDES[side], code)
        yield
    finally:
        for side, code in before.items():
            setattr(tokenizer, _SIDES[side], code)


def generates_language(tokenizer: Any) -> bool:
    """Whether the tokenizer marks the decoder's text with its language, and knows which."""
    return getattr(tokenizer, "tgt_lang", None) is not None


def check_target_language(model: Any, tokenizer: Any, request: Request) -> None:
    """Raise `UsageError` where a decoder's text needs a language and has none.

    The tokenizer would silently take the source language's. A model that generates may be made for
    one language, and begin with it.
    """
    if not hasattr(tokenizer, "tgt_lang") or tokenizer.tgt_lang is not None:
        return
    codes = _codes(tokenizer)
    settings = getattr(model, "generation_config", None)
    begins = decoder_start(model), getattr(settings, "forced_bos_token_id", None)
    own = {token.strip("_") for token in spell(tokenizer, [i for i in begins if i is not None])}
    if request.target is not None or not own.intersection(codes):
        some = next((code for code in codes if code.startswith("fr")), "fr")
        raise UsageError(
            "this model generates text in several languages. Name one with --target-language, as "
            f"in --target-language {some}."
        )


def _check(tokenizer: Any, side: str, code: str) -> None:
    flag = f"--{side}-language"
    if not hasattr(tokenizer, _SIDES[side]):
        raise UsageError(
            f"{flag} is for tokenizers that mark the language of a text (NLLB, M2M100, mBART). "
            "Leave it out."
        )
    known = _codes(tokenizer)
    if code not in known:
        close = nearest(code, known) or known[:3]
        hint = f" Write {quoted_list(close)}." if close else ""
        raise UsageError(f"{flag}: the tokenizer has no language '{code}'.{hint}")


def _codes(tokenizer: Any) -> list[str]:
    """The codes of the languages that a tokenizer knows, as users write them."""
    listed = list(getattr(tokenizer, "lang_code_to_id", None) or ())
    named = {str(token) for token in tokenizer.special_tokens_map.values()}
    codes = listed or [token for token in tokenizer.all_special_tokens if token not in named]
    return [code.strip("_") for code in codes]
