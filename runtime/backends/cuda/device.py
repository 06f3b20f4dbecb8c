"""Memory, copies and streams of a CUDA device, without torch."""

import importlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.errors import DependencyError, DeviceMemoryError, ProviderError

LOG = logging.getLogger(__name__)

OUT_OF_MEMORY, INSUFFICIENT_DRIVER, NO_DEVICE, NO_KERNEL_IMAGE = 2, 35, 100, 209
"""CUDA runtime API, cudaError_t."""

REASONS = {
    NO_DEVICE: "no CUDA device was found",
    NO_KERNEL_IMAGE: "the library has no kernels for this GPU",
}


@dataclass(frozen=True, slots=True)
class DeviceProperties:
    """Name, abilities and memory of a device."""

    name: str
    compute_capability: tuple[int, int]
    driver_version: int
    """1000 * major + 10 * minor, as cudaDriverGetVersion says."""
    free_bytes: int
    total_bytes: int
    is_integrated: bool = False
    """Its memory is the host's, as on a Jetson."""

    @property
    def identity(self) -> str:
        """The same for the same numbers, whatever memory is free."""
        capability = "{}.{}".format(*self.compute_capability)
        return f"{self.name} {capability} driver {self.driver_version}"


class Device(Protocol):
    """Memory, copies and streams of a device. Addresses are device pointers, streams opaque numbers."""

    def properties(self) -> DeviceProperties:
        """Name, capability and memory now."""
        ...

    def allocate(self, size_bytes: int) -> int:
        """Address of new memory, not cleared.

        Raises:
            DeviceMemoryError: there is not that much left.
        """
        ...

    def release(self, address: int) -> None:
        """Release memory."""
        ...

    def new_stream(self) -> int:
        """A queue of work that runs in order."""
        ...

    def clear(self, address: int, size_bytes: int, stream: int) -> None:
        """Fill memory with zeros."""
        ...

    def upload(self, address: int, array: NDArray[Any], stream: int) -> None:
        """Copy a C-contiguous array to the device; it may be changed when the call returns."""
        ...

    def download(self, array: NDArray[Any], address: int, stream: int) -> None:
        """Copy device memory into a C-contiguous array; wait for the stream before reading it."""
        ...

    def copy_blocks(
        self,
        target: tuple[int, int],
        source: tuple[int, int],
        width_bytes: int,
        count: int,
        stream: int,
    ) -> None:
        """Copy `count` blocks within the device; (address, bytes from block to block) of each side."""
        ...

    def follow(self, stream: int, other: int) -> None:
        """Let `stream` wait for what `other` has been given so far."""
        ...

    def synchronize(self, stream: int) -> None:
        """Wait for a stream's work."""
        ...

    def record(self, stream: int, work: Callable[[], None]) -> int | None:
        """Recording of what `work` gives to the stream, not yet done; None where it cannot be recorded."""
        ...

    def replay(self, recording: int, stream: int) -> None:
        """Give a stream the work of a recording."""
        ...

    def forget(self, recording: int) -> None:
        """Release a recording."""
        ...


class CudaDevice:
    """Device 0 through NVIDIA's cuda-python (`cuda.bindings.runtime`)."""

    def __init__(self) -> None:
        """Raises:
        DependencyError: cuda-bindings is not installed.
        ProviderError: there is no usable device or driver.
        """
        try:
            self._cuda: Any = importlib.import_module("cuda.bindings.runtime")
        except ImportError:
            raise DependencyError(
                "cuda-bindings is not installed; from a checkout, run: pip install '.[tensorrt]'"
            ) from None
        self._call("cudaGetDeviceCount")  # fails where there is none
        self._event: Any = self._call("cudaEventCreate")[0]

    def properties(self) -> DeviceProperties:
        """See `Device.properties`."""
        (found,) = self._call("cudaGetDeviceProperties", 0)
        (driver,) = self._call("cudaDriverGetVersion")
        free, total = self._call("cudaMemGetInfo")
        name = found.name.decode().rstrip("\0")
        capability = (found.major, found.minor)
        return DeviceProperties(name, capability, driver, free, total, bool(found.integrated))

    def allocate(self, size_bytes: int) -> int:
        """See `Device.allocate`."""
        return int(self._call("cudaMalloc", size_bytes)[0])

    def release(self, address: int) -> None:
        """See `Device.release`."""
        self._call("cudaFree", address)

    def new_stream(self) -> int:
        """See `Device.new_stream`."""
        return int(self._call("cudaStreamCreate")[0])

    def clear(self, address: int, size_bytes: int, stream: int) -> None:
        """See `Device.clear`."""
        self._call("cudaMemsetAsync", address, 0, size_bytes, stream)

    def upload(self, address: int, array: NDArray[Any], stream: int) -> None:
        """Copy from pageable memory, which CUDA stages before the call returns (API docs, §3.1)."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, stream)

    def download(self, array: NDArray[Any], address: int, stream: int) -> None:
        """See `Device.download`."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, stream)

    def copy_blocks(
        self,
        target: tuple[int, int],
        source: tuple[int, int],
        width_bytes: int,
        count: int,
        stream: int,
    ) -> None:
        """See `Device.copy_blocks`."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self._call("cudaMemcpy2DAsync", *target, *source, width_bytes, count, kind, stream)

    def follow(self, stream: int, other: int) -> None:
        """See `Device.follow`."""
        self._call("cudaEventRecord", self._event, other)
        self._call("cudaStreamWaitEvent", stream, self._event, 0)

    def synchronize(self, stream: int) -> None:
        """See `Device.synchronize`."""
        self._call("cudaStreamSynchronize", stream)

    def record(self, stream: int, work: Callable[[], None]) -> int | None:
        """See `Device.record`; a CUDA graph (CUDA runtime API, stream capture)."""
        self._call(
            "cudaStreamBeginCapture", stream,
            self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal,
        )  # fmt: skip
        try:
            work()
            failure = None
        except ProviderError as error:
            failure = error
        try:
            (graph,) = self._call("cudaStreamEndCapture", stream)  # even where the work failed
            if failure is not None:
                raise failure
            (executable,) = self._call("cudaGraphInstantiate", graph, 0)
            self._call("cudaGraphDestroy", graph)
        except ProviderError as error:
            self._cuda.cudaGetLastError()  # else the next call would report it again
            LOG.info("single tokens run without a CUDA graph: %s", error)
            return None
        return int(executable)

    def replay(self, recording: int, stream: int) -> None:
        """See `Device.replay`."""
        self._call("cudaGraphLaunch", recording, stream)

    def forget(self, recording: int) -> None:
        """See `Device.forget`."""
        self._call("cudaGraphExecDestroy", recording)

    def _call(self, function: str, *arguments: Any) -> tuple[Any, ...]:
        status, *results = getattr(self._cuda, function)(*arguments)
        code = int(status)
        if code == OUT_OF_MEMORY:
            raise DeviceMemoryError(
                "the GPU's memory is full; use fewer --slices, an int4 engine or --provider cpu"
            )
        if code == INSUFFICIENT_DRIVER:
            raise ProviderError(self._driver_problem())
        if code:
            reason = REASONS.get(code, f"{function} failed: {status.name} ({code})")
            raise ProviderError(f"{reason}; use --provider cpu")
        return tuple(results)

    def _driver_problem(self) -> str:
        """CUDA says the same of a driver that is too old and of none."""
        (_, driver), (_, needed) = (
            self._cuda.cudaDriverGetVersion(), self._cuda.cudaRuntimeGetVersion()
        )  # fmt: skip
        if not driver:
            return "no NVIDIA driver is installed; install one, or use --provider cpu"
        return (
            f"the NVIDIA driver knows CUDA {_version(driver)}, {_version(needed)} is needed; update "
            "the driver, or use --provider cpu"
        )


def _version(number: int) -> str:
    """`13.2` of 13020."""
    return f"{number // 1000}.{number % 1000 // 10}"


def element_bytes(precision: str) -> int:
    """Bytes of one number of a cache: `fp32`, `fp16` or `bf16`."""
    return 4 if precision == "fp32" else 2


def to_stored(values: NDArray[np.floating], precision: str) -> NDArray[Any]:
    """Numbers as a device stores them; bf16, which numpy lacks, as the upper half of float32."""
    if precision == "bf16":
        wide = np.ascontiguousarray(values, np.float32).view(np.uint32)
        return (wide >> 16).astype(np.uint16)
    return np.ascontiguousarray(values, np.float16 if precision == "fp16" else np.float32)


def from_stored(stored: NDArray[Any], precision: str) -> NDArray[np.floating]:
    """The inverse of `to_stored`, exact for what a device stored."""
    if precision == "bf16":
        wide: NDArray[np.floating] = (stored.astype(np.uint32) << 16).view(np.float32)
        return wide
    return stored


def stored_dtype(precision: str) -> np.dtype[Any]:
    """The numpy type that carries a precision: uint16 for bf16."""
    return np.dtype({"fp32": np.float32, "fp16": np.float16, "bf16": np.uint16}[precision])
