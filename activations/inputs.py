"""The user's text -> what a model gets: tensors, and what their tokens are called."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from activations.errors import UsageError
from activations.explained import tokenizer_explained
from activations.probe import accepts, input_device
from activations.signals import undisturbed
from activations.sizes import Lengths
from activations.tokens import encodable

if TYPE_CHECKING:
    from activations.media import Audio, Image

_NO_DECODER = "--target needs a model with a decoder of its own. Leave it out."
DEFAULT_NEW_TOKENS = 16  # of the target a seq2seq model writes itself


@dataclass
class Inputs:
    """What one forward pass gets, and what its tokens are called.

    `tensors` go into the model, (1, tokens) each. `tokens` are the tokenizer's own spellings of
    `input_ids`. Where a model has a decoder, `decoder_input_ids` and `decoder_tokens` too.
    `sentence_b_start` is the first token of the second sentence, `continuation_start` of what the
    model wrote itself after the prompt; `written` is all it wrote, as text. A model without
    `input_ids` has patches or frames for tokens, a second tower its own as `tower_tokens`
    ("vision_tokens").
    """

    tensors: dict[str, torch.Tensor]
    tokens: list[str]
    decoder_tokens: list[str] | None = None
    tower_tokens: dict[str, list[str]] = field(default_factory=dict)
    sentence_b_start: int | None = None
    continuation_start: int | None = None
    written: str | None = None
    warnings: list[str] = field(default_factory=list)

    def header(self) -> dict[str, Any]:
        """These inputs as keys of the document, in its order."""
        found: dict[str, Any] = {}
        if "input_ids" in self.tensors:
            found["input_ids"] = self.tensors["input_ids"].tolist()
        if self.tokens:
            found["tokens"] = self.tokens
        found |= self.tower_tokens
        if "decoder_input_ids" in self.tensors:
            found["decoder_input_ids"] = self.tensors["decoder_input_ids"].tolist()
            found["decoder_tokens"] = self.decoder_tokens
        for key in ("sentence_b_start", "continuation_start", "written"):
            if getattr(self, key) is not None:
                found[key] = getattr(self, key)
        return found


@dataclass(frozen=True)
class Request:
    """What the user asks the model to read. See `activations.session.capture` for each."""

    prompt: str | None = None
    text_pair: str | None = None
    target: str | None = None
    max_new_tokens: int | None = None
    chat: bool = False
    image: Image | None = None
    audio: Audio | None = None

    @property
    def has_media(self) -> bool:
        return self.image is not None or self.audio is not None


def paired(config: Any) -> bool:
    """Whether this is an encoder with a decoder."""
    return bool(getattr(config, "is_encoder_decoder", False))


def check_request(config: Any, request: Request) -> None:
    """Raise `UsageError` when parts of a request exclude each other, or need another model."""
    _check_text(request)
    if request.target is not None and not paired(config):
        raise UsageError(_NO_DECODER)
    if request.text_pair == "":
        raise UsageError("the second text is empty. Leave --text-pair out.")
    if request.target is not None and request.max_new_tokens is not None:
        raise UsageError("--target and --max-new-tokens exclude each other. Give one of them.")
    if request.chat and request.text_pair is not None:
        raise UsageError("--chat and --text-pair exclude each other. Give one of them.")


def has_decoder(model: Any, request: Request) -> bool:
    """Whether the model gets a decoder's text. Raises `UsageError` where it cannot write."""
    found = paired(model.config) and accepts(model, "decoder_input_ids")
    if request.target is not None and not found:
        raise UsageError(_NO_DECODER)
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
    with tokenizer_explained(request.chat):
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
    with tokenizer_explained():
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


def spell(tokenizer: Any, ids: torch.Tensor) -> list[str]:
    """The tokenizer's own token for each id, `#id` for ids it does not know."""
    with tokenizer_explained():
        tokens = tokenizer.convert_ids_to_tokens(ids.tolist())
    return [f"#{i}" if token is None else str(token) for i, token in zip(ids, tokens, strict=True)]


def _text_of(tokenizer: Any, ids: torch.Tensor) -> str:
    """The text that these tokens spell, without special ones."""
    with tokenizer_explained():
        return encodable(tokenizer.decode(ids.tolist(), skip_special_tokens=True))


def _check_text(request: Request) -> None:
    texts = {"prompt": request.prompt, "text pair": request.text_pair, "target": request.target}
    for what, value in texts.items():
        try:
            (value or "").encode("utf-8")
        except UnicodeEncodeError:  # bytes of the command line that are no UTF-8 come as surrogates
            raise UsageError(f"the {what} is not text in UTF-8. Save or type it so.") from None


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
            return Lengths(read, 1 + _count_to_write(model.config, request), at_most=True)
        return Lengths(read, read or 1)
    if request.max_new_tokens:
        return Lengths((read or 0) + request.max_new_tokens, at_most=True)
    return Lengths(read)


def _count_to_write(config: Any, request: Request) -> int:
    """How many tokens a decoder may write after its start."""
    room = (_longest(config, "decoder") or DEFAULT_NEW_TOKENS + 1) - 1
    return request.max_new_tokens or min(DEFAULT_NEW_TOKENS, room)


# How many tokens a side takes, as configurations call it: T5 and BART have one name for both, LED
# and Whisper one for each.
_LIMITS = {
    "prompt": ("max_encoder_position_embeddings", "max_position_embeddings"),
    "decoder": (
        "max_decoder_position_embeddings",
        "max_target_positions",
        "max_position_embeddings",
    ),
}


def _longest(config: Any, side: str = "prompt") -> int | None:
    """How many tokens the model takes, where its configuration says so."""
    text_config = getattr(config, "text_config", None) or config
    found = (getattr(text_config, name, None) for name in _LIMITS[side])
    return next((limit for limit in found if isinstance(limit, int) and limit > 0), None)


def check_length(what: str, count: int, config: Any, side: str = "prompt") -> None:
    """Raise `UsageError` when `count` tokens are more than the model takes on this side."""
    limit = _longest(config, side)
    if limit is not None and limit < count:
        raise UsageError(f"{what} {count} tokens long, and this model takes {limit}. Shorten it.")


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


def add_decoder(inputs: Inputs, model: Any, tokenizer: Any, request: Request) -> None:
    """The decoder's input: the target shifted right, or what the model itself writes greedily."""
    if request.target is not None:
        labels = tokenizer(text_target=request.target, return_tensors="pt")["input_ids"]
        ids = _shifted_right(model, tokenizer, labels.to(input_device(model)))
    elif model.can_generate():
        count, start_id = _count_to_write(model.config, request), _decoder_start(model)
        ids = _generate(model, inputs.tensors, count, decoder_start_token_id=start_id)
        inputs.written = _text_of(tokenizer, ids[0, 1:])
    elif "input_ids" in inputs.tensors:  # a classifier's decoder reads what its encoder does (BART)
        ids = _with_start(model, inputs.tensors["input_ids"][:, :-1])
    else:
        ids = _with_start(model, torch.empty((1, 0), dtype=torch.long, device=input_device(model)))
    inputs.tensors["decoder_input_ids"] = ids
    inputs.decoder_tokens = spell(tokenizer, ids[0])


def _shifted_right(model: Any, tokenizer: Any, labels: torch.Tensor) -> torch.Tensor:
    """What the decoder reads to write `labels`: a start, then all but the mark of the end.

    Both are (1, tokens). Models that know how (mBART's start is the language) are asked.
    """
    prefix = getattr(tokenizer, "prefix_tokens", None)
    if prefix and prefix[0] == int(labels[0, 0]) == _decoder_start(model):
        labels = labels[:, 1:]  # Whisper's tokenizer writes the start itself
    ends = labels.shape[-1] > 0 and int(labels[0, -1]) in tokenizer.all_special_ids
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
    """Let a decoder-only model write `count` tokens and take prompt and continuation as inputs."""
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
    inputs.written = _text_of(tokenizer, ids[0, start:])


def _generate(
    model: Any, tensors: dict[str, torch.Tensor], count: int, **options: Any
) -> torch.Tensor:
    # Whisper's sequences lack their start unless they come in a dict.
    options |= {"max_new_tokens": count, "return_dict_in_generate": True}
    with _writing_greedily(model), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        written = model.generate(**tensors, **options)
    return written if isinstance(written, torch.Tensor) else written.sequences


# What stays of a checkpoint's settings for writing: its special tokens, what its text begins with
# (mBART's language) and must not hold (Marian's padding, Whisper's marks); and how it is computed.
_SETTINGS_KEPT = {"bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"}
_SETTINGS_KEPT |= {"forced_bos_token_id", "bad_words_ids", "suppress_tokens"}
_SETTINGS_KEPT |= {"begin_suppress_tokens", "use_cache"}


@contextmanager
def _writing_greedily(model: Any) -> Iterator[None]:
    """Let a model write the likeliest token each time, whatever its checkpoint's settings are.

    Arguments of `generate` would not do: what they leave out is filled in from the settings. A
    part may write in the model's place, by its own (BLIP).
    """
    own = [(part, vars(part).get("generation_config")) for part in model.modules()]
    own = [(part, settings) for part, settings in own if settings is not None]
    with undisturbed() as door:
        try:
            for part, settings in own:
                part.generation_config = _greedy(settings)
            door.open()
            yield
        finally:
            door.shut = True
            for part, settings in own:
                part.generation_config = settings


def _greedy(settings: Any) -> Any:
    """Without what changes the choice of a token; what only this model knows stays (Whisper)."""
    plain = copy(settings)
    for name, value in vars(type(settings)()).items():  # nothing chosen: greedily
        if name not in _SETTINGS_KEPT:
            setattr(plain, name, value)
    return plain
