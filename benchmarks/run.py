"""How fast, and in how much memory: the toolkit against the naive way, in one run.

    python benchmarks/run.py [--quick] [--write]

The naive way is what one would write without it: forward hooks and `json.dump(tensor.tolist())`,
then `json.load`, `torch.tensor` and bertviz's own pages. A random Qwen2 of 0.5 B parameters (24
layers, 14 heads, 896 wide, bfloat16) reads 256 tokens; it is made once, in .cache. Memory is a
child process's own maximum. `--quick` takes a quarter of the size, in less than a minute.
`--write` puts the table into docs/speed.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MARKS = "benchmarks"
Row = tuple[str, str, str, str, str]  # what, naive, here, ratio, to reach


def child(*argv: str | Path, cwd: Path = ROOT) -> tuple[float, float, str]:
    """Seconds, peak memory in MB and output of a Python process."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen([sys.executable, *map(str, argv)], stdout=out, cwd=cwd)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        out.seek(0)
        text = out.read().decode()
    if status:
        raise SystemExit(f"error: {' '.join(map(str, argv))} failed.")
    return seconds, usage.ru_maxrss / 1024, text


def user_time(*argv: str | Path) -> float:
    """Seconds of processor time in user mode: they count where other work runs beside."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    child(*argv)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def phase(name: str, folder: Path, *rest: Any) -> dict[str, Any]:
    """What a phase measured, with the memory it took."""
    print(f"{name} {' '.join(map(str, rest))}", file=sys.stderr)
    _, memory, text = child(ROOT / "benchmarks" / "phases.py", name, folder, *map(str, rest))
    return {"memory": memory, **json.loads(text.splitlines()[-1])}


def times(naive: float, here: float) -> str:
    return f"{naive / here:.0f} x" if naive >= 10 * here else f"{naive / here:.1f} x"


def seconds(value: float) -> str:
    return f"{value:.2f} s" if value < 10 else f"{value:.0f} s"


def size(megabytes: float) -> str:
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes:.0f} MB"


# ------------------------------------------------------------------------------------- the rows


def passes(folder: Path, tokens: int) -> list[Row]:
    found = phase("capture", folder, tokens)
    return [
        (
            "forward pass with hooks and snapshots, against one without",
            seconds(found["plain"]),
            seconds(found["hooked"]),
            f"{found['ratio']:.2f}",
            "<= 1.05",
        ),
        ("the same for a sixth of the layers only", "", "", f"{found['part']:.2f}", "about 1/6"),
    ]


def writing(folder: Path) -> list[Row]:
    ours, naive = phase("write", folder), phase("naive_write", folder)
    tensors = phase("write_tensors", folder)
    return [
        (
            "writing the document",
            seconds(naive["seconds"]),
            seconds(ours["seconds"]),
            times(naive["seconds"], ours["seconds"]),
            ">= 25 x",
        ),
        (
            "its size",
            size(naive["bytes"] / 1e6),
            size(ours["bytes"] / 1e6),
            f"{ours['bytes'] / naive['bytes']:.2f}",
            "<= 0.6",
        ),
        (
            "memory for it, above the tensors",
            size(naive["above"]),
            size(max(ours["above"], 0)),
            "",
            f"<= one line, {size(ours['line'] / 1e6)}",
        ),
        (
            "`--format safetensors`, against `save_file` alone",
            seconds(tensors["alone"]),
            seconds(tensors["ours"]),
            f"{tensors['ratio']:.2f}",
            "<= 2",
        ),
    ]


def reading(folder: Path) -> list[Row]:
    naive, ours = phase("naive_read", folder), phase("read", folder)
    both = phase("write_both", folder)
    large = phase("read", folder, "large")
    return [
        (
            "reading the attention back",
            seconds(naive["seconds"]),
            seconds(ours["seconds"]),
            times(naive["seconds"], ours["seconds"]),
            ">= 10 x",
        ),
        (
            f"the same out of {size(both['bytes'] / 1e6)}, most of it MLP lines",
            "",
            seconds(large["seconds"]),
            f"{large['seconds'] / ours['seconds']:.1f}",
            "no parsing",
        ),
    ]


def viewing(folder: Path) -> list[Row]:
    view = ROOT / "bertviz_head_model_view.py"
    print("both pages", file=sys.stderr)
    argv = ("benchmarks/phases.py", "naive_pages", folder)
    slow, much, text = child(*argv)
    large = json.loads(text)["bytes"]
    quick, little, text = child(view, "--input", folder / "text.json", "--output-dir", folder)
    page = max(Path(line).stat().st_size for line in text.splitlines())
    short = [child(view, "--input", folder / "short.json", "--output-dir", folder) for _ in "12345"]
    tiny = [child(*argv, "short") for _ in "123"]
    return [
        (
            "both pages, the whole command",
            seconds(slow),
            seconds(quick),
            times(slow, quick),
            ">= 20 x",
        ),
        ("memory for it", size(much), size(little), times(much, little), "<= 600 MB"),
        ("size of a page", size(large / 1e6), size(page / 1e6), times(large, page), "<= 16 MB"),
        _starting("both pages of 16 tokens", tiny, short, "<= 0.6 s"),
    ]


def starting() -> list[Row]:
    print("--help", file=sys.stderr)
    naive = [child("-c", "import torch, transformers") for _ in "123"]
    return [
        _starting(
            f"`{name} --help`", naive, [child(ROOT / name, "--help") for _ in "12345"], "<= 0.15 s"
        )
        for name in ("agnostic_capture.py", "bertviz_head_model_view.py")
    ]


# What one would write to see the attention of one prompt.
MINIMAL = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], attn_implementation="eager")
with torch.no_grad():
    model(**tokenizer("Once there was a fox.", return_tensors="pt"), output_attentions=True)
"""


def capturing(folder: Path) -> list[Row]:
    print("the default capture", file=sys.stderr)
    capture = (ROOT / "agnostic_capture.py", "--auto-select", "attn:0;mlp:0;other:", "--quiet")
    runs = [
        (
            user_time("-c", MINIMAL, ROOT / "demo_model"),
            user_time(*capture, "--output", folder / "demo.json"),
        )
        for _ in "12345"
    ]
    naive, here = map(min, zip(*runs, strict=True))
    what = "the default capture, user time, against import, load and forward alone"
    return [(what, seconds(naive), seconds(here), f"{here / naive:.2f}", "<= 0.85")]


def _starting(what: str, naive: list[Any], here: list[Any], reach: str) -> Row:
    slow, quick = (statistics.median(run[0] for run in runs) for runs in (naive, here))
    return what, seconds(slow), seconds(quick), times(slow, quick), reach


def scoring(folder: Path, layers: int, tokens: int) -> list[Row]:
    rows = []
    for count, length, reach in ((layers, tokens, ">= 3.5 x"), (2, 4 * tokens, ">= 2 x")):
        found = phase("scores", folder, count, 14, length)
        what = f"scores of {count} x 14 x {length:,} heads, against five of them by whole arrays"
        rows.append(
            (
                what,
                seconds(found["naive"]),
                seconds(found["ours"]),
                f"{1 / found['ratio']:.1f} x",
                reach,
            )
        )
    return rows


# layers, heads, tokens, and what each view is to reach: all of it, the first picture, a task
PAGES = [
    (24, 14, 64, {"model": "<= 3 s; <= 2 s; <= 0.2 s"}),
    (24, 14, 256, {"head": "<= 1.5 s; <= 2 s; <= 0.2 s", "model": "<= 2 s; <= 2 s; <= 0.2 s"}),
    (12, 12, 1000, {"head": "<= 2 s; <= 2 s; <= 0.5 s", "model": "<= 2 s; <= 2 s; <= 0.5 s"}),
]


def drawing(folder: Path, quick: bool) -> list[Row]:
    """Each page in Chromium, lines of all heads; the first also by bertviz's own."""
    rows: list[Row] = []
    for layers, heads, tokens, views in PAGES[: 1 if quick else None]:
        phase("pages", folder, layers, heads, tokens)
        for view, reach in views.items():
            found = phase("draw", folder, f"{view}_{tokens}")
            lines = f"{found['lines']:,} lines" if found["lines"] else "pictures"
            here = (
                f"{seconds(found['seconds'])}, {lines}; first picture {seconds(found['first'])}; "
                f"longest task {found['longest']:.2f} s"
            )
            what = f"Chromium draws the {view} view of {layers} x {heads} x {tokens:,}"
            naive, ratio = "", ""
            if tokens == 64:
                theirs = phase("draw", folder, "bertviz")["seconds"]
                naive, ratio = seconds(theirs), times(theirs, found["seconds"])
            rows.append((what, naive, here, ratio, reach))
    return rows


# ------------------------------------------------------------------------------------ the table


def table(rows: list[Row]) -> str:
    head = ["what", "naive", "here", "ratio", "to reach"]
    lines = ["| " + " | ".join(head) + " |", "|---|---:|---:|---:|---:|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def between(marks: str) -> re.Pattern[str]:
    """What a table stands between in docs/speed.md."""
    return re.compile(f"<!-- {marks} -->(.*?)<!-- /{marks} -->", re.DOTALL)


def write(rows: list[Row], marks: str = MARKS, script: str = "run.py") -> None:
    """Put the table into docs/speed.md."""
    page = ROOT / "docs" / "speed.md"
    text = page.read_text(encoding="utf-8")
    if not between(marks).search(text):
        raise SystemExit(f"error: docs/speed.md has no <!-- {marks} -->. Put the marks back.")
    cores = f"{os.cpu_count()} cores, Python {'.'.join(platform.python_version_tuple()[:2])}"
    body = f"\nMeasured by `benchmarks/{script}` ({cores}):\n\n{table(rows)}\n"
    marked = f"<!-- {marks} -->{body}<!-- /{marks} -->"
    page.write_text(between(marks).sub(lambda _: marked, text), encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small size, under a minute")
    parser.add_argument("--write", action="store_true", help="the table in docs/speed.md anew")
    options = parser.parse_args(argv)
    if options.quick and options.write:
        parser.error("--write needs the full size. Leave out --quick.")
    layers, tokens = (4, 64) if options.quick else (24, 256)
    folder = ROOT / ".cache" / "benchmarks" / f"{layers}x{tokens}"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "model" / "tokenizer_config.json").exists():
        phase("build", folder, layers)
    rows: list[Row] = []
    for measure in (
        lambda: passes(folder, tokens),
        lambda: writing(folder),
        lambda: reading(folder),
        lambda: viewing(folder),
        lambda: scoring(folder, layers, tokens),
        starting,
        lambda: capturing(folder),
        lambda: drawing(folder, options.quick),
    ):
        rows += (found := measure())
        print(table(found), file=sys.stderr)
    print(table(rows))
    if options.write:
        write(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
