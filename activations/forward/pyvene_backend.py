"""The same recording as `activations.forward.hooks`, through pyvene interventions.

pyvene's own collecting interventions keep only the first element of a tuple, so that attention
weights never reach them. Here a function intervention on each module's output records what it gets
and returns None, which leaves the output unchanged; pyvene's model is subclassed so that it passes
whole outputs and removes no hooks but its own. The methods overridden are private to pyvene 0.1.8,
the version pinned in requirements.txt; a test fails when they are renamed.
"""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from activations.errors import ToolkitError, ignore
from activations.forward.hooks import Recorder, Recording, find_modules, stopping_before
from activations.forward.keeping import Keeper
from activations.system.signals import signals_deferred


def record(
    model: nn.Module,
    inputs: Mapping[str, Any],
    names: Iterable[str],
    progress: Callable[[str], None] | None = None,
    stop_before: str | None = None,
    only: Mapping[str, Container[int]] | None = None,
    keeper: Keeper | None = None,
) -> Recording:
    """`hooks.record` by pyvene. Raises `ToolkitError` when pyvene cannot wrap the model."""
    names = find_modules(model, names)  # its errors, not pyvene's
    recorder = Recorder(names, progress or ignore, only or {}, keeper)
    _recording_model_class()  # takes seconds the first time, and may be interrupted
    with signals_deferred() as gate:
        wrapped = _intervenable(model, recorder)
        try:
            with torch.no_grad(), stopping_before(model, stop_before):
                gate.open()
                wrapped(base=dict(inputs))
        finally:
            gate.shut = True
            wrapped._remove_forward_hooks()  # pyvene's own `finally` may have been interrupted
    return recorder.recording()


def _intervention(recorder: Recorder, name: str) -> Callable[[Any, Any], None]:
    def intervention(base: Any, source: Any) -> None:
        recorder.keep(name, base)

    return intervention


def _intervenable(model: nn.Module, recorder: Recorder) -> Any:
    """The model, wrapped by pyvene. Raises `ToolkitError` when it cannot be."""
    representations = [
        {"component": f"{name}.output", "intervention": _intervention(recorder, name)}
        for name in recorder.names
    ]
    recording_model = _recording_model_class()
    with_gradients = [p for p in model.parameters() if p.requires_grad]
    try:
        return recording_model(representations, model)
    except Exception as error:
        raise ToolkitError(
            f"pyvene cannot wrap this model ({type(error).__name__}: {error}). Use --backend hooks."
        ) from error
    finally:
        # pyvene switches them off for good. PyTorch multiplies in another order without them, so
        # the last bit could differ from a run with hooks.
        for parameter in with_gradients:
            parameter.requires_grad_(True)


@functools.cache
def _recording_model_class() -> Any:
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it lacks
            import pyvene
    except ImportError as error:
        raise ToolkitError(
            f"pyvene cannot be imported ({error}). Install it with pip install pyvene==0.1.8, or "
            "use --backend hooks."
        ) from error

    class RecordingModel(pyvene.IntervenableModel):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._own_handles: list[Any] = []
            super().__init__(*args, **kwargs)

        def _gather_intervention_output(
            self, output: Any, representations_key: str, unit_locations: Any
        ) -> Any:
            return output  # whole: pyvene would take a tuple's first element

        def _intervention_setter(self, *args: Any, **kwargs: Any) -> Any:
            with signals_deferred():  # what is registered is also remembered
                handles = super()._intervention_setter(*args, **kwargs)
                self._own_handles.append(handles)
            return handles

        def _remove_forward_hooks(self) -> None:
            # pyvene would remove every hook of the model, also the user's and accelerate's.
            with signals_deferred():
                while self._own_handles:
                    self._own_handles.pop().remove()

    return RecordingModel
