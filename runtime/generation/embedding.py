"""The embedding table, left on disk: only the rows that a prompt uses are read."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.bfloat16 import float32_of
from edge_medgemma.runtime.errors import EngineError
from edge_medgemma.runtime.manifest import Manifest

TABLE_NAME = "embedding.data"
"""[vocabulary, hidden], row-major: int8 or little-endian float; or the head's own weights, then scales
[vocabulary, hidden / head_block_size]. Those weights are bytes with zero at 128 and float32 scales or,
where the head has a draft, two planes [vocabulary, hidden / 2] one after the other and bfloat16 scales.
All begin at a page."""
PLANES_ZERO = 136
"""Zero point of a head in planes. A byte's upper half is in the high plane, its lower half in the low
one; in a plane two columns share a byte, the first in its low half."""

PAGE_BYTES = 4096
"""Alignment of every tensor of an engine's data files."""

SCALE_NAME = "embedding_scale.data"
"""[vocabulary] float32, present where the table is int8"""


class Embedding:
    """Rows of the memory-mapped table, scaled as the model expects them."""

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        """Map the files of an engine directory.

        Raises:
            EngineError: their sizes are not those of a table of this vocabulary and width.
        """
        text = manifest.text
        shape = (text.vocabulary, text.hidden_size)
        self._embed_scale = np.float32(text.embed_scale)
        self._scale: NDArray[np.float32] | None = None
        self._bfloat16_scale: NDArray[np.uint16] | None = None
        self._low_plane: NDArray[np.uint8] | None = None
        self._zero = np.float32(0)
        path = directory / TABLE_NAME
        kind = manifest.precision.embedding
        _check_sizes(manifest)
        if kind == "head":
            blocks = (text.vocabulary, text.hidden_size // manifest.precision.head_block_size)
            planes, width = _head_planes(manifest)
            size = text.vocabulary * width
            self._table = np.memmap(path, np.uint8, "r", shape=(text.vocabulary, width))
            self._zero = np.float32(128)
            if planes == 2:
                offset = _page_aligned(size)
                self._low_plane = np.memmap(path, np.uint8, "r", offset, self._table.shape)
                self._zero = np.float32(PLANES_ZERO)
                self._bfloat16_scale = np.memmap(
                    path, "<u2", "r", planes * _page_aligned(size), blocks
                )
            else:
                self._scale = np.memmap(path, "<f4", "r", _page_aligned(size), blocks)
        elif kind == "int8":
            self._table = np.memmap(path, np.int8, "r", shape=shape)
            self._scale = np.memmap(directory / SCALE_NAME, "<f4", "r", shape=(shape[0], 1))
        else:
            self._table = np.memmap(path, "<f2" if kind == "fp16" else "<f4", "r", shape=shape)

    def rows(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """[len(ids), hidden]: table rows times `embed_scale`."""
        index = np.asarray(ids, np.int64)
        stored = self._table[index]
        if self._low_plane is not None:
            stored = join_planes(stored, self._low_plane[index])
        rows: NDArray[np.float32] = stored.astype(np.float32)
        scale = self._scales(index)
        if scale is not None:
            rows -= self._zero
            rows *= np.repeat(scale, rows.shape[1] // scale.shape[1], axis=1)
        rows *= self._embed_scale
        return rows

    def _scales(self, index: NDArray[np.int64]) -> NDArray[np.float32] | None:
        if self._bfloat16_scale is not None:
            return float32_of(self._bfloat16_scale[index])
        return None if self._scale is None else self._scale[index]


def join_planes(high: NDArray[np.uint8], low: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bytes [n, H] of a head's rows, PLANES_ZERO for 0, from both planes [n, H / 2]."""
    joined = np.empty((len(high), 2 * high.shape[1]), np.uint8)
    joined[:, 0::2] = (high << 4) | (low & 0x0F)
    joined[:, 1::2] = (high & 0xF0) | (low >> 4)
    return joined


def head_scale_bytes(manifest: Manifest) -> int:
    """Of all scales of a head whose weights the table holds, and of any head in planes."""
    cells = manifest.text.vocabulary * manifest.text.hidden_size
    size = 4 if manifest.precision.draft_head is None else 2
    return cells // manifest.precision.head_block_size * size


def _head_planes(manifest: Manifest) -> tuple[int, int]:
    """Planes of the head's weights in the table, and bytes of a row of each."""
    width = manifest.text.hidden_size
    return (1, width) if manifest.precision.draft_head is None else (2, width // 2)


def _page_aligned(size: int) -> int:
    return -(-size // PAGE_BYTES) * PAGE_BYTES


def _check_sizes(manifest: Manifest) -> None:
    """Refuse files that are not as large as the table: their rows would be others'."""
    text, precision = manifest.text, manifest.precision
    cells = text.vocabulary * text.hidden_size
    expected = {TABLE_NAME: cells * {"fp32": 4, "fp16": 2}.get(precision.embedding, 1)}
    if precision.embedding == "head":
        planes, width = _head_planes(manifest)
        begin = planes * _page_aligned(text.vocabulary * width)
        expected[TABLE_NAME] = begin + head_scale_bytes(manifest)
    if precision.embedding == "int8":
        expected[SCALE_NAME] = text.vocabulary * 4
    for name, size in expected.items():
        found = manifest.files[name].bytes if name in manifest.files else 0
        if found != size:
            raise EngineError(
                f"{name} has {found} bytes, {text.vocabulary} rows of {text.hidden_size} take {size}; "
                "export the engine again"
            )
