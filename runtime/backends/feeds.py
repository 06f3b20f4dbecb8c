"""Inputs of decoder.onnx that say where a chunk lies in the caches, in each dialect's spelling."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.backends.model import LaneName


def cache_feeds(
    dialect: str, masks: Mapping[LaneName, NDArray[np.float32]], capacity: Mapping[LaneName, int]
) -> dict[str, NDArray[np.generic]]:
    """Masks and places by tensor name; see the contract in `runtime.manifest`.

    Args:
        dialect: `ort` or `trt`
        masks: additive, [1, 1, S, T], T rows in use after the write
        capacity: rows of the caches, at least T

    Raises:
        ValueError: T rows do not fit the capacity.
    """
    feeds: dict[str, NDArray[np.generic]] = {}
    for lane, mask in masks.items():
        tokens, total = mask.shape[-2:]
        if dialect == "ort":
            feeds[f"mask_{lane}"] = mask
            feeds[f"seqlen_{lane}"] = np.array([total - 1], np.int32)
            feeds[f"total_{lane}"] = np.array(total, np.int32)
            continue
        if total > capacity[lane]:
            raise ValueError(f"{total} rows do not fit {lane} caches of {capacity[lane]}")
        visible = np.zeros((1, 1, tokens, capacity[lane]), np.bool_)
        visible[..., :total] = mask == 0
        feeds[f"mask_{lane}"] = visible
        feeds[f"write_{lane}"] = np.array([total - tokens], np.int64)
    return feeds
