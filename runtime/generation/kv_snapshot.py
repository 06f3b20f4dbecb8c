"""All that a prefix remembers, to be kept on disk and taken up again."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.generation.masks import TokenMeta


@dataclass(frozen=True, slots=True)
class PrefixSnapshot:
    """All that a prefix remembers."""

    global_rows: TokenMeta
    local_rows: TokenMeta
    images: int
    chunks: int
    global_arrays: Iterable[NDArray[np.floating]]
    """Key, value, key, ... of the full-attention layers, [1, K, len(global_rows), D]; taken first."""
    local_arrays: Iterable[NDArray[np.floating]]
    """The same of the sliding layers, [1, K, len(local_rows), D]."""

    def checked_global_arrays(self) -> Iterator[NDArray[np.floating]]:
        """`global_arrays`, each compared with the number of rows when it is taken.

        Raises:
            ValueError: another number of rows.
        """
        return _of_length(len(self.global_rows), self.global_arrays)

    def checked_local_arrays(self) -> Iterator[NDArray[np.floating]]:
        """`local_arrays`, checked in the same way."""
        return _of_length(len(self.local_rows), self.local_arrays)


def _of_length(rows: int, arrays: Iterable[NDArray[np.floating]]) -> Iterator[NDArray[np.floating]]:
    for array in arrays:
        if array.ndim != 4 or array.shape[2] != rows:
            raise ValueError(f"keys or values of shape {array.shape} for {rows} rows")
        yield array
