"""What transformers and torch raise -> one line that says what is wrong and what to do.

Neither is imported here: exceptions are recognised by the name of their class and their text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from activations.errors import ToolkitError, causes
from activations.system.signals import raise_interruption


@contextmanager
def loading_errors(name: str, part: str, attn_implementation: str | None = None) -> Iterator[None]:
    """What loading raises -> one line that says what is wrong and what to do."""
    try:
        with rust_panics_raised():
            yield
    except ToolkitError:
        raise
    except Exception as error:
        raise_interruption(error)
        raise ToolkitError(_explain(name, part, error, attn_implementation)) from error


def _explain(name: str, part: str, error: Exception, attn_implementation: str | None) -> str:
    text = " ".join(str(item) for item in causes(error))
    kinds = {type(item).__name__ for item in causes(error)}
    if out_of_memory(error):
        return (
            f"out of memory while loading '{name}'. Use --dtype bfloat16, a smaller model, or "
            "another --device."
        )
    if "trust_remote_code" in text:
        return (
            f"'{name}' contains custom code, which is not run by default. Review it, then "
            "pass --trust-remote-code."
        )
    if part == "weights" and "device_map" in text:
        return f"--device-map does not fit: {first_line(error)}. Write auto, or fix it."
    if attn_implementation not in (None, "eager"):  # eager is always there
        unsupported = "does not support an attention" in text  # and then says it at length
        # A kernel that is not installed is an ImportError with its own name (FlashAttention2).
        if unsupported or str(attn_implementation) in text or "ImportError" in kinds:
            why = "" if unsupported else f" ({first_line(error)})"
            return (
                f"'{name}' does not run with attention '{attn_implementation}'{why}. Use "
                "--attn-implementation eager."
            )
    if part == "configuration" and not os.path.isdir(name):
        return _explain_missing(name, kinds, error)
    if kinds & _OUT_OF_REACH and os.path.isdir(name):
        return (
            f"the {part} of '{name}' needs files that are not in this folder but on the Hugging "
            "Face hub, which cannot be reached. Check the network."
        )
    if kinds & _OUT_OF_REACH:
        return f"this machine does not have the {part} of '{name}', and {_NO_HUB}."
    is_there = os.path.isfile(os.path.join(name, "tokenizer.json"))  # noqa: PTH118
    if part == "tokenizer" and "ImportError" not in kinds and not is_there:
        return str(no_tokenizer(name))  # an ImportError says what it needs
    # Other errors come out of a processor that is there; an ImportError says what it needs.
    if part == "processor" and type(error).__name__ in ("OSError", "ValueError"):
        return (
            f"'{name}' has no processor that can be loaded. Save one in the model's folder with "
            "processor.save_pretrained()."
        )
    return _cannot(part, name, error)


def no_tokenizer(name: str) -> ToolkitError:
    """The error for a checkpoint without a tokenizer."""
    return ToolkitError(
        f"'{name}' has no tokenizer that can be loaded. Name one with --tokenizer, save one in its "
        "folder with tokenizer.save_pretrained(), or give token ids with --ids."
    )


def _cannot(part: str, name: str, error: Exception) -> str:
    what, advice = _known(error) or (first_line(error), "")
    if not advice and any(isinstance(item, ImportError) for item in causes(error)):
        advice = "Install what is missing, or get another checkpoint."
    return f"the {part} of '{name}' cannot be loaded: {what}. {advice or _REPAIR}"


_REPAIR = "The files may be damaged or incomplete: get or save the checkpoint again."


def _known(error: Exception) -> tuple[str, str] | None:
    """What is wrong with a checkpoint's files, and advice, where libraries say it at length."""
    text = "\n".join(str(item) for item in causes(error))
    if any(type(item).__name__ == "UnpicklingError" for item in causes(error)):
        return (
            "they are a pickle file that is broken or holds more than tensors; as it could run "
            "code, it is not read",
            "Get the checkpoint as safetensors.",
        )
    if "ignore_mismatched_sizes" in text:
        return "their sizes are not those that its config.json says", ""
    if "does not recognize this architecture" in text:
        unknown = re.search("(`.{1,80}?`)", text)
        named = unknown[1].replace("`", "'") if unknown else ""
        return (
            f"this version of transformers does not know its model_type {named}".rstrip(),
            "Check its config.json, or upgrade transformers.",
        )
    if "Unrecognized model in" in text:
        return "its config.json names no model_type", 'Add it, as in "model_type": "llama".'
    if "has no `quant_method`" in text:
        return "the quantization_config in its config.json names no quant_method", ""
    if re.search("quanti[sz]", text) and re.search(r"\bGPU|\bCUDA|\bXPU", text):
        return first_line(error), "Run it on a GPU, or get a checkpoint that is not quantized."
    if absent := re.search(r"does not appear to have a file named (.{1,80}?)\.? ", text):
        return f"it has no file '{absent[1]}'", ""
    field = re.search(r"alidation error for (?:field|validator) .*\n\s*(?:\w+: )?(.*)", text)
    return field and (field[1][:200].rstrip("."), "Fix its config.json.")


# huggingface_hub's and its HTTP library's, by name
_OUT_OF_REACH = {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError", "ReadTimeout"}
_OUT_OF_REACH |= {"ConnectTimeout", "ConnectionError", "ProxyError", "SSLError"}
_NO_HUB = "the Hugging Face hub cannot be reached"


def _explain_missing(name: str, kinds: set[str], error: Exception) -> str:
    """Why there is no configuration of this name on the hub or in its cache."""
    if "GatedRepoError" in kinds:
        return (
            f"'{name}' is gated on the Hugging Face hub. Ask for access on its page and log in "
            "with 'hf auth login'."
        )
    # Names on the hub are `name` or `owner/name`.
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        return f"model not found: there is no folder '{name}'. Check --model."
    if "RevisionNotFoundError" in kinds:
        return f"'{name}' has no such revision on the Hugging Face hub. Check --revision."
    if kinds & {"RepositoryNotFoundError", "HFValidationError"}:
        return (
            f"model not found: '{name}' is neither a local folder nor a model on the Hugging Face "
            "hub (or a private one: log in with 'hf auth login'). Check --model."
        )
    if kinds & _OUT_OF_REACH:
        return (
            f"model not found: '{name}' is not on this machine and {_NO_HUB}. "
            "Check the name and the network, or give a local folder with --model."
        )
    return _cannot("configuration", name, error)


def out_of_memory(error: BaseException) -> bool:
    return any(
        isinstance(item, MemoryError)
        or type(item).__name__ == "OutOfMemoryError"  # torch's
        or "can't allocate memory" in str(item)
        or "not enough memory" in str(item)
        for item in causes(error)
    )


def first_line(error: BaseException) -> str:
    """The error's class, and the start of what it says, without a heading ("Error(s) in x:")."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    text = next((line for line in lines if not line.endswith(":")), lines[0])[:200].rstrip(". ")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextmanager
def forward_errors() -> Iterator[None]:
    """What a model raises in its forward pass -> one line."""
    try:
        yield
    except ToolkitError:
        raise
    except Exception as error:
        raise_interruption(error)
        if out_of_memory(error):
            raise ToolkitError(
                "out of memory in the forward pass. Shorten the prompt, use --dtype bfloat16, or "
                "choose fewer --layers."
            ) from error
        hint = ""
        if isinstance(error, IndexError):
            hint = (
                " The prompt may be longer than the model takes, or the tokenizer another model's."
            )
        raise ToolkitError(
            f"the model failed in its forward pass: {first_line(error)}.{hint} Pass --debug to see "
            "where."
        ) from error


@contextmanager
def rust_panics_raised() -> Iterator[None]:
    """Raise a panic of a library in Rust (tokenizers, safetensors) as a `RuntimeError`.

    It is not an `Exception` itself. Rust has printed two lines to stderr before.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RuntimeError(str(error)) from error


@contextmanager
def tokenizer_errors(chat: bool = False) -> Iterator[None]:
    """What a loaded tokenizer or its chat template raises -> one line."""
    try:
        with rust_panics_raised():
            yield
    except ToolkitError:
        raise
    except Exception as error:
        what, advice = "tokenizer", "Get the checkpoint again."
        if chat:
            what = "tokenizer or its chat template"
            advice = "Change the conversation, or leave --chat out."
        raise ToolkitError(f"the {what} fails: {first_line(error)}. {advice}") from error
