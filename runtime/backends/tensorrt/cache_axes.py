"""Cache capacities as numbers in a graph of the `trt` dialect, without an ONNX library."""

from collections.abc import Mapping

from edge_medgemma.runtime.errors import EngineError

GLOBAL_AXIS = "GLOBAL"
LOCAL_AXIS = "LOCAL"
"""Names of the capacity axes in decoder.onnx."""

DIM_VALUE_TAG = b"\x08"
DIM_PARAM_TAG = b"\x12"
"""Fields 1 (varint) and 2 (text) of TensorShapeProto.Dimension in onnx.proto."""


def with_capacities(model: bytes, rows: Mapping[str, int]) -> bytes:
    """The graph file with named axes replaced by numbers, its length unchanged.

    A name of n letters takes 2 + n bytes; so does its number, as a varint padded to n + 1 bytes,
    so that no enclosing length changes.

    Args:
        model: contents of decoder.onnx
        rows: capacity by axis name, GLOBAL_AXIS and LOCAL_AXIS

    Raises:
        EngineError: the graph has no such axis.
    """
    for name, count in rows.items():
        text = DIM_PARAM_TAG + bytes([len(name)]) + name.encode()
        if text not in model:
            raise EngineError(
                f"decoder.onnx has no axis '{name}'; export the engine with --target tensorrt"
            )
        model = model.replace(text, DIM_VALUE_TAG + _padded_varint(count, len(name) + 1))
    return model


def _padded_varint(value: int, size: int) -> bytes:
    """Base-128 digits, lowest first, all but the last marked as continued."""
    digits = [value >> (7 * index) & 0x7F for index in range(size)]
    return bytes([digit | 0x80 for digit in digits[:-1]] + digits[-1:])
