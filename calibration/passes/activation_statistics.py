"""Statistics of the activations that pass by: bounded, however many slices there are."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.errors import EngineError

Array = NDArray[np.float32]

SAMPLE_ROWS = 1024
"""Rows of a linear layer's input that are kept to try ranges on."""


class InputStatistics:
    """The input of one linear layer: largest magnitudes and a sample."""

    def __init__(self, width: int, seed: int) -> None:
        self.largest: Array = np.zeros(width, np.float32)
        self._rows: list[Array] = []
        self._generator = np.random.default_rng(seed)

    def update(self, x: Array, share: int) -> None:
        """Take rows x [R, K], `share` of them into the sample."""
        self.largest = np.maximum(self.largest, np.abs(x).max(axis=0))
        picked = self._generator.choice(len(x), min(share, len(x)), replace=False)
        self._rows.append(x[picked])

    @property
    def rows(self) -> Array:
        """[R, K], at most about SAMPLE_ROWS"""
        return np.concatenate(self._rows)


class Peaks:
    """Largest magnitude of every value of a graph."""

    def __init__(self) -> None:
        self.by_name: dict[str, float] = {}

    def update(self, values: Mapping[str, NDArray[np.generic]]) -> None:
        """Take values of one run.

        Raises:
            EngineError: a value is not finite.
        """
        for name, value in values.items():
            if not value.size:
                continue
            peak = max(float(value.max()), -float(value.min()))
            if not np.isfinite(peak):
                raise EngineError(
                    f"the engine computes numbers that are not finite at '{name}'; its weights are "
                    "damaged or overflow: export it again from the original checkpoint as fp32"
                )
            self.by_name[name] = max(self.by_name.get(name, 0.0), peak)
