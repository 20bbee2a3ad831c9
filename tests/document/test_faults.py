"""Faults injected for real, in child processes: afterwards the old output is whole, or the new."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
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

from activations.document.format import FORMAT
from activations.document.writer import write_document
from activations.outputs.tensor import Tensor
from activations.system.atomic import remove_leftovers, replacing, write_together
from activations.system.files import check_output_folder
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
    return lambda: write_document("x.json", header, capture_of(value), format=format)


def files(value: int, *names: str) -> Callable[[], Any]:
    """Writes pages or figures as the view does; 100 kB each, more than is held back."""
    contents = {name: name.encode() + b"%d" % value * 100_000 for name in names}
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
    "SIGINT again and again": faults.kill_many_times(signal.SIGINT),
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
    number = getattr(signal, harm.split()[0])
    codes = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
    assert ended.code == codes[number], ended
    assert ended.err == (["error: interrupted."] if number == signal.SIGINT else [])


def without_leftovers(folder: Path, job: Job, left: Left, new: Left) -> Left:
    """What was left but for temporary files; that these are told, and removed by the next run."""
    targets = [step.removeprefix("-") for step in job.order]
    names = [re.escape(Path(target).name) for target in targets]
    for name in faults.partials(left):
        assert re.fullmatch(rf"\.({'|'.join(names)})\.\w{{8}}\.partial", Path(name).name)
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


@pytest.mark.parametrize("name", ["a pair", "two pages"])
def test_killed_between_two_renames(name: str, tmp_path: Path) -> None:
    """The one moment in which files that belong together can part, and how that is noticed."""
    job = JOBS[name]
    folder = filled(tmp_path / "x", job.before)
    old, new = snapshot(folder), snapshot(filled(tmp_path / "new", job.before, job.work))
    killed = at_the_second_rename(SIGNALS["SIGKILL"])
    assert faults.run(folder, job.work, killed).code == -signal.SIGKILL
    left = snapshot(folder)
    assert len(faults.partials(left)) == 1
    first, second = job.order
    assert (left[first], left[second]) == (new[first], old[second])
    if name == "a pair":
        view = [sys.executable, str(faults.ROOT / "bertviz_head_model_view.py")]
        argv = ["--input", "x.json", "--output-dir", "."]
        done = subprocess.run([*view, *argv], cwd=folder, capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (
            1,
            "",
            "error: 'x.safetensors' holds the tensors of another capture than 'x.json'. Capture "
            "again.\n",
        )
    assert faults.run(folder, job.work).code == 0
    assert snapshot(folder) == new


@pytest.mark.parametrize("harm", [name for name in SIGNALS if name != "SIGKILL"])
@pytest.mark.parametrize("name", ["a pair", "two pages"])
def test_other_signals_wait_between_two_renames(name: str, harm: str, tmp_path: Path) -> None:
    job = JOBS[name]
    new = snapshot(filled(tmp_path / "new", job.before, job.work))
    folder = filled(tmp_path / "x", job.before)
    check_end(faults.run(folder, job.work, at_the_second_rename(SIGNALS[harm])), harm)
    assert snapshot(folder) == new


# --------------------------------------------------------------------- temporary files and locks


def leftover(folder: Path, name: str, letters: str = "a1b2c3d_") -> Path:
    path = folder / f".{name}.{letters}.partial"
    path.write_bytes(b"half")
    return path


def test_leftovers_of_this_file_alone_are_removed(tmp_path: Path) -> None:
    gone = [leftover(tmp_path, "x.json"), leftover(tmp_path, "x.json", "zzzzzzzz")]
    gone.append(leftover(tmp_path, "x.safetensors"))  # the document's too
    kept = [leftover(tmp_path, "y.json"), leftover(tmp_path, "x.json", "short")]
    kept += [leftover(tmp_path, "xxjson"), leftover(tmp_path, "x.json.x.json")]
    (tmp_path / "x.json.partial").touch()
    (tmp_path / ".x.json.partial").touch()
    faults.run(tmp_path, document(1))
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in kept)
    assert len(snapshot(tmp_path)) == 3 + len(kept)


def test_leftovers_are_removed_before_the_room_is_looked_at(workplace: Path, capture: Run) -> None:
    """What a killed run left may be what fills the disk."""
    left = leftover(workplace, "x.json")
    done = capture("--auto-select", "attn:0", "--output", "x.json", "--model", "./nowhere")
    assert done.code == 1
    assert not left.exists()


def test_what_another_run_is_writing_is_not_removed(tmp_path: Path) -> None:
    """It takes its place when it is done: the last one wins, and is whole."""
    reads, writes = os.pipe()

    def slowly() -> None:
        with replacing("x") as file:
            file.write(b"slow")
            os.write(writes, b"!")
            time.sleep(0.5)

    slow = faults.Child(tmp_path, slowly, faults.nothing)
    os.read(reads, 1)  # it has begun
    with replacing(tmp_path / "x") as file:
        file.write(b"quick")
        assert len(faults.partials(snapshot(tmp_path))) == 2
    assert (tmp_path / "x").read_bytes() == b"quick"
    assert slow.end().code == 0
    assert snapshot(tmp_path) == {"x": b"slow"}


def test_a_file_is_not_lost_between_its_making_and_its_locking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    real = tempfile.mkstemp

    def made_and_found_by_another(**kwargs: Any) -> Any:
        handle, name = real(**kwargs)
        made.append(name)
        if len(made) == 1:
            remove_leftovers(tmp_path / "x")
            assert not Path(name).exists()
        return handle, name

    monkeypatch.setattr(tempfile, "mkstemp", made_and_found_by_another)
    with replacing(tmp_path / "x") as file:
        file.write(b"whole")
    assert snapshot(tmp_path) == {"x": b"whole"}
    assert len(made) == 2


def test_where_nothing_can_be_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are written all the same, and none is taken for a leftover."""

    def no_locks(*args: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    left = leftover(tmp_path, "x")
    with replacing(tmp_path / "x") as file:
        file.write(b"whole")
        remove_leftovers(tmp_path / "x")
    assert snapshot(tmp_path) == {"x": b"whole", left.name: b"half"}


@pytest.mark.parametrize("format", ["json", "safetensors"])
def test_two_captures_to_one_path_at_once(format: str, tmp_path: Path) -> None:
    """Again and again: of either a whole one is there, both its files, and nothing else."""

    def often(value: int) -> Callable[[], None]:
        def work() -> None:
            for _ in range(100):
                document(value, format)()

        return work

    shared = filled(tmp_path / "shared")
    wholes = [snapshot(filled(tmp_path / str(i), document(i, format))) for i in (1, 2)]
    assert faults.run(shared, document(1, format)).code == 0
    children = [faults.Child(shared, often(i), faults.nothing, f"{i}") for i in (1, 2)]
    handle = os.open(shared, os.O_RDONLY)
    for _ in range(200):
        fcntl.flock(handle, fcntl.LOCK_EX)  # nobody renames meanwhile
        found = {name: (shared / name).read_bytes() for name in wholes[0]}
        fcntl.flock(handle, fcntl.LOCK_UN)
        assert found in wholes
        time.sleep(0.001)
    os.close(handle)
    assert [child.end().code for child in children] == [0, 0]
    assert snapshot(shared) in wholes


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


@pytest.mark.parametrize("name", JOBS)
def test_a_full_disk(name: str, tmp_path: Path) -> None:
    """A disk so small that the last file does not fit, though it was said that it would."""
    job = JOBS[name]
    if not faults.can_mount(tmp_path):
        pytest.skip("no disk can be mounted here")
    old = snapshot(filled(tmp_path / "old", job.before))

    def on_it() -> None:
        shutil.disk_usage = lambda path: shutil._ntuple_diskusage(10**9, 0, 10**9)
        job.before()
        free = os.statvfs(".").f_bavail * os.statvfs(".").f_bsize
        Path("ballast").write_bytes(bytes(free - 2 * os.statvfs(".").f_bsize))
        try:
            many = {"attention": {"m": Tensor("float32", (9000,), np.ones(9000, np.float32))}}
            if "x.json" in NAMES[name]:
                format = "safetensors" if "pair" in name and name[:4] != "text" else "json"
                write_document("x.json", {"format": FORMAT}, many, format=format)
            else:
                job.work()
        finally:
            Path("ballast").unlink()
            print(snapshot(Path()) == old)

    ended = faults.run(filled(tmp_path / "disk"), on_it, lambda: faults.mount_here(1_000_000))
    assert (ended.code, ended.err) == (1, [NO_ROOM.format(NAMES[name])])
    assert ended.out == ["True"]


@pytest.mark.parametrize("function", ["fsync", "replace", "fchmod"])
@pytest.mark.parametrize("name", JOBS)
def test_the_disk_fails(name: str, function: str, tmp_path: Path) -> None:
    """At the first call: nothing has taken its place yet."""
    job = JOBS[name]

    def fails(*args: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    folder = filled(tmp_path / "x", job.before)
    old = snapshot(folder)
    ended = faults.run(folder, job.work, lambda: setattr(os, function, fails))
    line = f"error: '{NAMES[name]}' cannot be written: Input/output error. Write elsewhere."
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


def test_a_disk_that_cannot_be_written(tmp_path: Path) -> None:
    if not faults.can_mount(tmp_path):
        pytest.skip("no disk can be mounted here")
    folder = filled(tmp_path / "x", document(1), files(1, *PAGES))
    before = snapshot(folder)
    for work, line in (
        (document(2), "the folder of 'x.json' is not writable. Write elsewhere."),
        (files(2, *PAGES), f"the folder of '{IN_OUT[0]}' is not writable. Write elsewhere."),
        (lambda: check_output_folder("out"), "--output-dir: 'out' is not writable. Name another."),
        (lambda: check_output_folder("y"), "--output-dir: 'y' is not writable. Name another."),
    ):
        ended = faults.run(folder, work, faults.mount_here)
        assert (ended.code, ended.err) == (1, [f"error: {line}"])
        assert snapshot(folder) == before


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
@pytest.mark.parametrize("name", ["a document", "a pair"])
def test_links_to_another_file_system(name: str, tmp_path: Path) -> None:
    """The links stay; temporary files lie beside what they lead to, or nothing could be renamed."""
    job = JOBS[name]
    new = snapshot(filled(tmp_path / "new", job.before, job.work))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        folder = filled(tmp_path / "x")
        for file in new:
            (folder / file).symlink_to(Path(elsewhere, file))  # to nothing as yet
        for work in (job.before, job.work):
            assert faults.run(folder, work).code == 0
        assert snapshot(Path(elsewhere)) == new
        assert all((folder / file).is_symlink() for file in new)
        ended = faults.run(folder, job.before, limited(10))
        assert ended.code == 1
        assert snapshot(Path(elsewhere)) == new
        assert len(snapshot(folder)) == len(new)
