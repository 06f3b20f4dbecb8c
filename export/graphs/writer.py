"""Writing a graph and its weights: the data file streams to disk and is hashed on the way."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edge_medgemma.export.graphs.weights import Initializer, WeightBlob
from edge_medgemma.runtime.manifest import FileRecord

ALIGNMENT = 4096
"""Offset multiple of every initializer: a page, so that each can be memory-mapped by itself."""

Progress = Callable[[int], None]
"""Called with the number of bytes written since the last call."""


def write_data(path: Path, blobs: Iterable[WeightBlob], on_progress: Progress) -> FileRecord:
    """Write every payload to `path` at the offsets of `external_tensors`; fsync; hash.

    Raises:
        OSError: the disk is full.
        CheckpointError: a weight is not finite.
    """
    digest = hashlib.sha256()
    written = 0
    with path.open("wb") as file:
        for piece in _padded(blobs):
            data = piece.data.cast("B") if piece.size else b""
            file.write(data)
            digest.update(data)
            written += len(data)
            on_progress(len(data))
        file.flush()
        os.fsync(file.fileno())
    return FileRecord(bytes=written, sha256=digest.hexdigest())


def write_bytes(path: Path, data: bytes) -> FileRecord:
    """Write a small file; fsync; hash."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return FileRecord(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def external_tensors(location: str, blobs: Iterable[WeightBlob]) -> dict[str, ir.ExternalTensor]:
    """Place of each initializer in the data file `location`, by name."""
    tensors: dict[str, ir.ExternalTensor] = {}
    offset = 0
    for initializer in _initializers(blobs):
        tensors[initializer.name] = ir.ExternalTensor(
            location,
            offset,
            initializer.bytes,
            initializer.dtype,
            shape=ir.Shape(initializer.shape),
            name=initializer.name,
        )
        offset = _aligned(offset + initializer.bytes)
    return tensors


def data_bytes(blobs: Iterable[WeightBlob]) -> int:
    """Size of the data file, padding included."""
    end = 0
    for initializer in _initializers(blobs):
        end = _aligned(end) + initializer.bytes
    return end


def _padded(blobs: Iterable[WeightBlob]) -> Iterator[NDArray[np.generic]]:
    end = 0
    for blob in blobs:
        pieces = blob.pieces()
        for initializer in blob.initializers:
            yield np.zeros(_aligned(end) - end, np.uint8)
            end = _aligned(end) + initializer.bytes
            missing = initializer.bytes
            while missing > 0:
                piece = np.ascontiguousarray(next(pieces))
                missing -= piece.nbytes
                yield piece
            if missing:
                raise AssertionError(f"{initializer.name} is longer than its shape")


def _initializers(blobs: Iterable[WeightBlob]) -> Iterator[Initializer]:
    for blob in blobs:
        yield from blob.initializers


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
