"""TensorRT's Python module: found, checked, and used to build and open plans.

Only what TensorRT 10.15 to 11 and TensorRT-RTX have in common is called: explicit types, the ONNX
parser, optimisation profiles, tensors by address. Python API reference:
https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api/
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_medgemma.runtime.errors import (
    DependencyError,
    EngineError,
    ProviderError,
    ResourceError,
)

MODULES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
"""Modules in order of preference: on a Jetson the first is JetPack's own."""

MINIMUM_VERSION = (10, 15)
"""The first with TensorScatter, RotaryEmbedding and RMSNormalization (release notes)."""

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """Least, usual and greatest shape of every input that is not fixed."""

    shapes: Mapping[str, tuple[Shape, Shape, Shape]]


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How a plan is built."""

    workspace_bytes: int | None = None
    """Most scratch memory of the builder's kernels; None leaves it to the library."""
    timing_cache: bytes = b""
    """Times of kernels that an earlier build measured on this device."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A serialized engine and what was measured while it was built."""

    engine: memoryview
    """The library's own memory: a copy of a decoder would be gigabytes."""
    timing_cache: bytes


class TensorRt:
    """One installed TensorRT."""

    def __init__(self, module: Any) -> None:
        """Use `find_tensorrt`, which checks the version."""
        self._module = module
        self._logger = module.Logger(module.Logger.ERROR)
        self._is_rtx = "rtx" in module.__name__
        self.name = "TensorRT-RTX" if self._is_rtx else "TensorRT"
        self.version = str(module.__version__)

    def build(
        self,
        graph: bytes,
        path: Path,
        profiles: Sequence[Profile],
        options: BuildOptions,
        compute_capability: tuple[int, int] | None = None,
    ) -> Plan:
        """A plan of an ONNX graph.

        Args:
            graph: the file's contents, its capacities set
            path: where it stands: weights are read from beside it
            profiles: in the order in which they will be chosen
            compute_capability: for a device that is not here (TensorRT-RTX only)

        Raises:
            EngineError: the library does not take the graph; names the node.
            ProviderError: the build failed.
        """
        trt = self._module
        builder = trt.Builder(self._logger)
        network = builder.create_network(self._network_flags())
        parser = trt.OnnxParser(network, self._logger)
        if not parser.parse(graph, str(path)):
            error = parser.get_error(0)
            raise EngineError(
                f"{self.name} {self.version} does not take '{path.name}' at node "
                f"'{error.node_name()}' ({error.node_operator()}): {error.desc()}; "
                "export the engine with --target tensorrt"
            )
        self._allow_decomposition(network)
        config = builder.create_builder_config()
        if compute_capability is not None:
            config.num_compute_capabilities = 1
            name = "SM{}{}".format(*compute_capability)
            config.set_compute_capability(getattr(trt.ComputeCapability, name), 0)
        if options.workspace_bytes is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
        cache = None
        if not self._is_rtx:  # TensorRT-RTX measures when a plan is first run
            cache = config.create_timing_cache(options.timing_cache)
            config.set_timing_cache(cache, False)
        for profile in profiles:
            added = builder.create_optimization_profile()
            for name, (least, usual, greatest) in profile.shapes.items():
                added.set_shape(name, least, usual, greatest)
            config.add_optimization_profile(added)
        serialized = builder.build_serialized_network(network, config)
        if serialized is None:
            raise ProviderError(
                f"{self.name} {self.version} could not build '{path.name}'; try a smaller "
                "--workspace, or --provider cpu"
            )
        return Plan(memoryview(serialized), b"" if cache is None else bytes(cache.serialize()))

    def open(self, plan: bytes | memoryview) -> "OpenedPlan":
        """A plan on the device.

        Raises:
            ProviderError: it was built by another version or for another device.
        """
        engine = self._module.Runtime(self._logger).deserialize_cuda_engine(plan)
        if engine is None:
            raise ProviderError(
                f"{self.name} {self.version} does not open the plan; run 'edge-medgemma build' again"
            )
        return OpenedPlan(self._module, engine)

    def _allow_decomposition(self, network: Any) -> None:
        """Let attention that no dedicated kernel takes become several kernels, not an error.

        See `plan_shapes.FUSED_ROWS`.
        """
        trt = self._module
        for number in range(network.num_layers):
            layer = network.get_layer(number)
            if layer.type == trt.LayerType.ATTENTION_INPUT:
                layer.__class__ = trt.IAttentionInputLayer  # get_layer gives the base class
                layer.attention.decomposable = True

    def _network_flags(self) -> int:
        """Strongly typed: required by 10.x, the only way of 11.x."""
        flags = self._module.NetworkDefinitionCreationFlag
        strongly_typed = getattr(flags, "STRONGLY_TYPED", None)
        return 0 if strongly_typed is None else 1 << int(strongly_typed)


class OpenedPlan:
    """A plan whose weights are on the device."""

    def __init__(self, module: Any, engine: Any) -> None:
        """Use `TensorRt.open`."""
        self._module = module
        self._engine = engine

    @property
    def workspace_bytes(self) -> int:
        """Device memory of a context's activations, whatever its profile."""
        return int(self._engine.device_memory_size_v2)

    def new_context(self, workspace: int) -> Any:
        """An execution context whose activations lie at a device address.

        Contexts may share a workspace as long as they run one after the other.

        Raises:
            ResourceError: there is no memory for it.
        """
        strategy = self._module.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._engine.create_execution_context(strategy)
        if context is None:
            raise ResourceError(
                "the GPU has no memory for the plan; use --provider cpu or build the plan for "
                "fewer --slices"
            )
        context.set_device_memory(workspace, self.workspace_bytes)
        return context


def find_tensorrt() -> TensorRt:
    """The installed TensorRT.

    Raises:
        DependencyError: none is installed.
        ProviderError: it is too old.
    """
    for name in MODULES:
        try:
            module = importlib.import_module(name)
        except (ImportError, OSError):  # bindings without their library raise either
            continue
        found = TensorRt(module)
        parts = tuple(int(part) for part in found.version.split(".")[:2])
        if not found._is_rtx and parts < MINIMUM_VERSION:
            least = ".".join(map(str, MINIMUM_VERSION))
            raise ProviderError(
                f"TensorRT {found.version} is installed, {least} or later is expected "
                "(JetPack 7.2 has 10.16); use --provider cpu"
            )
        return found
    raise DependencyError(
        "TensorRT is not installed; a Jetson has it from JetPack 7.2 (python3-libnvinfer, in a "
        "virtual environment with --system-site-packages), an RTX card from a "
        "checkout by: pip install '.[tensorrt]'"
    )
