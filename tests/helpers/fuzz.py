#!/usr/bin/env python3
"""The coverage-guided fuzzer of what strangers may send; run by hand, not by the tests.

    pip install atheris          (Linux, Python 3.11 to 3.13; no requirement of anything here)
    python tests/helpers/fuzz.py -runs=1000000 -max_len=200000 corpus/

Everything after the script's name goes to libFuzzer; `corpus/`, a folder that is there, keeps the
inputs that reached something new, so that the next run goes on from them. An input is a document
and, after a mark, the .safetensors beside it. Most are given to the Python interface alone, one in
`COMMAND_EVERY` (an environment variable, 50 if it is not set) to the command as well. The first
that breaks a promise of `strangers.py` is left as `crash-...` in the current folder;
`python tests/helpers/fuzz.py crash-...` judges it again.
"""

from __future__ import annotations

import os
import random
import sys
import types
import zlib
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.append(str(Path(__file__).resolve().parent.parent.parent))

import atheris

with atheris.instrument_imports(include=["activations", "bertviz_head_model_view"]):
    import bertviz_head_model_view  # noqa: F401

import odd_documents
import strangers
from odd_documents import Sent

from activations.errors import ToolkitError

_BESIDE = b"\0beside\0"  # between a document and its tensors
_EVERY = int(os.environ.get("COMMAND_EVERY", "50"))


def without_tokenizers() -> None:
    """Tokenizers of other people's are other people's code, and torch takes long to load."""

    def none(*args: object) -> None:
        raise ToolkitError("there is no tokenizer here.")

    models = types.ModuleType("activations.models")
    models.__dict__.update(load_tokenizer=none, open_checkpoint=none)
    sys.modules["activations.model.loading"] = models


def joined(sent: Sent) -> bytes:
    return sent.document if sent.beside is None else sent.document + _BESIDE + sent.beside


def parted(data: bytes) -> Sent:
    document, mark, beside = data.partition(_BESIDE)
    return Sent(document, beside if mark else None)


def mutated(data: bytes, max_size: int, seed: int) -> bytes:
    """One more thing done to an input, by our own hand or by libFuzzer's."""
    rng = random.Random(seed)
    if len(data) < 8 or rng.random() < 0.05:
        return joined(rng.choice(odd_documents.real_documents()))[:max_size]
    if rng.random() < 0.25:
        return bytes(atheris.Mutate(data, max_size))
    return joined(odd_documents.changed(parted(data), rng))[:max_size]


def main() -> None:
    without_tokenizers()
    with strangers.working_folder() as folder:

        def judge(data: bytes) -> None:
            command = zlib.crc32(data) % _EVERY == 0
            strangers.judge(parted(data), folder, command)

        # libFuzzer never returns: it ends the process.
        atheris.Setup(sys.argv, judge, custom_mutator=mutated)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
