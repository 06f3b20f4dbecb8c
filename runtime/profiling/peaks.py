"""Measured peaks of this machine: bandwidth and matrix products, with the run's threads."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.backends.gpu_peaks import DevicePeaks
from edge_medgemma.runtime.backends.onnx_writer import (
    Value,
    blocks_product_model,
    one_node_model,
    product_model,
)
from edge_medgemma.runtime.backends.onnxruntime.custom_ops import custom_ops_library
from edge_medgemma.runtime.backends.onnxruntime.stored_scales import with_stored_scales
from edge_medgemma.runtime.backends.openvino.vision import has_bfloat16, openvino_core
from edge_medgemma.runtime.errors import DependencyError
from edge_medgemma.runtime.kernels.level import kernel_level
from edge_medgemma.runtime.manifest import Manifest
from edge_medgemma.runtime.profiling.kernel_peaks import kernel_peaks
from edge_medgemma.runtime.profiling.memory_bandwidth import MemoryRead
from edge_medgemma.runtime.profiling.roofline import Peaks

BANDWIDTH_BYTES = 256 * 2**20
"""More than any cache of a bedside processor."""

TOKENS = 512
"""Rows of a product: those of one pass."""
INPUTS, OUTPUTS = 2048, 4096
BLOCK_SIZE = 128

ROUNDS = 20
"""The best of so many is the peak."""


def measure_peaks(manifest: Manifest, threads: int) -> Peaks:
    """Peaks of the machine, of the CPU kernels of the libraries that there are; takes about 3 s."""
    memory = MemoryRead(threads, BANDWIDTH_BYTES)
    read = memory.bytes_per_s(ROUNDS)
    memory.close()
    generator = np.random.default_rng(0)
    a = generator.standard_normal((TOKENS, INPUTS), np.float32)
    b = generator.standard_normal((INPUTS, OUTPUTS), np.float32)
    float_model = product_model(b)
    bits = {"int4": 4, "int8": 8}.get(manifest.precision.decoder)
    return Peaks(
        read_bytes_per_s=read,
        copy_bytes_per_s=_copy_bandwidth(threads),
        f32_flop_per_s=_product(threads, float_model, {"a": a}),
        int8_flop_per_s=_product(
            threads,
            one_node_model(
                "MatMulInteger",
                "",
                {"a": Value("uint8")},
                {"b": b.astype(np.int8)},
                {"c": Value("int32")},
                {},
            ),
            {"a": np.abs(a * 40).astype(np.uint8)},
        ),
        weight_only_flop_per_s=(
            None
            if bits is None
            else _product(threads, _weight_only_model(bits), {"x": a}, custom_ops_library())
        ),
        bf16_flop_per_s=_bf16_product(threads, float_model, a),
        level=kernel_level() or "",
        instruction_flop_per_s=kernel_peaks(threads),
    )


def peaks_of_device(found: DevicePeaks) -> Peaks:
    """A GPU's, whose libraries multiply everything in 16 bits or less: one peak for all."""
    half = found.half_flop_per_s
    return Peaks(found.copy_bytes_per_s, found.copy_bytes_per_s, half, half, half, half, found.name)


def _weight_only_model(bits: int) -> bytes:
    shape = (OUTPUTS, INPUTS // BLOCK_SIZE, BLOCK_SIZE * bits // 8)
    scales = np.full(shape[:2], 0.01, np.float32)
    return blocks_product_model(np.full(shape, 0x5A, np.uint8), scales, bits)


def _product(
    threads: int,
    model: bytes,
    feeds: Mapping[str, NDArray[np.generic]],
    library: str | None = None,
) -> float | None:
    """FLOP a second; None where onnxruntime is missing or lacks the operator."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    try:
        if library is not None:
            options.register_custom_ops_library(library)
            model = with_stored_scales(model)
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        session.run(None, dict(feeds))
    except Exception:  # noqa: BLE001 onnxruntime's exceptions share no base
        return None
    seconds = _best_s(lambda: session.run(None, dict(feeds)))
    return 2.0 * TOKENS * INPUTS * OUTPUTS / seconds


def _bf16_product(threads: int, model: bytes, a: NDArray[np.float32]) -> float | None:
    """FLOP a second in OpenVINO; None where it is missing or the CPU multiplies no bfloat16."""
    try:
        core = openvino_core()
    except DependencyError:
        return None
    if not has_bfloat16(core):
        return None
    settings = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": str(threads)}
    graph = core.read_model(model)
    graph.reshape(list(a.shape))
    request = core.compile_model(graph, "CPU", settings).create_infer_request()
    seconds = _best_s(lambda: request.infer({0: a}))
    return 2.0 * TOKENS * INPUTS * OUTPUTS / seconds


def _copy_bandwidth(threads: int) -> float:
    """Bytes read plus bytes written, a second."""
    source = np.ones(BANDWIDTH_BYTES // 4, np.float32)
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:  # numpy lets go of the interpreter lock
        copy_s = _best_s(lambda: list(pool.map(lambda part: np.copyto(part[1], part[0]), parts)))
    return 2 * BANDWIDTH_BYTES / copy_s


def _best_s(action: Callable[[], object]) -> float:
    best_s = float("inf")
    for _ in range(ROUNDS):
        start_s = time.perf_counter()
        action()
        best_s = min(best_s, time.perf_counter() - start_s)
    return best_s
