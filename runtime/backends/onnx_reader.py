"""Operators and weights of an ONNX graph, read byte by byte: a device has no onnx package.

Field numbers are those of onnx.proto (onnx/onnx, IR version 11).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.backends.protobuf import bytes_of, fields, number_of, text_of, varints
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
    """Its bytes; empty where they lie in another file."""
    location: str = ""
    """Name of that file, in the graph's folder"""
    offset: int = 0
    """In that file"""


@dataclass(frozen=True, slots=True)
class OnnxGraph:
    """What the file of a graph holds, as far as it is used here."""

    operators: tuple[str, ...]
    """Type of every node, in order"""
    tensors: Mapping[str, StoredTensor]
    path: Path

    def read(self, name: str, dtype: str, shape: tuple[int, ...]) -> NDArray[np.generic]:
        """A weight as a new array.

        Raises:
            EngineError: there is none of this name, type and shape, or its file is too short or gone.
        """
        tensor = self.tensors.get(name)
        if tensor is None or tensor.dtype != dtype or tensor.shape != shape:
            raise EngineError(
                f"'{self.path}' has no {dtype} '{name}' of shape {shape}; export the engine again"
            )
        if tensor.raw:
            array = np.frombuffer(tensor.raw, tensor.dtype)
        else:
            count = int(np.prod(shape))
            file = self.path.parent / tensor.location
            try:
                array = np.fromfile(file, tensor.dtype, count, offset=tensor.offset)
            except OSError as error:
                raise EngineError(
                    f"'{file}' does not read ({error.strerror}); export the engine again"
                ) from None
        if array.size != np.prod(shape):
            file = self.path.parent / (tensor.location or self.path.name)
            raise EngineError(f"'{file}' ends within '{name}'; export the engine again")
        return array.reshape(shape)


def read_graph(path: Path) -> OnnxGraph:
    """Operators and weights of the graph in `path`, its weights in files beside it.

    Raises:
        EngineError: the file is cut or no ONNX, or its weights are in another folder.
    """
    try:
        graph = next(value for field, value in fields(path.read_bytes()) if field == 7)
        operators, tensors = [], {}
        for field, value in fields(bytes_of(graph)):
            if field == 1:
                operators.append(text_of(bytes_of(value), 4))
            elif field == 5:
                name, tensor = _tensor(bytes_of(value))
                if tensor is not None:
                    tensors[name] = tensor
    except (ValueError, TypeError, IndexError, KeyError, StopIteration, OSError) as error:
        raise EngineError(f"'{path}' does not load ({error!r}); export the engine again") from None
    return OnnxGraph(tuple(operators), tensors, path)


def _tensor(message: bytes) -> tuple[str, StoredTensor | None]:
    """Name and contents; None of a type that is not used here."""
    shape, kind, name, raw, is_external = [], 0, "", b"", False
    place: dict[str, str] = {}
    for field, value in fields(message):
        if field == 1:
            shape += list(varints(value)) if isinstance(value, bytes) else [value]
        elif field == 2:
            kind = number_of(value)
        elif field == 8:
            name = bytes_of(value).decode()
        elif field == 9:
            raw = bytes_of(value)
        elif field == 13:
            entry = bytes_of(value)
            place[text_of(entry, 1)] = text_of(entry, 2)
        elif field == 14:
            is_external = value == _EXTERNAL
    if kind not in _DTYPES:
        return name, None
    if not is_external:
        return name, StoredTensor(_DTYPES[kind], tuple(shape), raw)
    location, offset = place["location"], int(place.get("offset", "0"))
    if Path(location).name != location:
        raise ValueError(f"'{name}' lies in '{location}'")
    return name, StoredTensor(_DTYPES[kind], tuple(shape), b"", location, offset)
