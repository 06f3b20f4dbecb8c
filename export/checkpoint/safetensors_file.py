"""Reading one tensor at a time from a .safetensors file, mapping no more of it than is read.

`safetensors.safe_open` maps the whole file for as long as it is open, so that every page read
counts as resident memory; here each read maps its tensor alone and lets go of it.
Format: https://github.com/huggingface/safetensors#format
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.errors import CheckpointError

HEADER_BYTES_LIMIT = 100_000_000
"""The limit of the format's own implementation."""

PIECE_BYTES = 2**24

GIT_LFS_START = b"version https://git-lfs.github.com/spec/"
"""How the small text file begins that stands for one which Git LFS has not fetched."""

DTYPES = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a .safetensors file, read as float32."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int

    @property
    def size_bytes(self) -> int:
        """In the file."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self, *index: slice) -> NDArray[np.float32]:
        """The part of the tensor that `index` selects, float32, C order.

        Raises:
            CheckpointError: a value is NaN or infinite.
        """
        stored = np.memmap(self.path, self.dtype, "r", offset=self.offset, shape=self.shape)
        return finite(self.name, stored[index].astype(np.float32, order="C"))


def finite(name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """`values` themselves.

    Raises:
        CheckpointError: one of them is NaN or infinite.
    """
    if values.size and not (np.isfinite(values.max()) and np.isfinite(values.min())):
        raise CheckpointError(
            f"tensor '{name}' holds a value that is not finite; the checkpoint is damaged, "
            "download it again"
        )
    return values


@dataclass(frozen=True, slots=True)
class Entry:
    """What the header says of one tensor."""

    dtype: str
    """The format's own name, such as BF16"""
    shape: tuple[int, ...]
    offset: int
    """Of its first byte in the file"""
    size_bytes: int


def read_header(path: Path) -> dict[str, Entry]:
    """Every tensor of the file by its stored name, as the format demands them: end to end, none twice.

    Raises:
        CheckpointError: not a .safetensors file, unreadable, truncated or damaged.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            if start == GIT_LFS_START[:8]:
                raise git_lfs_pointer(path)
            length = int.from_bytes(start, "little")
            if size < 8 or length > size - 8:
                raise _damaged(path, f"it ends within its header, after {size:,} bytes")
            if length > HEADER_BYTES_LIMIT:
                raise _damaged(path, f"its header is {length:,} bytes long")
            raw = file.read(length)
    except OSError as error:
        raise CheckpointError(f"'{path}' cannot be read: {error.strerror}") from None
    try:
        header = json.loads(raw, object_pairs_hook=_unique_keys)
        header.pop("__metadata__", None)
        entries = {str(name): _entry(fields, 8 + length) for name, fields in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"its header does not parse ({error})") from None
    _require_end_to_end(path, entries, 8 + length, size)
    return entries


def open_safetensors(path: Path) -> dict[str, StoredTensor]:
    """Every tensor of the file by its stored name; reads the header only.

    Raises:
        CheckpointError: as `read_header`, or a dtype that is not a float's.
    """
    return {name: stored_tensor(path, name, entry) for name, entry in read_header(path).items()}


def stored_tensor(path: Path, name: str, entry: Entry) -> StoredTensor:
    """The tensor of a header's entry.

    Raises:
        CheckpointError: its dtype is not a float's that a Gemma 3 checkpoint has.
    """
    dtype = DTYPES.get(entry.dtype)
    if dtype is None:
        raise CheckpointError(
            f"tensor '{name}' of '{path.name}' is stored as {entry.dtype}; expected "
            "F32, F16 or BF16, so export from the original checkpoint"
        )
    if math.prod(entry.shape) * dtype.itemsize != entry.size_bytes:
        raise _damaged(path, f"the place of tensor '{name}' does not fit its shape")
    return StoredTensor(path, name, entry.shape, dtype, entry.offset)


def same_bytes(one: Path, offset: int, other: Path, other_offset: int, size_bytes: int) -> bool:
    """Whether two stretches of files hold the same; reads them in pieces."""
    with one.open("rb") as file, other.open("rb") as other_file:
        file.seek(offset)
        other_file.seek(other_offset)
        for start in range(0, size_bytes, PIECE_BYTES):
            piece = min(PIECE_BYTES, size_bytes - start)
            if file.read(piece) != other_file.read(piece):
                return False
    return True


def git_lfs_pointer(path: Path) -> CheckpointError:
    """What to say of a file that only points to the one meant."""
    return CheckpointError(
        f"'{path}' is a Git LFS pointer, not the file itself; run 'git lfs pull' there or download "
        "it again"
    )


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) != len(pairs):
        raise ValueError("a name stands in it twice")
    return names


def _entry(fields: Any, data: int) -> Entry:
    shape, (start, stop) = fields["shape"], fields["data_offsets"]
    if any(type(number) is not int or number < 0 for number in (*shape, start, stop - start)):
        raise ValueError(f"shape {shape} at {start} to {stop}")
    return Entry(str(fields["dtype"]), tuple(shape), data + start, stop - start)


def _require_end_to_end(path: Path, entries: dict[str, Entry], start: int, size: int) -> None:
    """Tensors fill the file from the header to its end, without gaps or overlaps."""
    for name, entry in sorted(
        entries.items(), key=lambda item: (item[1].offset, item[1].size_bytes)
    ):
        if entry.offset != start:
            raise _damaged(path, f"tensor '{name}' does not begin where the one before it ends")
        start += entry.size_bytes
        if start > size:
            raise _damaged(path, f"it ends before tensor '{name}' does")
    if start != size:
        raise _damaged(path, f"{size - start:,} bytes after the last tensor belong to none")


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"'{path.name}' is damaged: {why}; download the checkpoint again")
