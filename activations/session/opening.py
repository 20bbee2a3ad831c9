"""Finding out what a model is made of: from its name, its folder, or the loaded model itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from activations.errors import ToolkitError, UsageError
from activations.forward.probe import list_modules, observe, try_model
from activations.inputs.processor import (
    count_tokens,
    needed_processor,
    needs_media,
    prepare,
    with_stand_ins,
)
from activations.inputs.prompt import has_decoder, tokenize
from activations.inputs.request import Request
from activations.model.attn_implementation import attention_implementation
from activations.model.checkpoint import Checkpoint, open_checkpoint
from activations.model.errors import explained, failures_explained
from activations.model.loading import load_model, load_processor, load_tokenizer, skeleton
from activations.model.signature import reads_text
from activations.model.state import left_as_it_was, the_same_chances
from activations.selection.catalog import Catalog, build_catalog
from activations.selection.observation import Observation
from activations.session.options import Options

DEMO_MODEL = Path(__file__).resolve().parent.parent.parent / "demo_model"
DEMO_NAME = "demo_model"
DEMO_PROMPT = "Once there was a fox named Zolimar. One day Zolimar met a bear by the river."
Watching = Callable[[str], AbstractContextManager[Any]]


@dataclass
class Subject:
    """A model under study: what it is made of, and itself once loaded.

    `outline` is the model without weights that was tried in its place. `processor` makes inputs of
    an image or audio; None where a tokenizer does it all. `read` counts the tokens it made of the
    text beside these.
    """

    name: str
    catalog: Catalog
    checkpoint: Checkpoint | None = None
    model: Any = None
    tokenizer: Any = None
    processor: Any = None
    outline: Any = None
    read: int | None = None
    warnings: list[str] = field(default_factory=list)


@the_same_chances()
def open_subject(
    name: str | None,
    options: Options | None = None,
    request: Request | None = None,
    watching: Watching = nullcontext,
) -> Subject:
    """Find out what a checkpoint's model is made of, without loading its weights if possible.

    `watching(what)` is entered while the model is tried, for a sign of life. Raises `UsageError`
    when the model does not read what the request gives it.
    """
    options, request = options or Options(), request or Request()
    checkpoint = _open(name, options)
    try:
        with watching("Trying the model without its weights"):
            return _study(name, skeleton(checkpoint, options.dtype), checkpoint, request)
    except ToolkitError:
        raise
    except Exception:
        # What the meta device cannot run (kernels without a shape rule, code that follows the
        # data) the model itself can.
        model, warnings = load_model(
            checkpoint, None, options.dtype, options.device, options.device_map
        )
    with attention_implementation(model, "eager"), failures_explained():
        subject = _study(name, model, checkpoint, request)
    return replace(subject, model=model, warnings=warnings)


@the_same_chances()
def list_subject(
    name: str | None, options: Options | None = None, request: Request | None = None
) -> tuple[Subject, str | None]:
    """Like `open_subject`, but never loads weights; with a warning where that hides something.

    A model that reads images or audio is tried on a blank image or silence.
    """
    checkpoint = _open(name, options or Options())
    with explained(checkpoint.name, "configuration"):
        model = skeleton(checkpoint)
    try:
        return _study(name, model, checkpoint, request or Request(), stand_in=True), None
    except UsageError:
        raise
    except Exception as error:
        reason = str(error) if isinstance(error, ToolkitError) else type(error).__name__
    observation = Observation(list_modules(model), probed=False)
    return Subject(name or DEMO_NAME, build_catalog(observation), checkpoint), (
        "this model cannot be tried without its weights, so what its modules put out is not "
        f"shown, and indices may differ from those of a capture ({reason})."
    )


def _study(
    name: str | None,
    model: Any,
    checkpoint: Checkpoint,
    request: Request,
    stand_in: bool = False,
) -> Subject:
    """Try the model, or its skeleton, on what it is to read.

    With `stand_in` it gets a blank image or silence where it needs one and none was given.
    """
    if stand_in and (request.has_media or not reads_text(model)):
        request = with_stand_ins(model, request)
    needed = needed_processor(model, request)
    if needed is None:
        try:
            catalog = build_catalog(observe(model))
        except Exception:
            subject = _beside_a_stand_in(name, model, checkpoint, request)
            if subject is None:
                raise
            if not stand_in:
                raise UsageError(needs_media(model)) from None
            return subject
        return Subject(name or DEMO_NAME, catalog, checkpoint, outline=model)
    processor = load_processor(checkpoint, needed)
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None and has_decoder(model, request):
        tokenizer = load_tokenizer(checkpoint)
    tensors = prepare(model, processor, request)
    return Subject(
        name or DEMO_NAME,
        build_catalog(try_model(model, tensors)),
        checkpoint,
        tokenizer=tokenizer,
        processor=processor,
        outline=model,
        read=count_tokens(tensors),
    )


def _beside_a_stand_in(
    name: str | None, model: Any, checkpoint: Checkpoint, request: Request
) -> Subject | None:
    """A model that fails on text alone, tried with a blank image beside it (CLIP)."""
    filled = with_stand_ins(model, request)
    if not filled.has_media:
        return None
    try:
        return _study(name, model, checkpoint, filled)
    except ToolkitError:  # no processor, say: then the first failure is what to tell
        return None


def _open(name: str | None, options: Options) -> Checkpoint:
    where = str(DEMO_MODEL) if name is None else name
    return open_checkpoint(where, options.revision, options.trust_remote_code)


@the_same_chances()
def subject_of(
    model: Any, tokenizer: Any, processor: Any = None, request: Request | None = None
) -> Subject:
    """A model that is loaded already, with its tokenizer or processor. Raises `ToolkitError`."""
    request = request or Request()
    if needed_processor(model, request) is None:
        processor = None
        if tokenizer is None:
            raise UsageError(
                "a loaded model needs its tokenizer too: capture(model, tokenizer=...)."
            )
    elif processor is None:
        raise UsageError("a loaded model needs its processor too: capture(model, processor=...).")
    name = str(getattr(model, "name_or_path", "") or type(model).__name__)
    with (
        left_as_it_was(model),
        attention_implementation(model, "eager"),
        failures_explained(),
    ):
        tensors = {} if processor is None else prepare(model, processor, request)
        observation = observe(model) if processor is None else try_model(model, tensors)
    tokenizer = getattr(processor, "tokenizer", None) if tokenizer is None else tokenizer
    return Subject(
        name,
        build_catalog(observation),
        model=model,
        tokenizer=tokenizer,
        processor=processor,
        read=count_tokens(tensors),
    )


def with_prompt(subject: Subject, request: Request) -> Request:
    """The request, with the prompt of the demonstration where a model that reads text has none."""
    if request.prompt is None and subject.processor is None:
        return replace(request, prompt=DEMO_PROMPT)
    return request


def tokenize_text(subject: Subject, request: Request, config: Any) -> int | None:
    """How many tokens the text is. Raises `UsageError` when it does not fit the model."""
    if subject.processor is not None:
        return subject.read
    if subject.tokenizer is None and subject.checkpoint is not None:
        subject.tokenizer = load_tokenizer(subject.checkpoint)
    return int(tokenize(config, subject.tokenizer, request)["input_ids"].shape[-1])
