"""How a chunk is cut into passes of the decoder."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.generation.masks import NO_IMAGE
from edge_medgemma.runtime.memory.cache_geometry import MAX_PREFILL_ROWS


def passes(images: NDArray[np.int64]) -> Iterator[slice]:
    """Parts of at most MAX_PREFILL_ROWS tokens, cut outside images (an image may exceed it).

    Args:
        images: number of the image of each token, NO_IMAGE for text
    """
    start = 0
    while start < len(images):
        stop = min(start + MAX_PREFILL_ROWS, len(images))
        while start < stop < len(images) and images[stop] != NO_IMAGE:
            if images[stop] != images[stop - 1]:
                break
            stop -= 1
        if stop == start:
            after = np.flatnonzero(images[start:] != images[start])
            stop = start + int(after[0]) if len(after) else len(images)
        yield slice(start, stop)
        start = stop
