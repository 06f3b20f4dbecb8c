"""Which slices of a long stack the model gets."""

import numpy as np
from numpy.typing import NDArray

MAX_SLICES = 85
"""MAX_SLICE of Google's notebook high_dimensional_ct_hugging_face.ipynb (google-health/medgemma)."""


def sample_slices(count: int, maximum: int = MAX_SLICES) -> NDArray[np.int64]:
    """Indices [min(count, maximum)] into a stack of `count` slices, ascending, as Google samples.

    All of them if they fit; else round(i / maximum · (count − 1)) for i = 1..maximum, which leaves
    out the first slice and keeps the last.

    Raises:
        ValueError: `count` or `maximum` is below 1.
    """
    if count < 1 or maximum < 1:
        raise ValueError(f"slices to sample from {count} and at most {maximum}: both must be >= 1")
    if count <= maximum:
        return np.arange(count, dtype=np.int64)
    picks = [round(i / maximum * (count - 1)) for i in range(1, maximum + 1)]
    return np.array(picks, dtype=np.int64)
