"""A captured tensor as the document knows it: numpy data and the name of the dtype it had.

numpy has no bfloat16; its bits are kept as uint16 and widened exactly when numbers are wanted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Tensor:
    """A snapshot of one tensor: C-contiguous `data` and the `dtype` it had in the model.

    `data` holds the values in that dtype where numpy has it; for "bfloat16" the raw bits as
    uint16, for other dtypes that numpy lacks (8-bit floats) the values widened to float32, for
    complex numbers a last axis of 2 (real, imaginary). `shape` is without that axis.
    """

    dtype: str
    shape: tuple[int, ...]
    data: np.ndarray

    def numbers(self) -> np.ndarray:
        """The values: float32 for half precisions (widened exactly), else in their own dtype."""
        if self.dtype == "bfloat16":
            # bfloat16 is the upper half of a float32.
            wide = self.data.astype(np.uint32)
            wide <<= 16
            return wide.view(np.float32)
        if self.data.dtype == np.float16:
            return self.data.astype(np.float32)
        return self.data
