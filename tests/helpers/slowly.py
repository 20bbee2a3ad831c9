"""agnostic_capture.py, held up in the phase its first argument names: `Trying`, `Loading`, ..."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

import torch

import agnostic_capture
from activations.document import writer
from activations.forward import recording
from activations.session import opening

PHASES: dict[str, tuple[Any, str]] = {
    "Trying": (opening, "build_catalog"),
    "Loading": (torch.nn.Module, "to"),  # the last step, below a full bar
    "Running": (recording, "snapshot"),
    "Writing": (writer, "_json_pieces"),
}


def held_up(real: Callable[..., Any]) -> Callable[..., Any]:
    def slow(*args: Any, **kwargs: Any) -> Any:
        if args[1:] != ("meta",):  # a model without weights is moved there before it is tried
            time.sleep(120)
        return real(*args, **kwargs)

    return slow


if __name__ == "__main__":
    phase = sys.argv.pop(1)
    if phase in PHASES:  # importing takes long enough as it is
        where, name = PHASES[phase]
        setattr(where, name, held_up(getattr(where, name)))
    sys.exit(agnostic_capture.main())
