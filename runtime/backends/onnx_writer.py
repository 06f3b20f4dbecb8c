"""ONNX models of one node, written byte by byte: a device has no onnx package.

Field numbers are those of onnx.proto (onnx/onnx, IR version 10); wire format: protobuf.dev,
"Encoding".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IR_VERSION = 10
OPSET = 21

_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "float16": 10, "bfloat16": 16}
"""TensorProto.DataType"""
_ACCURACY_INT8 = 4
"""accuracy_level of MatMulNBits that multiplies in int8, as the decoder's nodes ask for"""
_INT_ATTRIBUTE = 2
_STRING_ATTRIBUTE = 3
"""AttributeProto.AttributeType"""


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of any size."""

    dtype: str
    axes: int = 2


def one_node_model(
    operator: str,
    domain: str,
    inputs: Mapping[str, Value | None],
    weights: Mapping[str, NDArray[np.generic]],
    outputs: Mapping[str, Value],
    attributes: Mapping[str, int | str],
) -> bytes:
    """A model whose node takes the inputs and then the weights.

    Args:
        operator: name of the operator
        domain: of the operator; empty for ai.onnx
        inputs: in the node's order; None for what it is not given
        weights: name to array, kept in the model
        outputs: in the node's order
        attributes: integers and texts
    """
    given = {name: value for name, value in inputs.items() if value is not None}
    node = b"".join(
        [
            *(_text(1, name if name in given else "") for name in inputs),
            *(_text(1, name) for name in weights),
            *(_text(2, name) for name in outputs),
            _text(4, operator),
            *(_bytes(5, _attribute(name, value)) for name, value in attributes.items()),
            _text(7, domain),
        ]
    )
    graph = b"".join(
        [
            _bytes(1, node),
            _text(2, "one_node"),
            *(_bytes(5, _tensor(name, array)) for name, array in weights.items()),
            *(_bytes(11, _value(name, value)) for name, value in given.items()),
            *(_bytes(12, _value(name, value)) for name, value in outputs.items()),
        ]
    )
    opsets = [("", OPSET)] + ([(domain, 1)] if domain else [])
    return b"".join(
        [
            _integer(1, IR_VERSION),
            _bytes(7, graph),
            *(_bytes(8, _text(1, name) + _integer(2, number)) for name, number in opsets),
        ]
    )


def product_model(matrix: NDArray[np.float32]) -> bytes:
    """`a` times a matrix, in float32."""
    a, product = {"a": Value("float32")}, {"product": Value("float32")}
    return one_node_model("MatMul", "", a, {"b": matrix}, product, {})


def blocks_product_model(
    weights: NDArray[np.uint8], scales: NDArray[np.float32], bits: int
) -> bytes:
    """`x` times weights in blocks, as the decoder's MatMulNBits nodes: activations in 8 bits.

    Args:
        weights: [outputs, blocks, bytes of a block]
        scales: [outputs, blocks]
        bits: of a weight, 4 or 8
    """
    outputs, blocks, block_bytes = weights.shape
    block_size = block_bytes * 8 // bits
    attributes = {
        "K": blocks * block_size,
        "N": outputs,
        "bits": bits,
        "block_size": block_size,
        "accuracy_level": _ACCURACY_INT8,
    }
    return one_node_model(
        "MatMulNBits",
        "com.microsoft",
        {"x": Value("float32")},
        {"weights": weights, "scales": scales},
        {"y": Value("float32")},
        attributes,
    )


def _attribute(name: str, value: int | str) -> bytes:
    if isinstance(value, str):
        return _text(1, name) + _text(4, value) + _integer(20, _STRING_ATTRIBUTE)
    return _text(1, name) + _integer(3, value) + _integer(20, _INT_ATTRIBUTE)


def _tensor(name: str, array: NDArray[np.generic]) -> bytes:
    dims = b"".join(_integer(1, size) for size in array.shape)
    kind = _integer(2, _TYPES[array.dtype.name])
    return dims + kind + _text(8, name) + _bytes(9, array.tobytes())


def _value(name: str, value: Value) -> bytes:
    dims: Sequence[bytes] = [_bytes(1, _text(2, f"{name}_{axis}")) for axis in range(value.axes)]
    tensor = _integer(1, _TYPES[value.dtype]) + _bytes(2, b"".join(dims))
    return _text(1, name) + _bytes(2, _bytes(1, tensor))


def _integer(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    """Negative numbers are two's complement of 64 bits."""
    value &= 2**64 - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
