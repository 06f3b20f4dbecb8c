"""Protocols of every backend: the contract of `runtime.manifest` as calls on numpy arrays."""

from collections.abc import Iterable, Mapping
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

AttentionKind = Literal["global", "local"]
"""The two cache geometries: full-attention layers and sliding ones."""


class VisionModel(Protocol):
    """The vision graph: slices to image tokens."""

    @property
    def batch(self) -> int:
        """Slices per call that suit it."""
        ...

    def run(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        """[N, 3, image_size, image_size] to [N, tokens_per_image, hidden]."""
        ...


class Caches(Protocol):
    """Key and value buffers of every layer for one sequence of tokens."""

    def capacity(self, attention: AttentionKind) -> int:
        """Rows that the buffers of a attention hold."""
        ...

    def reserve(self, attention: AttentionKind, rows: int, used: int) -> None:
        """Allocate `rows` rows, keeping the first `used`."""
        ...

    def drop(self, attention: AttentionKind, count: int, used: int) -> None:
        """Move rows `count` .. `used` to the front."""
        ...

    def view(self, attention: AttentionKind, used: int) -> list[NDArray[np.floating]]:
        """The first `used` rows of every layer: key, value, key, ... of [1, K, used, D].

        Not copied where the caches are in host memory: valid until they change.
        """
        ...

    def restore(self, attention: AttentionKind, saved: Iterable[NDArray[np.floating]]) -> None:
        """Put back what `view` gave, at the front; the buffers must hold it.

        Raises:
            ValueError: the number, shape or dtype of the arrays is not that of these caches.
        """
        ...


class DecoderModel(Protocol):
    """The decoder graph: token embeddings, masks and caches to logits."""

    def new_caches(self) -> Caches:
        """Empty caches for one sequence of tokens."""
        ...

    def decode_kv_caches(
        self,
        caches: Caches,
        rows: Mapping[AttentionKind, slice],
        spare_rows: Mapping[AttentionKind, int],
    ) -> Caches | None:
        """A copy of what was prefilled, in the form that is fastest to read for one token at a time.

        Args:
            caches: made by this model
            rows: to copy, of each geometry; at least one
            spare_rows: rows of each geometry for what follows

        Returns:
            Caches for `run` that begin with the copied rows; None where there is no faster form.
        """
        ...

    def run(
        self,
        caches: Caches,
        embeddings: NDArray[np.float32],
        position_ids: NDArray[np.int64],
        mask_global: NDArray[np.float32],
        mask_local: NDArray[np.float32],
        logit_rows: NDArray[np.int64],
        *,
        is_decode: bool = False,
    ) -> NDArray[np.float32]:
        """Write a chunk of S tokens into the caches and project some of its rows.

        Args:
            caches: made by this model; hold at least T rows of each geometry; written in place
            embeddings: [S, hidden]
            position_ids: [S]
            mask_global: [1, 1, S, T], T rows in use after the write
            mask_local: [1, 1, S, T]
            logit_rows: [R]
            is_decode: logits of unlikely tokens may be approximate: they are to choose one token

        Returns:
            [R, vocabulary]
        """
        ...
