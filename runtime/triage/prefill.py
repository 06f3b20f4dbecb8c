"""Slices into a prefix: encoded by the vision tower, prefilled by the decoder, or from the cache."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.domain import pool_tokens
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.kv_index import PrefixSnapshot
from edge_medgemma.runtime.generation.masks import TokenMeta
from edge_medgemma.runtime.generation.positions import require_prompt
from edge_medgemma.runtime.generation.prefix import Prefix
from edge_medgemma.runtime.generation.scan_keys import features_key, prefix_key
from edge_medgemma.runtime.slicing.volume import SliceStack
from edge_medgemma.runtime.store.scan_cache import Kind, ScanCache
from edge_medgemma.runtime.triage.progress import Progress, StageTracker, no_progress
from edge_medgemma.runtime.triage.report import CacheHits

Features = NDArray[np.float32]
"""Image features [tokens_per_image, hidden] of one slice, see `Engine.encode_images`."""


@dataclass(slots=True)
class FeatureStore:
    """Image features of a study, kept between passes."""

    slices: dict[int, Features] = field(default_factory=dict)
    """Features by slice index, 0-based in the spatial order of the series."""
    blank: Features | None = None

    def clear(self) -> None:
        """Drop all features."""
        self.slices.clear()
        self.blank = None


def prefill_slices(
    engine: Engine,
    instruction: str,
    slices: int,
    features: Iterable[Features],
    on_progress: Progress = no_progress,
) -> Prefix:
    """A prefix that holds the instruction and every slice.

    Args:
        engine: prefills.
        instruction: the protocol's, never text of the scan.
        slices: how many.
        features: one entry for each slice, taken when its slice is prefilled.
        on_progress: called with stage `prefill`.

    Raises:
        EngineError: more slices than the engine has positions for.
    """
    tokens = require_prompt(engine.prompt, engine.manifest.text, instruction, slices)
    chunks = engine.prompt.prefix(instruction, slices)
    prefix = engine.new_prefix(tokens)
    remaining = iter(features)
    for done, chunk in enumerate(chunks, start=1):
        images = np.stack(list(islice(remaining, chunk.images))) if chunk.images else None
        prefix.extend(chunk, images, wants_logits=False)
        on_progress("prefill", done, len(chunks))
    prefix.compact()
    return prefix


@dataclass(frozen=True, slots=True)
class EncodedSlices:
    """Computation that the scan cache spared the encoding of a pass's slices."""

    num_cached: int
    """Slices whose features the cache had."""
    has_cached_prefix: bool
    """Whether the cache has the prefix: then no slice was encoded."""


@dataclass(frozen=True, slots=True)
class PrefilledSlices:
    """A prefix of all slices, ready for questions."""

    prefix: Prefix
    cache_hits: CacheHits


class SlicePrefiller:
    """Encodes and prefills one stack of slices, each slice at most once."""

    def __init__(
        self,
        engine: Engine,
        instruction: str,
        stack: SliceStack,
        cache: ScanCache | None,
        tracker: StageTracker,
    ) -> None:
        """Prepare, computing nothing.

        Args:
            engine: encodes and prefills.
            instruction: the protocol's, never text of the scan.
            stack: slices to encode and prefill.
            cache: results of earlier runs; None computes everything and keeps nothing.
            tracker: gets the stages `recall` (the scan cache), `vision` and `prefill`; shows `open vision`.
        """
        self._engine = engine
        self._instruction = instruction
        self._stack = stack
        self._cache = cache
        self._tracker = tracker
        self.num_encoded = 0
        """Slices that the vision tower was run on, a blank one included."""

    def encode(self, features: FeatureStore) -> EncodedSlices:
        """Complete `features` unless the prefix is cached.

        Comes ahead of any use of the decoder: both parts of the engine may not fit together.
        """
        if self._cache is not None:
            with self._tracker.stage("recall"):
                if self._cache.holds(Kind.PREFIX, self._prefix_key):
                    return EncodedSlices(0, has_cached_prefix=True)
        return EncodedSlices(self._encode_missing(features), has_cached_prefix=False)

    def pooled(self, features: FeatureStore) -> Features:
        """[N, hidden]: mean of the image tokens of each slice.

        A cached prefix came without features: then these means are cached too, or slices encoded.
        """
        found: dict[int, Features] = {}
        for row, index in enumerate(self._stack.slice_indices.tolist()):
            if index not in features.slices:
                cached = self._cached_pooled(row)
                if cached is None:
                    self._encode_missing(features)
                else:
                    found[index] = cached
        for row, index in enumerate(self._stack.slice_indices.tolist()):
            if index not in found:
                (found[index],) = pool_tokens(features.slices[index][None])
                self._cache_pooled(row, found[index])
        return np.stack([found[index] for index in self._stack.slice_indices.tolist()])

    def encode_blank(self, blank: SliceStack, features: FeatureStore) -> Features:
        """Features of the one slice of `blank`, which stands for all slices; also stored."""
        if features.blank is None:
            with self._tracker.stage("vision"):
                cached = self._cached_features(blank.pixels[0], blank.preset)
                if cached is None:
                    self._open_tower()
                    self._tracker.show("vision", 0, 1)
                encoded = self._encode(blank.pixels, blank.preset) if cached is None else [cached]
                features.blank = encoded[0]
        return features.blank

    def prefill(
        self, features: FeatureStore, encoded: EncodedSlices, *, keeps_features: bool = False
    ) -> PrefilledSlices:
        """Prefill the instruction and every slice.

        Args:
            features: as `encode` completed them.
            encoded: what `encode` gave.
            keeps_features: for a later pass; else each slice's are dropped once it is prefilled.

        Raises:
            EngineError: more slices than the engine has positions for.
        """
        indices = self._stack.slice_indices.tolist()
        num_cached = encoded.num_cached
        if encoded.has_cached_prefix:
            with self._tracker.stage("prefill"):
                cached = self._cached_prefix()
            if cached is not None:
                if not keeps_features:
                    features.slices.clear()
                return PrefilledSlices(cached, CacheHits(len(indices), prefix=True))
            num_cached = self._encode_missing(features)
        take = features.slices.__getitem__ if keeps_features else features.slices.pop
        with self._tracker.stage("prefill"):
            prefix = prefill_slices(
                self._engine,
                self._instruction,
                len(indices),
                map(take, indices),
                self._tracker.step,
            )
            if self._cache is not None:
                arrays, sha256 = _to_arrays(prefix.snapshot()), self._engine.manifest.sha256
                self._cache.write(Kind.PREFIX, self._prefix_key, sha256, arrays)
        return PrefilledSlices(prefix, CacheHits(num_cached))

    def _encode_missing(self, features: FeatureStore) -> int:
        """Complete `features`; number of slices that the cache had."""
        pixels, preset = self._stack.pixels, self._stack.preset
        indices = self._stack.slice_indices.tolist()
        missing = [row for row, index in enumerate(indices) if index not in features.slices]
        if not missing:
            return 0
        with self._tracker.stage("vision"):
            uncached = []
            for row in missing:
                cached = self._cached_features(pixels[row], preset)
                if cached is None:
                    uncached.append(row)
                else:
                    features.slices[indices[row]] = cached
            done = num_cached = len(missing) - len(uncached)
            batch = self._open_tower() if uncached else 1
            self._tracker.show("vision", done, len(missing))
            for first in range(0, len(uncached), batch):
                rows = uncached[first : first + batch]
                encoded = self._encode(pixels[rows], preset)
                features.slices.update(zip([indices[row] for row in rows], encoded, strict=True))
                done += len(rows)
                self._tracker.step("vision", done, len(missing))
        return num_cached

    def _open_tower(self) -> int:
        """Slices that the tower takes at a time. Its first use on a machine tries its kernels, a minute or two."""
        self._tracker.show("open vision", 0, 1)
        return self._engine.vision_batch_size

    def _cached_features(self, pixels: NDArray[np.uint8], preset: str) -> Features | None:
        if self._cache is None:
            return None
        manifest = self._engine.manifest
        shape = (manifest.vision.tokens_per_image, manifest.text.hidden_size)

        def load(arrays: Iterator[NDArray[Any]]) -> Features:
            (features,) = arrays
            if features.shape != shape or features.dtype != np.float32:
                raise ValueError(f"features of shape {features.shape}, expected {shape}")
            return features

        key = features_key(self._engine.vision_identity, preset, pixels)
        return self._cache.read(Kind.FEATURES, key, manifest.sha256, load)

    def _encode(self, pixels: NDArray[np.uint8], preset: str) -> Features:
        """Features [n, tokens_per_image, hidden] of slices [n, rows, columns, 3], also cached."""
        features = self._engine.encode_images(pixels)
        self.num_encoded += len(features)
        if self._cache is not None:
            for one, encoded in zip(pixels, features, strict=True):
                key = features_key(self._engine.vision_identity, preset, one)
                self._cache.write(Kind.FEATURES, key, self._engine.manifest.sha256, [encoded])
        return features

    def _cached_pooled(self, row: int) -> Features | None:
        if self._cache is None:
            return None
        width = self._engine.manifest.text.hidden_size

        def load(arrays: Iterator[NDArray[Any]]) -> Features:
            (pooled,) = arrays
            if pooled.shape != (width,) or pooled.dtype != np.float32:
                raise ValueError(f"a mean of shape {pooled.shape}, expected {width}")
            return pooled

        sha256 = self._engine.manifest.sha256
        return self._cache.read(Kind.POOLED, self._features_key(row), sha256, load)

    def _cache_pooled(self, row: int, pooled: Features) -> None:
        if self._cache is None:
            return
        key = self._features_key(row)
        if not self._cache.holds(Kind.POOLED, key):
            self._cache.write(Kind.POOLED, key, self._engine.manifest.sha256, [pooled])

    def _features_key(self, row: int) -> str:
        stack = self._stack
        return features_key(self._engine.vision_identity, stack.preset, stack.pixels[row])

    def _cached_prefix(self) -> Prefix | None:
        if self._cache is None:
            return None
        chunks = self._engine.prompt.prefix(self._instruction, len(self._stack.pixels))
        tokens = sum(len(chunk.ids) for chunk in chunks)

        def load(arrays: Iterator[NDArray[Any]]) -> Prefix:
            prefix = self._engine.new_prefix(tokens)
            prefix.restore(_from_arrays(arrays, self._engine.manifest.text.layer_is_global))
            if prefix.length != tokens:
                raise ValueError(f"a prefix of {prefix.length} tokens, expected {tokens}")
            return prefix

        engine_sha256 = self._engine.manifest.sha256
        return self._cache.read(Kind.PREFIX, self._prefix_key, engine_sha256, load)

    @cached_property
    def _prefix_key(self) -> str:
        pixels, preset = self._stack.pixels, self._stack.preset
        identity = self._engine.vision_identity
        return prefix_key(
            self._engine.decoder_identity,
            self._engine.prompt.prefix(self._instruction, len(pixels)),
            [features_key(identity, preset, one) for one in pixels],
        )


def _to_arrays(snapshot: PrefixSnapshot) -> list[NDArray[Any]]:
    meta = [
        np.stack([rows.positions, rows.images, rows.chunks, rows.branches])
        for rows in (snapshot.global_rows, snapshot.local_rows)
    ]
    counts = np.array([snapshot.images, snapshot.chunks], np.int64)
    return [counts, *meta, *snapshot.global_arrays, *snapshot.local_arrays]


def _from_arrays(
    arrays: Iterator[NDArray[Any]], layer_is_global: tuple[bool, ...]
) -> PrefixSnapshot:
    """The inverse of `_to_arrays`; keys and values are loaded when they are taken, in order."""
    try:
        images, chunks = map(int, next(arrays))
        global_rows, local_rows = TokenMeta(*next(arrays)), TokenMeta(*next(arrays))
    except (StopIteration, TypeError) as error:
        raise ValueError("not a prefix") from error
    global_arrays = islice(arrays, 2 * sum(layer_is_global))
    return PrefixSnapshot(global_rows, local_rows, images, chunks, global_arrays, arrays)
