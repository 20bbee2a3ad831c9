"""What the user asks a model to read, what the model gets, and how long either may be."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from activations.document.picture import Picture
from activations.errors import UsageError
from activations.inputs.words import Words, words_said
from activations.model.errors import tokenizer_errors
from activations.model.hosts import config_of
from activations.model.limits import longest
from activations.model.signature import paired

if TYPE_CHECKING:
    import torch

    from activations.inputs.conversation import Turn
    from activations.inputs.media import Audio, Image


@dataclass(frozen=True)
class Request:
    """What the user asks the model to read. See `activations.api.capture` for each.

    `conversation` takes the place of a prompt with `chat`, `ids` of a prompt without a tokenizer;
    `diagnostic` is the name of a text that is made for the model. `source` is another text, whose
    activations are put into the pass of this one.
    """

    prompt: str | None = None
    text_pair: str | None = None
    target: str | None = None
    max_new_tokens: int | None = None
    chat: bool = False
    image: Image | None = None
    audio: Audio | None = None
    ids: tuple[int, ...] | None = None
    conversation: tuple[Turn, ...] | None = None
    source_language: str | None = None
    target_language: str | None = None
    diagnostic: str | None = None
    source: str | None = None

    @property
    def has_text(self) -> bool:
        """Whether the user gave a text, in one form or another."""
        forms = (self.prompt, self.conversation, self.ids, self.diagnostic)
        return any(form is not None for form in forms)

    @property
    def needs_tokenizer(self) -> bool:
        """Whether it is words, and no ids."""
        return (self.ids is None and self.diagnostic is None) or self.source is not None

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The conversation: as given, or the prompt as its only turn."""
        return self.conversation or ({"role": "user", "content": self.prompt or ""},)

    @property
    def has_media(self) -> bool:
        return self.image is not None or self.audio is not None


@dataclass(frozen=True)
class Diagnostic:
    """`ids` are a start token, if the model has one, `length` random tokens, and these again.

    `control` has as many ids, and none twice.
    """

    name: str
    seed: int
    length: int
    ids: tuple[int, ...]
    control: tuple[int, ...]

    def header(self) -> dict[str, Any]:
        """What the document says of it."""
        return {"name": self.name, "seed": self.seed, "length": self.length}


@dataclass
class Encoded:
    """What the tokenizer or processor made of a request, once, on the CPU; needs no weights.

    `tensors` are (1, ...) by the names of the forward's arguments. `labels` are the ids of the
    target, (1, tokens), and `labels_end` says whether a special token ends them.
    `decoder_prefix` is what the decoder's text begins with where the model generates it, (1,
    tokens), if that is more than a start: its language. `sentence_b_start` is the first token of
    the second sentence. `prompt` is the text that was read, `diagnostic` what it was made for.
    `words` and `label_words` are what the tokenizer says of the words of the text and the target.
    """

    tensors: dict[str, torch.Tensor]
    diagnostic: Diagnostic | None = None
    labels: torch.Tensor | None = None
    labels_end: bool = False
    label_words: Words | None = None
    decoder_prefix: torch.Tensor | None = None
    sentence_b_start: int | None = None
    prompt: str = ""
    words: Words | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def tokens(self) -> int | None:
        """How many tokens the text has; None where there is none."""
        ids = self.tensors.get("input_ids")
        return None if ids is None else ids.shape[-1]

    @property
    def decoder_begins(self) -> int:
        """How many tokens stand before those that a decoder generates: a start, a language."""
        return 1 if self.decoder_prefix is None else self.decoder_prefix.shape[-1]

    @property
    def target_tokens(self) -> int | None:
        """How many tokens of the target the decoder reads: a start, and not the end."""
        return None if self.labels is None else self.labels.shape[-1] + (not self.labels_end)


@dataclass
class Inputs:
    """What one forward pass gets, and what its tokens are called.

    `tensors` go into the model, (1, tokens) each. `tokens` are the tokenizer's spellings of
    `input_ids`, `decoder_tokens` of `decoder_input_ids`. `sentence_b_start` is the first token of
    the second sentence, `continuation_start` of what the model generated after the prompt;
    `written` is all it generated, as text. Of a model without `input_ids` the tokens are patches or
    frames; those of a second tower are in `tower_tokens` ("vision_tokens"). `pictures` show what
    these are patches and frames of. `words` are the numbers
    of the words of `tokens`, as far as the tokenizer read them, `decoder_words` of the others.
    """

    tensors: dict[str, torch.Tensor]
    tokens: list[str]
    decoder_tokens: list[str] | None = None
    tower_tokens: dict[str, list[str]] = field(default_factory=dict)
    pictures: list[Picture] = field(default_factory=list)
    sentence_b_start: int | None = None
    continuation_start: int | None = None
    written: str | None = None
    words: Words | None = None
    decoder_words: Words | None = None
    warnings: list[str] = field(default_factory=list)

    def add_picture(self, picture: Picture | None, tokens: str) -> None:
        """Keep a picture, if there is one, of what the tokens under this key show."""
        if picture is not None:
            self.pictures.append(replace(picture, tokens=tokens))

    def header(self) -> dict[str, Any]:
        """These inputs as keys of the document, in its order; None for what does not apply."""
        ids = {name: t.tolist() for name, t in self.tensors.items() if name.endswith("input_ids")}
        return {
            "input_ids": ids.get("input_ids"),
            "tokens": self.tokens or None,
            "words": self.words,
            **self.tower_tokens,
            "decoder_input_ids": ids.get("decoder_input_ids"),
            "decoder_tokens": self.decoder_tokens,
            "decoder_words": self.decoder_words,
            "sentence_b_start": self.sentence_b_start,
            "continuation_start": self.continuation_start,
            "written": self.written,
            "pictures": [picture.header() for picture in self.pictures] or None,
        }


def check_request(model: Any, request: Request) -> None:
    """Raise `UsageError` when parts of a request cannot be combined, or need another model."""
    texts = {"prompt": request.prompt, "text pair": request.text_pair, "target": request.target}
    texts["source"] = request.source
    texts |= {f"turn {i}": turn["content"] for i, turn in enumerate(request.conversation or (), 1)}
    for what, value in texts.items():
        try:
            (value or "").encode("utf-8")
        except UnicodeEncodeError:  # bytes of the command line that are no UTF-8 come as surrogates
            raise UsageError(f"the {what} is not text in UTF-8. Save it as UTF-8.") from None
    if not paired(config_of(model)):
        if request.target is not None:
            raise UsageError(NO_DECODER)
        if request.target_language is not None:
            raise UsageError("--target-language needs an encoder-decoder model. Leave it out.")
    if request.text_pair == "":
        raise UsageError("the second text is empty. Leave --text-pair out.")
    given = {
        "--ids": request.ids is not None,
        "--diagnostic": request.diagnostic is not None,
        "--image": request.image is not None,
        "--audio": request.audio is not None,
        "--chat": request.chat,
        "--text-pair": request.text_pair is not None,
        "--source-language": request.source_language is not None,
        "--target": request.target is not None,
        "--max-new-tokens": request.max_new_tokens is not None,
        "--source": request.source is not None,
    }
    for one, other in _APART:
        if given[one] and given[other]:
            raise UsageError(f"{one} and {other} cannot be combined. Give one of them.")


# Options that cannot be combined.
_APART = (
    ("--target", "--max-new-tokens"),
    ("--chat", "--text-pair"),
    ("--ids", "--chat"),
    ("--ids", "--text-pair"),
    ("--ids", "--source-language"),
    *(
        ("--diagnostic", other)
        for other in ("--chat", "--text-pair", "--source-language", "--image", "--audio")
    ),
    ("--diagnostic", "--max-new-tokens"),
    ("--diagnostic", "--source"),
)
NO_DECODER = "--target needs an encoder-decoder model. Leave it out."
_DEFAULT_NEW_TOKENS = 16  # that an encoder-decoder model generates as its target


def count_to_generate(model: Any, request: Request, encoded: Encoded) -> int:
    """How many tokens a decoder may generate after what its text begins with."""
    begins = encoded.decoder_begins
    room = (longest(model, "decoder") or _DEFAULT_NEW_TOKENS + begins) - begins
    return request.max_new_tokens or min(_DEFAULT_NEW_TOKENS, room)


def _check_length(what: str, count: int, model: Any, side: str) -> None:
    """Raise `UsageError` when `count` tokens are more than the model takes on this side."""
    limit = longest(model, side)
    if limit is not None and limit < count:
        raise UsageError(f"{what} {count} tokens long, and this model takes {limit}. Shorten it.")


def check_lengths(model: Any, request: Request, encoded: Encoded) -> None:
    """Raise `UsageError` where the prompt, the target or the text to generate is too long."""
    prompt = encoded.tokens or 0
    _check_length("the prompt is", prompt, model, "prompt")
    if encoded.target_tokens is not None:
        _check_length("the target (--target) is", encoded.target_tokens, model, "decoder")
    if request.max_new_tokens is not None:
        before, side = (
            (encoded.decoder_begins, "decoder") if paired(config_of(model)) else (prompt, "prompt")
        )
        what = f"with --max-new-tokens {request.max_new_tokens} the text is"
        _check_length(what, before + request.max_new_tokens, model, side)


def encode_target(encoded: Encoded, tokenizer: Any, target: str | None) -> None:
    """Add the decoder's text to what is encoded. Raises `ToolkitError` if the tokenizer fails."""
    if target is None:
        return
    if tokenizer is None:
        raise UsageError("--target needs a tokenizer. Name one with --tokenizer.")
    with tokenizer_errors():
        found = tokenizer(text_target=target, return_tensors="pt")
    encoded.labels, encoded.label_words = found["input_ids"], words_said(tokenizer, found)
    ids = encoded.labels[0].tolist()
    encoded.labels_end = bool(ids) and ids[-1] in tokenizer.all_special_ids
