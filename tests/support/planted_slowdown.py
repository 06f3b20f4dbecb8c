"""`edge-medgemma benchmark` of a build whose vision tower takes a fifth longer: a baseline must see it.

python tests/planted_slowdown.py --synthetic 4b --baseline today.json
"""

import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.backends.base import VisionModel
from edge_medgemma.runtime.backends.select import OpenedVision
from edge_medgemma.runtime.cli import main
from edge_medgemma.runtime.generation import engine

SLOWDOWN = 0.2

open_vision = engine.open_vision


class SlowVision:
    """A vision model that is busy for a fifth longer than the one it wraps."""

    def __init__(self, model: VisionModel) -> None:
        self._model = model
        self.batch = model.batch

    def run(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `VisionModel.run`."""
        start_s = time.perf_counter()
        features = self._model.run(pixel_values)
        stop_s = time.perf_counter()
        while time.perf_counter() < stop_s + SLOWDOWN * (stop_s - start_s):
            pass
        return features


def open_slow_vision(*arguments: Any) -> OpenedVision:
    """`open_vision`, and slower."""
    opened = open_vision(*arguments)
    return replace(opened, model=SlowVision(opened.model))


if __name__ == "__main__":
    engine.open_vision = open_slow_vision
    sys.argv.insert(1, "benchmark")
    main()
