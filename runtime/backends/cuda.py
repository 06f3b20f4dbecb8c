"""ONNX Runtime on an NVIDIA GPU: caches stay on the device, only tokens and logits travel."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.backends.cuda_device import Device
from edge_medgemma.runtime.backends.device_caches import DeviceCaches
from edge_medgemma.runtime.backends.feeds import chunk_feeds
from edge_medgemma.runtime.backends.model import Caches, LaneName
from edge_medgemma.runtime.backends.ort import import_onnxruntime
from edge_medgemma.runtime.errors import DeviceMemoryError, ProviderError
from edge_medgemma.runtime.manifest import Manifest

CUDA = "CUDAExecutionProvider"

OUT_OF_MEMORY_WORDS = ("Failed to allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""How onnxruntime, CUDA and cuBLAS say it."""

ELEMENT_TYPES = {"fp32": 1, "fp16": 10, "bf16": 16}
"""onnx.TensorProto.DataType of a cache's precision."""


class CudaVision:
    """`vision.onnx`, several slices at a time."""

    batch = 8
    """Slices per call: enough to fill a consumer card, 77 MB of pixels."""

    def __init__(self, session: Any) -> None:
        """`session` runs vision.onnx on the device."""
        self._session = session

    def run(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `VisionModel.run`."""
        with _device_errors():
            (features,) = self._session.run(None, {"pixel_values": pixel_values})
        return np.asarray(features, np.float32)


class CudaDecoder:
    """`decoder.onnx` in the `ort` dialect, exported with --target cuda."""

    def __init__(self, session: Any, device: Device, manifest: Manifest, device_type: str) -> None:
        """`session` runs decoder.onnx on `device`, which onnxruntime calls `device_type`."""
        self._session = session
        self._device = device
        self._manifest = manifest
        self._device_type = device_type
        self._stream = device.new_stream()

    def new_caches(self) -> DeviceCaches:
        """See `DecoderModel.new_caches`."""
        return DeviceCaches(self._device, self._manifest, self._stream)

    def answer_caches(
        self, caches: Caches, rows: Mapping[LaneName, slice], room: Mapping[LaneName, int]
    ) -> None:
        """See `DecoderModel.answer_caches`: there is no faster form."""

    def run(
        self,
        caches: Caches,
        embeddings: NDArray[np.float32],
        position_ids: NDArray[np.int64],
        mask_global: NDArray[np.float32],
        mask_local: NDArray[np.float32],
        logit_rows: NDArray[np.int64],
        *,
        is_answer: bool = False,
    ) -> NDArray[np.float32]:
        """See `DecoderModel.run`."""
        assert isinstance(caches, DeviceCaches)
        binding = self._session.io_binding()
        binding.bind_output("logits", "cpu")  # first, so that get_outputs has it first
        chunk = (embeddings, position_ids, mask_global, mask_local, logit_rows)
        for name, value in chunk_feeds(self._manifest.dialect, caches, *chunk).items():
            binding.bind_cpu_input(name, value)
        element = ELEMENT_TYPES[self._manifest.precision.cache]
        for name, address in caches.addresses.items():
            shape = caches.shape(caches.lane_of(name))
            place = (self._device_type, 0, element, shape, address)
            binding.bind_input(f"past_{name}", *place)
            binding.bind_output(f"present_{name}", *place)
        with _device_errors():
            self._session.run_with_iobinding(binding)
        logits: NDArray[np.float32] = binding.get_outputs()[0].numpy()
        return logits


def cuda_session(path: Path) -> Any:
    """A session on the first CUDA device.

    Raises:
        DependencyError: no onnxruntime is installed.
        ProviderError: it has no CUDA, or none that works here.
        EngineError: the graph does not load.
    """
    onnxruntime = import_onnxruntime()
    if CUDA not in onnxruntime.get_available_providers():
        raise ProviderError(
            "this onnxruntime has no CUDA; run: pip uninstall onnxruntime, then "
            "pip install 'edge-medgemma[gpu]'"
        )
    onnxruntime.preload_dlls()  # CUDA and cuDNN of the wheels, where the system has none
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_mem_pattern = False  # shapes differ from pass to pass
    # Arena in steps of what is asked for: doubling wastes half of a small card.
    settings = {"device_id": "0", "arena_extend_strategy": "kSameAsRequested", "use_tf32": "0"}
    with _device_errors():
        session = onnxruntime.InferenceSession(
            path, options, providers=[(CUDA, settings), "CPUExecutionProvider"]
        )
    if session.get_providers()[0] != CUDA:  # onnxruntime steps down without a word
        raise ProviderError(
            "CUDA does not start (a driver too old, or cuDNN is missing); 'edge-medgemma doctor' "
            "says more; or use --provider cpu"
        )
    return session


@contextmanager
def _device_errors() -> Iterator[None]:
    """Turn onnxruntime's exceptions, which share no base, into ours."""
    try:
        yield
    except Exception as error:  # noqa: BLE001
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if any(word in str(error) for word in OUT_OF_MEMORY_WORDS):
            raise DeviceMemoryError(
                "the GPU's memory is full; use fewer --slices, an int4 engine or --provider cpu"
            ) from None
        raise ProviderError(f"onnxruntime failed on CUDA ({reason}); use --provider cpu") from None
