"""The calls of cuda-bindings, as far as they go without a device: names, arguments, refusals."""

from collections.abc import Callable

import numpy as np
import pytest

from edge_medgemma.runtime.backends.cuda_device import CudaDevice
from edge_medgemma.runtime.errors import ProviderError

runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is absent")

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


if runtime.cudaGetDeviceCount() == (runtime.cudaError_t.cudaSuccess, 1):
    pytest.skip("there is a device, on which these calls would run", allow_module_level=True)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> CudaDevice:
    """As it is once there was a device."""
    monkeypatch.setattr(CudaDevice, "__init__", lambda self: None)
    device = CudaDevice()
    device._cuda, device._event = runtime, runtime.cudaEvent_t(0)
    return device


@pytest.mark.parametrize("name", CALLS)
def test_the_library_takes_every_call(device: CudaDevice, name: str) -> None:
    """Wrong arguments are a TypeError before the library looks for a driver."""
    with pytest.raises(ProviderError, match=r"cuda\w+ failed: cudaError.*--provider cpu"):
        CALLS[name](device)


def test_the_library_takes_what_is_called_once_others_succeeded() -> None:
    for status, *_ in (
        runtime.cudaStreamEndCapture(0),
        runtime.cudaGraphInstantiate(0, 0),
        runtime.cudaGraphDestroy(0),
        runtime.cudaGetLastError(),
    ):
        assert int(status) > 0
    assert {"name", "major", "minor", "integrated"} <= set(dir(runtime.cudaDeviceProp()))


def test_no_device_is_said_in_one_line() -> None:
    with pytest.raises(ProviderError, match=r"--provider cpu") as caught:
        CudaDevice()
    assert "\n" not in str(caught.value)
