"""The head as two planes of 4 bits: both together are its int8 weights, the first alone a draft of them.

weight = scale * integer, with one bfloat16 scale for `block_size` inputs of an output, and
integer + PLANES_ZERO a byte: its upper half is in the high plane, its lower half in the low one. With
MatMulNBits' own zero point of 8 the integer is 16 * high + low.
"""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edge_medgemma.export.checkpoint.checkpoint import TILE_OUTPUTS
from edge_medgemma.export.graphs.weights import (
    Initializer,
    Matrix,
    WeightBlob,
    WeightFormat,
    check_blocks,
    slabs,
)
from edge_medgemma.runtime.bfloat16 import bfloat16_bits, rounded_to_bfloat16
from edge_medgemma.runtime.generation.embedding import PLANES_ZERO

LOWEST, HIGHEST = -PLANES_ZERO, 255 - PLANES_ZERO


def planes_blob(matrix: Matrix, weight_format: WeightFormat) -> WeightBlob:
    """The planes as MatMulNBits takes them: uint8 [N, K / block, block / 2] each, then the scales.

    The weights are read once for each plane, so that neither is held whole. Scales are bfloat16
    [N, K / block], those of both planes.

    Raises:
        CheckpointError: the block size does not divide the matrix's inputs.
    """
    check_blocks(matrix, weight_format)
    block_size = weight_format.block_size

    def quantized() -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
        for outputs in slabs(matrix.outputs, matrix.inputs, TILE_OUTPUTS):
            values = matrix.read(outputs, slice(0, matrix.inputs))
            yield quantize_bytes(values, block_size)

    def pieces() -> Iterator[NDArray[np.generic]]:
        scales = []
        for integers, scale in quantized():
            scales.append(bfloat16_bits(scale))
            yield split_planes(integers)[0]
        for integers, _ in quantized():
            yield split_planes(integers)[1]
        yield from scales

    blocks = (matrix.outputs, matrix.inputs // block_size)
    plane = (*blocks, block_size // 2)
    initializers = (
        Initializer(f"{matrix.name}.high", ir.DataType.UINT8, plane),
        Initializer(f"{matrix.name}.low", ir.DataType.UINT8, plane),
        Initializer(f"{matrix.name}.scales", ir.DataType.BFLOAT16, blocks),
    )
    return WeightBlob(initializers, pieces)


def quantize_bytes(
    values: NDArray[np.float32], block_size: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Integers plus PLANES_ZERO [N, K] and scales [N, K / block_size] of `values` [N, K].

    Integers reach further below zero than above, so a scale is negative where the block's largest
    weight is positive: the step is then smaller. A zero block has scale 1.
    """
    outputs, inputs = values.shape
    blocks = values.reshape(outputs, inputs // block_size, block_size)
    above, below = np.maximum(blocks.max(axis=2), 0), np.maximum(-blocks.min(axis=2), 0)
    upright = np.maximum(above / np.float32(HIGHEST), below / np.float32(-LOWEST))
    turned = np.maximum(above / np.float32(-LOWEST), below / np.float32(HIGHEST))
    scale = np.where(upright <= turned, upright, -turned)
    scale = np.where(scale == 0, np.float32(1), scale)
    # A subnormal block rounds its scale to zero or so: clip what the division then gives.
    scale = np.copysign(np.maximum(np.abs(scale), np.finfo(np.float32).tiny), scale)
    scale = rounded_to_bfloat16(scale)
    scaled = blocks / scale[:, :, None]
    np.rint(scaled, out=scaled)
    np.clip(scaled, LOWEST, HIGHEST, out=scaled)
    scaled += PLANES_ZERO
    return scaled.astype(np.uint8).reshape(outputs, inputs), scale


def split_planes(integers: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """High and low plane [N, K / 2] of bytes [N, K]: two columns a byte, the first in the low half."""
    even, odd = integers[:, 0::2], integers[:, 1::2]
    four, lower, upper = np.uint8(4), np.uint8(0x0F), np.uint8(0xF0)
    return (even >> four) | (odd & upper), (even & lower) | (odd << four)
