"""A checkpoint -> model, tokenizer, inputs. Everything that loads goes through here."""

from __future__ import annotations

import logging
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import huggingface_hub
import torch
import transformers
from transformers import AutoConfig, AutoTokenizer
from transformers.models.auto import modeling_auto

from activations.errors import ToolkitError, UsageError
from activations.explained import explained, first_line
from activations.probe import accepts

# Tried in this order when the checkpoint does not name its class: most of what has a decoder head
# also has others, and BERT-like models are in the causal mapping too.
_TASKS = {
    "AutoModelForSeq2SeqLM": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING",
    "AutoModelForMaskedLM": "MODEL_FOR_MASKED_LM_MAPPING",
    "AutoModelForCausalLM": "MODEL_FOR_CAUSAL_LM_MAPPING",
}
DEFAULT_NEW_TOKENS = 16  # of the target a seq2seq model writes itself


@dataclass(frozen=True)
class Checkpoint:
    """A model that can be loaded: its name or folder, configuration and the class that loads it."""

    name: str
    config: Any
    class_name: str
    revision: str | None = None
    trust_remote_code: bool = False

    @property
    def where(self) -> dict[str, Any]:
        return _where(self.name, self.revision, self.trust_remote_code)


@dataclass
class Inputs:
    """What one forward pass gets, and what its tokens are called.

    `tensors` go into the model, (1, tokens) each. `tokens` are the tokenizer's own spellings of
    `input_ids`. Where a model has a decoder, `decoder_input_ids` and `decoder_tokens` too.
    `sentence_b_start` is the first token of the second sentence, `continuation_start` of what the
    model wrote itself.
    """

    tensors: dict[str, torch.Tensor]
    tokens: list[str]
    decoder_tokens: list[str] | None = None
    sentence_b_start: int | None = None
    continuation_start: int | None = None
    warnings: list[str] = field(default_factory=list)

    def header(self) -> dict[str, Any]:
        """These inputs as keys of the document, in its order."""
        found: dict[str, Any] = {
            "input_ids": self.tensors["input_ids"].tolist(),
            "tokens": self.tokens,
        }
        if "decoder_input_ids" in self.tensors:
            found["decoder_input_ids"] = self.tensors["decoder_input_ids"].tolist()
            found["decoder_tokens"] = self.decoder_tokens
        for key in ("sentence_b_start", "continuation_start"):
            if getattr(self, key) is not None:
                found[key] = getattr(self, key)
        return found


@dataclass(frozen=True)
class Text:
    """What the user wants the model to read. See `activations.session.capture` for each."""

    prompt: str
    text_pair: str | None = None
    target: str | None = None
    max_new_tokens: int | None = None
    chat: bool = False


# ---------------------------------------------------------------------------------- checkpoints


def open_checkpoint(
    name: str, revision: str | None = None, trust_remote_code: bool = False
) -> Checkpoint:
    """Read a checkpoint's configuration: a hub name or a local folder. Loads no weights.

    Raises `ToolkitError` when it is not there, not a checkpoint, or wants code of its own run.
    """
    with explained(name, "configuration"):
        where = _where(name, revision, trust_remote_code)
        config = AutoConfig.from_pretrained(name, **where)
    return Checkpoint(name, config, _class_name(config), revision, trust_remote_code)


def _where(name: str, revision: str | None, trust_remote_code: bool) -> dict[str, Any]:
    """What every loading call is told."""
    found: dict[str, Any] = {"revision": revision or "main", "trust_remote_code": trust_remote_code}
    if not Path(name).is_dir() and not _hub_in_reach():
        # Otherwise each file is asked for six times, with pauses: half a minute of silence.
        found["local_files_only"] = True
    return found


@cache
def _hub_in_reach() -> bool:
    """Whether the hub's address can be looked up. Behind a proxy only the proxy knows."""
    if getproxies().get("https"):
        return True
    host = urlsplit(huggingface_hub.constants.ENDPOINT).hostname or ""
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True


def _class_name(config: Any) -> str:
    """The class of transformers that loads this checkpoint with the head it was saved with."""
    auto_map: dict[str, str] = getattr(config, "auto_map", None) or {}
    for auto_class in _TASKS:
        if auto_class in auto_map:  # code of its own, which only the auto classes find
            return auto_class
    architectures = list(getattr(config, "architectures", None) or [])
    for auto_class, mapping in _TASKS.items():
        known = _known_class(mapping, config)
        if known is not None and (known in architectures or not architectures):
            return auto_class
    # An encoder-decoder saved without its head (bart-base) gets it back: the head is tied to the
    # embeddings, and with it the model can write the decoder's text.
    if _known_class("MODEL_MAPPING", config) in architectures and paired(config):
        return "AutoModelForSeq2SeqLM"
    # Any other class by its own name: AutoModel would leave out a classifier, or add a decoder of
    # random weights to an encoder that was saved alone.
    if architectures and "AutoModel" not in auto_map and hasattr(transformers, architectures[0]):
        return str(architectures[0])
    return "AutoModel"


def paired(config: Any) -> bool:
    """Whether this is an encoder with a decoder."""
    return bool(getattr(config, "is_encoder_decoder", False))


def _known_class(mapping: str, config: Any) -> str | None:
    try:
        return str(getattr(modeling_auto, mapping)[type(config)].__name__)
    except KeyError:
        return None


def skeleton(checkpoint: Checkpoint) -> Any:
    """The model without weights, on the meta device, with eager attention, in `eval()` mode."""
    loader = getattr(transformers, checkpoint.class_name)
    # The grouped kernels for experts run only in bfloat16, and not at all on some machines.
    options: dict[str, Any] = {"attn_implementation": "eager", "experts_implementation": "eager"}
    if checkpoint.class_name.startswith("Auto"):
        make = loader.from_config
        options["trust_remote_code"] = checkpoint.trust_remote_code
    else:
        make = loader._from_config  # what the auto classes call
    with torch.device("meta"):
        return make(checkpoint.config, **options).eval()


def load_model(
    checkpoint: Checkpoint,
    attn_implementation: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
) -> tuple[Any, list[str]]:
    """The model with its weights, on its device, in `eval()` mode; and warnings about the weights.

    Raises `ToolkitError` when the weights are missing or broken, the device is not there or the
    memory does not suffice.
    """
    place = pick_device(device)
    options: dict[str, Any] = {**checkpoint.where, "dtype": dtype, "output_loading_info": True}
    if attn_implementation is not None:
        options["attn_implementation"] = attn_implementation
    with explained(checkpoint.name, "weights", attn_implementation), torch.random.fork_rng([]):
        torch.manual_seed(0)  # what the checkpoint lacks is random, but the same every time
        loader = getattr(transformers, checkpoint.class_name)
        model, report = loader.from_pretrained(checkpoint.name, **options)
        model = model.to(place).eval()
    return model, _made_up_weights(checkpoint.name, report)


def _made_up_weights(name: str, report: dict[str, Any]) -> list[str]:
    """transformers fills in what a checkpoint lacks with random numbers; say so."""
    missing = sorted(report.get("missing_keys") or ())
    if not missing:
        return []
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return [
        f"'{name}' lacks weights that its class needs, so they are random: "
        f"{', '.join(missing[:3])}{more}."
    ]


def pick_device(device: str) -> torch.device:
    """`auto` is CUDA, else Apple's MPS, else the CPU. Raises `UsageError` where one is missing."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError:
        raise UsageError(
            f"--device does not know '{device}'. Write auto, cpu, cuda, cuda:0 or mps."
        ) from None
    there = {"cpu": True, "cuda": torch.cuda.is_available()}
    there["mps"] = torch.backends.mps.is_available()
    if not there.get(place.type, False) or (
        place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count()
    ):
        raise ToolkitError(f"this machine has no device '{device}'. Write --device cpu or auto.")
    return place


@contextmanager
def attention_implementation(model: Any, name: str | None) -> Iterator[None]:
    """Let a loaded model run with this attention implementation, and put its own back after."""
    if name is None or not hasattr(model, "set_attn_implementation"):
        yield
        return
    before = _implementations(model.config)
    if set(before.values()) == {name}:
        yield
        return
    try:
        model.set_attn_implementation(name)
    except Exception as error:
        raise ToolkitError(
            f"this model does not run with attention '{name}': {first_line(error)}. "
            "Use --attn-implementation eager."
        ) from error
    try:
        yield
    finally:
        model.set_attn_implementation({key: value for key, value in before.items() if value})


def _implementations(config: Any) -> dict[str, Any]:
    """The attention implementation of a model ("") and of each of its parts by name."""
    parts = {"": config} | {key: getattr(config, key, None) for key in config.sub_configs}
    return {key: part._attn_implementation for key, part in parts.items() if part is not None}


@contextmanager
def left_as_it_was(model: Any) -> Iterator[None]:
    """Put a model into `eval()` mode and back, module by module."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The checkpoint's tokenizer. Raises `ToolkitError` when there is none."""
    with explained(checkpoint.name, "tokenizer"):
        return AutoTokenizer.from_pretrained(checkpoint.name, **checkpoint.where)


# ---------------------------------------------------------------------------------------- inputs


def tokenize(config: Any, tokenizer: Any, text: Text) -> Any:
    """The user's text as the tokenizer encodes it, (1, tokens) tensors by name.

    Needs no model, so that what does not fit is refused before one is loaded. Raises `UsageError`
    when the prompt is empty or longer than the model takes, or asks for what this model or its
    tokenizer cannot do.
    """
    _check_text(text)
    if text.target is not None and not paired(config):
        raise UsageError("--target needs a model with a decoder of its own. Leave it out.")
    if text.text_pair == "":
        raise UsageError("the second text is empty. Leave --text-pair out.")
    if text.target is not None and text.max_new_tokens is not None:
        raise UsageError("--target and --max-new-tokens exclude each other. Give one of them.")
    if text.chat and text.text_pair is not None:
        raise UsageError("--chat and --text-pair exclude each other. Give one of them.")
    if text.chat and not getattr(tokenizer, "chat_template", None):
        raise UsageError("--chat needs a tokenizer with a chat template. Leave it out.")
    if text.chat:
        encoded = tokenizer.apply_chat_template(
            [{"role": "user", "content": text.prompt}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
    else:
        encoded = tokenizer(text.prompt, text.text_pair, return_tensors="pt")
    count = encoded["input_ids"].shape[-1]
    if not text.prompt or count == 0:
        raise UsageError("the prompt is empty. Give a text with --prompt or --prompt-file.")
    _check_length("the prompt is", count, config)
    if text.target is not None:
        labels = tokenizer(text_target=text.target)["input_ids"]
        _check_length("the target (--target) is", len(labels), config)
    if text.max_new_tokens is not None:
        before = 1 if paired(config) else count
        what = f"with --max-new-tokens {text.max_new_tokens} the text is"
        _check_length(what, before + text.max_new_tokens, config)
    return encoded


def encode(model: Any, tokenizer: Any, text: Text) -> Inputs:
    """The user's text -> what the model gets, on the model's device; see `tokenize` for errors."""
    encoded = tokenize(model.config, tokenizer, text)
    if text.max_new_tokens and not model.can_generate():
        raise UsageError("--max-new-tokens needs a model that writes text. Leave it out.")
    tensors = {
        key: value.to(model.device)
        for key, value in encoded.items()
        if isinstance(value, torch.Tensor) and (key == "input_ids" or accepts(model, key))
    }
    inputs = Inputs(tensors, _spell(tokenizer, encoded["input_ids"][0]))
    if text.text_pair is not None:
        inputs.sentence_b_start, parted = _sentence_b_start(encoded)
        if not parted:
            inputs.warnings.append(
                "the tokenizer puts nothing between the two texts: this model may not be made for "
                "pairs."
            )
    if paired(model.config) and accepts(model, "decoder_input_ids"):
        _add_decoder(inputs, model, tokenizer, text)
    elif text.max_new_tokens:
        _continue(inputs, model, tokenizer, text.max_new_tokens)
    return inputs


def _spell(tokenizer: Any, ids: torch.Tensor) -> list[str]:
    """The tokenizer's own token for each id, `#id` for ids it does not know."""
    tokens = tokenizer.convert_ids_to_tokens(ids.tolist())
    return [f"#{i}" if token is None else str(token) for i, token in zip(ids, tokens, strict=True)]


def _check_text(text: Text) -> None:
    texts = {"prompt": text.prompt, "text pair": text.text_pair, "target": text.target}
    for what, value in texts.items():
        try:
            (value or "").encode("utf-8")
        except UnicodeEncodeError:  # bytes of the command line that are no UTF-8 come as surrogates
            raise UsageError(f"the {what} is not text in UTF-8. Save or type it so.") from None


def _check_length(what: str, count: int, config: Any) -> None:
    text_config = getattr(config, "text_config", None) or config
    limit = getattr(text_config, "max_position_embeddings", None)
    if isinstance(limit, int) and 0 < limit < count:
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


def _add_decoder(inputs: Inputs, model: Any, tokenizer: Any, text: Text) -> None:
    """The decoder's input: the target shifted right, or what the model itself writes greedily."""
    if text.target is not None:
        labels = tokenizer(text_target=text.target, return_tensors="pt")["input_ids"]
        ids = _shifted_right(model, tokenizer, labels.to(model.device))
    elif model.can_generate():
        count = text.max_new_tokens or DEFAULT_NEW_TOKENS
        start_id = _decoder_start(model)
        ids = _generate(model, inputs.tensors, count, decoder_start_token_id=start_id)
    else:  # a classifier: its decoder reads what its encoder reads (BART)
        ids = _with_start(model, inputs.tensors["input_ids"][:, :-1])
    inputs.tensors["decoder_input_ids"] = ids
    inputs.decoder_tokens = _spell(tokenizer, ids[0])


def _shifted_right(model: Any, tokenizer: Any, labels: torch.Tensor) -> torch.Tensor:
    """What the decoder reads to write `labels`: a start, then all but the mark of the end.

    Both are (1, tokens). Models that know how (mBART's start is the language) are asked.
    """
    ends = labels.shape[-1] > 0 and int(labels[0, -1]) in tokenizer.all_special_ids
    if ends and hasattr(model, "prepare_decoder_input_ids_from_labels"):
        shifted: torch.Tensor = model.prepare_decoder_input_ids_from_labels(labels=labels)
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


def _continue(inputs: Inputs, model: Any, tokenizer: Any, count: int) -> None:
    """Let a decoder-only model write `count` tokens and take prompt and continuation as inputs."""
    start = inputs.tensors["input_ids"].shape[-1]
    ids = _generate(model, inputs.tensors, count)
    inputs.tensors = {"input_ids": ids}
    if accepts(model, "attention_mask"):
        inputs.tensors["attention_mask"] = torch.ones_like(ids)
    inputs.tokens = _spell(tokenizer, ids[0])
    inputs.continuation_start = start


def _generate(
    model: Any, tensors: dict[str, torch.Tensor], count: int, **options: Any
) -> torch.Tensor:
    # One text, greedily, whatever the checkpoint's own settings for writing are.
    greedily = {"do_sample": False, "num_beams": 1, "num_return_sequences": 1}
    greedily |= {"max_new_tokens": count, "min_length": 0}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        written = model.generate(**tensors, **greedily, **options)
    return written if isinstance(written, torch.Tensor) else written.sequences


def quiet_libraries(progress: bool) -> None:
    """Keep transformers' own talk off the terminal: ours says what matters."""
    transformers.logging.set_verbosity_error()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    if not progress:
        transformers.logging.disable_progress_bar()


def versions() -> dict[str, str]:
    return {"torch": torch.__version__, "transformers": transformers.__version__}
