"""ONNX models of a node or two, written byte by byte: a device has no onnx package.

Field numbers are those of onnx.proto (onnx/onnx, IR version 10).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.backends.protobuf import (
    bytes_field,
    float_field,
    integer_field,
    text_field,
)
from edge_medgemma.runtime.bfloat16 import bfloat16_bits

IR_VERSION = 10
OPSET = 21

_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "float16": 10, "bfloat16": 16}
"""TensorProto.DataType"""
CONTRIB = "com.microsoft"
_ACCURACY_INT8 = 4
"""accuracy_level of MatMulNBits that multiplies in int8, as the decoder's nodes ask for"""
_FLOAT_ATTRIBUTE = 1
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
    attributes: Mapping[str, int | float | str],
) -> bytes:
    """A model whose node takes the inputs and then the weights.

    Args:
        operator: name of the operator
        domain: of the operator; empty for ai.onnx
        inputs: in the node's order; None for what it is not given
        weights: name to array, kept in the model
        outputs: in the node's order
        attributes: integers, numbers and texts
    """
    given = {name: value for name, value in inputs.items() if value is not None}
    names = [name if name in given else "" for name in inputs]
    parts = _attribute_messages(attributes)
    node = node_message(operator, domain, [*names, *weights], outputs, parts)
    tensors = [_tensor(name, array, array.dtype.name) for name, array in weights.items()]
    return _model([node], tensors, given, outputs, domain)


def product_model(matrix: NDArray[np.float32]) -> bytes:
    """`a` times a matrix, in float32."""
    a, product = {"a": Value("float32")}, {"product": Value("float32")}
    return one_node_model("MatMul", "", a, {"b": matrix}, product, {})


def blocks_product_model(
    weights: NDArray[np.uint8],
    scales: NDArray[np.float32],
    bits: int,
    operator: str = "MatMulNBits",
) -> bytes:
    """`x` times weights in blocks, as a decoder has it: activations in 8 bits, scales in bfloat16, cast.

    Args:
        weights: [outputs, blocks, bytes of a block]
        scales: [outputs, blocks], rounded to bfloat16
        bits: of a weight, 4 or 8
        operator: or another one of the same inputs and attributes
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
    cast = {"to": _TYPES["float32"]}
    nodes = [
        node_message("Cast", "", ["scales"], ["scales_float"], _attribute_messages(cast)),
        node_message(
            operator,
            CONTRIB,
            ["x", "weights", "scales_float"],
            ["y"],
            _attribute_messages(attributes),
        ),
    ]
    tensors = [
        _tensor("weights", weights, "uint8"),
        _tensor("scales", bfloat16_bits(scales), "bfloat16"),
    ]
    x, y = {"x": Value("float32")}, {"y": Value("float32")}
    return _model(nodes, tensors, x, y, CONTRIB)


def attribute_message(name: str, value: float | str) -> bytes:
    """An AttributeProto of an integer, a number or a text: 1 name, 2 to 4 the value, 20 its type."""
    if isinstance(value, str):
        return text_field(1, name) + text_field(4, value) + integer_field(20, _STRING_ATTRIBUTE)
    if isinstance(value, float):
        return text_field(1, name) + float_field(2, value) + integer_field(20, _FLOAT_ATTRIBUTE)
    return text_field(1, name) + integer_field(3, value) + integer_field(20, _INT_ATTRIBUTE)


def node_message(
    operator: str,
    domain: str,
    inputs: Iterable[str],
    outputs: Iterable[str],
    attributes: Iterable[bytes],
) -> bytes:
    """A NodeProto: 1 input, 2 output, 4 operator, 5 attribute, 7 domain."""
    return b"".join(
        [
            *(text_field(1, name) for name in inputs),
            *(text_field(2, name) for name in outputs),
            text_field(4, operator),
            *(bytes_field(5, attribute) for attribute in attributes),
            text_field(7, domain),
        ]
    )


def _attribute_messages(attributes: Mapping[str, int | float | str]) -> list[bytes]:
    return [attribute_message(name, value) for name, value in attributes.items()]


def _model(
    nodes: Sequence[bytes],
    weights: Sequence[bytes],
    inputs: Mapping[str, Value],
    outputs: Mapping[str, Value],
    domain: str,
) -> bytes:
    graph = b"".join(
        [
            *(bytes_field(1, node) for node in nodes),
            text_field(2, "part"),
            *(bytes_field(5, weight) for weight in weights),
            *(bytes_field(11, _value(name, value)) for name, value in inputs.items()),
            *(bytes_field(12, _value(name, value)) for name, value in outputs.items()),
        ]
    )
    opsets = [("", OPSET)] + ([(domain, 1)] if domain else [])
    return b"".join(
        [
            integer_field(1, IR_VERSION),
            bytes_field(7, graph),
            *(
                bytes_field(8, text_field(1, name) + integer_field(2, number))
                for name, number in opsets
            ),
        ]
    )


def _tensor(name: str, array: NDArray[np.generic], dtype: str) -> bytes:
    dims = b"".join(integer_field(1, size) for size in array.shape)
    kind = integer_field(2, _TYPES[dtype])
    return dims + kind + text_field(8, name) + bytes_field(9, array.tobytes())


def _value(name: str, value: Value) -> bytes:
    dims: Sequence[bytes] = [
        bytes_field(1, text_field(2, f"{name}_{axis}")) for axis in range(value.axes)
    ]
    tensor = integer_field(1, _TYPES[value.dtype]) + bytes_field(2, b"".join(dims))
    return text_field(1, name) + bytes_field(2, bytes_field(1, tensor))
