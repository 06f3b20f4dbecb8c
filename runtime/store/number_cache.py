"""Measured numbers, cached by what they depend on: a small JSON file each."""

import contextlib
import hashlib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_medgemma.runtime.documents import Finite, Sha256, dump_json, parse_json
from edge_medgemma.runtime.errors import ResourceError
from edge_medgemma.runtime.files import write_atomically


@dataclass(frozen=True, slots=True)
class _Document:
    key: Sha256
    numbers: Mapping[str, Finite]


class CachedNumbers:
    """Named finite numbers that were measured once; a missing or damaged file is measured again."""

    def __init__(self, folder: Path, *depends_on: str) -> None:
        """Use a file of `folder`, named by a hash of everything that the numbers depend on."""
        self._key = hashlib.sha256("\n".join(depends_on).encode()).hexdigest()
        self._path = folder / f"{self._key}.json"

    def read(self, names: Collection[str]) -> dict[str, float] | None:
        """The numbers, in their order; None unless the file has exactly `names`."""
        try:
            document = parse_json(self._path.read_bytes(), _Document)
        except (OSError, ValueError):
            return None
        if document.key != self._key or document.numbers.keys() != set(names):
            return None
        return {name: document.numbers[name] for name in names}

    def write(self, numbers: Mapping[str, float]) -> None:
        """Cache finite numbers; a full disk or a read-only home costs time, nothing else."""
        if all(map(math.isfinite, numbers.values())):
            with contextlib.suppress(ResourceError):
                write_atomically(self._path, dump_json(_Document(self._key, numbers)).encode())
