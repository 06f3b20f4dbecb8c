"""The decoder on ONNX Runtime's CPU provider, with its caches bound in place."""

import contextlib
import ctypes
import logging
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.backends.base import AttentionKind, Caches
from edge_medgemma.runtime.backends.decoder_inputs import chunk_feeds
from edge_medgemma.runtime.backends.onnxruntime.custom_ops import custom_ops_library
from edge_medgemma.runtime.backends.onnxruntime.fused_graph import fused_graph
from edge_medgemma.runtime.backends.onnxruntime.graph_check import check_decoder
from edge_medgemma.runtime.backends.onnxruntime.session import import_onnxruntime, open_session
from edge_medgemma.runtime.errors import EngineError
from edge_medgemma.runtime.manifest import Manifest

LOG = logging.getLogger(__name__)

GRAPH_NAME = "decoder.onnx"

KERNEL_PRECISIONS = ("int4", "int8")
"""Precisions of weights that MatMulNBits multiplies where activations are float32."""

INT8_LEVELS = 127

INT8_MARGIN = np.float32(2)
"""Range of int8 keys and values in decode over the largest of prefill; more is clipped."""

INT8_MINIMUM_ROWS = 512
"""Fewer rows cost no time worth saving, and are too few to tell the range of what will follow."""

QUANTISED_ROWS = 512
"""Rows that are quantised at once: they stay in the processor's cache."""

SHRINK_ROWS = 4096
"""Rows of context after which memory is released: scratch, which grows with the context in blocks that
are never joined, and image features that were prefilled. At 22,000 rows they are 0.3 GB."""


class OrtDecoder:
    """`decoder.onnx`: token embeddings, masks and caches to logits."""

    def __init__(self, directory: Path, manifest: Manifest, threads: int | None) -> None:
        """Open the graph of an engine directory.

        Raises:
            EngineError: the graph does not load, or is in bfloat16.
        """
        if manifest.precision.cache == "bf16":
            raise EngineError(
                "this engine computes in bfloat16, which onnxruntime has not on a CPU; export it "
                "with --activations fp16, or with --target cpu"
            )
        session = _open_with_operators(directory, manifest, threads)
        self.has_kernels = session is not None
        self._session: Any = session or open_session(directory / GRAPH_NAME, threads)
        check_decoder(self._session, manifest)
        self._manifest = manifest
        self._threads = threads
        self._shrunk_at_rows = 0

    def new_caches(self) -> "OrtCaches":
        """Empty caches for one sequence of tokens."""
        return OrtCaches(self._session, self._manifest, is_int8=False)

    def decode_kv_caches(
        self,
        caches: Caches,
        rows: Mapping[AttentionKind, slice],
        spare_rows: Mapping[AttentionKind, int],
    ) -> "OrtCaches | None":
        """See `DecoderModel.decode_kv_caches`."""
        assert isinstance(caches, OrtCaches)
        if self._manifest.precision.decode_kv_cache != "int8":
            return None
        if rows["global"].stop - rows["global"].start < INT8_MINIMUM_ROWS:
            return None
        int8_caches = OrtCaches(self._session, self._manifest, is_int8=True)
        with ThreadPoolExecutor(self._threads) as pool:  # numpy releases the interpreter lock
            for attention, some in rows.items():
                int8_caches.reserve(attention, some.stop - some.start + spare_rows[attention], 0)
                list(pool.map(*int8_caches.copies(attention, caches, some)))
        return int8_caches

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
        assert isinstance(caches, OrtCaches)
        binding = caches.binding
        chunk = (embeddings, position_ids, mask_global, mask_local, logit_rows)
        feeds = chunk_feeds(self._manifest.dialect, caches, *chunk)
        if self._manifest.precision.draft_head is not None:
            feeds["use_draft_head"] = np.array(is_decode)
        for name, value in feeds.items():
            binding.bind_cpu_input(name, value)
        logits = np.empty((len(logit_rows), self._manifest.text.vocabulary), np.float32)
        binding.bind_ortvalue_output("logits", _shared(logits))
        if self._is_time_to_shrink(mask_global.shape[3]):
            options = import_onnxruntime().RunOptions()
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
            self._session.run_with_iobinding(binding, options)
            _trim_heap()
        else:
            self._session.run_with_iobinding(binding)
        return logits

    def _is_time_to_shrink(self, rows: int) -> bool:
        """Whether a pass with `rows` rows of context is the one to give memory back after."""
        self._shrunk_at_rows = min(self._shrunk_at_rows, rows)  # another context began
        if rows < self._shrunk_at_rows + SHRINK_ROWS:
            return False
        self._shrunk_at_rows = rows
        return True


def _open_with_operators(directory: Path, manifest: Manifest, threads: int | None) -> Any:
    """A session with our operators; None where they are not used, or nothing is there to use them."""
    precision = manifest.precision
    has_maps = precision.decoder in KERNEL_PRECISIONS and precision.activations == "fp32"
    library = custom_ops_library() if has_maps and manifest.dialect == "ort" else None
    if library is None:
        return None
    try:
        model = fused_graph(directory / GRAPH_NAME)
        return open_session(directory / GRAPH_NAME, threads, model=model, library=library)
    except EngineError as error:
        LOG.warning("the decoder runs without its kernels: %s", error)
        return None


def _trim_heap() -> None:
    """Return to the system what was freed between blocks still in use; only glibc can."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


class OrtCaches:
    """Key and value buffers of every layer, bound once as past and present of the graph."""

    def __init__(self, session: Any, manifest: Manifest, *, is_int8: bool) -> None:
        self.binding = session.io_binding()
        self._text = manifest.text
        half = manifest.precision.cache == "fp16"
        self._float = np.dtype(np.float16 if half else np.float32)
        self._suffix = "_int8" if is_int8 else ""
        self._dtype = np.dtype(np.int8) if is_int8 else self._float
        self._capacity: dict[AttentionKind, int] = {"global": 0, "local": 0}
        self._buffers: dict[str, NDArray[Any]] = {}
        if manifest.precision.decode_kv_cache == "int8":
            self._bind_unused(is_int8)

    def capacity(self, attention: AttentionKind) -> int:
        """Rows that the buffers of a attention hold."""
        return self._capacity[attention]

    def reserve(self, attention: AttentionKind, rows: int, used: int) -> None:
        """Allocate `rows` rows, keeping the first `used`."""
        for kind, layer in self._names(attention):
            old = self._buffers.pop(f"{kind}.{layer}", None)
            new = np.zeros((1, self._text.kv_heads, rows, self._text.head_dim), self._dtype)
            if old is not None:
                new[:, :, :used] = old[:, :, :used]
            self._buffers[f"{kind}.{layer}"] = new
            self._bind(f"{kind}{self._suffix}.{layer}", new)
        self._capacity[attention] = rows

    def drop(self, attention: AttentionKind, count: int, used: int) -> None:
        """Move rows `count` .. `used` to the front."""
        for buffer in self._buffers_of(attention):
            buffer[:, :, : used - count] = buffer[:, :, count:used]

    def view(self, attention: AttentionKind, used: int) -> list[NDArray[np.floating]]:
        """The first `used` rows of every layer, not copied."""
        return [buffer[:, :, :used] for buffer in self._buffers_of(attention)]

    def restore(self, attention: AttentionKind, saved: Iterable[NDArray[np.floating]]) -> None:
        """Put back what `view` gave, at the front."""
        for buffer, rows in zip(self._buffers_of(attention), saved, strict=True):
            place = buffer[:, :, : rows.shape[2]]
            if (rows.shape, rows.dtype) != (place.shape, place.dtype):
                raise ValueError(
                    f"a {attention} array is {rows.dtype} {rows.shape}, the caches take {place.dtype} "
                    f"{place.shape}"
                )
            place[...] = rows

    def copies(self, attention: AttentionKind, source: "OrtCaches", rows: slice) -> tuple[Any, Any]:
        """A function and what to call it with, in any order, to fill these int8 caches."""

        def copy(name: tuple[str, int]) -> None:
            kind, layer = name
            values = source._buffers[f"{kind}.{layer}"][:, :, rows]
            scale = quantise(values, self._buffers[f"{kind}.{layer}"])
            self.binding.bind_cpu_input(f"{kind}_scale.{layer}", scale)

        return copy, self._names(attention)

    def _bind(self, name: str, buffer: NDArray[Any]) -> None:
        value = _shared(buffer)
        self.binding.bind_ortvalue_input(f"past_{name}", value)
        self.binding.bind_ortvalue_output(f"present_{name}", value)

    def _bind_unused(self, is_int8: bool) -> None:
        """The caches of the other kind have no rows; unused scales are 1."""
        self.binding.bind_cpu_input("use_int8_caches", np.array(is_int8))
        heads, size = self._text.kv_heads, self._text.head_dim
        suffix, dtype = ("", self._float) if is_int8 else ("_int8", np.dtype(np.int8))
        for layer in range(self._text.layers):
            for kind in ("key", "value"):
                self._bind(f"{kind}{suffix}.{layer}", np.zeros((1, heads, 0, size), dtype))
                if not is_int8:
                    scale = np.ones(heads * size, np.float32)
                    self.binding.bind_cpu_input(f"{kind}_scale.{layer}", scale)

    def _buffers_of(self, attention: AttentionKind) -> Iterator[NDArray[Any]]:
        return (self._buffers[f"{kind}.{layer}"] for kind, layer in self._names(attention))

    def _names(self, attention: AttentionKind) -> list[tuple[str, int]]:
        layers = [
            i
            for i, is_global in enumerate(self._text.layer_is_global)
            if is_global == (attention == "global")
        ]
        return [(kind, i) for i in layers for kind in ("key", "value")]


def _shared(array: NDArray[Any]) -> Any:
    """An OrtValue over the array's own memory."""
    return import_onnxruntime().OrtValue.ortvalue_from_numpy(array)


def quantise(values: NDArray[np.floating], out: NDArray[np.int8]) -> NDArray[np.float32]:
    """Write `values` [1, K, n, D] to the first rows of `out` [1, K, >= n, D].

    Returns:
        [K * D], the scale of each channel: value = scale * integer.
    """
    count = values.shape[2]
    parts = [slice(i, min(i + QUANTISED_ROWS, count)) for i in range(0, count, QUANTISED_ROWS)]
    largest = np.zeros((1, values.shape[1], 1, values.shape[3]), np.float32)
    for part in parts:
        np.maximum(largest, np.abs(values[:, :, part]).max(axis=2, keepdims=True), out=largest)
    scale: NDArray[np.float32] = np.maximum(
        largest * (INT8_MARGIN / INT8_LEVELS), np.finfo(np.float32).tiny
    )
    for part in parts:
        out[:, :, part] = np.rint(values[:, :, part] / scale)
    return scale.reshape(-1)
