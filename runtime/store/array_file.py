"""Arrays in one file that says whether it is whole.

SHA-256 of all that follows (32 bytes), length of the header (8 bytes, little-endian), header as
JSON, then the arrays one after the other, row-major, little-endian. No pickle.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

FORMAT_VERSION = 1

DTYPES = frozenset({"<f4", "<f2", "<i8", "|i1", "|u1"})

_DIGEST_BYTES = hashlib.sha256().digest_size
_LENGTH_BYTES = 8
_MAXIMUM_HEADER_BYTES = 2**20
"""A prefix of 34 layers has a header of 3 KB."""


@dataclass(frozen=True, slots=True)
class Label:
    """What a file says it holds."""

    kind: str
    key: str
    engine_sha256: str


def encoded_header(label: Label, arrays: Sequence[NDArray[Any]]) -> bytes:
    """The header of a file with these arrays."""
    header = {
        "version": FORMAT_VERSION,
        "kind": label.kind,
        "key": label.key,
        "engine": label.engine_sha256,
        "arrays": [[array.dtype.newbyteorder("<").str, list(array.shape)] for array in arrays],
    }
    return json.dumps(header).encode()


def file_bytes(label: Label, arrays: Sequence[NDArray[Any]]) -> int:
    """Size of the file that `write_arrays` makes."""
    header = encoded_header(label, arrays)
    return _DIGEST_BYTES + _LENGTH_BYTES + len(header) + sum(array.nbytes for array in arrays)


def write_arrays(file: BinaryIO, label: Label, arrays: Sequence[NDArray[Any]]) -> None:
    """Write a whole file; arrays may be views, of which one at a time is copied."""
    digest = hashlib.sha256()
    header = encoded_header(label, arrays)
    file.write(bytes(_DIGEST_BYTES))
    for part in (len(header).to_bytes(_LENGTH_BYTES, "little"), header):
        digest.update(part)
        file.write(part)
    for array in arrays:
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        data = np.ascontiguousarray(little).reshape(-1).view(np.uint8).data
        digest.update(data)
        file.write(data)
    file.seek(0)
    file.write(digest.digest())


@contextmanager
def open_arrays(path: Path, label: Label) -> Iterator[Iterator[NDArray[Any]]]:
    """The arrays of a file, read one by one after the file was found whole.

    Raises:
        ValueError: cut short, altered, or not what `label` says.
        OSError: no such file, or it cannot be read.
    """
    with path.open("rb") as file:
        stored = file.read(_DIGEST_BYTES)
        if hashlib.file_digest(file, "sha256").digest() != stored:
            raise ValueError("the file is cut short or altered")
        file.seek(_DIGEST_BYTES)
        found, specs = _read_header(file)
        if found != label:
            raise ValueError("the file holds something else than its name says")
        yield (_read_array(file, dtype, shape) for dtype, shape in specs)


def read_label(path: Path) -> Label:
    """What a file says it holds, its contents unchecked.

    Raises:
        ValueError: it has no such header.
        OSError: no such file, or it cannot be read.
    """
    with path.open("rb") as file:
        file.seek(_DIGEST_BYTES)
        return _read_header(file)[0]


def _read_header(file: BinaryIO) -> tuple[Label, list[tuple[np.dtype[Any], tuple[int, ...]]]]:
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    if length > _MAXIMUM_HEADER_BYTES:
        raise ValueError("the file has no header")
    try:
        header = json.loads(file.read(length))
        if header["version"] != FORMAT_VERSION or not {d for d, _ in header["arrays"]} <= DTYPES:
            raise ValueError("the file is of another version")
        specs = [(np.dtype(dtype), tuple(map(int, shape))) for dtype, shape in header["arrays"]]
        return Label(str(header["kind"]), str(header["key"]), str(header["engine"])), specs
    except (KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError("the file has no header") from error


def _read_array(file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    return np.fromfile(file, dtype, prod(shape)).reshape(shape)
