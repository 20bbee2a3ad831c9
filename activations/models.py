"""A checkpoint -> model and tokenizer. Everything that loads goes through here."""

from __future__ import annotations

import json
import logging
import socket
import tempfile
import time
import warnings
import weakref
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import huggingface_hub
import torch
import transformers
from transformers import AutoConfig, AutoTokenizer
from transformers.models.auto import modeling_auto

from activations.distrust import check_counts, check_index, check_kernels, modules_counted
from activations.errors import ToolkitError, UsageError, nearest, quoted_list
from activations.explained import explained
from activations.files import is_folder
from activations.implementations import check_attention, implementations
from activations.inputs import paired
from activations.panics import panics_raised
from activations.restoring import the_same_chances

_WAYS_TO_SPREAD = ("auto", "balanced", "balanced_low_0", "sequential")  # accelerate's

_HUB_ANSWERS = 5  # seconds, or it is taken to be out of reach
_HUB_ASKED_AGAIN = 60  # seconds

# Tried in this order when the checkpoint does not name its class: most of what has a decoder head
# also has others, and BERT-like models are in the causal mapping too.
_TASKS = {
    "AutoModelForSeq2SeqLM": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING",
    "AutoModelForMaskedLM": "MODEL_FOR_MASKED_LM_MAPPING",
    "AutoModelForCausalLM": "MODEL_FOR_CAUSAL_LM_MAPPING",
}


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


# ---------------------------------------------------------------------------------- checkpoints


def open_checkpoint(
    name: str, revision: str | None = None, trust_remote_code: bool = False
) -> Checkpoint:
    """Read a checkpoint's configuration: a hub name or a local folder. Loads no weights.

    Raises `ToolkitError` when it is not there, not a checkpoint, or wants code of its own run.
    """
    if not name:
        raise UsageError("--model is empty. Give a hub name or a checkpoint folder.")
    with explained(name, "configuration"):
        where = _where(name, revision, trust_remote_code)
        check_counts(name, transformers.PreTrainedConfig.get_config_dict(name, **where)[0])
        config = AutoConfig.from_pretrained(name, **where)
        if not trust_remote_code:
            check_kernels(name, implementations(config))
        return Checkpoint(name, config, _class_name(config), revision, trust_remote_code)


def _where(name: str, revision: str | None, trust_remote_code: bool) -> dict[str, Any]:
    """What every loading call is told."""
    found: dict[str, Any] = {"revision": revision or "main", "trust_remote_code": trust_remote_code}
    if not is_folder(name) and not _hub_in_reach():
        # Otherwise each file is asked for six times, with pauses: half a minute of silence.
        found["local_files_only"] = True
    return found


def _hub_in_reach() -> bool:
    """Whether the hub can be called at its address. Behind a proxy only the proxy knows."""
    if {"https", "all"} & set(getproxies()):
        return True
    # Asked once for all files of a model; again later, as a notebook may outlive a lost network.
    return _answers(huggingface_hub.constants.ENDPOINT, int(time.monotonic() / _HUB_ASKED_AGAIN))


@lru_cache(maxsize=1)
def _answers(address: str, moment: int) -> bool:
    try:
        hub = urlsplit(address)
        place = hub.hostname or "", hub.port or (80 if hub.scheme == "http" else 443)
        socket.create_connection(place, timeout=_HUB_ANSWERS).close()
    except (OSError, ValueError):  # a port that is no number
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
    headless = _known_class("MODEL_MAPPING", config) in architectures
    if headless and paired(config) and _known_class(_TASKS["AutoModelForSeq2SeqLM"], config):
        return "AutoModelForSeq2SeqLM"
    # Any other class by its own name: AutoModel would leave out a classifier, or add a decoder of
    # random weights to an encoder that was saved alone.
    if architectures and "AutoModel" not in auto_map and _is_model(architectures[0]):
        return str(architectures[0])
    return "AutoModel"


def _is_model(name: Any) -> bool:
    """Whether transformers has a model class of this name (it has all kinds of other things)."""
    found = getattr(transformers, str(name), None)
    return isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)


def _known_class(mapping: str, config: Any) -> str | None:
    try:
        known = getattr(modeling_auto, mapping)[type(config)]
    except KeyError:
        return None
    return str((known[0] if isinstance(known, tuple) else known).__name__)  # funnel has two


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
        options["trust_remote_code"] = checkpoint.trust_remote_code
    else:
        make = loader._from_config  # what the auto classes call
    with torch.device("meta"), modules_counted(checkpoint.name):
        model = make(checkpoint.config, **options)
    return model.to("meta").eval()  # torch.Tensor(n) does not heed the line above (wav2vec2)


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
    place = pick_device(device)
    spread = parse_device_map(device_map)
    options: dict[str, Any] = {**checkpoint.where, "dtype": dtype, "output_loading_info": True}
    if attn_implementation is not None:
        options["attn_implementation"] = attn_implementation
    if isinstance(spread, dict):
        _check_parts(checkpoint, spread)
    if spread is not None:
        # Weights whose form in memory differs from the checkpoint's are written here; the others
        # are read from the checkpoint itself.
        folder = tempfile.TemporaryDirectory(prefix="offloaded-weights-")
        options |= {"device_map": spread, "offload_folder": folder.name}
    # What the checkpoint lacks is random, but the same every time.
    with (
        explained(checkpoint.name, "weights", attn_implementation),
        modules_counted(checkpoint.name),
        the_same_chances(),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # about files that are odd: what matters is an error
        check_index(checkpoint.name)
        loader = getattr(transformers, checkpoint.class_name)
        model, report = loader.from_pretrained(checkpoint.name, **options)
        model = (model if spread is not None else model.to(place)).eval()
    if spread is not None:
        weakref.finalize(model, folder.cleanup)
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    missing = parameters.intersection(report.get("missing_keys") or ())
    return model, _made_up_weights(checkpoint.name, sorted(missing))


def _made_up_weights(name: str, missing: list[str]) -> list[str]:
    """transformers fills in what a checkpoint lacks with random numbers; say so."""
    if not missing:
        return []
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return [
        f"'{name}' lacks weights that its class needs, so they are random: "
        f"{', '.join(missing[:3])}{more}."
    ]


def pick_device(device: str, flag: str = "--device") -> torch.device:
    """`auto` is CUDA, else Apple's MPS, else the CPU. Raises `UsageError` where one is missing."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError:
        raise UsageError(
            f"{flag} does not know '{device}'. Write auto, cpu, cuda, cuda:0 or mps."
        ) from None
    there = {"cpu": place.index in (None, 0), "cuda": torch.cuda.is_available()}
    there["mps"] = torch.backends.mps.is_available()
    if not there.get(place.type, False) or (
        place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count()
    ):
        raise ToolkitError(f"this machine has no device '{device}'. Write {flag} cpu or auto.")
    return place


def parse_device_map(text: str | None) -> Any:
    """`--device-map` as accelerate takes it: a way to spread a model, or a place for each part.

    A way is `auto`, `balanced`, `balanced_low_0`, `sequential` or `disk` (all weights stay on the
    disk and are read layer by layer); places are a JSON object from module names to `cpu`, `disk`
    or a device. Raises `UsageError` where it is neither, `ToolkitError` where a device is missing.
    """
    if text is None or text in _WAYS_TO_SPREAD:
        return text
    if text == "disk":
        return {"": "disk"}
    try:
        places = json.loads(text)
    except ValueError:
        places = None
    if not isinstance(places, dict) or not places:
        raise UsageError(
            f"--device-map does not know '{text}'. Write {', '.join(_WAYS_TO_SPREAD)}, disk, or "
            'a JSON object such as {"model": "cpu", "lm_head": "disk"}.'
        )
    for device in places.values():
        if device != "disk":
            number = isinstance(device, int) and not isinstance(device, bool)
            pick_device(f"cuda:{device}" if number else str(device), "--device-map")
    return places


def _check_parts(checkpoint: Checkpoint, places: dict[str, Any]) -> None:
    """accelerate passes over names that the model does not have."""
    with explained(checkpoint.name, "configuration"):
        model = skeleton(checkpoint)
    names = [name for name, _ in (*model.named_modules(), *model.named_parameters())]
    for name in places:
        if name not in names:
            close = nearest(name, names)
            hint = f" Did you mean {quoted_list(close)}?" if close else ""
            raise UsageError(f"--device-map: the model has no part '{name}'.{hint}")


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The checkpoint's tokenizer. Raises `ToolkitError` when there is none."""
    with explained(checkpoint.name, "tokenizer"), panics_raised():
        return AutoTokenizer.from_pretrained(checkpoint.name, **checkpoint.where)


def load_processor(checkpoint: Checkpoint, auto_class: str) -> Any:
    """What the checkpoint reads images or audio with. Raises `ToolkitError` when there is none.

    `auto_class` is `AutoImageProcessor`, `AutoFeatureExtractor` or `AutoProcessor`.
    """
    with explained(checkpoint.name, "processor"), panics_raised():
        return getattr(transformers, auto_class).from_pretrained(
            checkpoint.name, **checkpoint.where
        )


def quiet_libraries(progress: bool) -> None:
    """Keep transformers' own talk off the terminal: ours says what matters."""
    transformers.logging.set_verbosity_error()
    for library in ("huggingface_hub", "accelerate"):
        logging.getLogger(library).setLevel(logging.ERROR)
    if not progress:
        transformers.logging.disable_progress_bar()


def versions() -> dict[str, str]:
    return {"torch": torch.__version__, "transformers": transformers.__version__}
