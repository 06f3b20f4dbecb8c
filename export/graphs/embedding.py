"""The token embedding as raw rows that the runtime maps into memory."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edge_medgemma.export.checkpoint.checkpoint import TILE_OUTPUTS, Tensor
from edge_medgemma.export.graphs.rounding import quantize_blocks
from edge_medgemma.export.graphs.weights import SLAB_BYTES, Initializer, WeightBlob

DATA_NAME = "embedding.data"
SCALE_NAME = "embedding_scale.data"


def embedding_blobs(embedding: Tensor, kind: str) -> dict[str, WeightBlob]:
    """File name -> contents: [V, H] float32, float16 or int8 and, for int8, [V] float32 scales.

    row = integers * scale; the embedding scale of the model is not in it. Write the files in this
    order: the scales are known when the rows have been read.
    """
    vocabulary, hidden_size = embedding.shape
    if kind == "fp32":
        rows = Initializer("embedding", ir.DataType.FLOAT, embedding.shape)
        return {DATA_NAME: WeightBlob((rows,), lambda: _slabs(embedding))}
    if kind == "fp16":
        rows = Initializer("embedding", ir.DataType.FLOAT16, embedding.shape)
        return {
            DATA_NAME: WeightBlob(
                (rows,), lambda: (s.astype(np.float16) for s in _slabs(embedding))
            )
        }
    scales: list[NDArray[np.float32]] = []

    def integers() -> Iterator[NDArray[np.generic]]:
        scales.clear()
        for slab in _slabs(embedding):
            quantized, scale = quantize_blocks(slab, kind, hidden_size)
            scales.append(scale[:, 0].copy())
            yield quantized

    rows = Initializer("embedding", ir.DataType.INT8, embedding.shape)
    scale = Initializer("embedding_scale", ir.DataType.FLOAT, (vocabulary,))
    return {
        DATA_NAME: WeightBlob((rows,), integers),
        SCALE_NAME: WeightBlob((scale,), lambda: iter(scales)),
    }


def _slabs(embedding: Tensor) -> Iterator[NDArray[np.float32]]:
    vocabulary, hidden_size = embedding.shape
    height = max(SLAB_BYTES // (4 * hidden_size) // TILE_OUTPUTS, 1) * TILE_OUTPUTS
    for start in range(0, vocabulary, height):
        yield embedding.read(slice(start, min(start + height, vocabulary)))
