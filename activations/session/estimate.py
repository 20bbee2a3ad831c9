"""About how many bytes a document will take, before anything is captured.

The same rule (`activations.document.format.document_bytes`) is used when it is written, so that a
disk without room is refused before the run wherever that can be known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from activations.document.format import Numbers, document_bytes
from activations.outputs.shapes import Lengths, Shape
from activations.outputs.tree import walk
from activations.selection.observation import Observation


@dataclass(frozen=True)
class Estimate:
    """A number of bytes; `bound` is "about", "at least", "up to" or, if both, "roughly"."""

    bytes: int
    bound: str

    def __str__(self) -> str:
        from rich.filesize import decimal  # not at the top, as the command line imports this

        rounded = int(float(f"{self.bytes:.1e}"))  # more digits would promise too much
        return f"{self.bound} {decimal(rounded).replace('.0 ', ' ')}"


def expected_size(
    observation: Observation, calls: Mapping[str, int], lengths: Lengths, format: str = "json"
) -> Estimate:
    """What the document of these modules will take, from what the trial run showed of them.

    `calls` counts the calls of each that are kept.

    What cannot be known before the run (modules that get rows picked by the data, and those of a
    model that could not be tried) is left out, and the estimate is "at least".
    """
    known: list[list[Numbers]] = []
    all_known = observation.probed
    for name, count in calls.items():
        output = observation.outputs.get(name)
        numbers = None if name in observation.unsure else _numbers(output, lengths.letters)
        if numbers is None:
            all_known = False
        else:
            known += [numbers] * count
    if lengths.at_most:
        bound = "up to" if all_known else "roughly"
    else:
        bound = "about" if all_known else "at least"
    return Estimate(document_bytes(known, format), bound)


def _numbers(output: object, letters: Mapping[str, int]) -> list[Numbers] | None:
    """The tensors of an output; None where a length is not known."""
    shapes = [leaf for _, leaf in walk(output) if isinstance(leaf, Shape)]
    try:
        counts = [shape.numbers(letters) for shape in shapes]
    except KeyError:
        return None
    return [Numbers(n, s.dtype, zeros) for s, (n, zeros) in zip(shapes, counts, strict=True)]
