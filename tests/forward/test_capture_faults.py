"""Faults while capturing: one clear line, the model as it was, no output, nothing left behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faults
import pytest
import tiny
import torch
import transformers
from conftest import Run
from torch import nn
from transformers.models.llama import modeling_llama

import activations
from activations import ToolkitError
from activations.forward import pyvene_backend, recording, snapshots
from activations.forward.recording import Wanted
from activations.system.atomic import replacing_together

Checkpoints = Callable[[str], Path]
OUT_OF_MEMORY = (
    "out of memory in the forward pass. Shorten the prompt, use --dtype bfloat16, or choose fewer "
    "--layers."
)


def failure_by(cause: BaseException) -> RuntimeError:
    """As when Python is interrupted while it makes a class."""
    error = RuntimeError("Error calling __set_name__ on 'cached_property' instance 'x' in 'Y'")
    error.__cause__ = cause
    return error


RAISED = {
    "MemoryError": (MemoryError(), 1, OUT_OF_MEMORY),
    "of a GPU": (torch.OutOfMemoryError("CUDA out of memory. Tried to"), 1, OUT_OF_MEMORY),
    "of the CPU": (RuntimeError("DefaultCPUAllocator: not enough memory"), 1, OUT_OF_MEMORY),
    "RuntimeError": (
        RuntimeError("shapes\ndo not fit"),
        1,
        "the model failed in its forward pass: RuntimeError: shapes. Pass --debug to see where.",
    ),
    "IndexError": (
        IndexError("index out of range in self"),
        1,
        "the model failed in its forward pass: IndexError: index out of range in self. The prompt "
        "may be longer than the model takes, or the tokenizer another model's. Pass --debug "
        "to see where.",
    ),
    "Ctrl-C": (KeyboardInterrupt(), 130, "interrupted."),
    "Ctrl-C, as a failure": (failure_by(KeyboardInterrupt()), 130, "interrupted."),
}


def in_the_model(monkeypatch: pytest.MonkeyPatch, raised: BaseException) -> None:
    """In the second layer, when the first has been captured; not in the trial."""
    real = modeling_llama.LlamaMLP.forward
    calls = []

    def forward(self: Any, x: torch.Tensor) -> Any:
        calls.append(x.device.type)
        if calls.count("cpu") == 2:
            raise raised
        return real(self, x)

    monkeypatch.setattr(modeling_llama.LlamaMLP, "forward", forward)


def in_the_copy(monkeypatch: pytest.MonkeyPatch, raised: BaseException) -> None:
    """Of the second module's output, in its hook."""
    real = snapshots._copy
    copies = []

    def copy(tensor: torch.Tensor, *rest: Any) -> Any:
        copies.append(tensor)
        if len(copies) == 2:
            raise raised
        return real(tensor, *rest)

    monkeypatch.setattr(snapshots, "_copy", copy)


def in_the_writing_of_text(monkeypatch: pytest.MonkeyPatch, raised: BaseException) -> None:
    """By `--max-new-tokens`."""

    def generate(*args: Any, **kwargs: Any) -> None:
        raise raised

    monkeypatch.setattr(modeling_llama.LlamaForCausalLM, "generate", generate)


@pytest.mark.parametrize("backend", ["hooks", "pyvene"])
@pytest.mark.parametrize("place", [in_the_model, in_the_copy, in_the_writing_of_text])
@pytest.mark.parametrize("name", RAISED)
def test_what_goes_wrong_in_the_pass(
    name: str,
    place: Any,
    backend: str,
    checkpoints: Checkpoints,
    workplace: Path,
    capture: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raised, code, line = RAISED[name]
    place(monkeypatch, raised)
    argv = ["--model", checkpoints("llama"), "--prompt", "The cat", "--auto-select", "attn:0;mlp:0"]
    argv += ["--max-new-tokens", "3"] if place is in_the_writing_of_text else []
    (workplace / "agnostic_activations.json").write_text("old")
    done = capture(*argv, "--backend", backend, "--quiet", "--device", "cpu")
    assert (done.code, done.out, done.err) == (code, [], [f"error: {line}"])
    assert faults.snapshot(workplace) == {"agnostic_activations.json": b"old"}


@pytest.mark.parametrize("part", ["AutoTokenizer", "LlamaForCausalLM", "AutoConfig"])
@pytest.mark.parametrize("raised", [KeyboardInterrupt(), MemoryError()], ids=repr)
def test_what_goes_wrong_while_loading(
    part: str,
    raised: BaseException,
    checkpoints: Checkpoints,
    workplace: Path,
    capture: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Raised by transformers, inside our own functions."""

    def fails(*args: Any, **kwargs: Any) -> None:
        raise raised

    monkeypatch.setattr(getattr(transformers, part), "from_pretrained", fails)
    argv = ["--model", checkpoints("llama"), "--prompt", "The cat", "--auto-select", "attn:0"]
    done = capture(*argv, "--quiet")
    code, line = (130, "interrupted.")
    if isinstance(raised, MemoryError):
        code, line = (1, f"out of memory while loading '{checkpoints('llama')}'. Use --dtype ")
    assert (done.code, done.out, len(done.err)) == (code, [], 1)
    assert done.err[0].startswith(f"error: {line}")
    assert os.listdir() == []


def test_too_long_is_told_before_the_weights_are_loaded(
    checkpoints: Checkpoints, workplace: Path, capture: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformers.LlamaForCausalLM, "from_pretrained", None)
    argv = ["--model", checkpoints("llama"), "--auto-select", "attn:0"]
    done = capture(*argv, "--prompt", "cat " * 300)
    line = "error: the prompt is 302 tokens long, and this model takes 128. Shorten it."
    assert (done.code, done.err) == (2, [line])


# --------------------------------------------------------------- the model is left as it was


def state(model: nn.Module) -> Any:
    """What a capture could leave changed."""
    return (
        list(model.modules()),
        [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [getattr(module, "attention_type", None) for module in model.modules()],
        model.config._attn_implementation,
        transformers.modeling_utils.ALL_ATTENTION_FUNCTIONS["sdpa"],
        torch.random.get_rng_state().tolist(),
    )


def own_model() -> Any:
    """One that is trained, in parts, with SDPA, and has a hook of its own."""
    model = tiny.model("llama")
    model.set_attn_implementation("sdpa")
    model.train()
    model.model.layers[0].eval()
    model.lm_head.weight.requires_grad_(False)
    model.lm_head.register_forward_hook(lambda *args: None)
    return model


@pytest.mark.parametrize("backend", ["hooks", "pyvene"])
@pytest.mark.parametrize("place", [in_the_model, in_the_copy])
@pytest.mark.parametrize("name", RAISED)
def test_a_loaded_model_is_left_as_it_was(
    name: str, place: Any, backend: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised, code, line = RAISED[name]
    model, tokenizer = own_model(), tiny.tokenizer()
    before = state(model)
    place(monkeypatch, raised)
    with pytest.raises(ToolkitError if code == 1 else KeyboardInterrupt) as caught:
        activations.capture(model, "The cat", tokenizer=tokenizer, backend=backend)
    assert code == 130 or str(caught.value) == line
    assert state(model) == before
    assert os.listdir() == []


@pytest.mark.parametrize("source", ["loaded", "folder"])
def test_the_users_own_random_numbers_are_not_drawn(
    source: str, checkpoints: Checkpoints, workplace: Path
) -> None:
    """Reformer draws its hashes, in the trial as in the pass."""
    given: Any = tiny.model("reformer") if source == "loaded" else str(checkpoints("reformer"))
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    activations.capture(given, "The cat", tokenizer=tiny.tokenizer(), output="x.json")
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("backend", ["hooks", "pyvene"])
@pytest.mark.parametrize("family", ["big_bird", "bigbird_pegasus"])
def test_modules_that_are_replaced_in_the_pass_come_back(
    family: str, backend: str, workplace: Path
) -> None:
    """For a short text; the new ones would also stay in `eval()` mode."""
    model = tiny.model(family).train()
    before = state(model)
    document = activations.capture(
        model, "The cat", tokenizer=tiny.tokenizer(), backend=backend, output="x.json"
    )
    assert document.attention_weights
    assert state(model) == before
    with torch.no_grad():
        model(torch.tensor([[5, 9]]))
    assert list(model.modules()) != before[0]  # it does replace them


def record(room: Any) -> None:
    """So that what it imports is there before a child is forked."""
    room.record(tiny.model("llama"), {"input_ids": torch.tensor([[5, 9]])}, Wanted(["model.norm"]))


def timed(folder: Path, work: Callable[[], Any]) -> float:
    start = time.monotonic()
    ended = faults.run(folder, work, lambda: print(time.monotonic()))
    assert ended.code == 0
    return time.monotonic() - max(start, float(ended.out[0]))


MANNERS = [("hooks", None), ("pyvene", None), ("hooks", "sdpa"), ("pyvene", "sdpa")]
MOMENTS = 20


@pytest.mark.parametrize(("backend", "implementation"), MANNERS)
def test_interrupted_at_any_time(backend: str, implementation: str | None, tmp_path: Path) -> None:
    """By the clock, from the start of a capture to its end: a model that is as it was."""
    record({"hooks": recording, "pyvene": pyvene_backend}[backend])
    model, tokenizer = own_model(), tiny.tokenizer()
    before = state(model)

    def work() -> None:
        activations.capture(
            model,
            "The cat",
            tokenizer=tokenizer,
            backend=backend,
            attn_implementation=implementation,
        )

    def changes() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        now = state(model)
        print([i for i, (a, b) in enumerate(zip(now, before, strict=True)) if a != b])

    def child(moment: int) -> faults.Child:
        folder = tmp_path / f"{moment}"
        folder.mkdir()
        when = took * (moment + 0.5) / MOMENTS
        return faults.Child(folder, work, lambda: faults.interrupt_after(when), after=changes)

    took = min(timed(tmp_path, work) for _ in range(3))
    codes = []
    for moment, ended in faults.at_once(child, list(range(MOMENTS))):
        assert ended.out == ["[]"], moment
        assert ended.err == (["error: interrupted."] if ended.code else [])
        codes.append(ended.code)
        left = faults.snapshot(tmp_path / f"{moment}")
        assert not faults.partials(left)
        assert ended.code == 130 or list(left) == ["agnostic_activations.json"]
    assert set(codes) <= {0, 130}  # too late, or not
    assert codes.count(130) >= MOMENTS / 4


def test_a_second_interrupt_waits_until_all_is_tidied_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From Python too, where nobody but us makes it wait."""
    real, model = Path.unlink, tiny.model("llama")

    def unlink(self: Path, *args: Any, **kwargs: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(KeyboardInterrupt), replacing_together({tmp_path / "x": 1}):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []

    removed = torch.utils.hooks.RemovableHandle.remove

    def remove(self: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        removed(self)

    monkeypatch.setattr(torch.utils.hooks.RemovableHandle, "remove", remove)
    inputs = {"input_ids": torch.tensor([[5, 9]])}
    for record in (recording.record, pyvene_backend.record):
        with pytest.raises(KeyboardInterrupt):
            record(model, inputs, Wanted(["model.norm", "model.layers.0.mlp", "lm_head"]))
        assert sum(state(model)[1]) == 0
