"""An image or audio -> what a model gets, by the checkpoint's processor.

Nothing here knows an architecture. A model says what it reads (`main_input_name`,
`input_modalities`), and so does each of its towers; its processor resizes any file for the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from activations.errors import ToolkitError, UsageError
from activations.inputs.chat_template import in_parts
from activations.inputs.languages import languages
from activations.inputs.media import Audio, blank_image, silence
from activations.inputs.request import (
    Encoded,
    Request,
    check_lengths,
    check_request,
    encode_target,
)
from activations.model.errors import first_line, rust_panics_raised, tokenizer_errors
from activations.model.hosts import config_of
from activations.model.signature import main_input, modalities, paired, reads_text

_WORDS = {"text": "text", "image": "images", "audio": "audio", "video": "videos"}
_HOW = {"image": "Give one with --image FILE.", "audio": "Give a file with --audio FILE."}


# ---------------------------------------------------------------------------- what a model reads


def needed_processor(model: Any, request: Request) -> str | None:
    """The class of transformers that loads the processor for this; None where a tokenizer will do.

    Raises `UsageError` when the model does not read what it is asked to, or is given nothing.
    """
    said = modalities(model)
    given = {"image": request.image, "audio": request.audio}
    kinds = [kind for kind, file in given.items() if file is not None]
    for kind in kinds:
        if kind not in said:
            raise UsageError(
                f"this model reads {_listed(said)}, not {_WORDS[kind]}. Leave --{kind} out."
            )
    if not kinds and not reads_text(model):
        raise UsageError(needs_media(model))
    if not kinds:
        return None
    _check_texts(model, request, kinds[0])
    if reads_text(model):
        return "AutoProcessor"
    return "AutoImageProcessor" if request.image is not None else "AutoFeatureExtractor"


def needs_media(model: Any) -> str:
    """That the model reads images (or audio), and how to give one."""
    kinds = [kind for kind in modalities(model) if kind != "text"]
    what = f"this model reads {_listed(kinds) or main_input(model)}"
    how = next((_HOW[kind] for kind in kinds if kind in _HOW), None)
    return f"{what}. {how}" if how else f"{what}, which cannot be given here."


def _listed(kinds: Any) -> str:
    return " and ".join(_WORDS.get(kind, kind) for kind in kinds)


def _check_texts(model: Any, request: Request, kind: str) -> None:
    check_request(model, request)
    if reads_text(model):
        if request.ids is not None:
            raise UsageError(f"--ids and --{kind} cannot be combined. Give a text with --prompt.")
        if not request.has_text:
            raise UsageError("this model also reads a text. Give one with --prompt.")
        if request.text_pair is not None:
            raise UsageError(f"--text-pair and --{kind} cannot be combined. Give one of them.")
        return
    texts = {"--prompt": request.prompt, "--text-pair": request.text_pair, "--ids": request.ids}
    for flag, text in (texts | {"--chat": request.chat or None}).items():
        if text is not None:
            target = " The decoder's text is --target." if paired(config_of(model)) else ""
            raise UsageError(f"this model reads {_WORDS[kind]}. Leave {flag} out.{target}")


def with_stand_ins(model: Any, request: Request) -> Request:
    """The request, with a blank image or silence for what the model reads and was not given."""
    wanted = [kind for kind in modalities(model) if kind in _HOW]
    if not reads_text(model):
        wanted = wanted[:1]
    prompt = "a" if not request.has_text and reads_text(model) else request.prompt
    if request.has_media:
        return replace(request, prompt=prompt)
    made: dict[str, Any] = {"image": blank_image(), "audio": silence()}
    return replace(request, prompt=prompt, **{kind: made[kind] for kind in wanted})


# ------------------------------------------------------------------------------ what a model gets


def encode_media(model: Any, processor: Any, tokenizer: Any, request: Request) -> Encoded:
    """What the processor makes of an image or audio and its text. No weights are needed.

    Raises `UsageError` when the request asks for what this model cannot do, `ToolkitError` when
    the processor fails.
    """
    text = _prompt(processor, request) if reads_text(model) else None
    made = _process(model, processor, request, text)
    encoded = Encoded(
        {name: value for name, value in made.items() if isinstance(value, torch.Tensor)},
        prompt=(text if request.conversation else request.prompt) or "",
    )
    with languages(tokenizer, request):
        encode_target(encoded, tokenizer, request.target)
    check_lengths(model, request, encoded)
    _warn_of_a_cut(encoded, processor, request.audio)
    return encoded


def _process(model: Any, processor: Any, request: Request, text: str | None) -> Mapping[str, Any]:
    given: dict[str, Any] = {"return_tensors": "pt"}
    if request.image is not None:
        given["images"] = request.image.pixels
    if request.audio is not None:
        rate = extractor_of(processor).sampling_rate
        given |= {"audio": request.audio.at_rate(rate), "sampling_rate": rate}
    if text is not None:
        given["text"] = text
        if request.chat and _starts(processor, text):
            given["add_special_tokens"] = False  # the template wrote them: a second start otherwise
    elif "audio" in given:
        given["raw_speech"] = given.pop("audio")  # its name in a feature extractor
    try:
        with rust_panics_raised():
            made: Mapping[str, Any] = _part_for(model, processor, request)(**given)
    except Exception as error:
        what = "image" if request.image is not None else "audio"
        hint = f" Write its place into --prompt, once for each {what}, or use --chat."
        raise ToolkitError(
            f"the checkpoint's processor refuses the {what}: {first_line(error)}."
            f"{hint if reads_text(model) else ''}"
        ) from error
    place = getattr(processor, "image_token_id", None)
    if {"text", "images"} <= given.keys() and place is not None and place not in made["input_ids"]:
        raise UsageError(
            "the prompt has no place for the image. Write "
            f"'{processor.image_token}' where it belongs, or use --chat."
        )
    return made


def extractor_of(processor: Any) -> Any:
    return getattr(processor, "feature_extractor", processor)


def _part_for(model: Any, processor: Any, request: Request) -> Any:
    """The part of a processor that is needed: all of it only where the model reads text too."""
    if reads_text(model):
        return processor
    if request.audio is not None:
        return extractor_of(processor)
    return getattr(processor, "image_processor", processor)


def _prompt(processor: Any, request: Request) -> str | None:
    """The text, with the image or audio in the last turn of the user in a chat."""
    if not request.chat:
        return request.prompt
    if not getattr(processor, "chat_template", None):
        raise UsageError("--chat needs a processor with a chat template. Leave it out.")
    media = [{"type": kind} for kind in _HOW if getattr(request, kind) is not None]
    users = [i for i, turn in enumerate(request.turns) if turn["role"] == "user"]
    turns = [
        {**turn, "content": (media if i in users[-1:] else []) + in_parts(turn["content"])}
        for i, turn in enumerate(request.turns)
    ]
    asks = request.turns[-1]["role"] != "assistant"
    with tokenizer_errors(chat=True):
        text = processor.apply_chat_template(turns, add_generation_prompt=asks, tokenize=False)
    return str(text)


def _starts(processor: Any, text: str) -> bool:
    """Whether a text has the tokenizer's start token already."""
    mark: str | None = getattr(getattr(processor, "tokenizer", None), "bos_token", None)
    return bool(mark and text.startswith(mark))


def _warn_of_a_cut(encoded: Encoded, processor: Any, audio: Audio | None) -> None:
    longest = getattr(extractor_of(processor), "n_samples", None)
    if audio is None or not isinstance(longest, int):
        return
    seconds, read = len(audio.samples) / audio.rate, longest / extractor_of(processor).sampling_rate
    if seconds > read:
        encoded.warnings.append(
            f"'{audio.name}' lasts {seconds:.0f} seconds, and this model reads {read:.0f} at once: "
            "the rest is left out."
        )
