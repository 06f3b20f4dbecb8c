"""The decoder on ONNX Runtime's CUDA provider: one graph for chunks, a faster one for single tokens."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.backends.base import AttentionKind, Caches
from edge_medgemma.runtime.backends.cuda.buffers import DeviceBlocks
from edge_medgemma.runtime.backends.cuda.device import Device
from edge_medgemma.runtime.backends.cuda.kv_caches import DeviceCaches
from edge_medgemma.runtime.backends.cuda.weights import DeviceWeights
from edge_medgemma.runtime.backends.decoder_inputs import chunk_feeds
from edge_medgemma.runtime.backends.onnxruntime.session import import_onnxruntime
from edge_medgemma.runtime.errors import DeviceMemoryError, ProviderError
from edge_medgemma.runtime.manifest import DECODE_GRAPH, PREFILL_GRAPH, Manifest

LOG = logging.getLogger(__name__)

ELEMENT_TYPES = {
    "tensor(float)": 1,
    "tensor(uint8)": 2,
    "tensor(int32)": 6,
    "tensor(int64)": 7,
    "tensor(float16)": 10,
    "tensor(bfloat16)": 16,
}
"""onnx.TensorProto.DataType by the name that a session gives it."""

MOST_RECORDINGS = 32
"""Recordings of one session, which keeps each until it is closed: one for each place of the caches."""


class Sessions(Protocol):
    """How graphs are opened and run, and where."""

    @property
    def device_type(self) -> str:
        """Name that onnxruntime gives to the memory of the addresses."""
        ...

    def open(self, graph: Path | bytes, *, grows: bool = False, is_recorded: bool = False) -> Any:
        """A session; see `backends.cuda.cuda_session`."""
        ...

    def run(self, session: Any, binding: Any, options: Any = None) -> None:
        """Run a session on a binding.

        Raises:
            DeviceMemoryError: the device's memory is full.
            ProviderError: it fails otherwise.
        """
        ...


class CudaDecoder:
    """Both graphs over one copy of the weights."""

    def __init__(
        self, directory: Path, manifest: Manifest, device: Device, sessions: Sessions
    ) -> None:
        """Open the graphs of an engine directory on `device`."""
        self._device = device
        self._manifest = manifest
        self._sessions = sessions
        self._stream = device.new_stream()
        chunk = sessions.open(directory / PREFILL_GRAPH, grows=True)
        self._chunk = _Graph(chunk, sessions.device_type)
        self._weights = DeviceWeights(device, directory, self._chunk.metadata, self._stream)
        self._chunk.bind_all(self._weights.addresses)
        path = directory / DECODE_GRAPH
        self._token = _TokenGraph(path, manifest, device, self._stream, sessions, self._weights)

    def new_caches(self) -> DeviceCaches:
        """See `DecoderModel.new_caches`."""
        return DeviceCaches(self._device, self._manifest, self._stream)

    def decode_kv_caches(
        self,
        caches: Caches,
        rows: Mapping[AttentionKind, slice],
        spare_rows: Mapping[AttentionKind, int],
    ) -> None:
        """See `DecoderModel.decode_kv_caches`: there is no faster form."""

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
        assert isinstance(caches, DeviceCaches)
        chunk = (embeddings, position_ids, mask_global, mask_local, logit_rows)
        feeds = chunk_feeds(self._manifest.dialect, caches, *chunk)
        window = self._manifest.text.sliding_window
        if len(embeddings) == len(logit_rows) == 1 and sees_all(mask_global, mask_local, window):
            return self._token.run(caches, feeds)
        binding = self._chunk.binding
        binding.bind_output("logits", "cpu")
        for name, value in feeds.items():
            binding.bind_cpu_input(name, value)
        self._chunk.bind_caches(caches)
        self._sessions.run(self._chunk.session, binding)
        logits: NDArray[np.float32] = binding.get_outputs()[0].numpy()
        return logits


def sees_all(
    mask_global: NDArray[np.float32], mask_local: NDArray[np.float32], window: int
) -> bool:
    """Whether a token's masks [1, 1, 1, T] hide nothing but what lies before its window."""
    hidden = np.count_nonzero(mask_local[..., -window:])
    older = mask_local[..., :-window]
    return not np.any(mask_global) and not hidden and np.count_nonzero(older) == older.size


class _Graph:
    """A session and what is bound to it."""

    def __init__(self, session: Any, device_type: str) -> None:
        self.session = session
        self.binding = session.io_binding()
        self._place = (device_type, 0)
        self._inputs = {one.name: one for one in session.get_inputs()}
        self._outputs = {one.name: one for one in session.get_outputs()}

    @property
    def metadata(self) -> Mapping[str, str]:
        """Metadata of the graph file."""
        metadata: Mapping[str, str] = self.session.get_modelmeta().custom_metadata_map
        return metadata

    def bind_all(self, addresses: Mapping[str, int]) -> None:
        """Inputs of fixed shapes at device addresses."""
        for name, address in addresses.items():
            self.bind(name, self._inputs[name].shape, address)

    def bind(self, name: str, shape: Any, address: int) -> None:
        """One input at a device address."""
        element = ELEMENT_TYPES[self._inputs[name].type]
        self.binding.bind_input(name, *self._place, element, shape, address)

    def bind_result(self, name: str, shape: Any, address: int) -> None:
        """One output at a device address."""
        element = ELEMENT_TYPES[self._outputs[name].type]
        self.binding.bind_output(name, *self._place, element, shape, address)

    def bind_caches(self, caches: DeviceCaches) -> None:
        """Keys and values, read and written in place."""
        for name, address in caches.addresses.items():
            shape = caches.shape(caches.attention_of(name))
            self.bind(f"past_{name}", shape, address)
            self.bind_result(f"present_{name}", shape, address)


class _TokenGraph:
    """decoder_token.onnx with everything at fixed addresses, so that CUDA can record its launches."""

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        device: Device,
        stream: int,
        sessions: Sessions,
        weights: DeviceWeights,
    ) -> None:
        """The graph is opened when the first token comes."""
        text = manifest.text
        self._path, self._sessions, self._weights = path, sessions, weights
        self._device, self._stream = device, stream
        self._vocabulary = text.vocabulary
        self._shapes = {
            "embeddings": (1, 1, text.hidden_size),
            "position_ids": (1, 1),
            "seqlen_global": (1,),
            "seqlen_local": (1,),
            "logit_rows": (1,),
        }
        self._is_recorded = True
        self._graph: _Graph | None = None
        self._bound: tuple[object, ...] = ()
        self._recordings = 0
        self._blocks = DeviceBlocks(device)
        self._inputs = {
            name: self._blocks.allocate(8 * math.prod(shape))  # no element is wider
            for name, shape in self._shapes.items()
        }
        self._logits = self._blocks.allocate(4 * text.vocabulary)

    def run(
        self, caches: DeviceCaches, feeds: Mapping[str, NDArray[np.generic]]
    ) -> NDArray[np.float32]:
        """Logits [1, vocabulary] of one token, `feeds` those of any chunk."""
        for name, address in self._inputs.items():
            self._device.upload(address, feeds[name], self._stream)
        self._device.synchronize(self._stream)
        try:
            self._run_bound(caches)
        except DeviceMemoryError:
            raise
        except ProviderError as error:
            if not self._is_recorded:
                raise
            LOG.info("single tokens run without a CUDA graph: %s", error)
            self._is_recorded, self._graph = False, None
            self._run_bound(caches)  # writes the same rows again
        logits = np.empty((1, self._vocabulary), np.float32)
        self._device.download(logits, self._logits, self._stream)
        self._device.synchronize(self._stream)
        return logits

    def _run_bound(self, caches: DeviceCaches) -> None:
        capacities = caches.capacity("global"), caches.capacity("local")
        bound = (*caches.addresses.values(), *capacities)
        if bound != self._bound and self._recordings == MOST_RECORDINGS:
            self._graph = None
        graph = self._graph or self._open()
        if bound != self._bound:
            graph.bind_caches(caches)
            for attention, rows in zip(("global", "local"), capacities, strict=True):
                graph.binding.bind_cpu_input(f"total_{attention}", np.array(rows, np.int32))
            self._bound = bound
            self._recordings += 1
        options = import_onnxruntime().RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(self._recordings))
        self._sessions.run(graph.session, graph.binding, options)

    def _open(self) -> _Graph:
        """The graph with everything bound but caches."""
        self._bound, self._recordings = (), 0
        session = self._sessions.open(self._path, is_recorded=self._is_recorded)
        graph = self._graph = _Graph(session, self._sessions.device_type)
        graph.bind_all(self._weights.addresses)
        for name, address in self._inputs.items():
            graph.bind(name, self._shapes[name], address)
        graph.bind_result("logits", (1, self._vocabulary), self._logits)
        return graph
