"""Faults injected for real, in child processes: afterwards the old output is whole, or the new."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faults
import numpy as np
import pytest
from conftest import Run
from faults import Ended, snapshot

from activations import ToolkitError, load
from activations.document.destination import prepare_output
from activations.document.format import FORMAT
from activations.document.writer import write_document
from activations.outputs.tensor import Tensor
from activations.system.atomic import write_together
from activations.views.notebook import View

NAME = "m.0.self_attn"
POINTS = 30  # of each kind of harm to each job
WRITERS = {
    "document/destination.py",
    "document/format.py",
    "document/tensor_file.py",
    "document/writer.py",
    "system/atomic.py",
    "system/files.py",
    "system/signals.py",
    "views/notebook.py",
}
Left = dict[str, "bytes | None"]


def capture_of(value: float) -> dict[str, Any]:
    """The outputs of a model of two layers."""

    def output(layer: int) -> list[Any]:
        weights = np.tril(np.full((1, 2, 3, 3), value + layer, np.float32))
        return [Tensor("float32", weights.shape, weights), None]

    return {"attention": {f"m.{layer}.self_attn": output(layer) for layer in range(2)}}


def document(value: float, format: str = "json") -> Callable[[], None]:
    """Writes x.json in the current folder."""
    place = {"module": NAME, "element": [0], "layer": 0, "kind": "self"}
    header = {"format": FORMAT, "model": "m", "prompt": f"p{value}", "attention_weights": [place]}

    def work() -> None:  # as a capture does it
        prepare_output("x.json", format)
        write_document("x.json", header, capture_of(value), format=format)

    return work


def files(value: int, *names: str) -> Callable[[], Any]:
    """Writes pages or figures as the view does; 100 kB each, more than is held back."""
    contents = {name: [name.encode(), b"%d" % value * 100_000] for name in names}
    return lambda: write_together(Path("out"), contents)


def saved_view(value: int) -> Callable[[], None]:
    return lambda: View("t", b"%d" % value * 100_000).save("view.html")


@dataclass(frozen=True)
class Job:
    """What is written before and then; `order` in which files appear or go ("-")."""

    before: Callable[[], Any]
    work: Callable[[], Any]
    order: tuple[str, ...]


PAGES = ("attention_head_view_m.html", "attention_model_view_m.html")
IN_OUT = tuple(f"out/{name}" for name in PAGES)
PAIR = ("x.safetensors", "x.json")
JOBS = {
    "the first document": Job(faults.nothing, document(2), ("x.json",)),
    "a document": Job(document(1), document(2), ("x.json",)),
    "the first pair": Job(faults.nothing, document(2, "safetensors"), PAIR),
    "a pair": Job(document(1, "safetensors"), document(2, "safetensors"), PAIR),
    "a pair after text": Job(document(1), document(2, "safetensors"), PAIR),
    "text after a pair": Job(document(1, "safetensors"), document(2), ("x.json", "-x.safetensors")),
    "two pages": Job(files(1, *PAGES), files(2, *PAGES), IN_OUT),
    "the first figure": Job(faults.nothing, files(2, "figure.png"), ("-out", "out/figure.png")),
    "a view from Python": Job(saved_view(1), saved_view(2), ("view.html",)),
}
SIGNALS = {
    "SIGKILL": faults.kill(signal.SIGKILL),
    "SIGTERM": faults.kill(signal.SIGTERM),
    "SIGINT": faults.kill(signal.SIGINT),
}


def filled(folder: Path, *steps: Callable[[], Any]) -> Path:
    """A new folder in which these were run, in processes of their own."""
    folder.mkdir(parents=True)
    for step in steps:
        assert faults.run(folder, step).code == 0
    return folder


def states(old: Left, new: Left, order: tuple[str, ...]) -> list[Left]:
    """What may be there: the old files, and after each of the steps; the last are the new ones."""
    found = [old]
    for step in order:
        name = step.removeprefix("-")
        state = {**found[-1], name: new.get(name)}
        found.append(state if name in new else {k: v for k, v in state.items() if k != name})
    return found


@pytest.mark.parametrize("harm", SIGNALS)
@pytest.mark.parametrize("name", JOBS)
def test_killed_while_writing(name: str, harm: str, tmp_path: Path) -> None:
    """At many points of the writing, by this signal.

    Guaranteed: each file is whole, the old or the new. Files that belong together are all old or
    all new, but after SIGKILL between two renames; temporary files are left by SIGKILL alone, and
    removed by the next run.
    """
    job = JOBS[name]
    old = snapshot(filled(tmp_path / "old", job.before))
    new = snapshot(filled(tmp_path / "new", job.before, job.work))
    allowed = states(old, new, job.order)
    assert allowed[-1] == new
    event = "opcode" if harm == "SIGINT" else "line"
    count = faults.count_points(filled(tmp_path / "count", job.before), job.work, WRITERS, event)

    def child(point: int) -> faults.Child:
        shutil.copytree(tmp_path / "old", tmp_path / str(point))
        return faults.Child(
            tmp_path / str(point),
            job.work,
            lambda: faults.at_point(point, WRITERS, SIGNALS[harm], event),
        )

    seen = []
    for point, ended in faults.at_once(child, faults.spread(count, POINTS)):
        folder = tmp_path / str(point)
        left = snapshot(folder)
        check_end(ended, harm)
        if harm == "SIGKILL":
            left = without_leftovers(folder, job, left, new)
            assert left in allowed, point
        else:
            assert left in (old, new), point
        seen.append(allowed.index(left))
    assert {0, len(allowed) - 1} <= set(seen)  # some came before, some after


def check_end(ended: Ended, harm: str) -> None:
    assert ended.code == {"SIGKILL": -9, "SIGTERM": 143, "SIGINT": 130}[harm], ended
    assert ended.err == (["error: interrupted."] if harm == "SIGINT" else [])


def without_leftovers(folder: Path, job: Job, left: Left, new: Left) -> Left:
    """What was left but for temporary files; those are removed by a run that comes much later."""
    for name in faults.partials(left):
        os.utime(folder / name, (0, 0))
    assert faults.run(folder, job.work).code == 0
    assert snapshot(folder) == new
    return {name: held for name, held in left.items() if not name.endswith(".partial")}


def at_the_second_rename(harm: Callable[[], Any]) -> Callable[[], None]:
    """From now on."""
    real = os.replace
    calls = []

    def replace(*args: Any) -> None:
        calls.append(args)
        if len(calls) == 2:
            harm()
        real(*args)

    def prepare() -> None:
        os.replace = replace

    return prepare


@pytest.mark.parametrize("harm", SIGNALS)
@pytest.mark.parametrize("name", ["a pair", "two pages"])
def test_killed_between_two_renames(name: str, harm: str, tmp_path: Path) -> None:
    """The one moment in which files that belong together can part, and how that is noticed."""
    job = JOBS[name]
    folder = filled(tmp_path / "x", job.before)
    old, new = snapshot(folder), snapshot(filled(tmp_path / "new", job.before, job.work))
    check_end(faults.run(folder, job.work, at_the_second_rename(SIGNALS[harm])), harm)
    if harm == "SIGKILL":
        left = without_leftovers(folder, job, snapshot(folder), new)
        assert [left[file] for file in job.order] == [new[job.order[0]], old[job.order[1]]]
    assert snapshot(folder) == new


def test_tensors_of_another_capture_are_refused(tmp_path: Path) -> None:
    """As a run leaves them that is killed between two renames."""
    (one, two) = (filled(tmp_path / f"{i}", document(i, "safetensors")) for i in (1, 2))
    shutil.copy(one / "x.json", two)
    with pytest.raises(ToolkitError, match="holds the tensors of another capture"):
        load(two / "x.json").tensor(NAME, 0)


# ------------------------------------------------------------- temporary files, and two at once


@pytest.mark.parametrize(
    ("name", "hours", "goes"),
    [
        (".x.json.a1b2c3d_.partial", 2, True),
        (".x.safetensors.zzzzzzzz.partial", 2, True),  # the document's too
        (".x.json.a1b2c3d_.partial", 0.9, False),  # another run may be writing it
        (".y.json.a1b2c3d_.partial", 2, False),
        (".x.json.short.partial", 2, False),
        (".xxjson.a1b2c3d_.partial", 2, False),
        (".x.json.x.json.a1b2c3d_.partial", 2, False),
        ("x.json.partial", 2, False),
    ],
)
def test_leftovers_of_this_file_alone_are_removed(
    name: str, hours: float, goes: bool, workplace: Path, capture: Run
) -> None:
    """Before the room on the disk is looked at: they may be what fills it."""
    left = workplace / name
    left.write_bytes(b"half")
    os.utime(left, (0, time.time() - hours * 3600))
    done = capture("--auto-select", "attn:0", "--output", "x.json", "--model", "./nowhere")
    assert done.code == 1
    assert left.exists() != goes


def test_two_captures_to_one_path_at_once(tmp_path: Path) -> None:
    """Each file is a whole one of either, and nothing else is left."""

    def often(value: int) -> Callable[[], Any]:
        return lambda: [document(value, "safetensors")() for _ in range(50)]

    wholes = [snapshot(filled(tmp_path / f"{i}", document(i, "safetensors"))) for i in (1, 2)]
    shared = filled(tmp_path / "shared")
    children = [faults.Child(shared, often(i), faults.nothing, f"{i}") for i in (1, 2)]
    assert [child.end().code for child in children] == [0, 0]
    left = snapshot(shared)
    assert left.keys() == wholes[0].keys()
    assert all(left[name] in [whole[name] for whole in wholes] for name in left)


# --------------------------------------------------------------------------------------- no room


NO_ROOM = "error: no room on the disk for '{}'. Free some, choose fewer modules or layers, or "
NO_ROOM += "write elsewhere."
NAMES = {name: job.order[-1].removeprefix("-") for name, job in JOBS.items()}
NAMES["text after a pair"] = "x.json"


def limited(size: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("name", JOBS)
def test_files_may_not_grow(name: str, tmp_path: Path) -> None:
    """A limit on the size of files, as by `ulimit -f`, hit at many sizes."""
    job = JOBS[name]
    old = snapshot(filled(tmp_path / "old", job.before))
    new = snapshot(filled(tmp_path / "new", job.before, job.work))
    sizes = [len(new[step] or b"") for step in job.order if not step.startswith("-")]
    first = 300  # bytes, which the line on stderr takes too
    for limit in (first + i for i in faults.spread(max(sizes) - first, 12)):
        folder = tmp_path / str(limit)
        shutil.copytree(tmp_path / "old", folder)
        ended = faults.run(folder, job.work, limited(limit))
        assert (ended.code, ended.err) == (1, [NO_ROOM.format(NAMES[name])]), limit
        assert snapshot(folder) == old
        assert faults.run(folder, job.work, limited(max(sizes))).code == 0
        assert snapshot(folder) == new


@pytest.mark.parametrize(
    ("function", "number"),
    [("fsync", errno.ENOSPC), ("fsync", errno.EIO), ("replace", errno.EIO)],
)
@pytest.mark.parametrize("name", JOBS)
def test_the_disk_fails(name: str, function: str, number: int, tmp_path: Path) -> None:
    """At the first call: nothing has taken its place yet."""
    job = JOBS[name]

    def fails(*args: Any) -> None:
        raise OSError(number, "Input/output error")

    folder = filled(tmp_path / "x", job.before)
    old = snapshot(folder)
    ended = faults.run(folder, job.work, lambda: setattr(os, function, fails))
    line = f"error: '{NAMES[name]}' cannot be written: Input/output error. Write elsewhere."
    line = NO_ROOM.format(NAMES[name]) if number == errno.ENOSPC else line
    assert (ended.code, ended.err) == (1, [line])
    assert snapshot(folder) == old


# ------------------------------------------------------------------------------- folders and paths


def test_a_folder_that_is_removed_meanwhile(tmp_path: Path) -> None:
    """At every line: one clear line, whatever was about to be done."""
    for name in ("a pair", "two pages"):
        job = JOBS[name]
        count = faults.count_points(
            filled(tmp_path / name / "count", job.before), job.work, WRITERS, "line"
        )

        def child(point: int, name: str = name, job: Job = job) -> faults.Child:
            folder = filled(tmp_path / name / str(point), job.before)

            def harm() -> None:
                shutil.rmtree(folder)

            return faults.Child(
                folder, job.work, lambda: faults.at_point(point, WRITERS, harm, "line")
            )

        for _, ended in faults.at_once(child, faults.spread(count, 40)):
            assert ended.code in (0, 1)
            assert len(ended.err) == ended.code
            assert not any("unexpected" in line for line in ended.err), ended


def another_user() -> None:
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)


@pytest.mark.parametrize(
    ("mode", "line"),
    [
        (0o555, "the folder of 'shut/x.json' is not writable. Write elsewhere."),
        (0o000, "'shut/x.json' cannot be written: Permission denied. Write elsewhere."),
        (0o333, None),  # may be written, but not be looked into or locked
    ],
)
def test_a_folder_that_belongs_to_somebody_else(mode: int, line: str | None) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders nobody else may look into
        folder = Path(name, "x")
        folder.mkdir()
        (folder / "shut").mkdir()
        for path in (Path(name), folder):
            path.chmod(0o755)
        (folder / "shut").chmod(mode)
        ended = faults.run(
            folder, lambda: write_document("shut/x.json", {}, capture_of(1)), another_user
        )
        assert (ended.code, ended.err) == ((1, [f"error: {line}"]) if line else (0, []))
        (folder / "shut").chmod(0o755)
        assert list(snapshot(folder)) == (["shut"] if line else ["shut", "shut/x.json"])


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no second file system is known")
def test_links_to_another_file_system(tmp_path: Path) -> None:
    """The links stay; temporary files lie beside what they lead to, or nothing could be renamed."""
    job = JOBS["a pair"]
    new = snapshot(filled(tmp_path / "new", job.before, job.work))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        folder = filled(tmp_path / "x")
        for file in new:
            (folder / file).symlink_to(Path(elsewhere, file))  # to nothing as yet
        for work in (job.before, job.work):
            assert faults.run(folder, work).code == 0
        assert snapshot(Path(elsewhere)) == new
        assert all((folder / file).is_symlink() for file in new)
