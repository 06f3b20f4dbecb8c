"""TensorRT's objects, recorded; `execute_async_v3` runs the very graph in onnxruntime.

What a GPU does not do here is replaced, nothing else: shapes must lie in the chosen profile, every
tensor must have an address, and values are read from and written to those addresses.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from support.host_device import HostDevice

from edge_medgemma.runtime.backends.tensorrt.library import BuildOptions, Plan, Profile

TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}


class FakeContext:
    """An execution context over a graph file."""

    def __init__(self, session: Any, device: HostDevice, profiles: Sequence[Profile]) -> None:
        self.session, self.device, self.profiles = session, device, profiles
        self.profile = 0
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.executed: list[int] = []

    def set_optimization_profile_async(self, number: int, stream: int) -> None:
        self.profile = number
        self.shapes.clear()

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        limits = self.profiles[self.profile].shapes.get(name)
        if limits is not None:
            low, _, high = limits
            inside = all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))
            assert inside, f"{name} {shape} is not in profile {self.profile}: {limits}"
        self.shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        self.executed.append(self.profile)
        shapes, addresses = dict(self.shapes), dict(self.addresses)
        self.device.launch(lambda: self._compute(shapes, addresses))
        return True

    def _compute(self, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int]) -> None:
        feeds = {}
        for value in self.session.get_inputs():
            shape = shapes.get(value.name) or tuple(value.shape)
            dtype = np.dtype(TYPES[value.type])
            size_bytes = int(np.prod(shape)) * dtype.itemsize
            stored = self.device.view(addresses[value.name], size_bytes)
            feeds[value.name] = stored.view(dtype).reshape(shape).copy()
        names = [value.name for value in self.session.get_outputs()]
        for name, result in zip(names, self.session.run(names, feeds), strict=True):
            target = self.device.view(addresses[name], result.nbytes)
            target[:] = np.ascontiguousarray(result).reshape(-1).view(np.uint8)


class FakePlan:
    """What `TensorRt.open` gives."""

    workspace_bytes = 4096

    def __init__(
        self, graph: bytes, folder: Path, device: HostDevice, profiles: Sequence[Profile]
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(folder)
        )
        self._session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"]
        )
        self._device, self._profiles = device, profiles
        self.contexts: list[FakeContext] = []

    def new_context(self, workspace: int) -> FakeContext:
        assert self._device.view(workspace, self.workspace_bytes).size
        self.contexts.append(FakeContext(self._session, self._device, self._profiles))
        return self.contexts[-1]


class FakeTensorRt:
    """An installed TensorRT for a host device; its plans name the graph's folder and shapes."""

    name, version = "TensorRT", "10.16.2.10"

    def __init__(self, device: HostDevice) -> None:
        self._device = device

    def build(
        self, graph: bytes, path: Path, profiles: Sequence[Profile], options: BuildOptions
    ) -> Plan:
        shapes = [{name: limits for name, limits in one.shapes.items()} for one in profiles]
        header = json.dumps({"folder": str(path.parent), "profiles": shapes}).encode()
        return Plan(memoryview(header + b"\n" + graph), options.timing_cache + path.name.encode())

    def open(self, plan: bytes | memoryview) -> FakePlan:
        header, _, graph = bytes(plan).partition(b"\n")
        built = json.loads(header)
        profiles = [Profile(shapes) for shapes in built["profiles"]]
        return FakePlan(graph, Path(built["folder"]), self._device, profiles)
