"""The same recording as `activations.forward.recording`, through pyvene interventions.

pyvene's own collecting interventions keep only the first element of a tuple, so that attention
weights never reach them. Here a function intervention on what each module is given or returns
records it whole; pyvene's model is subclassed so that it passes whole outputs, replaces what is to
be changed, and removes no hooks but its own. The methods overridden are private to pyvene 0.1.8,
the version pinned in requirements.txt; a test fails when they are renamed.
"""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import nn

from activations.errors import ToolkitError
from activations.forward.edits import Edits
from activations.forward.hooks import find_modules, hooked, stopping_before
from activations.forward.recording import Recorder, Recording, Wanted, Watching
from activations.system.signals import signals_deferred

Visit = Callable[..., Any]


def record(
    model: nn.Module,
    inputs: Mapping[str, Any],
    wanted: Wanted,
    edits: Edits | None = None,
    within: Watching | None = None,
) -> Recording:
    """`recording.record` by pyvene. Raises `ToolkitError` when pyvene cannot wrap the model."""
    recorder = Recorder(model, wanted, edits)
    find_modules(model, [*recorder.entered, *recorder.left])  # its errors, not pyvene's
    _recording_model_class()  # takes seconds the first time, and may be interrupted
    with signals_deferred() as gate, ExitStack() as later:

        def enter(name: str, given: Any) -> None:
            """Now pyvene's hooks are there: others that are added see what they change."""
            if within is not None:
                later.enter_context(within)

        wrapped = _intervenable(model, recorder)
        try:
            with (
                torch.no_grad(),
                stopping_before(model, wanted.stop_before),
                hooked(model, [""], on_entry=enter),
            ):
                gate.open()
                wrapped(base=dict(inputs))
        finally:
            gate.shut = True
            wrapped._remove_forward_hooks()  # pyvene's own `finally` may have been interrupted
    return recorder.recording()


def _intervenable(model: nn.Module, recorder: Recorder) -> Any:
    """The model, wrapped by pyvene. Raises `ToolkitError` when it cannot be."""
    visits = {
        **{f"{name}.input": partial(recorder.entry, name) for name in recorder.entered},
        **{f"{name}.output": partial(recorder.output, name) for name in recorder.left},
    }
    recording_model = _recording_model_class()
    with_gradients = [p for p in model.parameters() if p.requires_grad]
    try:
        return recording_model(visits, model)
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
        def __init__(self, visits: Mapping[str, Visit], model: nn.Module) -> None:
            self._own_handles: list[Any] = []
            self._whole: Any = None  # what the running intervention is about
            self._answer: Any = None  # and what takes its place
            made = [
                {"component": component, "intervention": self._intervention(visit)}
                for component, visit in visits.items()
            ]
            super().__init__(made, model)
            for key, register in list(self.intervention_hooks.items()):
                self.intervention_hooks[key] = partial(self._register, register)

        def _intervention(self, visit: Visit) -> Visit:
            def intervention(base: Any, source: Any) -> None:
                self._answer = visit(self._whole)

            return intervention

        def _register(self, register: Any, callback: Any, with_kwargs: bool) -> Any:
            """pyvene writes into tensors in place, which others may hold: it is not told what takes
            the place of one, and its hook returns that instead.
            """

            def hook(module: Any, args: Any, kwargs: Any, *output: Any) -> Any:
                self._whole = output[0] if output else (args, kwargs)
                self._answer = None
                callback(module, args, kwargs, *output)
                return self._answer

            return register(hook, with_kwargs=with_kwargs)

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
