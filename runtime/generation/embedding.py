"""The embedding table, left on disk: only the rows that a prompt uses are read."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.manifest import Manifest

TABLE_NAME = "embedding.data"
"""[vocabulary, hidden], int8 or float32 little-endian, row-major"""
SCALE_NAME = "embedding_scale.data"
"""[vocabulary] float32, present where the table is int8"""


class Embedding:
    """Rows of the memory-mapped table, scaled as the model expects them."""

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        text = manifest.text
        shape = (text.vocabulary, text.hidden_size)
        self._embed_scale = np.float32(text.embed_scale)
        self._scale: NDArray[np.float32] | None = None
        path = directory / TABLE_NAME
        if manifest.precision.embedding == "int8":
            self._table = np.memmap(path, np.int8, "r", shape=shape)
            self._scale = np.memmap(directory / SCALE_NAME, "<f4", "r", shape=shape[:1])
        else:
            self._table = np.memmap(path, "<f4", "r", shape=shape)

    def rows(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """[len(ids), hidden]: table rows times `embed_scale`."""
        index = np.asarray(ids, np.int64)
        rows: NDArray[np.float32] = self._table[index].astype(np.float32)
        if self._scale is not None:
            rows *= self._scale[index, None]
        rows *= self._embed_scale
        return rows
