"""ONNX Runtime on the CPU."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.backends.onnx_writer import Value, one_node_model
from edge_medgemma.runtime.backends.onnxruntime.graph_check import check_vision
from edge_medgemma.runtime.errors import DependencyError, EngineError, ProviderError
from edge_medgemma.runtime.kernels.level import choose_level
from edge_medgemma.runtime.manifest import Manifest

SPIN_DURATION_US = 200
"""Idle threads of the pool sleep after this long: no slower, a third of the power of the default."""

_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
"""Where weights lie of a model that is in memory: an entry of onnxruntime's session options."""


class OrtVision:
    """`vision.onnx`: slices to image tokens."""

    batch = 1
    """More at once are no faster on a CPU, and take memory."""

    def __init__(
        self, directory: Path, threads: int | None, *, has_int8_products: bool = True
    ) -> None:
        """Without `has_int8_products` it is not asked, in 20 ms, whether they would saturate."""
        is_exact = has_int8_products and saturates_int8_products()
        self._session = open_session(directory / "vision.onnx", threads, is_exact_int8=is_exact)

    def check(self, manifest: Manifest) -> None:
        """Raise an EngineError where the graph does not have the shapes of the manifest."""
        check_vision(self._session, manifest)

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


@cache
def saturates_int8_products() -> bool:
    """Whether onnxruntime's products of uint8 and int8 saturate here, as on x86 processors without VNNI.

    There the sum of two products is kept in 16 bits (vpmaddubsw): 2 * 255 * 127 does not fit.
    """
    weights = np.full((64, 64), 127, np.int8)
    model = one_node_model(
        "MatMulInteger", "", {"a": Value("uint8")}, {"b": weights}, {"c": Value("int32")}, {}
    )
    onnxruntime = import_sound_onnxruntime()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (product,) = session.run(None, {"a": np.full((64, 64), 255, np.uint8)})
    return bool((product != 64 * 255 * 127).any())


def open_session(
    path: Path,
    threads: int | None,
    *,
    model: bytes | None = None,
    library: str | None = None,
    is_exact_int8: bool = False,
) -> Any:
    """An ONNX Runtime session on the CPU.

    Args:
        path: of the graph
        model: the graph, where it is not the file's own; its weights lie beside the file all the same
        threads: of the compute pool; None leaves the choice to the library
        library: its operators are taken before onnxruntime's own of the same name
        is_exact_int8: multiply int8 activations and weights as uint8, which never saturates and is
            slower where the processor has VNNI

    Raises:
        DependencyError: no onnxruntime is installed.
        EngineError: the graph does not load.
        ProviderError: onnxruntime does not run on this processor.
    """
    onnxruntime = import_sound_onnxruntime()
    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.enable_mem_pattern = False  # shapes differ from pass to pass
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_DURATION_US))
    if is_exact_int8:
        options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        if library is not None:
            options.register_custom_ops_library(library)
        if model is not None:
            options.add_session_config_entry(_WEIGHTS_FOLDER, str(path.parent))
        return onnxruntime.InferenceSession(
            path if model is None else model, options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # noqa: BLE001 onnxruntime's exceptions share no base
        reason = str(error).splitlines()[0]
        raise EngineError(f"'{path}' does not load ({reason}); export the engine again") from None


def import_sound_onnxruntime() -> Any:
    """The installed onnxruntime, tried on this machine's processor before it is loaded.

    Raises:
        DependencyError: there is none.
        ProviderError: it would kill this process, as it did a child.
    """
    fault = choose_level().library_fault
    if fault is not None:
        raise ProviderError(
            f"{fault}: it does not run on this processor; install another version of onnxruntime, or "
            "use --provider cuda or tensorrt with an NVIDIA card"
        )
    return import_onnxruntime()


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
