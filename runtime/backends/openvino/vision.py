"""OpenVINO on the CPU: the vision graph, in bfloat16 where the CPU multiplies that."""

import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.errors import DependencyError, ProviderError
from edge_medgemma.runtime.host import machine_identity
from edge_medgemma.runtime.kernels.level import cpu_kernels

BFLOAT16 = "BF16"
"""OpenVINO's name for the capability: avx512_bf16 or amx_bf16. Without it all is float32: float16
overflows in trained towers."""

NOT_INSTALLED = "OpenVINO is not installed; from a checkout, run: pip install '.[cpu,openvino]'"


class OpenVinoVision:
    """`vision.onnx`: slices to image tokens."""

    batch = 1
    """The compiled graph has the shape of one slice."""

    def __init__(self, directory: Path, threads: int | None) -> None:
        """Read and compile the graph, for one slice at a time.

        Raises:
            DependencyError: OpenVINO is not installed.
            ProviderError: it does not run this graph on this machine.
        """
        core = openvino_core()
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if has_bfloat16(core) else "f32",
        }
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = str(threads)
        path = directory / "vision.onnx"
        try:
            graph = core.read_model(path)
            _, *axes = graph.input(0).get_partial_shape()
            graph.reshape([1, *axes])  # fixed shapes compile to faster kernels
            self._request = core.compile_model(graph, "CPU", settings).create_infer_request()
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ProviderError(f"OpenVINO does not load '{path}' ({reason})") from None

    def run(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        """[N, 3, image_size, image_size] to [N, tokens_per_image, hidden]."""
        return np.concatenate([self._run_one(one[None]) for one in pixel_values])

    def _run_one(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            features: NDArray[np.float32] = self._request.infer({0: pixel_values})[0]
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ProviderError(f"OpenVINO fails at a slice ({reason})") from None
        return features


def openvino_identity() -> str:
    """Library version, machine, instruction sets and kernel: all that the numbers depend on besides the engine.

    The library is not loaded: it has not been tried yet.

    Raises:
        DependencyError: OpenVINO is not installed.
    """
    if importlib.util.find_spec("openvino") is None:
        raise DependencyError(NOT_INSTALLED)
    words = [importlib.metadata.version("openvino"), machine_identity()]
    if cpu_kernels is not None:
        words += cpu_kernels.claimed_levels()
    return f"openvino {' '.join(words)}"


def has_bfloat16(core: Any) -> bool:
    """Whether the CPU multiplies bfloat16, as OpenVINO sees it."""
    return BFLOAT16 in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def openvino_core() -> Any:
    """OpenVINO's entry.

    Raises:
        DependencyError: OpenVINO is not installed.
    """
    try:
        import openvino
    except ImportError:
        raise DependencyError(NOT_INSTALLED) from None
    return openvino.Core()
