"""About how many bytes a document takes: of what is captured, or of what is still to be.

Both are told by the same rule from the same few facts about each tensor, so that what is refused
for want of room is refused before the run where that can be known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from activations.files import size_text
from activations.observation import Observation
from activations.shapes import Shape, shapes_in

# How many bytes a number takes as text, on average: sign, digits, point, comma. The shortest text
# of a float32 has 10 to 14, more the smaller it is.
_TEXT = {"float64": 21, "float32": 12, "bfloat16": 12, "float16": 12, "bool": 6}
_TEXT |= {"complex64": 26, "complex128": 44}
_TEXT_OF_OTHERS = 5  # whole numbers, mostly small ones; 8-bit floats
_TEXT_OF_ZERO = 4  # `0.0,`
# And in their own dtype. 8-bit floats are widened to float32.
_BINARY = {"bool": 1, "int8": 1, "uint8": 1, "int16": 2, "float16": 2, "bfloat16": 2}
_BINARY |= {"int64": 8, "float64": 8, "complex64": 8, "complex128": 16}
_BINARY_OF_OTHERS = 4
_A_TENSORS_NAME = 200
_A_MODULES_LINE = 230  # its name, here and in the header, shapes and dtypes
_HEADER = 800


@dataclass(frozen=True)
class Numbers:
    """What there is to know of a tensor: how many numbers, of which dtype, how many are zero."""

    count: int
    dtype: str
    zeros: int = 0


def document_bytes(modules: Iterable[Iterable[Numbers]], format: str = "json") -> int:
    """About the bytes of a document of these modules' tensors, and of the file beside it."""
    size = _HEADER
    for tensors in modules:
        size += _A_MODULES_LINE + sum(_tensor_bytes(tensor, format) for tensor in tensors)
    return size


def _tensor_bytes(tensor: Numbers, format: str) -> int:
    if format == "safetensors":
        return _A_TENSORS_NAME + tensor.count * _BINARY.get(tensor.dtype, _BINARY_OF_OTHERS)
    each = _TEXT.get(tensor.dtype, _TEXT_OF_OTHERS)
    return (tensor.count - tensor.zeros) * each + tensor.zeros * _TEXT_OF_ZERO


@dataclass(frozen=True)
class Lengths:
    """How many tokens a pass is about.

    `text` counts what the model (or its encoder) reads, with what it writes itself first; None
    where it reads none. `target` counts the decoder's. With `at_most` it is the model that decides
    when to stop writing, and these are the most.
    """

    text: int | None = None
    target: int | None = None
    at_most: bool = False

    @property
    def letters(self) -> dict[str, int]:
        """What the letters of `activations.shapes.Count` stand for."""
        named = {"T": self.text} if self.target is None else {"S": self.text, "T": self.target}
        return {letter: count for letter, count in named.items() if count is not None}


@dataclass(frozen=True)
class Estimate:
    """So many bytes, and how sure that is: "about", "at least", "up to" or, if both, "roughly"."""

    bytes: int
    bound: str

    def __str__(self) -> str:
        rounded = float(f"{self.bytes:.1e}")  # more digits would promise too much
        return f"{self.bound} {size_text(rounded).replace('.0 ', ' ')}"


def expected_size(
    observation: Observation, names: Iterable[str], lengths: Lengths, format: str = "json"
) -> Estimate:
    """What the document of these modules will take, from what the probe saw of them.

    What cannot be told beforehand (modules that get rows picked by the data, and those of a model
    that could not be tried) is left out, and the estimate is "at least".
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
        return [_numbers_of(shape, letters) for shape in shapes_in(outline)]
    except KeyError:
        return None


def _numbers_of(shape: Shape, letters: Mapping[str, int]) -> Numbers:
    count, zeros = shape.numbers(letters)
    return Numbers(count, shape.dtype, zeros)
