"""Tokens by row of the key-value caches, and what is kept of them on disk; the buffers are the session's."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.generation.masks import NO_TOKENS, TokenMeta


class LayerGroupCache:
    """Rows of one group of layers: all global layers hold the same tokens, all local ones too."""

    def __init__(self, window: int | None) -> None:
        """`window` is `sliding_window` for local layers, None for global ones."""
        self.window = window
        self.rows: TokenMeta = NO_TOKENS

    @property
    def used(self) -> int:
        """Rows in use."""
        return len(self.rows)

    def append(self, rows: TokenMeta) -> None:
        """Take the rows after the last used one."""
        self.rows = self.rows + rows

    def truncate(self, used: int) -> None:
        """Forget all rows from `used` on."""
        self.rows = self.rows[:used]

    def num_evictable(self, position: int) -> int:
        """How many leading rows no token from `position` on can see."""
        if self.window is None:
            return 0
        visible = self.rows.positions > position - self.window
        return int(visible.argmax()) if visible.any() else self.used

    def drop(self, count: int) -> None:
        """Forget the first `count` rows; the others move to the front."""
        self.rows = self.rows[count:]


@dataclass(frozen=True, slots=True)
class PrefixSnapshot:
    """Rows, counts and caches of a prefix, to be kept on disk and restored."""

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
