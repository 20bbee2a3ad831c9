#!/usr/bin/env python3
"""Capture what the modules of any Hugging Face transformer return, as one JSON document.

  python agnostic_capture.py
  python agnostic_capture.py --model gpt2 --prompt "The cat sat on the mat"
  python agnostic_capture.py --model gpt2 --list
  python agnostic_capture.py --model gpt2 --auto-select "attn:0;mlp:0;other:" --layers 0,4-7

Asks which modules to capture, unless --auto-select answers. Then look at the attention:

  python bertviz_head_model_view.py
"""

from __future__ import annotations

import argparse
import codecs
import gc
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from activations.arguments import (
    DIAGNOSTICS,
    SWEEPS,
    check_new_tokens,
    parse_ids,
    parse_layers,
    parse_positions,
)
from activations.cli.command import Console, Parser, exit_on_signal, run_command
from activations.cli.messages import (
    changes_in_words,
    chosen_lines,
    lens_in_words,
    modules_and_calls,
    tokens_in_words,
    tokens_read,
)
from activations.document.destination import prepare_output
from activations.document.format import DOCUMENT, FORMATS, document_size
from activations.errors import ToolkitError, UsageError
from activations.forward.lens_matrices import checked_lens
from activations.inputs.conversation import read_conversation
from activations.inputs.request import Request
from activations.model.config_file import check_layers
from activations.model.place import check_place
from activations.model.weight_files import check_weights
from activations.program import CAPTURE, VIEW, command_line
from activations.selection.answers import Selection, format_spec, parse_spec, select
from activations.session.estimate import forecast
from activations.session.options import (
    ABLATIONS,
    BACKENDS,
    DTYPES,
    MOST,
    Options,
    check_source,
    checkpoint_of,
)
from activations.session.targets import WHAT, parse_targets
from activations.system.files import check_room
from activations.system.streams import standard_output

if TYPE_CHECKING:
    from activations.inputs.media import Audio, Image
    from activations.session.opening import OpenedModel
    from activations.session.run import Capture

_MARKS = (  # of UTF-32 first: it begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def main(argv: list[str] | None = None) -> int:
    """Run the command. Returns the exit code: 0 done, 1 could not be done, 2 wrong usage."""
    return run_command(build_parser(), argv, capture_activations)


def build_parser() -> Parser:
    parser = Parser(CAPTURE, __doc__)
    text = parser.add_argument_group("what is read")
    text.add_argument(
        "--model",
        metavar="NAME_OR_FOLDER",
        help="a hub name or a checkpoint folder (default: the bundled demo_model)",
    )
    text.add_argument(
        "--tokenizer",
        metavar="NAME_OR_FOLDER",
        help="the tokenizer, where it is not the checkpoint's own",
    )
    prompt = text.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", metavar="TEXT", help="the text the model reads (a short story)")
    prompt.add_argument("--prompt-file", metavar="FILE", help="read it from a file; - is stdin")
    prompt.add_argument("--ids", metavar="LIST", help="token ids in its place, as in 50256,12,7")
    prompt.add_argument(
        "--diagnostic",
        choices=DIAGNOSTICS,
        help="a text that shows what heads do: induction is random tokens, twice, with a control",
    )
    text.add_argument(
        "--text-pair", metavar="TEXT", help="a second sentence, for models of pairs such as BERT"
    )
    text.add_argument("--target", metavar="TEXT", help="the decoder's text (T5, BART)")
    text.add_argument(
        "--max-new-tokens",
        metavar="N",
        type=int,
        help="let the model generate up to N tokens first (encoder-decoder without --target: 16)",
    )
    text.add_argument("--image", metavar="FILE", help="the image the model reads (ViT, CLIP)")
    text.add_argument("--audio", metavar="FILE", help="the audio the model reads (Whisper)")
    text.add_argument(
        "--chat",
        action="store_true",
        help="the prompt as a user's turn in a chat; a JSON --prompt-file as a conversation",
    )
    text.add_argument(
        "--source-language", metavar="CODE", help="the prompt's language (NLLB, M2M100, mBART)"
    )
    text.add_argument(
        "--target-language", metavar="CODE", help="the language of the decoder's text"
    )
    what = parser.add_argument_group("what is captured")
    choice = what.add_mutually_exclusive_group()
    choice.add_argument(
        "--auto-select", metavar="SPEC", help='answers to the questions: "attn:0;mlp:0;other:"'
    )
    choice.add_argument(
        "--list", action="store_true", help="print the model's patterns and stop; loads no weights"
    )
    what.add_argument(
        "--layers", metavar="LIST", help="only these layers, as in 0,4-7,-1; -1 is the last"
    )
    what.add_argument(
        "--predict",
        metavar="K",
        type=int,
        help=f"the K likeliest next tokens, words or labels at every position; 0: none ({MOST})",
    )
    what.add_argument(
        "--lens",
        metavar="LENS",
        help="what each layer would predict: logit, or a file of a matrix a layer (tuned lens)",
    )
    what.add_argument(
        "--at",
        metavar="POSITIONS",
        help="the lens, or the changes, at these positions only, as in 0,5-7,-1",
    )
    what.add_argument("--with-inputs", action="store_true", help="also what each module was given")
    what.add_argument(
        "--keep-above",
        metavar="W",
        type=float,
        help="of attention weights only those above W, and what the others sum to: for long texts",
    )
    what.add_argument(
        "--output",
        metavar="FILE",
        default=DOCUMENT,
        help=f"the document ({DOCUMENT})",
    )
    what.add_argument(
        "--format",
        choices=FORMATS,
        default="json",
        help="safetensors: the numbers in a file next to the document, in their own dtype (json)",
    )
    change = parser.add_argument_group("what is changed in the pass")
    change.add_argument(
        "--ablate", metavar="WHAT", help=f"replace their contribution by zeros: {WHAT}"
    )
    change.add_argument(
        "--ablate-with",
        choices=ABLATIONS,
        help="mean: by its mean over the positions of the text (zero)",
    )
    change.add_argument(
        "--patch", metavar="WHAT", help="replace it by what it is on another text, the --source"
    )
    change.add_argument(
        "--source", metavar="TEXT", help="the text for --patch, of the same number of tokens"
    )
    change.add_argument(
        "--sweep",
        choices=SWEEPS,
        help="ablate each head (or feed-forward block) in turn, and keep a table of the effects",
    )
    how = parser.add_argument_group("how it is run")
    how.add_argument(
        "--backend",
        choices=BACKENDS,
        default="hooks",
        help="PyTorch forward hooks or pyvene interventions; the same document (hooks)",
    )
    how.add_argument(
        "--attn-implementation",
        metavar="NAME",
        help="eager, sdpa, ... (default: eager if attention is captured, else the model's own)",
    )
    how.add_argument(
        "--dtype",
        choices=DTYPES,
        default="auto",
        help="auto is the checkpoint's own (auto)",
    )
    how.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:0 or mps (auto)")
    how.add_argument(
        "--device-map",
        metavar="MAP",
        help="spread a model that is larger than one device: auto, disk, ... (see docs/tasks.md)",
    )
    how.add_argument("--revision", metavar="REV", help="a branch, tag or commit on the hub")
    how.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="run custom code of the checkpoint; review it first",
    )
    parser.add_common_options()
    return parser


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for. Without `answers` the user is asked."""

    request: Request
    options: Options
    answers: dict[str, str] | None
    layers: list[int] | None


def capture_activations(args: argparse.Namespace, console: Console) -> None:
    """List the model's patterns, or choose, run the prompt once and write the document."""
    wanted = read_wanted(args)
    if args.model is None:
        console.note("No --model given: using the bundled demo_model.")
    _import_libraries(args, console)
    if args.list:
        _list(args, console, wanted)
        return
    opened = _open(args, console, wanted)
    selection = _choose(console, opened, wanted)
    _announce(args, console, opened, selection, wanted.options)
    made = _run(console, opened, selection, wanted.options)
    _write(args, console, made)


def read_wanted(args: argparse.Namespace) -> Wanted:
    """The arguments, read and checked. Raises `UsageError`, `ToolkitError`.

    All that can be refused without a model is refused here: it takes seconds to import torch.
    """
    answers = None if args.auto_select is None else parse_spec(args.auto_select)
    layers = None if args.layers is None else parse_layers(args.layers)
    check_place(checkpoint_of(args.model))
    if not args.list:
        check_weights(checkpoint_of(args.model))
    check_layers(checkpoint_of(args.model), layers)
    check_new_tokens(args.max_new_tokens)
    options = Options(
        dtype=args.dtype,
        device=args.device,
        device_map=args.device_map,
        attn_implementation=args.attn_implementation,
        backend=args.backend,
        revision=args.revision,
        trust_remote_code=args.trust_remote_code,
        keep_above=args.keep_above,
        predict=args.predict,
        lens=None if args.lens is None else checked_lens(args.lens),
        at=None if args.at is None else parse_positions(args.at),
        ablate=() if args.ablate is None else parse_targets(args.ablate, "--ablate"),
        ablate_with=args.ablate_with,
        patch=() if args.patch is None else parse_targets(args.patch, "--patch"),
        sweep=args.sweep,
        with_inputs=args.with_inputs,
    )
    check_source(options, args.source)
    prompt, (image, audio) = _prompt(args), _media(args.image, args.audio)
    conversation = None
    if args.chat and args.prompt_file is not None:
        conversation = read_conversation(prompt or "", args.prompt_file)
    if not args.list:
        prepare_output(args.output, args.format)
    request = Request(
        prompt=None if conversation else prompt,
        text_pair=args.text_pair,
        target=args.target,
        max_new_tokens=args.max_new_tokens,
        chat=args.chat,
        image=image,
        audio=audio,
        ids=None if args.ids is None else parse_ids(args.ids),
        diagnostic=args.diagnostic,
        source=args.source,
        conversation=conversation,
        source_language=args.source_language,
        target_language=args.target_language,
    )
    return Wanted(request, options, answers, layers)


def _import_libraries(args: argparse.Namespace, console: Console) -> None:
    """Import torch and transformers, and check what only they know."""
    with (
        exit_on_signal(console, at_once=True),
        console.watching("Importing torch and transformers"),
        _collector_paused(),
    ):
        from activations.model.attn_implementation import check_attention
        from activations.model.devices import find_devices
        from activations.model.loading import quiet_libraries
        from activations.session import run  # noqa: F401  all that a capture needs

    quiet_libraries(progress=console.shows_progress)
    find_devices(args.device, args.device_map)
    check_attention(args.attn_implementation)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Collect no garbage during the first import of torch, which makes a million lasting objects.

    To search them again and again would take a fifth of the time. They are frozen afterwards; what
    a later call finds in memory is not, since it may be garbage.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def _list(args: argparse.Namespace, console: Console, wanted: Wanted) -> None:
    from activations.cli.questions import show_catalog
    from activations.session.opening import list_model

    catalog, warning = list_model(args.model, wanted.options, wanted.request)
    if warning:
        console.warn(warning)
    with standard_output() as file:
        show_catalog(catalog, file)


def _open(args: argparse.Namespace, console: Console, wanted: Wanted) -> OpenedModel:
    from activations.session.opening import open_model

    with exit_on_signal(console):
        opened = open_model(
            args.model, wanted.options, wanted.request, console.watching, args.tokenizer
        )
    if opened.request.prompt != wanted.request.prompt:
        console.note(f"No --prompt given: using {opened.request.prompt!r}.")
    return opened


def _choose(console: Console, opened: OpenedModel, wanted: Wanted) -> Selection:
    """What the answers select. Without any, ask the user, and show how to script the answers."""
    from activations.cli.questions import ask

    if wanted.answers is not None:
        return select(opened.catalog, wanted.answers, wanted.layers)
    answers = ask(opened.catalog)
    selection = select(opened.catalog, answers, wanted.layers)
    console.note("")
    for line in chosen_lines(selection, selection.counts(opened.catalog.observation)):
        console.note(line)
    console.note(f'The same without questions: --auto-select "{format_spec(answers)}"')
    return selection


def _announce(
    args: argparse.Namespace,
    console: Console,
    opened: OpenedModel,
    selection: Selection,
    options: Options,
) -> None:
    """Say what will be captured. Raises `ToolkitError` where there is no room for it."""
    observation = opened.catalog.observation
    counts = selection.counts(observation)
    warnings: list[str] = []
    size = forecast(opened, selection, options, args.format, warnings.append)
    parts = [
        f"{modules_and_calls(counts.values())} of {opened.name}",
        tokens_in_words(opened.lengths, observation.positions),
        "" if args.backend == "hooks" else f"through {args.backend}",
        f"{args.attn_implementation} attention" if args.attn_implementation else "",
        "" if args.dtype == "auto" else args.dtype,
        "" if args.keep_above is None else f"weights above {args.keep_above:g}",
        "" if options.lens is None else lens_in_words(options.lens, options.at),
        changes_in_words(options.ablate, options.ablate_with, options.patch),
    ]
    console.note(f"Capturing {', '.join(filter(None, parts))}: {size}.")
    for line in warnings:
        console.warn(line)
    check_room(args.output, size.bytes)


def _run(console: Console, opened: OpenedModel, selection: Selection, options: Options) -> Capture:
    from activations.session.run import load_weights, run
    from activations.session.sweeping import sweep
    from activations.views.effects_summary import effect_lines

    with exit_on_signal(console):
        load_weights(opened, selection, options)  # with the libraries' own bars
    first = "(the model generates first)" if opened.lengths.at_most else ""
    with console.watching("Running", len(selection.names), first) as update:
        made = run(opened, selection, options, update)
    sweep(opened, options, made, console.watching)
    for line in made.warnings:
        console.warn(line)
    if "written" in made.header:
        console.note(f"The model generated: {made.header['written']!r}")
    for line in effect_lines(made.header):
        console.note(line)
    return made


def _write(args: argparse.Namespace, console: Console, made: Capture) -> None:
    from rich.filesize import decimal  # not at the top: what is not installed is one line

    total = sum(map(len, made.captured.values()))
    with console.watching("Writing", total) as update:
        made.save(args.output, update, args.format, release=True)
    size = decimal(document_size(args.output, args.format))
    console.note(f"{', '.join(filter(None, [tokens_read(made.header), size]))}.")
    if made.header["attention_weights"]:
        where = "" if args.output == DOCUMENT else f" --input {shlex.quote(args.output)}"
        console.note(f"Next: {command_line(VIEW)}{where}")
    console.result(args.output)


def _prompt(args: argparse.Namespace) -> str | None:
    """The prompt as typed; a file's last line break is not part of it."""
    text: str | None = args.prompt
    if args.prompt_file is not None:
        text = _read_prompt_file(args.prompt_file).removesuffix("\n").removesuffix("\r")
    if text == "" and not args.list:
        raise UsageError("the prompt is empty. Give a text with --prompt or --prompt-file.")
    return text


def _read_prompt_file(name: str) -> str:
    try:
        raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return _decoded(raw)
    except UnicodeDecodeError:
        raise UsageError(
            f"--prompt-file: '{name}' is not text in UTF-8. Convert it to UTF-8."
        ) from None
    except (OSError, ValueError) as error:  # a NUL in the name
        why = getattr(error, "strerror", None) or error
        raise ToolkitError(
            f"--prompt-file: '{name}' cannot be read: {why}. Check the path."
        ) from None


def _decoded(raw: bytes) -> str:
    """Text in UTF-8, or in the encoding whose mark stands at the start (Windows puts one there)."""
    known = (encoding for mark, encoding in _MARKS if raw.startswith(mark))
    return raw.decode(next(known, "utf-8-sig"))


def _media(image: str | None, audio: str | None) -> tuple[Image | None, Audio | None]:
    if image is None and audio is None:
        return None, None
    from activations.inputs.media import read_audio, read_image

    pixels = None if image is None else read_image(image)
    return pixels, None if audio is None else read_audio(audio)


if __name__ == "__main__":
    sys.exit(main())
