"""How a model is loaded and run. No torch here: the parser reads its choices from this file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from activations.arguments import SWEEPS
from activations.errors import UsageError, unknown_value
from activations.model.devices import check_device, parse_device_map
from activations.session.targets import Target

if TYPE_CHECKING:
    from activations.selection.answers import Selection
    from activations.selection.observation import Observation

_PACKAGE = Path(__file__).resolve().parent.parent
_INSTALLED = _PACKAGE / "demo_model"  # inside the package; in a clone next to it
DEMO_MODEL = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent / "demo_model"
BACKENDS = ("hooks", "pyvene")
ABLATIONS = ("zero", "mean")
MOST = 5  # predictions at each position, unless the user says
NO_PREDICTIONS = (
    "this model predicts neither tokens nor labels: it has another head, or none. Leave out "
    "--predict, --lens and --sweep."
)
DTYPES = ("auto", "float32", "bfloat16", "float16")


def checkpoint_of(model: str | None) -> str:
    """The checkpoint's name or folder: the bundled one where no model is named."""
    return str(DEMO_MODEL) if model is None else os.path.expanduser(model)  # noqa: PTH111  Path would change more


def check_source(options: Options, source: str | None) -> None:
    """Raise `UsageError` where a patch lacks its other text, or the text its patch."""
    if options.patch and source is None:
        raise UsageError("--patch needs another text. Give it with --source.")
    if source is not None and not options.patch:
        raise UsageError("--source is for --patch. Leave it out, or add --patch.")
    if source == "":
        raise UsageError("--source is empty. Give a text.")


@dataclass(frozen=True)
class Options:
    """How a model is loaded and run. See `capture` for each."""

    dtype: str = "auto"
    device: str = "auto"
    device_map: str | None = None
    attn_implementation: str | None = None
    backend: str = "hooks"
    revision: str | None = None
    trust_remote_code: bool = False
    keep_above: float | None = None
    predict: int | None = None
    lens: str | None = None
    at: tuple[int, ...] | None = None
    ablate: tuple[Target, ...] = ()
    ablate_with: str | None = None
    patch: tuple[Target, ...] = ()
    sweep: str | None = None
    with_inputs: bool = False

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise unknown_value("--backend", self.backend, BACKENDS)
        if self.dtype not in DTYPES:
            raise unknown_value("--dtype", self.dtype, DTYPES)
        if self.keep_above is not None and not 0 <= self.keep_above < 1:
            raise UsageError(
                "--keep-above takes a number of at least 0 and less than 1, as in 0.01."
            )
        if self.predict is not None and self.predict < 0:
            raise UsageError("--predict takes a number of at least 0, as in 5.")
        if self.predict == 0 and self.lens is not None:
            raise UsageError("--lens needs predictions. Leave out --predict 0.")
        if self.at is not None and not self.at:
            raise UsageError("at is empty. Leave it out, or name positions, as in at=[0, -1].")
        if self.at is not None and not (self.lens or self.changes or self.sweep):
            raise UsageError(
                "--at is for --lens, --ablate, --patch and --sweep. Leave it out, or add one."
            )
        self._check_changes()
        check_device(self.device)
        parse_device_map(self.device_map)
        if self.device_map is not None and self.device != "auto":
            raise UsageError("--device and --device-map cannot be combined. Give one of them.")

    def _check_changes(self) -> None:
        if self.ablate_with is not None and self.ablate_with not in ABLATIONS:
            raise unknown_value("--ablate-with", self.ablate_with, ABLATIONS)
        if self.ablate_with is not None and not (self.ablate or self.sweep):
            raise UsageError("--ablate-with is for --ablate and --sweep. Leave it out, or add one.")
        if self.sweep is not None and self.sweep not in SWEEPS:
            raise unknown_value("--sweep", self.sweep, SWEEPS)
        if self.sweep and self.changes:
            raise UsageError(
                "--sweep changes one head or block after the other, and cannot be combined with "
                "--ablate or --patch. Run them as two captures."
            )
        if self.sweep and self.predict == 0:
            raise UsageError("--sweep needs predictions. Leave out --predict 0.")

    @property
    def changes(self) -> bool:
        """Whether the pass is to be changed."""
        return bool(self.ablate or self.patch)

    def predictions(self, selection: Selection, observation: Observation) -> int:
        """How many predictions to make at each position.

        0 where the last layer is left out, so that the pass may end early, unless they are asked
        for. Raises `UsageError` where they are, and the model predicts nothing.
        """
        asked = bool(self.predict or self.lens or self.sweep)
        if observation.logits is None:
            if asked:
                raise UsageError(NO_PREDICTIONS)
            return 0
        if self.predict is not None:
            return self.predict
        return MOST if asked or self.changes or selection.to_the_end else 0
