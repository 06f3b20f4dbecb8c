"""What the values of a series look like, gathered while its slices are decoded one by one."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.slicing.volume import Modality, Problem

LOWEST_HU, HIGHEST_HU = -1024, 3071
"""Ends of the histogram of a CT; values beyond are counted at the ends."""


class ValueStatistics:
    """Range and, for a CT, histogram of all values seen, and what their decoder found wrong."""

    def __init__(self, modality: Modality) -> None:
        """Nothing seen yet."""
        self._is_ct = modality is Modality.CT
        self._lowest, self._highest = np.inf, -np.inf
        self._problems: dict[Problem, None] = {}
        self.counts: NDArray[np.int64] = np.zeros(HIGHEST_HU - LOWEST_HU + 1, dtype=np.int64)
        """[4096]: voxels of a CT by Hounsfield unit, from `LOWEST_HU` on."""

    @property
    def range(self) -> tuple[float, float] | None:
        """Lowest and highest value; None before there were any."""
        return None if np.isinf(self._lowest) else (self._lowest, self._highest)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What the decoder found wrong, each once."""
        return tuple(self._problems)

    def add(self, values: NDArray[np.float32], problems: Iterable[Problem] = ()) -> None:
        """Take some slices [N, rows, columns] into account."""
        self._lowest = min(self._lowest, float(values.min()))
        self._highest = max(self._highest, float(values.max()))
        self._problems.update(dict.fromkeys(problems))
        if self._is_ct:
            units = np.clip(np.rint(values), LOWEST_HU, HIGHEST_HU).astype(np.int32) - LOWEST_HU
            self.counts += np.bincount(units.ravel(), minlength=len(self.counts))
