"""ONNX Runtime's CUDA provider: its sessions, its errors, and the vision tower."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.backends.onnxruntime.session import import_onnxruntime
from edge_medgemma.runtime.errors import DependencyError, DeviceMemoryError, ProviderError

CUDA = "CUDAExecutionProvider"

OUT_OF_MEMORY_WORDS = ("Failed to allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""Words of onnxruntime, CUDA and cuBLAS where memory is full."""

NO_KERNEL_WORDS = "no kernel image"
"""Words of CUDA where a library holds no code for the card (cudaErrorNoKernelImageForDevice)."""


class CudaVision:
    """`vision.onnx`, several slices at a time."""

    batch = 8
    """Slices per call: enough to fill a consumer card, 77 MB of pixels."""

    def __init__(self, session: Any) -> None:
        """`session` runs vision.onnx on the device."""
        self._session = session

    def run(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `VisionModel.run`."""
        with device_errors():
            (features,) = self._session.run(None, {"pixel_values": pixel_values})
        return np.asarray(features, np.float32)


class CudaSessions:
    """Sessions on the first CUDA device, for `CudaDecoder`."""

    device_type = "cuda"

    def open(self, graph: Path | bytes, *, grows: bool = False, is_recorded: bool = False) -> Any:
        """See `cuda_session`."""
        return cuda_session(graph, grows=grows, is_recorded=is_recorded)

    def run(self, session: Any, binding: Any, options: Any = None) -> None:
        """Run a session on a binding, its exceptions ours."""
        with device_errors():
            session.run_with_iobinding(binding, options)


def require_cuda_provider() -> None:
    """Refuse an onnxruntime without CUDA.

    Raises:
        DependencyError: no onnxruntime is installed, or it has no CUDA.
    """
    if CUDA not in import_onnxruntime().get_available_providers():
        raise DependencyError(
            "the installed onnxruntime has no CUDA; run: pip uninstall -y onnxruntime, then "
            "from a checkout: pip install '.[gpu]'"
        )


def cuda_session(graph: Path | bytes, *, grows: bool = False, is_recorded: bool = False) -> Any:
    """A session on the first CUDA device.

    Args:
        graph: a file, or its contents
        grows: scratch memory grows from run to run
        is_recorded: run as a CUDA graph from the second run on with the same addresses

    Raises:
        DependencyError: no onnxruntime is installed, or it has no CUDA.
        ProviderError: CUDA does not work here.
        EngineError: the graph does not load.
    """
    onnxruntime = import_onnxruntime()
    require_cuda_provider()
    with redirect_stdout(sys.stderr):  # it prints what it misses; our output may be JSON
        onnxruntime.preload_dlls(cudnn=False)  # CUDA of the wheels, where the system has none
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_mem_pattern = False  # shapes differ from pass to pass
    # Exact blocks waste least where runs are alike. Where each needs a little more than the last
    # they are never used again: a scan of 85 slices on the 4B shape then takes 16 GB, else 1.3.
    strategy = "kNextPowerOfTwo" if grows else "kSameAsRequested"
    settings = {"device_id": "0", "arena_extend_strategy": strategy, "use_tf32": "0"}
    if is_recorded:
        settings["enable_cuda_graph"] = "1"
    with device_errors():
        session = onnxruntime.InferenceSession(
            graph, options, providers=[(CUDA, settings), "CPUExecutionProvider"]
        )
    if session.get_providers()[0] != CUDA:  # onnxruntime steps down without a word
        raise ProviderError(
            "CUDA does not start (a driver too old, or cuBLAS is missing); 'edge-medgemma doctor' "
            "says more; or use --provider cpu"
        )
    return session


@contextmanager
def device_errors() -> Iterator[None]:
    """Turn onnxruntime's exceptions, which share no base, into ours.

    Raises:
        DeviceMemoryError: the device's memory is full.
        ProviderError: anything else failed.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if any(word in str(error) for word in OUT_OF_MEMORY_WORDS):
            raise DeviceMemoryError(
                "the GPU's memory is full; use fewer --slices, an int4 engine or --provider cpu"
            ) from None
        if NO_KERNEL_WORDS in str(error):
            raise ProviderError(
                "this onnxruntime has no kernels for this GPU; use TensorRT there (edge-medgemma "
                "build) or --provider cpu"
            ) from None
        raise ProviderError(f"onnxruntime failed on CUDA ({reason}); use --provider cpu") from None
