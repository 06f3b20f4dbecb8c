"""TensorRT as `backends.gpu` uses it, replaced by the stand-in that computes."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from support.fake_tensorrt import FakePlan
from support.host_device import HostDevice

from edge_medgemma.runtime.backends.gpu import DeviceBudget, TensorRtBackend
from edge_medgemma.runtime.backends.gpu_peaks import DevicePeaks
from edge_medgemma.runtime.backends.tensorrt.cache_axes import (
    GLOBAL_AXIS,
    LOCAL_AXIS,
    with_capacities,
)
from edge_medgemma.runtime.backends.tensorrt.plan_runner import TensorRtDecoder, TensorRtVision
from edge_medgemma.runtime.backends.tensorrt.shapes import DecoderShapes, VisionShapes
from edge_medgemma.runtime.errors import DeviceMemoryError
from edge_medgemma.runtime.manifest import Manifest

SHAPES = DecoderShapes(global_rows=1024, local_rows=384, prefill_rows=288, logit_rows=16)

AMPLE = DeviceBudget(10**12, is_shared=False, rows=10**6)


class FailingVision:
    """One slice a call; the device's memory is full when its slices are used up."""

    batch = 1

    def __init__(self, backend: "HostBackend", model: TensorRtVision) -> None:
        self._backend, self._model = backend, model

    def run(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._backend.slices_left < len(pixel_values):
            raise DeviceMemoryError("the GPU's memory is full")
        self._backend.slices_left -= len(pixel_values)
        return self._model.run(pixel_values)


class HostBackend:
    """Counts what it opens; `weights` is a directory to take the graphs from instead."""

    def __init__(
        self, weights: Path | None = None, driver: int = 13020, room: DeviceBudget = AMPLE
    ) -> None:
        self._weights, self._driver, self._room = weights, driver, room
        self.opened: list[str] = []
        self.slices_left = 10**6

    def check(self, manifest: Manifest) -> None:
        TensorRtBackend().check(manifest)

    def identity(self, directory: Path, manifest: Manifest) -> str:
        return f"host driver {self._driver}"

    def budget(self, directory: Path, manifest: Manifest) -> DeviceBudget:
        return self._room

    def peaks(self, manifest: Manifest) -> DevicePeaks:
        return DevicePeaks("Host", 4e11, 5e13)

    def open_vision(self, directory: Path, manifest: Manifest) -> FailingVision:
        self.opened.append("vision")
        device, folder, shapes = HostDevice(), self._weights or directory, VisionShapes((1, 2))
        graph = (folder / "vision.onnx").read_bytes()
        plan = FakePlan(graph, folder, device, shapes.profiles(manifest))
        return FailingVision(self, TensorRtVision(device, plan, manifest, shapes))

    def open_decoder(self, directory: Path, manifest: Manifest) -> TensorRtDecoder:
        self.opened.append("decoder")
        device, folder = HostDevice(), self._weights or directory
        rows = {GLOBAL_AXIS: SHAPES.global_rows, LOCAL_AXIS: SHAPES.local_rows}
        graph = with_capacities((folder / "decoder.onnx").read_bytes(), rows)
        plan = FakePlan(graph, folder, device, SHAPES.profiles(manifest))
        return TensorRtDecoder(device, plan, manifest, SHAPES)
