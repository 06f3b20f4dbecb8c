"""The calls of cuda-bindings, as far as they go without a device: names, arguments, refusals."""

import enum
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge_medgemma.runtime.backends.cuda.device import CudaDevice
from edge_medgemma.runtime.errors import DeviceMemoryError, ProviderError


class Status(enum.IntEnum):
    """Of cudaError_t, driver_types.h."""

    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorNoKernelImageForDevice = 209
    cudaErrorIllegalAddress = 700


def library(count: Status, allocated: Status = Status.cudaSuccess, driver: int = 13020) -> object:
    """cuda.bindings.runtime, as far as finding a device and a first allocation go."""
    return SimpleNamespace(
        cudaGetDeviceCount=lambda: (count, 1),
        cudaEventCreate=lambda: (Status.cudaSuccess, 7),
        cudaDriverGetVersion=lambda: (Status.cudaSuccess, driver),
        cudaRuntimeGetVersion=lambda: (Status.cudaSuccess, 13050),
        cudaMalloc=lambda size: (allocated, 4096),
    )


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (library(Status.cudaErrorInsufficientDriver, driver=0), "no NVIDIA driver is installed"),
        (
            library(Status.cudaErrorInsufficientDriver, driver=12040),
            r"driver knows CUDA 12\.4, 13\.5 is needed; update the driver",
        ),
        (library(Status.cudaErrorNoDevice), "no CUDA device was found"),
        (
            library(Status.cudaErrorNoKernelImageForDevice),
            "no kernels for this GPU",
        ),
        (
            library(Status.cudaErrorIllegalAddress),
            r"cudaGetDeviceCount failed: cudaErrorIllegalAddress \(700\)",
        ),
    ],
)
def test_every_refusal_is_a_sentence_with_a_way_out(
    monkeypatch: pytest.MonkeyPatch, found: object, words: str
) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", found)
    with pytest.raises(ProviderError, match=f"{words}.*use --provider cpu$") as caught:
        CudaDevice()
    assert "\n" not in str(caught.value)


def test_a_full_device_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    full = library(Status.cudaSuccess, Status.cudaErrorMemoryAllocation)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", full)
    with pytest.raises(DeviceMemoryError, match="fewer --slices"):
        CudaDevice().allocate(1)


ARRAY = np.zeros(4, np.float32)

CALLS: dict[str, Callable[[CudaDevice], object]] = {
    "properties": lambda device: device.properties(),
    "allocate": lambda device: device.allocate(16),
    "release": lambda device: device.release(4096),
    "new_stream": lambda device: device.new_stream(),
    "clear": lambda device: device.clear(4096, 16, 0),
    "upload": lambda device: device.upload(4096, ARRAY, 0),
    "download": lambda device: device.download(ARRAY, 4096, 0),
    "copy_blocks": lambda device: device.copy_blocks((4096, 64), (8192, 64), 16, 2, 0),
    "follow": lambda device: device.follow(0, 0),
    "synchronize": lambda device: device.synchronize(0),
    "record": lambda device: device.record(0, lambda: None),
    "replay": lambda device: device.replay(4096, 0),
    "forget": lambda device: device.forget(4096),
}
"""Every method of `Device`."""


@pytest.fixture
def runtime() -> Any:
    """The library itself."""
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is absent")
    if runtime.cudaGetDeviceCount()[0] == runtime.cudaError_t.cudaSuccess:
        pytest.skip("there is a device, on which these calls would run")
    return runtime


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, runtime: Any) -> CudaDevice:
    """As it is once there was a device."""
    monkeypatch.setattr(CudaDevice, "__init__", lambda self: None)
    device = CudaDevice()
    device._cuda, device._event = runtime, runtime.cudaEvent_t(0)
    return device


@pytest.mark.parametrize("name", CALLS)
def test_the_library_takes_every_call(device: CudaDevice, name: str) -> None:
    """Wrong arguments are a TypeError before the library looks for a driver."""
    with pytest.raises(ProviderError, match="--provider cpu"):
        CALLS[name](device)


def test_the_library_takes_what_is_called_once_others_succeeded(runtime: Any) -> None:
    for status, *_ in (
        runtime.cudaStreamEndCapture(0),
        runtime.cudaGraphInstantiate(0, 0),
        runtime.cudaGraphDestroy(0),
        runtime.cudaGetLastError(),
    ):
        assert int(status) > 0
    assert {"name", "major", "minor", "integrated"} <= set(dir(runtime.cudaDeviceProp()))
