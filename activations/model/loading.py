"""A checkpoint -> model and tokenizer. Everything that loads goes through here."""

from __future__ import annotations

import logging
import tempfile
import warnings
import weakref
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
import transformers
from transformers import AutoTokenizer, GenerationConfig

from activations.errors import UsageError, first_few, nearest, quoted_list
from activations.model.attn_implementation import check_attention
from activations.model.checkpoint import Checkpoint
from activations.model.devices import find_devices
from activations.model.errors import loading_errors, no_tokenizer
from activations.model.signature import paired
from activations.model.state import fixed_seed
from activations.model.trust import check_index

_MOST_SPECIAL = 2000  # tokens; more are a vocabulary


def skeleton(checkpoint: Checkpoint, dtype: str = "auto") -> Any:
    """The model without weights, on the meta device, with eager attention, in `eval()` mode.

    In the dtype its configuration names, unless another is asked for.
    """
    loader = getattr(transformers, checkpoint.class_name)
    # The grouped kernels for experts run only in bfloat16, and not at all on some machines.
    options: dict[str, Any] = {"attn_implementation": "eager", "experts_implementation": "eager"}
    if dtype != "auto":
        options["dtype"] = getattr(torch, dtype)
    if checkpoint.class_name.startswith("Auto"):
        make = loader.from_config
        options["trust_remote_code"] = checkpoint.where.get("trust_remote_code", False)
    else:
        make = loader._from_config  # what the auto classes call
    with torch.device("meta"):
        model = make(checkpoint.config, **options)
    if paired(checkpoint.config):  # which language it writes may stand in a file of its own
        with suppress(OSError):  # most have none
            settings = {k: v for k, v in checkpoint.where.items() if k != "trust_remote_code"}
            model.generation_config = GenerationConfig.from_pretrained(checkpoint.name, **settings)
    return model.to("meta").eval()  # torch.Tensor(n) ignores the line above (wav2vec2)


def load_model(
    checkpoint: Checkpoint,
    attn_implementation: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    device_map: str | None = None,
) -> tuple[Any, list[str]]:
    """The model with its weights, on its device, in `eval()` mode; and warnings about the weights.

    With a `device_map` (see `parse_device_map`) accelerate spreads it over devices and the disk.

    Raises `ToolkitError` when the weights are missing or broken, the device is not there or the
    memory does not suffice.
    """
    check_attention(attn_implementation)
    place, spread = find_devices(device, device_map)
    options: dict[str, Any] = {**checkpoint.where, "dtype": dtype, "output_loading_info": True}
    if attn_implementation is not None:
        options["attn_implementation"] = attn_implementation
    if isinstance(spread, dict):
        _check_parts(checkpoint, spread)
    if spread is not None:
        # For weights whose form in memory differs from the checkpoint's; the others are read from
        # the checkpoint.
        folder = tempfile.TemporaryDirectory(prefix="offloaded-weights-")
        options |= {"device_map": spread, "offload_folder": folder.name}
    # What the checkpoint lacks is random: the same every time with a fixed seed.
    with (
        loading_errors(checkpoint.name, "weights", attn_implementation),
        fixed_seed(),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # what matters is an error
        check_index(checkpoint.name)
        loader = getattr(transformers, checkpoint.class_name)
        model, report = loader.from_pretrained(checkpoint.name, **options)
        model = (model if spread is not None else model.to(place)).eval()
    if spread is not None:
        weakref.finalize(model, folder.cleanup)
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    missing = parameters.intersection(report.get("missing_keys") or ())
    if not missing:
        return model, []
    return model, [
        f"'{checkpoint.name}' lacks weights that its class needs, so they are random: "
        f"{first_few(sorted(missing))}."
    ]


def _check_parts(checkpoint: Checkpoint, places: dict[str, Any]) -> None:
    """Refuse names that the model does not have: accelerate ignores them."""
    with loading_errors(checkpoint.name, "configuration"):
        model = skeleton(checkpoint)
    names = [name for name, _ in (*model.named_modules(), *model.named_parameters())]
    for name in places:
        if name not in names:
            close = nearest(name, names)
            hint = f" Did you mean {quoted_list(close)}?" if close else ""
            raise UsageError(f"--device-map: the model has no part '{name}'.{hint}")


def load_tokenizer(name: str, where: Mapping[str, Any] | None = None) -> Any:
    """A tokenizer, by the name or folder of it or of its model.

    `where` has the options of a checkpoint's loading calls. Raises `ToolkitError` when there is no
    tokenizer: of a folder without its files, transformers makes one that knows no words.
    """
    with loading_errors(name, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(name, **(where or {}))
    if not _has_words(tokenizer):
        raise no_tokenizer(name)
    return tokenizer


def _has_words(tokenizer: Any) -> bool:
    """Whether a tokenizer has a vocabulary: one made of no files has special tokens alone.

    (And a mark for spaces, or a full stop.)
    """
    if not hasattr(tokenizer, "get_vocab") or len(tokenizer) > _MOST_SPECIAL:
        return True
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return len(tokenizer.get_vocab().keys() - special - set(tokenizer.all_special_tokens)) > 1


def load_processor(checkpoint: Checkpoint, auto_class: str) -> Any:
    """What the checkpoint reads images or audio with. Raises `ToolkitError` when there is none.

    `auto_class` is `AutoImageProcessor`, `AutoFeatureExtractor` or `AutoProcessor`.
    """
    with loading_errors(checkpoint.name, "processor"):
        return getattr(transformers, auto_class).from_pretrained(
            checkpoint.name, **checkpoint.where
        )


def quiet_libraries(progress: bool) -> None:
    """Keep the libraries' messages off the terminal: ours say what matters."""
    transformers.logging.set_verbosity_error()
    for library in ("huggingface_hub", "accelerate"):
        logging.getLogger(library).setLevel(logging.ERROR)
    if not progress:
        transformers.logging.disable_progress_bar()


def versions() -> dict[str, str]:
    return {"torch": torch.__version__, "transformers": transformers.__version__}
