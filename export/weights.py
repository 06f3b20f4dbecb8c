"""Weights on their way to a file: linear maps read in slabs, quantised, and never held whole.

Quantisation is symmetric round-to-nearest in blocks along the input axis: one float32 scale for
`block_size` rows of a column, value = scale * integer. The integers are laid out [K, N] as
DequantizeLinear(axis=0) wants them, the only layout that onnxruntime and TensorRT both fuse.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edge_medgemma.export.checkpoint import Tensor
from edge_medgemma.runtime.errors import CheckpointError

SLAB_BYTES = 1 << 26
"""Float32 bytes of a matrix that are in memory at once."""

TILE_COLUMNS = 128
"""Slabs are multiples of it: 256 bytes of a bfloat16 row, and a column of a synthetic tensor."""

LARGEST = {"int8": 127, "int4": 7}
"""Symmetric ranges: -128 and -8 stay unused, so that a zero-mean weight keeps its sign."""

DTYPES = {"int8": ir.DataType.INT8, "int4": ir.DataType.INT4}


@dataclass(frozen=True, slots=True)
class Storage:
    """How the weights of one part are kept."""

    kind: str
    """`fp32`, `int8` or `int4`"""
    block_size: int
    """Rows that share a scale; 0 for fp32."""


FLOAT32 = Storage("fp32", 0)


@dataclass(frozen=True, slots=True)
class Matrix:
    """A linear map y = x @ matrix, read in slabs of rows."""

    name: str
    rows: int
    """K, the input axis"""
    columns: int
    """N, the output axis"""
    read: Callable[[int, int], NDArray[np.float32]]
    """Rows [start, stop) as float32 [stop - start, N]."""


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
class Payload:
    """Initializers made by one pass over the weights, in the order of the file."""

    initializers: tuple[Initializer, ...]
    pieces: Callable[[], Iterator[NDArray[np.generic]]]
    """The bytes of all of them, one after the other, in C-contiguous pieces; no piece holds bytes
    of two."""


def transposed(name: str, *weights: Tensor) -> Matrix:
    """The linear map of stored weights [N, K] side by side: y = x @ concat(weightsᵀ)."""
    rows = weights[0].shape[1]

    def read(start: int, stop: int) -> NDArray[np.float32]:
        columns = [weight.read(slice(None), slice(start, stop)) for weight in weights]
        return np.ascontiguousarray(np.concatenate(columns).T)

    return Matrix(name, rows, sum(weight.shape[0] for weight in weights), read)


def array_payload(name: str, array: NDArray[np.float32]) -> Payload:
    """A float32 tensor that is in memory already."""
    contiguous = np.ascontiguousarray(array, dtype=np.float32)
    initializer = Initializer(name, ir.DataType.FLOAT, contiguous.shape)
    return Payload((initializer,), lambda: iter([contiguous]))


def matrix_payload(matrix: Matrix, storage: Storage) -> Payload:
    """The matrix [K, N] as `storage` says: float32, or integers and scales [K / block, N].

    Raises:
        CheckpointError: the block size does not divide the matrix's rows.
    """
    shape = (matrix.rows, matrix.columns)
    if storage.kind == "fp32":
        initializer = Initializer(matrix.name, ir.DataType.FLOAT, shape)
        return Payload((initializer,), lambda: _slabs(matrix, 1))
    if matrix.rows % storage.block_size:
        raise CheckpointError(
            f"'{matrix.name}' has {matrix.rows} rows, which blocks of {storage.block_size} do not "
            "divide; choose a smaller --block-size or --weights fp32"
        )
    initializers = (
        Initializer(f"{matrix.name}.quantized", DTYPES[storage.kind], shape),
        Initializer(
            f"{matrix.name}.scale",
            ir.DataType.FLOAT,
            (matrix.rows // storage.block_size, matrix.columns),
        ),
    )
    return Payload(initializers, lambda: _quantized_pieces(matrix, storage))


def quantize_blocks(
    values: NDArray[np.float32], kind: str, block_size: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Integers [K, N] and scales [K / block_size, N] of `values` [K, N]; a zero block has scale 1."""
    rows, columns = values.shape
    blocks = values.reshape(rows // block_size, block_size, columns)
    largest = np.maximum(blocks.max(axis=1), -blocks.min(axis=1))
    scale = np.where(largest > 0, largest / np.float32(LARGEST[kind]), np.float32(1))
    # A subnormal largest value rounds its scale to zero or so: clip what the division then gives.
    scale = np.maximum(scale, np.finfo(np.float32).tiny)
    scaled = blocks / scale[:, None, :]
    np.rint(scaled, out=scaled)
    np.clip(scaled, -LARGEST[kind], LARGEST[kind], out=scaled)
    return scaled.astype(np.int8).reshape(rows, columns), scale


def pack_int4(values: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Two's complement halves of `values` [K, N], N even: column 0 low, column 1 high, ..."""
    halves = values.view(np.uint8)
    packed = (halves[:, 1::2] << np.uint8(4)) | (halves[:, 0::2] & np.uint8(0x0F))
    return packed.astype(np.uint8, copy=False)


def _quantized_pieces(matrix: Matrix, storage: Storage) -> Iterator[NDArray[np.generic]]:
    scales = []
    for slab in _slabs(matrix, storage.block_size):
        integers, scale = quantize_blocks(slab, storage.kind, storage.block_size)
        scales.append(scale)
        yield pack_int4(integers) if storage.kind == "int4" else integers
    yield from scales


def _slabs(matrix: Matrix, multiple: int) -> Iterator[NDArray[np.float32]]:
    """The rows of `matrix` in order, about SLAB_BYTES at a time, in multiples of `multiple`."""
    multiple = math.lcm(multiple, TILE_COLUMNS)
    height = max(SLAB_BYTES // (4 * matrix.columns) // multiple, 1) * multiple
    for start in range(0, matrix.rows, height):
        yield matrix.read(start, min(start + height, matrix.rows))
