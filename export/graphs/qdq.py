"""Quantised linear layers in standard ONNX operators, which TensorRT and OpenVINO read as well.

All grids are symmetric around zero: TensorRT refuses any zero point.
"""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edge_medgemma.export.graphs.graph import GraphBuilder
from edge_medgemma.export.graphs.rounding import quantize_blocks
from edge_medgemma.export.graphs.weights import (
    Initializer,
    Matrix,
    WeightBlob,
    WeightFormat,
    check_blocks,
    quantized_columns,
)

DTYPES = {"int8": ir.DataType.INT8, "int4": ir.DataType.INT4}


def quantized_input_linear(
    graph: GraphBuilder, x: ir.Value, matrix: Matrix, input_scale: float
) -> ir.Value:
    """x @ matrix with both sides in int8: one scale for x, one scale for each output's weights.

    onnxruntime makes MatMulIntegerToFloat of it, TensorRT an int8 matrix product.
    """
    name = matrix.name
    scale = graph.constant(f"{name}.input_scale", np.array(input_scale, np.float32))
    zero = graph.constant("activation_zero_point", np.array(0, np.int8))
    integers = graph.node("QuantizeLinear", [x, scale, zero], name=f"{name}.input_quantized")
    rounded = graph.node(
        "DequantizeLinear", [integers, scale, zero], name=f"{name}.input_dequantized"
    )
    stored = graph.stored(_columns_blob(matrix))
    weight = graph.node("DequantizeLinear", stored, {"axis": 1}, name=f"{name}.dequantized")
    return graph.node("MatMul", [rounded, weight], name=f"{name}.product")


def quantized_weight_linear(
    graph: GraphBuilder, x: ir.Value, matrix: Matrix, weight_format: WeightFormat
) -> ir.Value:
    """x @ matrix with int4 or int8 weights in blocks of `weight_format.block_size` inputs.

    [K, N] with blocks along axis 0 is the one layout that onnxruntime and TensorRT both fuse.
    """
    name = matrix.name
    stored = graph.stored(_blocks_blob(matrix, weight_format))
    blocks = {"axis": 0, "block_size": weight_format.block_size}
    weight = graph.node("DequantizeLinear", stored, blocks, name=f"{name}.dequantized")
    return graph.node("MatMul", [x, weight], name=f"{name}.product")


def _columns_blob(matrix: Matrix) -> WeightBlob:
    """Int8 [K, N] and float32 scales [N]."""

    def pieces() -> Iterator[NDArray[np.generic]]:
        values = matrix.read(slice(0, matrix.outputs), slice(0, matrix.inputs))
        integers, scale = quantize_blocks(values, "int8", matrix.inputs)
        yield np.ascontiguousarray(integers.T)
        yield np.ascontiguousarray(scale[:, 0])

    initializers = (
        Initializer(f"{matrix.name}.quantized", ir.DataType.INT8, (matrix.inputs, matrix.outputs)),
        Initializer(f"{matrix.name}.scale", ir.DataType.FLOAT, (matrix.outputs,)),
    )
    return WeightBlob(initializers, pieces)


def _blocks_blob(matrix: Matrix, weight_format: WeightFormat) -> WeightBlob:
    """Int4 or int8 [K, N] and float32 scales [K / block, N]."""
    check_blocks(matrix, weight_format)

    def pieces() -> Iterator[NDArray[np.generic]]:
        scales = []
        for integers, scale in quantized_columns(matrix, weight_format):
            scales.append(np.ascontiguousarray(scale.T))
            rows = np.ascontiguousarray(integers.T)
            yield pack_int4(rows) if weight_format.kind == "int4" else rows
        yield from scales

    shape = (matrix.inputs, matrix.outputs)
    scales = (matrix.inputs // weight_format.block_size, matrix.outputs)
    initializers = (
        Initializer(f"{matrix.name}.quantized", DTYPES[weight_format.kind], shape),
        Initializer(f"{matrix.name}.scale", ir.DataType.FLOAT, scales),
    )
    return WeightBlob(initializers, pieces)


def pack_int4(integers: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Two's complement halves of `integers` [K, N], N even: column 0 low, column 1 high, ..."""
    halves = np.ascontiguousarray(integers).view(np.uint8)
    packed: NDArray[np.uint8] = (halves[:, 1::2] << np.uint8(4)) | (
        halves[:, 0::2] & np.uint8(0x0F)
    )
    return packed
