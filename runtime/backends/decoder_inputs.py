"""Inputs of decoder.onnx for one chunk, in each dialect."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.backends.base import AttentionKind, Caches


def chunk_feeds(
    dialect: str,
    caches: Caches,
    embeddings: NDArray[np.float32],
    position_ids: NDArray[np.int64],
    mask_global: NDArray[np.float32],
    mask_local: NDArray[np.float32],
    logit_rows: NDArray[np.int64],
) -> dict[str, NDArray[np.generic]]:
    """Arguments of `DecoderModel.run` by tensor name, C-contiguous; `dialect` is `ort` or `trt`.

    Raises:
        ValueError: the chunk does not fit the caches.
    """
    masks: dict[AttentionKind, NDArray[np.float32]] = {"global": mask_global, "local": mask_local}
    capacity: dict[AttentionKind, int] = {
        attention: caches.capacity(attention) for attention in masks
    }
    feeds = {
        "embeddings": embeddings[None],
        "position_ids": position_ids[None],
        **cache_feeds(dialect, masks, capacity),
        "logit_rows": logit_rows,
    }
    return {name: np.ascontiguousarray(value) for name, value in feeds.items()}


def cache_feeds(
    dialect: str,
    masks: Mapping[AttentionKind, NDArray[np.float32]],
    capacity: Mapping[AttentionKind, int],
) -> dict[str, NDArray[np.generic]]:
    """Masks, and where the chunk lies in the caches; see the contract in `runtime.manifest`.

    Args:
        dialect: `ort` or `trt`
        masks: additive, [1, 1, S, T], T rows in use after the write
        capacity: rows of the caches, at least T

    Raises:
        ValueError: T rows do not fit the capacity.
    """
    feeds: dict[str, NDArray[np.generic]] = {}
    for attention, mask in masks.items():
        tokens, total = mask.shape[-2:]
        if dialect == "ort":
            feeds[f"mask_{attention}"] = mask
            feeds[f"seqlen_{attention}"] = np.array([total - 1], np.int32)
            feeds[f"total_{attention}"] = np.array(total, np.int32)
            continue
        if total > capacity[attention]:
            raise ValueError(f"{total} rows do not fit {attention} caches of {capacity[attention]}")
        visible = np.zeros((1, 1, tokens, capacity[attention]), np.bool_)
        visible[..., :total] = mask == 0
        feeds[f"mask_{attention}"] = visible
        feeds[f"write_{attention}"] = np.array([total - tokens], np.int64)
    return feeds
