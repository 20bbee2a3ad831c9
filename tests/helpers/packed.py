"""What a page carries -> weights again, as its script unpacks them, but written apart from it."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np

NAN = 65535
Entry = dict[str, Any]


def planes(raw: bytes, at: int, count: int, width: int) -> tuple[np.ndarray, int]:
    """`count` numbers whose bytes of one weight stand together, and where they end."""
    parts = np.frombuffer(raw, np.uint8, count * width, at).reshape(width, count).astype(np.int64)
    return sum((part << (8 * i) for i, part in enumerate(parts)), np.zeros(count, np.int64)), (
        at + count * width
    )


def inflated(text: bytes | str) -> bytes:
    return zlib.decompress(base64.b64decode(text))


def head(entry: Entry, text: bytes | str) -> tuple[np.ndarray, np.ndarray]:
    """One head's whole matrix, (rows, columns), and what was left out of each row; NaN is NaN."""
    raw, rows, columns = inflated(text), len(entry["rowTokens"]), len(entry["columnTokens"])
    if entry["raw"] is not None:
        q, end = planes(raw, 0, rows * columns, 2)
        assert end == len(raw)
        values = entry["raw"]["base"] + q / entry["raw"]["steps"]
        return np.where(q == NAN, np.nan, values).reshape(rows, columns), np.zeros(rows)
    counts, at = planes(raw, 0, rows, entry["bytes"])
    steps, at = planes(raw, at, int(counts.sum()), entry["bytes"])
    weights, at = planes(raw, at, int(counts.sum()), 2)
    rest, at = planes(raw, at, rows, 2)
    assert at == len(raw)
    found, next_one = np.zeros((rows, columns)), 0
    for row, count in enumerate(counts):
        mine = slice(next_one, next_one + int(count))
        found[row, np.cumsum(steps[mine])] = weights[mine] / 10_000
        next_one = mine.stop
    found[rest == NAN] = np.nan
    return found, np.where(rest == NAN, np.nan, rest / 10_000)


def unpack(packed: Any) -> list[list[np.ndarray]]:
    """The weights of every entry, layer by layer, (heads, rows, columns) of what it shows."""
    found = []
    for entry in packed.stacks:
        (r0, r1), (c0, c1) = entry["rows"], entry["columns"]
        layers = [
            np.stack(
                [
                    head(entry, packed.heads[f"head-{entry['id']}-{layer}-{h}"])[0]
                    for h in range(len(entry["heads"]))
                ]
            )[:, r0:r1, c0:c1]
            for layer in range(len(entry["layers"]))
        ]
        found.append(layers)
    return found
