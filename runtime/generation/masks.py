"""Additive masks of one pass, from the token that each cache row holds."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HIDDEN = np.float32(-1e30)
"""Added to a score that must not count; finite, so that no row can become NaN."""

NO_IMAGE = -1
NO_BRANCH = -1


@dataclass(frozen=True, slots=True)
class TokenMeta:
    """Metadata of a run of tokens: four parallel arrays [n] of int64."""

    positions: NDArray[np.int64]
    """Absolute position, which rotary embedding and the window go by."""
    images: NDArray[np.int64]
    """Number of the image the token belongs to, NO_IMAGE for text."""
    chunks: NDArray[np.int64]
    """Number of the prefix chunk, -1 for what is asked about it."""
    branches: NDArray[np.int64]
    """Number of the question among those asked in one pass, NO_BRANCH for the prefix."""

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, part: slice) -> "TokenMeta":
        return TokenMeta(
            self.positions[part], self.images[part], self.chunks[part], self.branches[part]
        )

    def __add__(self, other: "TokenMeta") -> "TokenMeta":
        return TokenMeta(
            np.concatenate([self.positions, other.positions]),
            np.concatenate([self.images, other.images]),
            np.concatenate([self.chunks, other.chunks]),
            np.concatenate([self.branches, other.branches]),
        )


NO_TOKENS = TokenMeta(*(np.zeros(0, np.int64) for _ in range(4)))


def additive_mask(
    queries: TokenMeta,
    keys: TokenMeta,
    window: int | None,
    hidden_chunks: dict[int, Collection[int]] | None = None,
) -> NDArray[np.float32]:
    """0 where a query may see a key, HIDDEN elsewhere.

    A query sees earlier tokens and all of its own image; in sliding layers only keys with
    position > query - window (transformers 5 `masking_utils`: (causal OR same image) AND window);
    of the questions asked in one pass only its own.

    Args:
        queries: the S tokens of the chunk
        keys: the T rows of the cache, the chunk's own included
        window: `sliding_window` for local layers, None for global ones
        hidden_chunks: per branch, chunks of the prefix that it may not see

    Returns:
        [1, 1, S, T]
    """
    seen = keys.positions[None, :] <= queries.positions[:, None]
    seen |= (keys.images[None, :] == queries.images[:, None]) & (keys.images != NO_IMAGE)[None, :]
    if window is not None:
        seen &= keys.positions[None, :] > queries.positions[:, None] - window
    if keys.branches.max(initial=NO_BRANCH) != NO_BRANCH:
        own = keys.branches[None, :] == queries.branches[:, None]
        seen &= own | (keys.branches == NO_BRANCH)[None, :]
    for branch, chunks in (hidden_chunks or {}).items():
        hidden = np.isin(keys.chunks, list(chunks))
        seen[np.ix_(queries.branches == branch, hidden)] = False
    mask = np.where(seen, np.float32(0), HIDDEN)
    return mask[None, None]
