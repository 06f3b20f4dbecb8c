"""Measured numbers, cached by what they depend on: a small sealed JSON file each."""

import contextlib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_medgemma.runtime.documents import Finite, Sha256, dump_sealed, parse_sealed
from edge_medgemma.runtime.store.keys import hashed_key, program_identity
from edge_medgemma.runtime.store.ownership import read_own, write_own


@dataclass(frozen=True, slots=True)
class _Document:
    key: Sha256
    numbers: Mapping[str, Finite]


class CachedNumbers:
    """Named finite numbers that this very program measured once.

    A file that is missing, altered, of another program or writable by others is measured again.
    """

    def __init__(self, folder: Path, *depends_on: str) -> None:
        """Use a file of `folder`, named by a hash of all that the numbers depend on.

        Args:
            folder: need not exist
            depends_on: all but the program: what runs it, inputs, engine
        """
        self._key = hashed_key(program_identity(), *depends_on)
        self._path = folder / f"{self._key}.json"

    def read(self, names: Collection[str]) -> dict[str, float] | None:
        """The numbers, in their order; None unless the file has exactly `names`."""
        try:
            document = parse_sealed(read_own(self._path), _Document)
        except (OSError, ValueError, RecursionError):
            return None
        if document.key != self._key or document.numbers.keys() != set(names):
            return None
        return {name: document.numbers[name] for name in names}

    def write(self, numbers: Mapping[str, float]) -> None:
        """Cache finite numbers; a full disk or a read-only home costs time, nothing else."""
        if all(map(math.isfinite, numbers.values())):
            with contextlib.suppress(OSError):
                write_own(self._path, dump_sealed(_Document(self._key, numbers)).encode())
