"""Weights on their way to a file: linear layers read in slabs, quantised, and never held whole.

Quantisation is in blocks along the input axis, one scale for `block_size` inputs of an output;
`rounding` chooses scales and integers.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edge_medgemma.export.checkpoint.checkpoint import TILE_INPUTS, TILE_OUTPUTS, Tensor
from edge_medgemma.export.graphs.rounding import BITS, quantize_blocks
from edge_medgemma.runtime.bfloat16 import bfloat16_bits
from edge_medgemma.runtime.errors import CheckpointError

SLAB_BYTES = 1 << 26
"""Float32 bytes of a matrix that are in memory at once."""

Quantizer = Callable[[NDArray[np.float32]], tuple[NDArray[np.int8], NDArray[np.float32]]]
"""Function of a whole matrix [N, K] to integers [N, K] and scales [N, K / block_size]."""


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """Storage of a linear layer's weights, and the arithmetic that goes with it."""

    kind: str
    """`fp32`, `fp16`, `bf16`, `int8` or `int4`; the first three differ in the whole graph's type"""
    block_size: int
    """Rows that share a scale; 0 for fp32."""
    input_scale: float | None = None
    """Scale of the layer's input where that is int8 as well; the weights then have one per output."""
    shared_file: str | None = None
    """Data file that the embedding reads too; None for the graph's own."""
    quantizer: Quantizer | None = None
    """Chooses the integers of a whole matrix; None rounds slab by slab."""
    is_signed: bool = True
    """Whether a scale may be negative, which gives 4 bits one more value; TensorRT takes none."""
    is_searched: bool = True
    """Whether several scales are tried where no quantizer chooses; random weights need none."""
    scale_kind: str = "fp32"
    """`fp32`, or `bf16`, which holds them as exactly"""


FLOAT32 = WeightFormat("fp32", 0)

WeightFormatOf = Callable[[str], WeightFormat]
"""The format of a linear layer by its name."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """A linear layer from K inputs to N outputs, read piece by piece."""

    name: str
    inputs: int
    outputs: int
    read: Callable[[slice, slice], NDArray[np.float32]]
    """Weights of some outputs and some inputs, float32 [outputs, inputs]; bounds are explicit."""


@dataclass(frozen=True, slots=True)
class Initializer:
    """Name, dtype and shape of a tensor that a graph takes from its data file."""

    name: str
    dtype: ir.DataType
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Bytes in the file; INT4 packs two elements to a byte, the first in the low half."""
        return (int(np.prod(self.shape)) * self.dtype.bitwidth + 7) // 8


@dataclass(frozen=True, slots=True)
class WeightBlob:
    """Initializers made by one pass over the weights, in the order of the file."""

    initializers: tuple[Initializer, ...]
    pieces: Callable[[], Iterator[NDArray[np.generic]]]
    """The bytes of all of them, one after the other, in C-contiguous pieces; no piece holds bytes
    of two."""


def stacked(name: str, *weights: Tensor) -> Matrix:
    """The linear layer of stored weights [N, K], their outputs one after the other."""
    inputs = weights[0].shape[1]
    ends = np.cumsum([weight.shape[0] for weight in weights]).tolist()

    def read(outputs: slice, some_inputs: slice) -> NDArray[np.float32]:
        parts = []
        for weight, end in zip(weights, ends, strict=True):
            begin = end - weight.shape[0]
            start, stop = max(outputs.start, begin), min(outputs.stop, end)
            if start < stop:
                parts.append(weight.read(slice(start - begin, stop - begin), some_inputs))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    return Matrix(name, inputs, ends[-1], read)


def array_blob(name: str, array: NDArray[np.float32]) -> WeightBlob:
    """A float32 tensor that is in memory already."""
    contiguous = np.ascontiguousarray(array, dtype=np.float32)
    initializer = Initializer(name, ir.DataType.FLOAT, contiguous.shape)
    return WeightBlob((initializer,), lambda: iter([contiguous]))


def dense_blob(matrix: Matrix) -> WeightBlob:
    """The matrix as float32 [K, N], the right-hand side of MatMul."""

    def pieces() -> Iterator[NDArray[np.generic]]:
        for inputs in slabs(matrix.inputs, matrix.outputs, TILE_INPUTS):
            yield np.ascontiguousarray(matrix.read(slice(0, matrix.outputs), inputs).T)

    shape = (matrix.inputs, matrix.outputs)
    return WeightBlob((Initializer(matrix.name, ir.DataType.FLOAT, shape),), pieces)


def blocks_blob(matrix: Matrix, weight_format: WeightFormat) -> WeightBlob:
    """The matrix as MatMulNBits takes it: uint8 [N, K / block, bytes] and scales [N, K / block].

    Raises:
        CheckpointError: the block size does not divide the matrix's inputs.
    """
    check_blocks(matrix, weight_format)
    is_narrow = weight_format.scale_kind == "bf16"

    def pieces() -> Iterator[NDArray[np.generic]]:
        scales: list[NDArray[np.generic]] = []
        for integers, scale in quantized_slabs(matrix, weight_format, TILE_OUTPUTS):
            scales.append(bfloat16_bits(scale) if is_narrow else scale)
            yield pack_unsigned(integers, weight_format.kind)
        yield from scales

    blocks = matrix.inputs // weight_format.block_size
    block_bytes = weight_format.block_size * BITS[weight_format.kind] // 8
    initializers = (
        Initializer(
            f"{matrix.name}.blocks", ir.DataType.UINT8, (matrix.outputs, blocks, block_bytes)
        ),
        Initializer(
            f"{matrix.name}.scales",
            ir.DataType.BFLOAT16 if is_narrow else ir.DataType.FLOAT,
            (matrix.outputs, blocks),
        ),
    )
    return WeightBlob(initializers, pieces)


def check_blocks(matrix: Matrix, weight_format: WeightFormat) -> None:
    """Refuse a matrix that the blocks do not divide.

    Raises:
        CheckpointError: the block size does not divide the matrix's inputs.
    """
    if matrix.inputs % weight_format.block_size:
        raise CheckpointError(
            f"'{matrix.name}' has {matrix.inputs} inputs, which blocks of {weight_format.block_size} do "
            "not divide; choose a smaller --block-size or --precision fp32"
        )


def quantized_slabs(
    matrix: Matrix, weight_format: WeightFormat, multiple: int
) -> Iterator[tuple[NDArray[np.int8], NDArray[np.float32]]]:
    """Integers [outputs, K] and scales [outputs, K / block] of consecutive outputs."""
    if weight_format.quantizer is not None:
        yield weight_format.quantizer(
            matrix.read(slice(0, matrix.outputs), slice(0, matrix.inputs))
        )
        return
    for outputs in slabs(matrix.outputs, matrix.inputs, multiple):
        yield _quantized(matrix.read(outputs, slice(0, matrix.inputs)), weight_format)


def quantized_columns(
    matrix: Matrix, weight_format: WeightFormat
) -> Iterator[tuple[NDArray[np.int8], NDArray[np.float32]]]:
    """Integers [N, inputs] and scales [N, inputs / block] of consecutive inputs."""
    if weight_format.quantizer is not None:
        yield weight_format.quantizer(
            matrix.read(slice(0, matrix.outputs), slice(0, matrix.inputs))
        )
        return
    for inputs in slabs(matrix.inputs, matrix.outputs, TILE_INPUTS):
        yield _quantized(matrix.read(slice(0, matrix.outputs), inputs), weight_format)


def _quantized(
    values: NDArray[np.float32], weight_format: WeightFormat
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    return quantize_blocks(
        values,
        weight_format.kind,
        weight_format.block_size,
        is_signed=weight_format.is_signed,
        is_searched=weight_format.is_searched,
    )


def pack_unsigned(integers: NDArray[np.int8], kind: str) -> NDArray[np.uint8]:
    """`integers` [N, K] raised by half their range; of two 4-bit ones the first in the low half."""
    raised = integers.view(np.uint8) + np.uint8(2 ** (BITS[kind] - 1))
    if kind == "int8":
        return raised
    packed: NDArray[np.uint8] = raised[:, 0::2] | (raised[:, 1::2] << np.uint8(4))
    return packed


def unpack_unsigned(packed: NDArray[np.uint8], kind: str) -> NDArray[np.int8]:
    """Integers [N, K] from what `pack_unsigned` made of them."""
    if kind == "int4":
        halves = np.stack([packed & np.uint8(0x0F), packed >> np.uint8(4)], axis=-1)
        packed = halves.reshape(len(packed), -1)
    return (packed - np.uint8(2 ** (BITS[kind] - 1))).view(np.int8)


def slabs(length: int, width: int, multiple: int) -> Iterator[slice]:
    """Slices over `length` rows of `width` float32, SLAB_BYTES or one `multiple` at a time."""
    height = max(SLAB_BYTES // (4 * width) // multiple, 1) * multiple
    for start in range(0, length, height):
        yield slice(start, min(start + height, length))
