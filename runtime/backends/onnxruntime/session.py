"""ONNX Runtime on the CPU."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.errors import DependencyError, EngineError

SPIN_DURATION_US = 200
"""Idle threads of the pool sleep after this long: no slower, a third of the power of the default."""


class OrtVision:
    """`vision.onnx`: slices to image tokens."""

    batch = 1
    """More at once are no faster on a CPU, and take memory."""

    def __init__(self, directory: Path, threads: int | None) -> None:
        self._session = open_session(directory / "vision.onnx", threads)

    def run(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        """[N, 3, image_size, image_size] to [N, tokens_per_image, hidden]."""
        features: NDArray[np.float32] = self._session.run(None, {"pixel_values": pixel_values})[0]
        return features


def library_version() -> str:
    """Name and version of the library: results of another one may differ in the last bits.

    Raises:
        DependencyError: no onnxruntime is installed.
    """
    return f"onnxruntime {import_onnxruntime().__version__}"


def open_session(path: Path, threads: int | None, *, library: str | None = None) -> Any:
    """An ONNX Runtime session on the CPU.

    Args:
        path: of the graph
        threads: of the compute pool; None leaves the choice to the library
        library: its operators are taken before onnxruntime's own of the same name

    Raises:
        DependencyError: no onnxruntime is installed.
        EngineError: the graph does not load.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.enable_mem_pattern = False  # shapes differ from pass to pass
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_DURATION_US))
    # Without VNNI, products of uint8 and int8 would saturate; ignored where the processor has it.
    options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        if library is not None:
            options.register_custom_ops_library(library)
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 onnxruntime's exceptions share no base
        reason = str(error).splitlines()[0]
        raise EngineError(f"'{path}' does not load ({reason}); export the engine again") from None


def import_onnxruntime() -> Any:
    """The installed onnxruntime, of whatever package.

    Raises:
        DependencyError: there is none.
    """
    try:
        import onnxruntime
    except ImportError:
        raise DependencyError(
            "onnxruntime is not installed; from a checkout, run: pip install '.[cpu]', or '.[gpu]' "
            "with an NVIDIA card"
        ) from None
    return onnxruntime
