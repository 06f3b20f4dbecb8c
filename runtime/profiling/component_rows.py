"""Rows of the parts of an engine, in the shapes that llama-bench and others made customary.

`ppN` prefills N tokens, `tgN` decodes N, `@dM` at context M (llama.cpp, tools/llama-bench); `veN`
encodes N slices. Prefill and decode go through `Prefix.generate`, so they hold what a user
gets: masks, embedding rows and the greedy choice, but neither tokenisation nor decoding to text.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from statistics import median

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.backends.base import AttentionKind, Caches, DecoderModel
from edge_medgemma.runtime.backends.onnxruntime.decoder import OrtDecoder
from edge_medgemma.runtime.backends.select import Provider
from edge_medgemma.runtime.generation.embedding import Embedding
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.prefix import Prefix
from edge_medgemma.runtime.generation.prompt import Chunk
from edge_medgemma.runtime.generation.sampling import Sampling
from edge_medgemma.runtime.host import available_bytes
from edge_medgemma.runtime.manifest import Manifest
from edge_medgemma.runtime.memory.host_memory import require_context_memory
from edge_medgemma.runtime.profiling.meter import Meter
from edge_medgemma.runtime.profiling.record import Layer, Row, TokenTiming
from edge_medgemma.runtime.profiling.roofline import (
    Peaks,
    decoder_ceiling,
    generation_work,
    kernel_speeds,
    onnxruntime_speeds,
    openvino_speeds,
    prefill_work,
    vision_ceiling,
)

PROMPT_TOKENS = 512
GENERATED_TOKENS = 128
WARM_UP_TOKENS = 4

DEPTH_TOKENS = 8192
"""Where the engine has fewer positions: the largest power of two that fits."""

LONG_DEPTH_TOKENS = 24_576
"""Context of about 85 slices with their labels in MedGemma 4B."""

ENDLESS = Sampling(ignore_stop=True)

PIXELS = 512
"""Rows and columns of a CT slice."""


def vision_row(engine: Engine, slices: int, meter: Meter, peaks: Peaks) -> Row:
    """`veN`: resize, normalise and encode N slices, as the engine does it; the warm-up loads it."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (slices, PIXELS, PIXELS, 3), np.uint8)
    row = Row(
        name=f"ve{slices}",
        layer=Layer.COMPONENT,
        includes="resize, vision tower, projector",
        work=slices,
        unit="slice",
        slices=slices,
        tokens=slices * engine.manifest.vision.tokens_per_image,
    )
    measured = meter.measure(row, _encoder(engine, pixels), _encoder(engine, pixels[:1])).row
    assert measured.latency is not None
    speeds = {Provider.OPENVINO: openvino_speeds, Provider.NATIVE: kernel_speeds}.get(
        engine.vision_provider or Provider.CPU, onnxruntime_speeds
    )(peaks)
    ceiling = vision_ceiling(engine.manifest, slices, peaks, measured.latency.median_s, speeds)
    return replace(measured, ceiling=ceiling)


def decoder_row_names(depths: tuple[int, ...]) -> tuple[str, ...]:
    """Names of the rows of `decoder_rows`, in its order."""
    return tuple(
        f"{kind}{_at_context(depth)}"
        for depth in depths
        for kind in (f"pp{PROMPT_TOKENS}", f"tg{GENERATED_TOKENS}")
    )


def decoder_rows(
    decoder: DecoderModel,
    embedding: Embedding,
    manifest: Manifest,
    depths: tuple[int, ...],
    meter: Meter,
    peaks: Peaks,
) -> Iterator[Row]:
    """`pp512` and `tg128` at each depth.

    Raises:
        ResourceError: a depth needs more memory than the host has.
    """
    for depth in depths:
        if isinstance(decoder, OrtDecoder):
            require_context_memory(manifest, context_tokens(depth), available_bytes())
        prefix = deep_prefix(decoder, embedding, manifest, depth)
        ids = _random_ids(manifest, PROMPT_TOKENS)
        row = Row(
            name=f"pp{PROMPT_TOKENS}{_at_context(depth)}",
            layer=Layer.COMPONENT,
            includes="one text prompt up to its first token",
            work=PROMPT_TOKENS,
            unit="token",
            tokens=PROMPT_TOKENS,
            depth=depth,
        )
        read = _generation(prefix, ids, 1)
        measured = meter.measure(row, read, read).row
        assert measured.latency is not None
        work = prefill_work(manifest, PROMPT_TOKENS, depth)
        has_kernels = isinstance(decoder, OrtDecoder) and decoder.has_kernels
        speeds = kernel_speeds(peaks) if has_kernels else onnxruntime_speeds(peaks)
        ceiling = decoder_ceiling(manifest, work, peaks, measured.latency.median_s, speeds)
        yield replace(measured, ceiling=ceiling)
        yield _generation_row(prefix, manifest, depth, meter, peaks)


def context_tokens(depth: int) -> int:
    """Tokens of the caches that rows at a depth fill."""
    return depth + PROMPT_TOKENS + GENERATED_TOKENS


def depths_for(manifest: Manifest, with_long: bool) -> tuple[int, ...]:
    """The depths an engine is measured at."""
    room = manifest.text.max_positions - context_tokens(0)
    depth = DEPTH_TOKENS
    while depth > room:
        depth //= 2
    depths = [0, depth]
    if with_long and room >= LONG_DEPTH_TOKENS:
        depths.append(LONG_DEPTH_TOKENS)
    return tuple(depths)


def deep_prefix(
    decoder: DecoderModel, embedding: Embedding, manifest: Manifest, depth: int
) -> Prefix:
    """A prefix of `depth` tokens whose cache rows are random instead of computed.

    What a pass costs depends on how many rows there are, at which positions, and not on what stands
    in them: the graph has no branch on data, and the values are of the usual size, so no
    subnormals slow it. The book-keeping is the real one; only the decoder's passes are left out.
    """
    idle = _IdleDecoder(decoder)
    prefix = Prefix(idle, embedding, manifest, context_tokens(depth))
    if depth:
        prefix.extend(Chunk(_random_ids(manifest, depth), 0))
    idle.wake()
    return prefix


class _IdleDecoder:
    """A decoder that skips its passes until it is woken, and then finds random rows."""

    def __init__(self, decoder: DecoderModel) -> None:
        self._decoder = decoder
        self._caches = decoder.new_caches()
        self._used: dict[AttentionKind, int] = {"global": 0, "local": 0}
        self._sleeps = True

    def new_caches(self) -> Caches:
        """The one sequence's caches."""
        return self._caches

    def decode_kv_caches(
        self, caches: Caches, rows: Mapping[AttentionKind, slice], room: Mapping[AttentionKind, int]
    ) -> Caches | None:
        """See `DecoderModel.decode_kv_caches`."""
        return self._decoder.decode_kv_caches(caches, rows, room)

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
        """See `DecoderModel.run`."""
        if not self._sleeps:
            return self._decoder.run(
                caches,
                embeddings,
                position_ids,
                mask_global,
                mask_local,
                logit_rows,
                is_decode=is_decode,
            )
        self._used = {"global": mask_global.shape[-1], "local": mask_local.shape[-1]}
        return np.zeros((len(logit_rows), 1), np.float32)

    def wake(self) -> None:
        """Fill the rows in use; from now on passes are computed."""
        self._sleeps = False
        generator = np.random.default_rng(0)
        for lane, used in self._used.items():
            if used:
                rows = self._caches.view(lane, used)
                noise = generator.standard_normal(rows[0].shape, np.float32)
                self._caches.restore(lane, [noise.astype(row.dtype) for row in rows])


def _generation_row(
    prefix: Prefix, manifest: Manifest, depth: int, meter: Meter, peaks: Peaks
) -> Row:
    ids = _random_ids(manifest, 1)
    row = Row(
        name=f"tg{GENERATED_TOKENS}{_at_context(depth)}",
        layer=Layer.COMPONENT,
        includes="greedy generation from a one-token prompt",
        work=GENERATED_TOKENS,
        unit="token",
        tokens=GENERATED_TOKENS,
        depth=depth,
    )
    measured = meter.measure(
        row,
        _generation(prefix, ids, GENERATED_TOKENS),
        _generation(prefix, ids, WARM_UP_TOKENS),
    )
    latency = measured.row.latency
    assert latency is not None
    work = generation_work(manifest, GENERATED_TOKENS, depth)
    return replace(
        measured.row,
        tokens_timing=_token_timing(measured.results),
        ceiling=decoder_ceiling(manifest, work, peaks, latency.median_s, onnxruntime_speeds(peaks)),
    )


def _token_timing(answers: tuple[list[float], ...]) -> TokenTiming:
    gaps = np.concatenate([np.diff(elapsed_s) for elapsed_s in answers])
    p50, p99 = np.percentile(gaps, [50, 99])
    return TokenTiming(
        ttft_s=median(elapsed_s[0] for elapsed_s in answers),
        itl_s=median((e[-1] - e[0]) / (len(e) - 1) for e in answers),
        gap_p50_s=float(p50),
        gap_p99_s=float(p99),
    )


def _generation(prefix: Prefix, ids: tuple[int, ...], tokens: int) -> Callable[[], list[float]]:
    """Seconds at which each of `tokens` tokens came."""
    return lambda: [step.elapsed_s for step in prefix.generate(ids, ENDLESS, tokens)]


def _encoder(engine: Engine, pixels: NDArray[np.uint8]) -> Callable[[], object]:
    return lambda: engine.encode_images(pixels)


def _random_ids(manifest: Manifest, count: int) -> tuple[int, ...]:
    """Ids of ordinary tokens, seeded: none that the prompt gives a meaning to."""
    tokens = manifest.tokens
    special = {tokens.image, tokens.image_begin, tokens.image_end, tokens.bos, tokens.pad}
    ids = np.random.default_rng(0).integers(0, manifest.text.vocabulary, 2 * count + 64)
    return tuple(int(i) for i in ids if int(i) not in special)[:count]


def _at_context(depth: int) -> str:
    return f"@d{depth}" if depth else ""
