"""Reading one tensor at a time from a .safetensors file, mapping no more of it than is read.

`safetensors.safe_open` maps the whole file for as long as it is open, so that every page read
counts as resident memory; here each read maps its tensor alone and lets go of it.
Format: https://github.com/huggingface/safetensors#format
"""

import json
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.errors import CheckpointError

HEADER_BYTES_LIMIT = 100_000_000
"""The limit of the format's own implementation."""

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


def open_safetensors(path: Path) -> dict[str, StoredTensor]:
    """Every tensor of the file by its stored name; reads the header only.

    Raises:
        CheckpointError: not a .safetensors file, truncated, or a dtype that is not a float's.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, HEADER_BYTES_LIMIT):
            raise _damaged(path, "its header is incomplete")
        raw = file.read(length)
    try:
        header = json.loads(raw)
        header.pop("__metadata__", None)
        return {name: _tensor(path, name, entry, 8 + length) for name, entry in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise _damaged(path, f"its header does not parse ({error})") from None


def _tensor(path: Path, name: str, entry: dict[str, object], data: int) -> StoredTensor:
    dtype = DTYPES.get(str(entry["dtype"]))
    if dtype is None:
        raise CheckpointError(
            f"tensor '{name}' of '{path.name}' is stored as {entry['dtype']}; expected "
            "F32, F16 or BF16, so export from the original checkpoint"
        )
    shape = tuple(int(size) for size in entry["shape"])  # type: ignore[attr-defined]
    start, stop = (int(offset) for offset in entry["data_offsets"])  # type: ignore[attr-defined]
    if min((start, *shape), default=0) < 0 or stop - start != int(np.prod(shape)) * dtype.itemsize:
        raise _damaged(path, f"the place of tensor '{name}' does not fit its shape")
    if data + stop > path.stat().st_size:
        raise _damaged(path, f"it ends before tensor '{name}' does")
    return StoredTensor(path, name, shape, dtype, data + start)


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"'{path.name}' is damaged: {why}; download the checkpoint again")
