"""Operators and weights of an ONNX graph, read byte by byte: a device has no onnx package.

Field numbers are those of onnx.proto (onnx/onnx, IR version 11); wire format: protobuf.dev,
"Encoding".
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.errors import EngineError

_DTYPES: Mapping[int, np.dtype[Any]] = {
    1: np.dtype("<f4"),
    2: np.dtype("u1"),
    3: np.dtype("i1"),
    7: np.dtype("<i8"),
}
"""TensorProto.DataType"""
_EXTERNAL = 1
"""TensorProto.DataLocation"""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Type, shape and place of a weight."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    raw: bytes
    """Its bytes; empty where they lie in the data file."""
    offset: int = 0
    """In the data file"""


@dataclass(frozen=True, slots=True)
class OnnxGraph:
    """What the file of a graph holds, as far as it is used here."""

    operators: tuple[str, ...]
    """Type of every node, in order"""
    tensors: Mapping[str, StoredTensor]
    data: Path
    """File of the weights that are not in the graph's own."""

    def read(self, name: str, dtype: str, shape: tuple[int, ...]) -> NDArray[np.generic]:
        """A weight as a new array.

        Raises:
            EngineError: there is none of this name, type and shape, or its file is too short.
        """
        tensor = self.tensors.get(name)
        if tensor is None or tensor.dtype != dtype or tensor.shape != shape:
            raise EngineError(
                f"'{self.data.with_suffix('.onnx')}' has no {dtype} '{name}' of shape {shape}; "
                "export the engine again"
            )
        if tensor.raw:
            array = np.frombuffer(tensor.raw, tensor.dtype)
        else:
            count = int(np.prod(shape))
            array = np.fromfile(self.data, tensor.dtype, count, offset=tensor.offset)
        if array.size != np.prod(shape):
            raise EngineError(f"'{self.data}' ends within '{name}'; export the engine again")
        return array.reshape(shape)


def read_graph(path: Path) -> OnnxGraph:
    """Operators and weights of the graph in `path`, its weights beside it in `.data`.

    Raises:
        EngineError: the file is cut or no ONNX, or its weights are in another file.
    """
    data = path.with_suffix(".data")
    try:
        graph = next(value for field, value in _fields(path.read_bytes()) if field == 7)
        operators, tensors = [], {}
        for field, value in _fields(_message(graph)):
            if field == 1:
                operators.append(_text(_message(value), 4))
            elif field == 5:
                name, tensor = _tensor(_message(value), data.name)
                if tensor is not None:
                    tensors[name] = tensor
    except (ValueError, TypeError, IndexError, KeyError, StopIteration, OSError) as error:
        raise EngineError(f"'{path}' does not load ({error!r}); export the engine again") from None
    return OnnxGraph(tuple(operators), tensors, data)


def _tensor(message: bytes, data_name: str) -> tuple[str, StoredTensor | None]:
    """Name and contents; None of a type that is not used here."""
    shape, kind, name, raw, is_external = [], 0, "", b"", False
    place: dict[str, str] = {}
    for field, value in _fields(message):
        if field == 1:
            shape += list(_varints(value)) if isinstance(value, bytes) else [value]
        elif field == 2:
            kind = _number(value)
        elif field == 8:
            name = _message(value).decode()
        elif field == 9:
            raw = _message(value)
        elif field == 13:
            entry = _message(value)
            place[_text(entry, 1)] = _text(entry, 2)
        elif field == 14:
            is_external = value == _EXTERNAL
    if kind not in _DTYPES:
        return name, None
    if not is_external:
        return name, StoredTensor(_DTYPES[kind], tuple(shape), raw)
    if place["location"] != data_name:
        raise ValueError(f"'{name}' lies in '{place['location']}'")
    return name, StoredTensor(_DTYPES[kind], tuple(shape), b"", int(place.get("offset", "0")))


def _text(message: bytes, wanted: int) -> str:
    """A text field; empty where there is none."""
    return next(
        (_message(value).decode() for field, value in _fields(message) if field == wanted), ""
    )


def _message(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError("a number stands for a message")
    return value


def _number(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise TypeError("a message stands for a number")
    return value


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field; those of fixed width as bytes."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        kind = key & 7
        if kind == 0:
            value, position = _varint(message, position)
            yield key >> 3, value
            continue
        if kind == 2:
            size, position = _varint(message, position)
        else:
            size = {1: 8, 5: 4}[kind]
        if position + size > len(message):
            raise ValueError("it is cut short")
        yield key >> 3, message[position : position + size]
        position += size


def _varints(message: bytes) -> Iterator[int]:
    position = 0
    while position < len(message):
        value, position = _varint(message, position)
        yield value


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        shift, position = shift + 7, position + 1
        if byte < 0x80:
            return value, position
