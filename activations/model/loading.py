"""A checkpoint -> model and tokenizer. Everything that loads goes through here."""

from __future__ import annotations

import logging
import re
import tempfile
import warnings
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoTokenizer, GenerationConfig

from activations.errors import UsageError, first_few, nearest, quoted_list
from activations.model.adapter import add_empty, add_loaded
from activations.model.attn_implementation import check_attention
from activations.model.checkpoint import Checkpoint
from activations.model.devices import find_devices
from activations.model.errors import loading_errors, no_tokenizer
from activations.model.signature import paired
from activations.model.state import fixed_seed
from activations.model.trust import check_index
from activations.model.weight_files import check_weights, variant_of

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
        if checkpoint.adapter is not None:
            model = add_empty(model, checkpoint.adapter)
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
    check_weights(checkpoint.name)
    place, spread = find_devices(device, device_map)
    if checkpoint.adapter is not None and spread is not None:
        # peft would rewrite the base model's own files, with other names in them.
        raise UsageError(
            "--device-map cannot be combined with an adapter. Merge it into its base model first "
            "(merge_and_unload of peft), or leave --device-map out."
        )
    options: dict[str, Any] = {
        **checkpoint.where,
        "dtype": dtype,
        "variant": variant_of(Path(checkpoint.name)),
        "adapter_kwargs": _NO_ADAPTER,
        "output_loading_info": True,
    }
    if checkpoint.adapter is not None:
        options["num_labels"] = checkpoint.config.num_labels  # the adapter's
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
        _no_report(),
    ):
        check_index(checkpoint.name)
        loader = getattr(transformers, checkpoint.class_name)
        model, report = loader.from_pretrained(checkpoint.name, **options)
        lines = _warnings(checkpoint, model, report)
        if checkpoint.adapter is not None:
            model, more = add_loaded(model, checkpoint.adapter)
            lines += more
        model = (model if spread is not None else model.to(place)).eval()
    if spread is not None:
        weakref.finalize(model, folder.cleanup)
    return model, lines


# Keeps transformers from looking for an adapter itself: what is looked for is not there.
_NO_ADAPTER = {"subfolder": "no-adapter"}


@contextmanager
def _no_report() -> Iterator[None]:
    """Keep the libraries' reports off the terminal: our warnings say what matters in them."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(before)


def _warnings(checkpoint: Checkpoint, model: Any, report: Any) -> list[str]:
    """What the report of a loading means: a head left out, weights made up, weights not used."""
    name, config = checkpoint.name, checkpoint.config
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    missing = parameters.intersection(report.get("missing_keys") or ())
    if checkpoint.adapter is not None:
        missing -= checkpoint.adapter.shapes().keys()
    unused = _unused(model, report.get("unexpected_keys") or ())
    class_name = str((getattr(config, "architectures", None) or [""])[0])
    lines = []
    if class_name and not hasattr(transformers, class_name) and not hasattr(config, "auto_map"):
        lines.append(
            f"transformers has no class '{class_name}', which the config.json of '{name}' names. "
            f"It is loaded as {type(model).__name__}, without its head."
        )
    if missing:
        lines.append(
            f"'{name}' lacks weights that its class needs, so they are random: "
            f"{first_few(sorted(missing))}."
        )
    if unused:
        lines.append(
            f"'{name}' holds weights that {type(model).__name__} does not use: "
            f"{first_few(unused)}. Check the class, the number of layers and the "
            "quantization in its config.json."
        )
    return lines


def _unused(model: Any, keys: Iterable[str]) -> list[str]:
    """Those of a checkpoint's weights that the model should have used.

    Of layers that it does not have, and of modules that have other weights (a bias, the scales of
    quantized weights). Not heads, which are left out often, nor the masks of old checkpoints.
    """
    modules = dict(model.named_modules())
    modules |= {f"{model.base_model_prefix}.{name}": module for name, module in modules.items()}
    found = []
    for key in sorted(keys):
        layer = re.match(r".*?\.\d+(?=\.)", key)
        owner = modules.get(key.rpartition(".")[0])
        if layer and (layer[0] not in modules or hasattr(owner, "weight")):
            found.append(key)
    return found


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
