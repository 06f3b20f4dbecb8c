"""Arrays in a safetensors file that says whether it is whole.

The first entry of its metadata is the SHA-256 of every byte that follows that entry's value. It is
written here, one array after the other, because the library's writer wants contiguous copies of
all arrays at once, and a KV cache has gigabytes.
Format: https://github.com/huggingface/safetensors#format
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

_DTYPES = {"float32": "F32", "float16": "F16", "int64": "I64", "int8": "I8", "uint8": "U8"}
"""NumPy's name of a dtype -> the format's."""

_LENGTH_BYTES = 8
_BEFORE_DIGEST = b'{"__metadata__":{"sha256":"'
_NO_DIGEST = "0" * 64


@dataclass(frozen=True, slots=True)
class Label:
    """Identity of a file's contents."""

    kind: str
    key: str
    engine_sha256: str


def encoded_header(label: Label, arrays: Sequence[NDArray[Any]]) -> bytes:
    """Header of a file with these arrays, its digest still zeros."""
    header: dict[str, object] = {"__metadata__": {"sha256": _NO_DIGEST, **asdict(label)}}
    begin = 0
    for index, array in enumerate(arrays):
        end = begin + array.nbytes
        header[str(index)] = {
            "dtype": _DTYPES[array.dtype.name],
            "shape": array.shape,
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def file_bytes(label: Label, arrays: Sequence[NDArray[Any]]) -> int:
    """Size of the file that `write_arrays` makes."""
    header = encoded_header(label, arrays)
    return _LENGTH_BYTES + len(header) + sum(array.nbytes for array in arrays)


def write_arrays(file: BinaryIO, label: Label, arrays: Sequence[NDArray[Any]]) -> None:
    """Write a whole file; arrays may be views, of which one at a time is copied."""
    header = encoded_header(label, arrays)
    digest_end = len(_BEFORE_DIGEST) + len(_NO_DIGEST)
    file.write(len(header).to_bytes(_LENGTH_BYTES, "little") + header)
    digest = hashlib.sha256(header[digest_end:])
    for array in arrays:
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        data = little.reshape(-1).view(np.uint8).data
        digest.update(data)
        file.write(data)
    file.seek(_LENGTH_BYTES + len(_BEFORE_DIGEST))
    file.write(digest.hexdigest().encode())


@contextmanager
def open_arrays(path: Path, label: Label) -> Iterator[Iterator[NDArray[Any]]]:
    """Arrays of a file, read one by one after the file was found whole.

    Raises:
        ValueError: cut short, altered, or not what `label` says.
        OSError: no such file, or it cannot be read.
    """
    with path.open("rb") as file:
        beginning = file.read(_LENGTH_BYTES + len(_BEFORE_DIGEST))
        stored = file.read(len(_NO_DIGEST))
        actual = hashlib.file_digest(file, "sha256").hexdigest().encode()
    if beginning[_LENGTH_BYTES:] != _BEFORE_DIGEST or stored != actual:
        raise ValueError("the file is cut short or altered")
    with _opened(path) as tensors:
        if tensors.metadata() != {"sha256": stored.decode(), **asdict(label)}:
            raise ValueError("the file holds something else than its name says")
        names = map(str, range(len(tensors.keys())))
    yield (_read_array(path, name) for name in names)


def _read_array(path: Path, name: str) -> NDArray[Any]:
    """A copy; the file is mapped for one array at a time, as mapped pages count as our memory."""
    with _opened(path) as tensors:
        array: NDArray[Any] = tensors.get_tensor(name)
        return array


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, "numpy") as tensors:
            yield tensors
    except SafetensorError as error:
        raise ValueError(f"the file is not safetensors: {error}") from error
