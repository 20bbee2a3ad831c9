"""About how many bytes a document will take, before anything is captured.

The same rule (`activations.document.format.document_bytes`) is used when it is written, so that a
disk without room is refused before the run wherever that can be known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rich.filesize import decimal

from activations.document.format import Numbers, document_bytes
from activations.outputs.shapes import Lengths, Shape
from activations.outputs.tree import walk
from activations.selection.observation import Observation


@dataclass(frozen=True)
class Estimate:
    """So many bytes, and how sure that is: "about", "at least", "up to" or, if both, "roughly"."""

    bytes: int
    bound: str

    def __str__(self) -> str:
        rounded = int(float(f"{self.bytes:.1e}"))  # more digits would promise too much
        return f"{self.bound} {decimal(rounded).replace('.0 ', ' ')}"


def expected_size(
    observation: Observation, names: Iterable[str], lengths: Lengths, format: str = "json"
) -> Estimate:
    """What the document of these modules will take, from what the trial run showed of them.

    What cannot be known before the run (modules that get rows picked by the data, and those of a
    model that could not be tried) is left out, and the estimate is "at least".
    """
    known: list[list[Numbers]] = []
    all_known = observation.probed
    for name in names:
        numbers = None
        if name not in observation.unsure:
            numbers = _numbers(observation.outputs.get(name), lengths.letters)
        all_known = all_known and numbers is not None
        known += [numbers or []] * observation.calls.get(name, 0)
    bound = "about" if not lengths.at_most else "up to"
    if not all_known:
        bound = "at least" if not lengths.at_most else "roughly"
    return Estimate(document_bytes(known, format), bound)


def _numbers(outline: object, letters: Mapping[str, int]) -> list[Numbers] | None:
    """The tensors of an output; None where a length is not known."""
    try:
        leaves = [leaf for _, leaf in walk(outline)]
        return [_numbers_of(leaf, letters) for leaf in leaves if isinstance(leaf, Shape)]
    except KeyError:
        return None


def _numbers_of(shape: Shape, letters: Mapping[str, int]) -> Numbers:
    count, zeros = shape.numbers(letters)
    return Numbers(count, shape.dtype, zeros)
