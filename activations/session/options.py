"""How a model is loaded and run. No torch here: the parser reads its choices from this file."""

from __future__ import annotations

from dataclasses import dataclass

from activations.errors import UsageError

BACKENDS = ("hooks", "pyvene")
DTYPES = ("auto", "float32", "bfloat16", "float16")


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

    def __post_init__(self) -> None:
        for value, known, flag in (
            (self.backend, BACKENDS, "--backend"),
            (self.dtype, DTYPES, "--dtype"),
        ):
            if value not in known:
                raise UsageError(f"{flag} does not know '{value}'. Write {', '.join(known)}.")
        if self.device_map is not None and self.device != "auto":
            raise UsageError("--device and --device-map exclude each other. Give one of them.")
