"""Long texts: what a capture with `--keep-above 0.01` costs, and how large pages are opened.

    python benchmarks/long.py [--quick] [--write]

The model is a random Qwen2 of 24 layers and 14 heads, 896 wide, in float32, with queries and keys
so sharp that some 12 weights a row are above 0.01, as in trained models. The attention of the pages
is made up, as sharp. Times of the capture are processor times, beside a plain pass with SDPA in the
same process. `--quick` takes small sizes, in some minutes. `--write` puts the table into
docs/speed.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from unittest import mock

from run import ROOT, Row, phase, seconds, size, table, times, write

MARKS = "long texts"


# Memory that is freed goes back at once. Else glibc keeps up to 64 MiB of it in each of its arenas,
# for later, and nobody could tell how much is in use.
AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "131072"}


def keeping(folder: Path, layers: int, tokens: int, reach: str) -> list[Row]:
    if not (folder / f"long_{layers}" / "tokenizer_config.json").exists():
        phase("build_long", folder, layers)
    found = phase("keep", folder, layers, tokens)
    with mock.patch.dict(os.environ, AT_ONCE):  # in a run of its own, as it takes time
        held = phase("keep", folder, layers, tokens)
    what = f"{layers} x 14 x {tokens:,}"
    dense = layers * 14 * tokens**2 * 4 / 1e6
    return [
        (
            f"capture of {what}, beyond the plain pass with SDPA, processor time",
            seconds(found["plain"]),
            seconds(found["capture"] - found["plain"]),
            f"{found['ratio']:.2f}",
            reach,
        ),
        (
            "memory for it, above the plain pass's and what is kept",
            f"{held['plain_memory']:.0f} MiB",
            f"{max(held['above'], 0):.0f} MiB",
            "",
            "<= 64 MiB",
        ),
        (
            f"what is kept in the document, {found['a_row']:.0f} a row, against the whole weights",
            size(dense),
            size(found["kept"] / 1e6),
            times(dense, found["kept"] / 1e6),
            "<= 140 MB for 24 x 14 x 4,096",
        ),
    ]


def dense(folder: Path, layers: int, heads: int, tokens: int) -> list[Row]:
    name = f"dense_{tokens}"
    made = phase("dense_document", folder, layers, heads, tokens)
    found = phase("view", folder, name)
    what = f"{layers * heads} heads x {tokens:,}, dense, {size(made['bytes'] / 1e6)}"
    return [
        (f"both pages of {what}", "", seconds(found["seconds"]), "", "<= 15 s"),
        ("anonymous memory for it", "", size(found["anonymous"] * 1.048576), "", "<= 400 MB"),
        ("a page", "", size(found["bytes"] / 1e6), "", "<= 70 MB"),
        *browsing(folder, name, found["bytes"] / 1e6),
    ]


def sparse(folder: Path, layers: int, heads: int, tokens: int) -> list[Row]:
    name = f"sparse_{layers}_{tokens}"
    made = phase("sparse_document", folder, layers, heads, tokens)
    found = phase("view", folder, name)
    what = f"{layers} x {heads} x {tokens:,}, {made['a_row']:.0f} weights a row"
    megabytes = found["bytes"] / 1e6
    return [
        (f"both pages of {what}", "", seconds(found["seconds"]), "", ""),
        ("a page", "", size(megabytes), "", "<= 65 MB for 24 x 14 x 4,096"),
        *browsing(folder, name, megabytes),
    ]


def browsing(folder: Path, name: str, megabytes: float) -> list[Row]:
    found = phase("browse", folder, name)
    opening = f"{1000 * found['opening']:.0f} ms, at worst {1000 * found['worst']:.0f} ms"
    most = 3.5 * megabytes + 150
    return [
        ("Chromium shows its first pictures after", "", seconds(found["first"]), "", "<= 1 s"),
        ("all of it is read after", "", seconds(found["parsed"]), "", "<= 2.5 s"),
        ("a head opens within", "", opening, "", "<= 150 ms"),
        ("the longest task", "", f"{1000 * found['longest']:.0f} ms", "", "<= 200 ms"),
        (
            "anonymous memory of the tab",
            "",
            size(found["memory"] * 1.048576),
            "",
            f"<= 3.5 x the page + 150 MB, {size(most)}",
        ),
    ]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, some minutes")
    parser.add_argument("--write", action="store_true", help="the table in docs/speed.md anew")
    options = parser.parse_args(argv)
    if options.quick and options.write:
        parser.error("--write needs the full size. Leave out --quick.")
    folder = ROOT / ".cache" / "benchmarks" / "long"
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    full = (
        lambda: keeping(folder, 24, 4096, "<= 0.35"),
        lambda: keeping(folder, 6, 8192, "<= 0.6"),
        lambda: dense(folder, 12, 12, 2000),
        lambda: sparse(folder, 24, 14, 4096),
        lambda: sparse(folder, 32, 32, 8192),
    )
    quick = (
        lambda: keeping(folder, 2, 2048, "<= 0.35"),
        lambda: dense(folder, 2, 12, 1000),
        lambda: sparse(folder, 4, 14, 1024),
    )
    for measure in quick if options.quick else full:
        rows += (found := measure())
        print(table(found), file=sys.stderr)
    print(table(rows))
    if options.write:
        write(rows, MARKS, "long.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())
