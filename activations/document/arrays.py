"""Nested lists of a document's header as arrays, checked: another program may have written them."""

from __future__ import annotations

from typing import Any

import numpy as np


def numbers(value: Any, dtype: Any, dims: int, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Nested lists as an array; of floats null is NaN, of whole numbers null is 0."""
    plain, whole = np.array(value), dtype is np.int64
    if plain.dtype.kind == "O":
        missing = np.array([item is None for item in plain.flat], bool).reshape(plain.shape)
        plain = np.where(missing, 0 if whole else np.nan, plain).astype(float)
    if plain.dtype.kind not in "iuf" or (whole and plain.size and (plain != np.floor(plain)).any()):
        raise ValueError("not numbers")
    found: np.ndarray = plain.astype(dtype)
    if found.ndim != dims or (shape is not None and found.shape != shape):
        raise ValueError("another shape")
    return found


def as_texts(value: Any, shape: tuple[int, ...]) -> np.ndarray:
    found = np.array(value, dtype=object)
    if found.shape != shape or not set(map(type, found.flat)) <= {str}:
        raise ValueError("not texts, or another shape")
    return found
