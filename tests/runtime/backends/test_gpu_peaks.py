"""The product that a GPU's peak is measured with, computed in the device's place."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.fake_tensorrt import FakePlan
from support.host_device import HostDevice
from support.host_sessions import HostSessions

from edge_medgemma.runtime.backends import gpu_peaks as device_peaks
from edge_medgemma.runtime.backends.gpu_peaks import (
    Product,
    cuda_product,
    measure_device_peaks,
    tensorrt_product,
)
from edge_medgemma.runtime.backends.tensorrt.library import BuildOptions, Plan, Profile
from edge_medgemma.runtime.errors import ProviderError

SIDE = 48


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_peaks, "SIDE", SIDE)
    monkeypatch.setattr(device_peaks, "COPY_BYTES", 2**16)
    monkeypatch.setattr(device_peaks, "ROUNDS", 2)


class HostLibrary:
    """Builds nothing: the graph itself is the plan."""

    def __init__(self, device: HostDevice) -> None:
        self._device = device
        self._profiles: Sequence[Profile] = ()

    def build(
        self, graph: bytes, path: Path, profiles: Sequence[Profile], options: BuildOptions
    ) -> Plan:
        self._profiles = profiles
        return Plan(memoryview(graph), b"")

    def open(self, plan: memoryview) -> FakePlan:
        return FakePlan(bytes(plan), Path(), self._device, self._profiles)


def cuda(device: HostDevice) -> Product:
    return cuda_product(HostSessions(), "fp16")


def tensorrt(device: HostDevice) -> Product:
    library: Any = HostLibrary(device)
    return tensorrt_product(library, device, "fp16")


@pytest.mark.parametrize("of", [cuda, tensorrt])
def test_matrices_on_the_device_are_multiplied(of: Any) -> None:
    device = HostDevice()
    a, b, result = (device.allocate(SIDE * SIDE * 2) for _ in range(3))
    before = set(device.blocks)
    generator = np.random.default_rng(0)
    matrices = [generator.standard_normal((SIDE, SIDE)).astype(np.float16) for _ in range(2)]
    for address, matrix in zip((a, b), matrices, strict=True):
        device.upload(address, matrix, 0)
    with of(device)(a, b, result) as multiply:
        multiply()
    found = np.empty((SIDE, SIDE), np.float16)
    device.download(found, result, 0)
    expected = matrices[0].astype(np.float32) @ matrices[1].astype(np.float32)
    np.testing.assert_allclose(found, expected, atol=0.05)
    assert set(device.blocks) == before


@pytest.mark.parametrize("of", [cuda, tensorrt])
def test_peaks_are_work_over_time(of: Any) -> None:
    device = HostDevice()
    start_s = time.perf_counter()
    peaks = measure_device_peaks(device, of(device))
    elapsed_s = time.perf_counter() - start_s
    assert peaks.name == "Host"
    assert peaks.half_flop_per_s is not None
    assert peaks.half_flop_per_s > 2 * 2.0 * SIDE**3 / elapsed_s
    assert peaks.copy_bytes_per_s > 2 * 2 * 8 * 2**16 / elapsed_s
    assert not device.blocks


def test_a_library_without_the_product_has_no_peak() -> None:
    def absent(a: int, b: int, result: int) -> Any:
        raise ProviderError("no such kernel")

    device = HostDevice()
    assert measure_device_peaks(device, absent).half_flop_per_s is None
    assert not device.blocks
