"""Peaks of a GPU: copies within its memory, and one large product in 16 bits."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge_medgemma.runtime.backends.cuda.buffers import DeviceBlocks
from edge_medgemma.runtime.backends.cuda.decoder import Sessions
from edge_medgemma.runtime.backends.cuda.device import Device
from edge_medgemma.runtime.backends.onnx_writer import Value, one_node_model
from edge_medgemma.runtime.backends.tensorrt.library import BuildOptions, Profile, TensorRt
from edge_medgemma.runtime.errors import ProviderError

COPY_BYTES = 256 * 2**20
"""More than any cache of a GPU."""

SIDE = 8192
"""Rows of the square matrices: 1.1 TFLOP a product, a millisecond on the fastest cards."""

ROUNDS = 20
"""The best of so many is the peak."""

REPEATS = 8
"""Copies between two readings of the clock."""

ELEMENTS = {"fp16": ("float16", 10), "bf16": ("bfloat16", 16)}
"""Names and onnx.TensorProto.DataType of 16-bit types."""

Product = Callable[[int, int, int], AbstractContextManager[Callable[[], None]]]
"""Takes the addresses of two matrices and their product; gives a call that multiplies and waits."""


@dataclass(frozen=True, slots=True)
class DevicePeaks:
    """Measured on a GPU."""

    name: str
    copy_bytes_per_s: float
    """Bytes read plus bytes written"""
    half_flop_per_s: float | None
    """MatMul in the type of the engine's activations; None where the library could not do it"""


def measure_device_peaks(device: Device, product: Product) -> DevicePeaks:
    """Takes seconds and 0.5 GB of a device on which no engine is.

    Raises:
        ProviderError: the device fails.
        DeviceMemoryError: its memory is full.
    """
    with _memory(device, 2, COPY_BYTES) as (source, target):
        stream = device.new_stream()

        def copy() -> None:
            for _ in range(REPEATS):
                device.copy_blocks(
                    (target, COPY_BYTES), (source, COPY_BYTES), COPY_BYTES, 1, stream
                )
            device.synchronize(stream)

        copy_bytes_per_s = 2 * REPEATS * COPY_BYTES / _best_s(copy)
    half_flop_per_s = None
    with _memory(device, 3, SIDE * SIDE * 2) as addresses:
        try:
            with product(*addresses) as multiply:
                half_flop_per_s = 2.0 * SIDE**3 / _best_s(multiply)
        except ProviderError:
            pass  # a library without this product has no peak, and rows no ceiling
    return DevicePeaks(device.properties().name, copy_bytes_per_s, half_flop_per_s)


def cuda_product(sessions: Sessions, activations: str) -> Product:
    """onnxruntime's MatMul; `activations` is `fp16` or `bf16`."""

    @contextmanager
    def product(a: int, b: int, result: int) -> Iterator[Callable[[], None]]:
        session = sessions.open(_model(activations))
        binding = session.io_binding()
        place = sessions.device_type, 0, ELEMENTS[activations][1], (SIDE, SIDE)
        binding.bind_input("a", *place, a)
        binding.bind_input("b", *place, b)
        binding.bind_output("product", *place, result)
        yield lambda: sessions.run(session, binding)

    return product


def tensorrt_product(library: TensorRt, device: Device, activations: str) -> Product:
    """TensorRT's MatMul, built first; `activations` is `fp16` or `bf16`."""

    @contextmanager
    def product(a: int, b: int, result: int) -> Iterator[Callable[[], None]]:
        shape = (SIDE, SIDE)
        profile = Profile({"a": (shape,) * 3, "b": (shape,) * 3})
        plan = library.build(_model(activations), Path("product"), [profile], BuildOptions())
        opened, stream = library.open(plan.engine), device.new_stream()
        with _memory(device, 1, opened.workspace_bytes) as (workspace,):
            context = opened.new_context(workspace)
            context.set_optimization_profile_async(0, stream)
            for name, address in (("a", a), ("b", b), ("product", result)):
                if name != "product":
                    context.set_input_shape(name, shape)
                context.set_tensor_address(name, address)

            def multiply() -> None:
                if not context.execute_async_v3(stream):
                    raise ProviderError("TensorRT could not run a product")
                device.synchronize(stream)

            yield multiply

    return product


def _model(activations: str) -> bytes:
    value = Value(ELEMENTS[activations][0])
    return one_node_model("MatMul", "", {"a": value, "b": value}, {}, {"product": value}, {})


@contextmanager
def _memory(device: Device, count: int, size_bytes: int) -> Iterator[tuple[int, ...]]:
    """Addresses of cleared blocks, released at the end."""
    blocks, stream = DeviceBlocks(device), device.new_stream()
    try:
        addresses = tuple(blocks.allocate(size_bytes) for _ in range(count))
        for address in addresses:
            device.clear(address, size_bytes, stream)
        device.synchronize(stream)
        yield addresses
    finally:
        blocks.close()


def _best_s(action: Callable[[], None]) -> float:
    best_s = float("inf")
    for _ in range(ROUNDS):
        start_s = time.perf_counter()
        action()
        best_s = min(best_s, time.perf_counter() - start_s)
    return best_s
