"""A Gemma 3 checkpoint: its tensors by name, read when asked for, and the files that go along."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.export.checkpoint.safetensors_file import GIT_LFS_START, git_lfs_pointer
from edge_medgemma.export.checkpoint.tensor_names import EMBEDDING, HEAD
from edge_medgemma.runtime.errors import CheckpointError
from edge_medgemma.runtime.manifest import file_sha256
from edge_medgemma.runtime.model_shape import TextSpec, TokenSpec, VisionSpec

TILE_OUTPUTS = 512
TILE_INPUTS = 128
"""A weight is read in multiples of these: synthetic tensors are made in such tiles, 128 inputs of a
bfloat16 row are 256 bytes, enough to read at once, and every block size divides them."""


class Tensor(Protocol):
    """A weight of the checkpoint, read piece by piece."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def read(self, *index: slice) -> NDArray[np.float32]:
        """The part that `index` selects, float32, finite."""
        ...


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All that an export reads. Tensor names are those of `tensor_names`."""

    kind: str
    """`checkpoint` or `synthetic`"""
    name: str
    revision: str | None
    text: TextSpec
    vision: VisionSpec
    tokens: TokenSpec
    tensors: Mapping[str, Tensor]
    tokenizer_json: bytes
    chat_template: str
    fingerprint: Callable[[], str]
    """SHA-256 over the lines `sha256  name` of the files read, sorted by name; reads them all."""
    adapter_sha256: str | None = None

    @property
    def head(self) -> Tensor:
        """The vocabulary projection [V, H]: its own tensor, or the tied embedding."""
        return self.tensors[HEAD if HEAD in self.tensors else EMBEDDING]


def files_sha256(paths: list[Path]) -> str:
    """SHA-256 over the lines `sha256  name` of the files, sorted by name."""
    lines = sorted((path.name, f"{file_sha256(path)}  {path.name}\n") for path in paths)
    return hashlib.sha256("".join(line for _, line in lines).encode()).hexdigest()


def read_json(path: Path, default: dict[str, Any] | None = None) -> dict[str, Any]:
    """The JSON object in a file; `default`, where given, when there is no such file.

    Raises:
        CheckpointError: no such file and no default, unreadable, or not a JSON object.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        if default is not None:
            return default
        raise CheckpointError(
            f"'{path.parent}' has no {path.name}; expected a folder as downloaded from the hub"
        ) from None
    except OSError as error:
        raise CheckpointError(f"'{path}' cannot be read: {error.strerror}") from None
    if raw.startswith(GIT_LFS_START):
        raise git_lfs_pointer(path)
    try:
        value = json.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"'{path}' is not JSON ({error}); download it again") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"'{path}' is not a JSON object; download it again")
    return value
