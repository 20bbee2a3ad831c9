"""Finding out what a model is made of: from its name, its folder, or the loaded model itself."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from activations.errors import ToolkitError, UsageError, quoted_list
from activations.forward.probe import list_modules, observe, try_model
from activations.inputs.processor import (
    encode_media,
    needed_processor,
    needs_media,
    with_stand_ins,
)
from activations.inputs.prompt import encode_text, has_decoder, lengths
from activations.inputs.request import Encoded, Request
from activations.model.attn_implementation import attention_implementation
from activations.model.checkpoint import Checkpoint, loading_options, open_checkpoint
from activations.model.errors import first_line, forward_errors, loading_errors, out_of_memory
from activations.model.hosts import hosts, name_of, unwrapped
from activations.model.loading import load_model, load_processor, load_tokenizer, skeleton
from activations.model.offloading import is_offloaded
from activations.model.signature import inputs_for, reads_text
from activations.model.state import fixed_seed, restored
from activations.model.vocabulary import spell
from activations.outputs.shapes import Lengths
from activations.selection.catalog import Catalog, build_catalog
from activations.selection.observation import Observation
from activations.session.options import Options, checkpoint_of
from activations.system.signals import raise_interruption
from activations.text import counted

DEMO_NAME = "demo_model"
DEMO_PROMPT = "Once there was a fox named Zolimar. One day Zolimar met a bear by the river."
_MOST_SPELLED = 24  # tokens in a message
Watching = Callable[[str], AbstractContextManager[Any]]


@dataclass
class OpenedModel:
    """A model: what it is made of, what it is to read, and itself once its weights are loaded.

    `processor` makes inputs of an image or audio; None where a tokenizer does it all.
    `tokenizer_name` is set where it is not the checkpoint's own. `request`
    and `encoded` are what is read and what tokenizer or processor made of it, `source` the same of
    another text whose activations are put into this one's pass, `lengths` how many tokens that is;
    a model that is only listed has none of them.
    """

    name: str
    catalog: Catalog
    request: Request
    checkpoint: Checkpoint | None = None
    model: Any = None
    tokenizer: Any = None
    tokenizer_name: str | None = None
    processor: Any = None
    encoded: Encoded | None = None
    source: Encoded | None = None
    lengths: Lengths = field(default_factory=Lengths)
    warnings: list[str] = field(default_factory=list)


@fixed_seed()
def open_model(
    name: str | None,
    options: Options | None = None,
    request: Request | None = None,
    watching: Watching = nullcontext,
    tokenizer: Any = None,
) -> OpenedModel:
    """Find out what a checkpoint's model is made of, without loading its weights if possible.

    Also encodes what it is to read. `watching(what)` is entered while the model is tried, to show
    progress. `tokenizer` replaces the checkpoint's own; it may be a name or folder. Raises
    `UsageError` when the model does not read what the request gives it, or less of it.
    """
    options, request = options or Options(), request or Request()
    where = checkpoint_of(name)
    checkpoint = open_checkpoint(where, options.revision, options.trust_remote_code)
    given = _tokenizer_of(tokenizer, options)
    try:
        with watching("Trying the model without its weights"):
            model = skeleton(checkpoint, options.dtype)
            opened = _try(model, checkpoint, request, given)
    except ToolkitError:
        raise
    except Exception:
        # What the meta device cannot run (kernels without a shape rule, code that follows the
        # data) the model itself can.
        model, warnings = load_model(
            checkpoint, None, options.dtype, options.device, options.device_map
        )
        with attention_implementation(model, "eager"), forward_errors():
            opened = _try(model, checkpoint, request, given)
        opened.model, opened.warnings = model, warnings
    opened.name = name or DEMO_NAME
    opened.tokenizer_name = tokenizer if isinstance(tokenizer, str) else None
    return with_request(opened, request, model)


def _tokenizer_of(given: Any, options: Options | None = None) -> Any:
    """The tokenizer that was given; of a name or folder, what is there."""
    if not isinstance(given, str):
        return given
    if not given:
        raise UsageError("--tokenizer is empty. Give a hub name or a folder.")
    given = os.path.expanduser(given)  # noqa: PTH111  Path would change more
    if os.path.isfile(given):
        folder = shlex.quote(os.path.dirname(given) or ".")  # noqa: PTH120
        raise ToolkitError(f"'{given}' is a file. Name its folder: --tokenizer {folder}")
    if given.startswith((".", "/")) and not os.path.isdir(given):
        raise ToolkitError(f"there is no folder '{given}'. Check --tokenizer.")
    trusted = options is not None and options.trust_remote_code
    return load_tokenizer(given, loading_options(given, trust_remote_code=trusted))


@fixed_seed()
def list_model(name: str | None, options: Options, request: Request) -> tuple[Catalog, str | None]:
    """A model's patterns, without ever loading weights; with a warning where that hides something.

    A model that reads images or audio is tried on a blank image or silence; no text is encoded.
    """
    where = checkpoint_of(name)
    checkpoint = open_checkpoint(where, options.revision, options.trust_remote_code)
    with loading_errors(checkpoint.name, "configuration"):
        model = skeleton(checkpoint)
    try:
        return _try(model, checkpoint, request, stand_in=True).catalog, None
    except UsageError:
        raise
    except Exception as error:
        reason = str(error) if isinstance(error, ToolkitError) else type(error).__name__
    return build_catalog(Observation(list_modules(model), probed=False)), (
        "this model cannot be tried without its weights, so what its modules return is not "
        f"shown, and indices may differ from those of a capture ({reason})."
    )


@fixed_seed()
def open_loaded(
    model: Any, tokenizer: Any, processor: Any = None, request: Request | None = None
) -> OpenedModel:
    """A model that is loaded already, with its tokenizer or processor. Raises `ToolkitError`."""
    request, model = request or Request(), unwrapped(model)
    if is_offloaded(model) and not any(hasattr(part, "_hf_hook") for part in model.modules()):
        raise UsageError("this model is on the meta device, without weights. Load them first.")
    if needed_processor(model, request) is None:
        processor = None
    elif processor is None:
        raise UsageError("a loaded model needs its processor too: capture(model, processor=...).")
    own = _tokenizer_of(tokenizer)
    if own is None:  # a SentenceTransformer has one
        own = getattr(model if processor is None else processor, "tokenizer", None)
    if own is None and processor is None and request.needs_tokenizer:
        raise UsageError("a loaded model needs its tokenizer too: capture(model, tokenizer=...).")
    with restored(model), attention_implementation(model, "eager"), forward_errors():
        if processor is None:
            opened = OpenedModel(name_of(model), _try_text(model), request, tokenizer=own)
        else:
            opened = _try_media(name_of(model), model, processor, own, request)
    opened.model = model
    opened.tokenizer_name = tokenizer if isinstance(tokenizer, str) else None
    return with_request(opened, request)


def _try_text(model: Any) -> Catalog:
    """Try a loaded module on a text. Raises `ToolkitError` where it is made for other inputs."""
    try:
        return build_catalog(observe(model))
    except Exception as error:
        raise_interruption(error)
        inside = hosts(model)
        if "" in inside or out_of_memory(error):
            raise
        advice = "Its forward has to take token ids."
        if inside:
            names = quoted_list(inside)
            advice = f"Capture the Hugging Face model inside it: model.get_submodule({names})."
        raise ToolkitError(
            f"{type(model).__name__} cannot be run on a text ({first_line(error)}). {advice}"
        ) from error


def _try(
    model: Any,
    checkpoint: Checkpoint,
    request: Request,
    tokenizer: Any = None,
    stand_in: bool = False,
) -> OpenedModel:
    """Try the model, or its skeleton, on what it is to read; an image or audio is encoded for that.

    With `stand_in` it gets a blank image or silence where it needs one and none was given.
    """
    if stand_in and (request.has_media or not reads_text(model)):
        request = with_stand_ins(model, request)
    needed = needed_processor(model, request)
    if needed is None:
        try:
            catalog = build_catalog(observe(model))
            return OpenedModel(checkpoint.name, catalog, request, checkpoint, tokenizer=tokenizer)
        except Exception:
            opened = _try_with_stand_in(model, checkpoint, request)
            if opened is None:
                raise
            if not stand_in:
                raise UsageError(needs_media(model)) from None
            return opened
    processor = load_processor(checkpoint, needed)
    if tokenizer is not None and hasattr(processor, "tokenizer"):
        processor.tokenizer = tokenizer
    tokenizer = getattr(processor, "tokenizer", tokenizer)
    if tokenizer is None and has_decoder(model, request):
        tokenizer = load_tokenizer(*checkpoint.tokenizer_source)
    opened = _try_media(checkpoint.name, model, processor, tokenizer, request)
    opened.checkpoint = checkpoint
    return opened


def _try_with_stand_in(model: Any, checkpoint: Checkpoint, request: Request) -> OpenedModel | None:
    """A model that fails on text alone, tried with a blank image as well (CLIP)."""
    filled = with_stand_ins(model, request)
    if not filled.has_media:
        return None
    try:
        return _try(model, checkpoint, filled)
    except ToolkitError:  # no processor, for example: then the first error is the one to show
        return None


def _try_media(
    name: str, model: Any, processor: Any, tokenizer: Any, request: Request
) -> OpenedModel:
    """Try the model on an image or audio, encoded by this processor."""
    encoded = encode_media(model, processor, tokenizer, request)
    catalog = build_catalog(try_model(model, inputs_for(model, encoded.tensors)))
    return OpenedModel(
        name, catalog, request, tokenizer=tokenizer, processor=processor, encoded=encoded
    )


def with_request(opened: OpenedModel, request: Request, skeleton: Any = None) -> OpenedModel:
    """The same model with a request to read: a text, or what was encoded when it was opened.

    Without a prompt the demonstration's is used, and `skeleton` where the weights are not loaded.
    Raises `UsageError` where the text does not fit the model.
    """
    model = opened.model if skeleton is None else skeleton
    encoded = opened.encoded
    if opened.processor is None:
        if opened.tokenizer is None and opened.checkpoint is not None:
            opened = _with_own_tokenizer(opened, opened.checkpoint, request)
        if not request.has_text:
            request = replace(request, prompt=DEMO_PROMPT)
        encoded = encode_text(model, opened.tokenizer, request)
    source = _encoded_source(opened, model, request, encoded)
    assert encoded is not None, "an image or audio is encoded when the model is opened"
    with forward_errors():
        counted = lengths(model, request, encoded)
    return replace(opened, request=request, encoded=encoded, source=source, lengths=counted)


def _encoded_source(
    opened: OpenedModel, model: Any, request: Request, encoded: Encoded | None
) -> Encoded | None:
    """The text of `--source`. Raises `UsageError` where it has another number of tokens."""
    if request.source is None:
        return None
    if opened.processor is not None or opened.tokenizer is None:
        raise UsageError("--source is a text, and this capture reads no text. Leave out --patch.")
    other = replace(
        request, prompt=request.source, source=None, ids=None, diagnostic=None, conversation=None
    )
    found = encode_text(model, opened.tokenizer, other)
    if encoded is not None and found.tokens != encoded.tokens:
        raise UsageError(
            f"--source has {counted(found.tokens or 0, 'token')} and the prompt "
            f"{encoded.tokens}: {_spelled(opened, found)} and {_spelled(opened, encoded)}. "
            "Patching needs as many: reword the source."
        )
    return found


def _spelled(opened: OpenedModel, encoded: Encoded) -> str:
    """The tokens of a text, with a line between them; of a long one the first."""
    tokens = spell(opened.tokenizer, encoded.tensors["input_ids"][0].tolist())
    return "|".join(tokens[:_MOST_SPELLED]) + ("|…" if len(tokens) > _MOST_SPELLED else "")


def _with_own_tokenizer(
    opened: OpenedModel, checkpoint: Checkpoint, request: Request
) -> OpenedModel:
    """The model with its checkpoint's tokenizer. Token ids can be read without one."""
    try:
        return replace(opened, tokenizer=load_tokenizer(*checkpoint.tokenizer_source))
    except ToolkitError:
        if request.needs_tokenizer:
            raise
        line = f"no tokenizer of '{opened.name}' can be loaded, so tokens are shown by their ids."
        return replace(opened, warnings=[*opened.warnings, line])
