"""Second moments of a linear layer's input: what makes an error in its weights cheap or dear.

The squared output error of weights W + D over all rows x seen is trace(Dᵀ G D) with
G = sum(xᵀ x). Wide inputs keep only the blocks of `BLOCK_WIDTH` channels on the diagonal, which
bounds memory: [10240] is kept as [4, 2560, 2560].
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

BLOCK_WIDTH = 2560
"""Largest block on the diagonal: 26 MB, the hidden size of the 4B model."""


@dataclass(frozen=True, slots=True)
class Gram:
    """Blocks of the sum of xᵀ x over `rows` rows."""

    blocks: Array
    """[B, k, k] with B * k = K"""
    rows: int

    @classmethod
    def empty(cls, width: int) -> "Gram":
        """Moments of an input with `width` channels, nothing seen."""
        count = next(n for n in range(1, width + 1) if width % n == 0 and width // n <= BLOCK_WIDTH)
        return cls(np.zeros((count, width // count, width // count), np.float32), 0)

    def plus(self, x: Array) -> "Gram":
        """The moments with the rows of x [R, K] added."""
        count, width, _ = self.blocks.shape
        parts = x.reshape(len(x), count, width).transpose(1, 0, 2)
        return Gram(self.blocks + np.matmul(parts.transpose(0, 2, 1), parts), self.rows + len(x))

    def packed(self) -> dict[str, NDArray[np.generic]]:
        """Correlations in float16 and the diagonal in float32: half the bytes, and the rounding
        stays far below GPTQ's damping."""
        diagonal = np.diagonal(self.blocks, axis1=1, axis2=2)
        deviation = np.sqrt(np.maximum(diagonal, np.finfo(np.float32).tiny))
        correlation = self.blocks / deviation[:, :, None] / deviation[:, None, :]
        return {
            "correlation": correlation.astype(np.float16),
            "diagonal": diagonal.astype(np.float32),
            "rows": np.array(self.rows),
        }

    @classmethod
    def unpacked(cls, arrays: Mapping[str, NDArray[np.generic]]) -> "Gram":
        """The moments from what `packed` gave."""
        diagonal = np.maximum(arrays["diagonal"].astype(np.float32), np.finfo(np.float32).tiny)
        deviation = np.sqrt(diagonal)
        blocks = arrays["correlation"].astype(np.float32)
        blocks *= deviation[:, :, None]
        blocks *= deviation[:, None, :]
        return cls(blocks, int(arrays["rows"]))

    @property
    def root_mean_square(self) -> Array:
        """[K]"""
        diagonal = np.diagonal(self.blocks, axis1=1, axis2=2).reshape(-1)
        rms: Array = np.sqrt(np.maximum(diagonal, 0) / max(self.rows, 1)).astype(np.float32)
        return rms

    def error(self, difference: Array) -> float:
        """Squared output error of weights that are off by `difference` [K, N]."""
        parts = difference.reshape(len(self.blocks), -1, difference.shape[1])
        return float((np.matmul(self.blocks, parts) * parts).sum(dtype=np.float64))
