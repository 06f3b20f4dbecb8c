"""Slices on their way into a prefix; what the engine has read before is taken from the scan cache."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import islice
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.kv_snapshot import PrefixSnapshot
from edge_medgemma.runtime.generation.masks import TokenMeta
from edge_medgemma.runtime.generation.prefix import Prefix
from edge_medgemma.runtime.generation.scan_keys import features_key, prefix_key
from edge_medgemma.runtime.slicing.volume import SliceStack
from edge_medgemma.runtime.store.scan_cache import Kind, ScanCache
from edge_medgemma.runtime.tracing.spans import SpanRecorder
from edge_medgemma.runtime.triage.questions import Progress, read_slices
from edge_medgemma.runtime.triage.report import NO_CACHE_HITS, CacheHits

Features = NDArray[np.float32]

NOTHING_KNOWN: Mapping[int, Features] = MappingProxyType({})


class SlicePrefiller:
    """Encodes and reads one stack of slices, each step at most once."""

    def __init__(
        self,
        engine: Engine,
        instruction: str,
        stack: SliceStack,
        cache: ScanCache | None,
        recorder: SpanRecorder,
        on_progress: Progress,
        known: Mapping[int, Features] = NOTHING_KNOWN,
        *,
        keeps_features: bool = False,
    ) -> None:
        """Prepare to read.

        Args:
            engine: reads.
            instruction: of the protocol, never text of the scan.
            stack: slices to read.
            cache: of earlier readings; None computes everything and keeps nothing.
            recorder: gets the spans `recall`, `vision` and `prefill`.
            on_progress: called with the stages of the same names.
            known: image features by row of the stack, of an earlier reading
            keeps_features: for a later reading; else each is let go of once it is read
        """
        self._engine = engine
        self._instruction = instruction
        self._stack = stack
        self._cache = cache
        self._recorder = recorder
        self._on_progress = on_progress
        self._keeps_features = keeps_features
        self.features: dict[int, Features] = dict(known)
        """Image features [tokens_per_image, hidden] by row, as far as they were needed."""
        self.encoded = 0
        """Slices that the vision tower was run on."""
        self.recalled = NO_CACHE_HITS

    def encode_unless_read(self) -> None:
        """Encode the slices now, ahead of any use of the decoder, unless their prefix is cached."""
        if not self._is_read():
            self._encode_missing()

    def encode_blank(self, blank: SliceStack) -> Features:
        """Image features [tokens_per_image, hidden] of a slice that stands for all slices."""
        with self._recorder.span("vision"):
            known = self._recall(blank.pixels[0], blank.preset)
            return self._encode(blank.pixels, blank.preset)[0] if known is None else known

    def read(self) -> Prefix:
        """The prefix that holds the instruction and every slice.

        Raises:
            EngineError: more slices than the engine has positions for.
        """
        if self._is_read():
            with self._recorder.span("prefill"):
                prefix = self._recall_prefix()
            if prefix is not None:
                self.recalled = CacheHits(len(self._stack.pixels), prefix=True)
                return prefix
        self._encode_missing()
        count = len(self._stack.pixels)
        take = self.features.__getitem__ if self._keeps_features else self.features.pop
        features = map(take, range(count))
        with self._recorder.span("prefill"):
            prefix = read_slices(
                self._engine, self._instruction, count, features, self._on_progress
            )
            self._keep_prefix(prefix)
        return prefix

    def _is_read(self) -> bool:
        if self._cache is None:
            return False
        with self._recorder.span("recall"):
            return self._cache.holds(Kind.PREFIX, self._prefix_key)

    def _encode_missing(self) -> None:
        """Complete `features`, from the cache where it has them."""
        pixels, preset = self._stack.pixels, self._stack.preset
        missing = [row for row in range(len(pixels)) if row not in self.features]
        if not missing:
            return
        with self._recorder.span("vision"):
            unknown = []
            for row in missing:
                known = self._recall(pixels[row], preset)
                if known is None:
                    unknown.append(row)
                else:
                    self.features[row] = known
            self.recalled = CacheHits(self.recalled.slices + len(missing) - len(unknown))
            done = len(missing) - len(unknown)
            batch = self._engine.vision_batch_size if unknown else 1  # asking loads the tower
            for first in range(0, len(unknown), batch):
                rows = unknown[first : first + batch]
                encoded = self._encode(pixels[rows], preset)
                self.features.update(zip(rows, encoded, strict=True))
                done += len(rows)
                self._on_progress("vision", done, len(missing))

    def _recall(self, pixels: NDArray[np.uint8], preset: str) -> Features | None:
        """Image features of one slice, where the cache has them."""
        if self._cache is None:
            return None
        manifest = self._engine.manifest
        shape = (manifest.vision.tokens_per_image, manifest.text.hidden_size)

        def take(arrays: Iterator[NDArray[Any]]) -> Features:
            (features,) = arrays
            if features.shape != shape or features.dtype != np.float32:
                raise ValueError(f"features of shape {features.shape}, expected {shape}")
            return features

        key = features_key(self._engine.vision_identity, preset, pixels)
        return self._cache.read(Kind.FEATURES, key, manifest.sha256, take)

    def _encode(self, pixels: NDArray[np.uint8], preset: str) -> Features:
        """Run the tower on slices [n, rows, columns, 3] and keep what it made of each."""
        features = self._engine.encode_images(pixels)
        self.encoded += len(features)
        for one, made in zip(pixels, features, strict=True):
            if self._cache is not None:
                key = features_key(self._engine.vision_identity, preset, one)
                self._cache.write(Kind.FEATURES, key, self._engine.manifest.sha256, [made])
        return features

    def _recall_prefix(self) -> Prefix | None:
        if self._cache is None:
            return None
        chunks = self._engine.prompt.prefix(self._instruction, len(self._stack.pixels))
        tokens = sum(len(chunk.ids) for chunk in chunks)

        def take(arrays: Iterator[NDArray[Any]]) -> Prefix:
            prefix = self._engine.new_prefix(tokens)
            prefix.restore(_snapshot(arrays, self._engine.manifest.text.layer_is_global))
            if prefix.length != tokens:
                raise ValueError(f"a prefix of {prefix.length} tokens, expected {tokens}")
            return prefix

        engine_sha256 = self._engine.manifest.sha256
        return self._cache.read(Kind.PREFIX, self._prefix_key, engine_sha256, take)

    def _keep_prefix(self, prefix: Prefix) -> None:
        if self._cache is not None:
            arrays = _arrays(prefix.snapshot())
            engine_sha256 = self._engine.manifest.sha256
            self._cache.write(Kind.PREFIX, self._prefix_key, engine_sha256, arrays)

    @cached_property
    def _prefix_key(self) -> str:
        pixels, preset = self._stack.pixels, self._stack.preset
        identity = self._engine.vision_identity
        return prefix_key(
            self._engine.decoder_identity,
            self._engine.prompt.prefix(self._instruction, len(pixels)),
            [features_key(identity, preset, one) for one in pixels],
        )


def _arrays(snapshot: PrefixSnapshot) -> list[NDArray[Any]]:
    rows = [
        np.stack([rows.positions, rows.images, rows.chunks, rows.branches])
        for rows in (snapshot.global_rows, snapshot.local_rows)
    ]
    counts = np.array([snapshot.images, snapshot.chunks], np.int64)
    return [counts, *rows, *snapshot.global_arrays, *snapshot.local_arrays]


def _snapshot(arrays: Iterator[NDArray[Any]], layer_is_global: tuple[bool, ...]) -> PrefixSnapshot:
    """The inverse of `_arrays`; keys and values stay unread until they are taken, in order."""
    try:
        images, chunks = map(int, next(arrays))
        global_rows, local_rows = TokenMeta(*next(arrays)), TokenMeta(*next(arrays))
    except (StopIteration, TypeError) as error:
        raise ValueError("not a prefix") from error
    global_arrays = islice(arrays, 2 * sum(layer_is_global))
    return PrefixSnapshot(global_rows, local_rows, images, chunks, global_arrays, arrays)
