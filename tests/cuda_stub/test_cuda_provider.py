"""onnxruntime's own CUDA provider on a CUDA without a GPU: see cudart.c; `make cuda-check` runs it.

Kernels compute nothing there. What is checked is what happens around them: where operators are put,
what is recorded, what is allocated, which errors come back as what.
"""

import ctypes
import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.host_device import HostDevice

from edge_medgemma.export.checkpoint.synthetic import synthetic_checkpoint
from edge_medgemma.export.engine import export_engine
from edge_medgemma.export.synthetic_ranges import synthetic_vision_ranges
from edge_medgemma.export.target import Target
from edge_medgemma.runtime.backends import gpu_peaks as device_peaks
from edge_medgemma.runtime.backends.cuda.decoder import CudaDecoder
from edge_medgemma.runtime.backends.cuda.session import CudaSessions, CudaVision, cuda_session
from edge_medgemma.runtime.errors import DeviceMemoryError
from edge_medgemma.runtime.generation.embedding import Embedding
from edge_medgemma.runtime.generation.masks import HIDDEN
from edge_medgemma.runtime.generation.prefix import Prefix
from edge_medgemma.runtime.generation.prompt import Chunk
from edge_medgemma.runtime.generation.sampling import Sampling
from edge_medgemma.runtime.manifest import DECODE_GRAPH, PREFILL_GRAPH, Manifest, load_manifest
from edge_medgemma.runtime.memory.cache_geometry import MAX_PREFILL_TOKENS
from edge_medgemma.runtime.memory.device_memory import plan_device_memory

AMPLE_BYTES = 48 * 2**30


class Counts(ctypes.Structure):
    """`struct counts` of cudart.c."""

    held_bytes: int
    launches: int
    captures: int
    replays: int
    refused_in_capture: int
    _fields_ = [
        (name, ctypes.c_int64)
        for name in (
            "held_bytes", "launches", "captures", "replays", "refused_in_capture",
        )
    ]  # fmt: skip


class HollowCuda:
    """The library that onnxruntime finds in CUDA's place."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.hollow_total.argtypes = [ctypes.c_int64]

    def counts(self) -> Counts:
        counts = Counts()
        self._library.hollow_counts(ctypes.byref(counts))
        return counts

    def limit(self, total_bytes: int) -> None:
        self._library.hollow_total(total_bytes)


try:
    LIBRARY = ctypes.CDLL("libcudart.so.13", mode=ctypes.RTLD_GLOBAL)
    LIBRARY.hollow_counts  # noqa: B018
except (OSError, AttributeError):
    pytest.skip("no CUDA without a GPU in place; run: make cuda-check", allow_module_level=True)


@pytest.fixture
def cuda() -> Iterator[HollowCuda]:
    gc.collect()  # what an earlier test held must not be given back in the middle of this one
    cuda = HollowCuda(LIBRARY)
    cuda.limit(AMPLE_BYTES)
    yield cuda
    cuda.limit(AMPLE_BYTES)


ENGINES = {
    "fp16": ("int4", "fp16", False),
    "bf16": ("int4", "bf16", False),
    "int8": ("int8", "fp16", False),
    "dense": ("bf16", "bf16", False),
    "int8 tower": ("int4", "fp16", True),
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory):
    """Engine directory by its name in ENGINES; each is written once."""
    folders: dict[str, Path] = {}

    def write(name: str) -> Path:
        if name not in folders:
            precision, activations, has_int8_tower = ENGINES[name]
            checkpoint = synthetic_checkpoint("tiny")
            scratch = tmp_path_factory.mktemp("cuda")
            limits = synthetic_vision_ranges(checkpoint, scratch) if has_int8_tower else None
            folders[name] = scratch / "engine"
            export_engine(
                checkpoint,
                folders[name],
                precision=precision,
                block_size=32,
                vision_limits=limits,
                target=Target("ort", activations),
            )
        return folders[name]

    return write


def open_decoder(directory: Path) -> tuple[CudaDecoder, HostDevice, Manifest]:
    manifest, device = load_manifest(directory), HostDevice(2**40)
    return CudaDecoder(directory, manifest, device, CudaSessions()), device, manifest


@pytest.mark.parametrize("graph", ["vision.onnx", PREFILL_GRAPH, DECODE_GRAPH])
@pytest.mark.parametrize("name", ENGINES)
def test_every_operator_is_on_the_gpu(cuda: HollowCuda, tiny, name: str, graph: str) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    providers = ["CUDAExecutionProvider"]
    onnxruntime.InferenceSession(tiny(name) / graph, options, providers=providers)


@pytest.mark.parametrize("name", ENGINES)
def test_single_tokens_are_recorded_once(cuda: HollowCuda, tiny, name: str) -> None:
    decoder, _, manifest = open_decoder(tiny(name))
    embedding = Embedding(tiny(name), manifest)
    # Both alive: the caches of the second would else lie where the first one's were recorded.
    prefixes = [Prefix(decoder, embedding, manifest) for _ in range(2)]
    for prefix in prefixes:
        prefix.extend(Chunk(tuple(range(5, 45)), 0))
        before = cuda.counts()
        steps = prefix.generate([5, 6, 7], Sampling(ignore_stop=True), 8)
        next(steps), next(steps)
        recorded = cuda.counts()
        assert recorded.captures == before.captures + 1
        assert len(list(steps)) == 6
        after = cuda.counts()
        assert after.captures == recorded.captures
        assert after.replays == recorded.replays + 6
        assert after.launches == recorded.launches, "a replay launches nothing by itself"
        assert after.refused_in_capture == 0


@pytest.mark.parametrize("activations", ["fp16", "bf16"])
def test_the_product_of_the_peak_is_there(
    cuda: HollowCuda, monkeypatch: pytest.MonkeyPatch, activations: str
) -> None:
    monkeypatch.setattr(device_peaks, "SIDE", 64)
    monkeypatch.setattr(device_peaks, "COPY_BYTES", 2**16)
    product = device_peaks.cuda_product(CudaSessions(), activations)
    assert device_peaks.measure_device_peaks(HostDevice(), product).half_flop_per_s


def test_slices_need_no_cudnn(cuda: HollowCuda, tiny) -> None:
    size = load_manifest(tiny("fp16")).vision.image_size
    vision = CudaVision(cuda_session(tiny("fp16") / "vision.onnx"))
    before = cuda.counts().launches
    features = vision.run(np.zeros((3, 3, size, size), np.float32))
    assert len(features) == 3
    assert cuda.counts().launches > before


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 4B shape: half a minute and 3.2 GB."""
    directory = tmp_path_factory.mktemp("whole") / "engine"
    export_engine(
        synthetic_checkpoint("4b"),
        directory,
        precision="int4",
        block_size=128,
        target=Target("ort", "fp16"),
    )
    return directory


def test_a_full_gpu_is_told_from_a_broken_one(cuda: HollowCuda, whole: Path) -> None:
    """Out of memory in the middle of a prefix, which stands as it was."""
    decoder, _, manifest = open_decoder(whole)
    prefix = Prefix(decoder, Embedding(whole, manifest), manifest)
    cuda.limit(cuda.counts().held_bytes + 10**6)
    with pytest.raises(DeviceMemoryError, match="fewer --slices"):
        prefix.extend(Chunk(tuple(range(5, 45)), 0))
    assert prefix.length == 0
    cuda.limit(AMPLE_BYTES)
    prefix.extend(Chunk(tuple(range(5, 45)), 0))
    assert prefix.length == 40


def near(measured: int, planned: int) -> bool:
    return 0.75 * planned <= measured <= planned


def test_the_memory_of_slices_is_what_was_planned(cuda: HollowCuda, whole: Path) -> None:
    before = cuda.counts().held_bytes
    vision = CudaVision(cuda_session(whole / "vision.onnx"))
    for count in (8, 8, 5):
        vision.run(np.zeros((count, 3, 896, 896), np.float32))
    taken = cuda.counts().held_bytes - before
    planned = plan_device_memory(load_manifest(whole), 8).vision_bytes
    print(f"8 slices at once: {taken / 1e9:.2f} GB taken, {planned / 1e9:.2f} planned")
    assert near(taken, planned)


@pytest.mark.parametrize("slices", [8, 24, 85])
def test_the_memory_of_a_scan_is_what_was_planned(
    cuda: HollowCuda, whole: Path, slices: int
) -> None:
    """Slice after slice, then a full pass of questions, then single tokens."""
    before = cuda.counts().held_bytes
    decoder, device, manifest = open_decoder(whole)
    rows = manifest.vision.tokens_per_image + 10
    caches = decoder.new_caches()
    caches.reserve("global", slices * rows + 2048, 0)
    caches.reserve("local", manifest.text.sliding_window + 320, 0)

    def read(tokens: int, behind: int, logit_rows: int) -> None:
        total = behind + tokens
        hidden = np.full((1, 1, tokens, min(total, 1344)), HIDDEN, np.float32)
        hidden[..., -1024:] = 0
        decoder.run(
            caches,
            np.zeros((tokens, manifest.text.hidden_size), np.float32),
            np.arange(tokens),
            np.zeros((1, 1, tokens, total), np.float32),
            hidden,
            np.arange(logit_rows),
        )

    for number in range(slices):
        read(rows, number * rows, 0)
    read(MAX_PREFILL_TOKENS, slices * rows, 32)
    for number in range(3):
        read(1, slices * rows + number, 1)
    ours = sum(block.size for block in device.blocks.values())
    taken = cuda.counts().held_bytes - before + ours
    plan = plan_device_memory(manifest, slices)
    planned = plan.decoder_bytes + plan.cache_bytes
    print(f"{slices} slices: {taken / 1e9:.2f} GB taken, {planned / 1e9:.2f} planned")
    assert near(taken, planned)
