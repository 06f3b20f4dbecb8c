"""The TensorRT backend around a fake that computes: what has never run here is the GPU itself."""

from pathlib import Path

import numpy as np
import pytest
from support.fake_tensorrt import FakePlan
from support.host_device import HostDevice

from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.export.engine import export_engine
from edge_medgemma.export.target import Target
from edge_medgemma.runtime.backends.cuda.device import from_stored, to_stored
from edge_medgemma.runtime.backends.onnxruntime.session import OrtVision
from edge_medgemma.runtime.backends.tensorrt.cache_axes import (
    GLOBAL_AXIS,
    LOCAL_AXIS,
    with_capacities,
)
from edge_medgemma.runtime.backends.tensorrt.plan_runner import TensorRtDecoder, TensorRtVision
from edge_medgemma.runtime.backends.tensorrt.shapes import DecoderShapes, VisionShapes
from edge_medgemma.runtime.errors import DeviceMemoryError, ResourceError
from edge_medgemma.runtime.generation.embedding import Embedding
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.prefix import Prefix
from edge_medgemma.runtime.generation.prompt import Chunk
from edge_medgemma.runtime.generation.sampling import Sampling

TOLERANCE = 2e-4
"""Of logits around 10: float32 sums taken in another order."""

SHAPES = DecoderShapes(global_rows=160, local_rows=100, prefill_rows=64, logit_rows=4)
"""Local rows hold the tiny window of 24 and one slice: compaction happens at every slice."""


@pytest.fixture(scope="module")
def trt_engine(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("trt") / "engine"
    export_engine(
        open_checkpoint(str(tiny_checkpoint)),
        directory,
        precision="fp32",
        block_size=32,
        target=Target("trt", "fp32"),
    )
    return directory


@pytest.fixture
def device() -> HostDevice:
    return HostDevice()


def open_fake(directory: Path, device: HostDevice, shapes: DecoderShapes = SHAPES) -> FakePlan:
    manifest = Engine.open(directory, threads=1).manifest
    rows = {GLOBAL_AXIS: shapes.global_rows, LOCAL_AXIS: shapes.local_rows}
    graph = with_capacities((directory / "decoder.onnx").read_bytes(), rows)
    return FakePlan(graph, directory, device, shapes.profiles(manifest))


def read(prefix: Prefix, chunks: tuple[Chunk, ...], features: np.ndarray) -> Prefix:
    first = 0
    for chunk in chunks:
        prefix.extend(chunk, features[first : first + chunk.images])
        first += chunk.images
    return prefix


def test_a_prefix_on_the_device_is_one_on_the_cpu(
    tiny_engine: Engine, trt_engine: Path, device: HostDevice
) -> None:
    manifest = Engine.open(trt_engine, threads=1).manifest
    decoder = TensorRtDecoder(device, open_fake(trt_engine, device), manifest, SHAPES)
    chunks = tiny_engine.prompt.prefix("Please review the slices.", 4)
    rng = np.random.default_rng(3)
    shape = (4, manifest.vision.tokens_per_image, manifest.text.hidden_size)
    features = rng.standard_normal(shape, np.float32)
    ours = read(Prefix(decoder, Embedding(trt_engine, manifest), manifest), chunks, features)
    reference = read(tiny_engine.new_prefix(), chunks, features)
    question = tiny_engine.prompt.question("Why?")
    assert ours.length > SHAPES.local_rows, "nothing was compacted"
    for _ in range(2):  # the second time after a rewind
        actual, expected = ours.score([question]), reference.score([question])
        difference = np.abs(actual - expected)
        message = f"max {difference.max():.2e} mean {difference.mean():.2e}"
        assert difference.max() < TOLERANCE, message
        steps = [
            [step.token_id for step in prefix.generate(question, Sampling(), 12)]
            for prefix in (ours, reference)
        ]
        assert steps[0] == steps[1]


def test_single_tokens_are_recorded_once_and_replayed(
    tiny_engine: Engine, trt_engine: Path, device: HostDevice
) -> None:
    """They read what another prefix left in the same caches, and their own after new ones."""
    manifest = Engine.open(trt_engine, threads=1).manifest
    plan = open_fake(trt_engine, device)
    decoder = TensorRtDecoder(device, plan, manifest, SHAPES)
    embedding = Embedding(trt_engine, manifest)
    for _ in range(2):  # the second prefix has caches of its own
        prefix = Prefix(decoder, embedding, manifest)
        steps = [step.token_id for step in prefix.generate([5, 6, 7], Sampling(), 12)]
        expected = [
            step.token_id for step in tiny_engine.new_prefix().generate([5, 6, 7], Sampling(), 12)
        ]
        assert steps == expected
        del prefix
    chunk, token = plan.contexts
    assert chunk.executed == [1, 1]
    calls = [call for call in device.calls if call.startswith(("record", "replay"))]
    once = ["record 1", *["replay 1"] * 10]
    same_memory = ["replay 1"] * 11
    assert calls in ([*once, *once], [*once, *same_memory])
    assert token.executed == [0, 0] * calls.count("record 1")
    decoder.close()
    assert not device.recordings


def test_a_device_that_records_nothing_runs_every_token(
    trt_engine: Path, device: HostDevice
) -> None:
    manifest = Engine.open(trt_engine, threads=1).manifest
    device.can_record = False
    plan = open_fake(trt_engine, device)
    decoder = TensorRtDecoder(device, plan, manifest, SHAPES)
    prefix = Prefix(decoder, Embedding(trt_engine, manifest), manifest)
    list(prefix.generate([5, 6, 7], Sampling(), 5))
    assert plan.contexts[1].executed == [0] * 4
    assert device.calls.count("record 1") == 1


def test_more_than_the_plan_holds_names_the_knob(trt_engine: Path, device: HostDevice) -> None:
    manifest = Engine.open(trt_engine, threads=1).manifest
    decoder = TensorRtDecoder(device, open_fake(trt_engine, device), manifest, SHAPES)
    prefix = Prefix(decoder, Embedding(trt_engine, manifest), manifest)
    with pytest.raises(ResourceError, match=r"the plan holds 160 tokens.*fewer --slices"):
        for _ in range(6):
            prefix.extend(Chunk(tuple(range(5, 45)), 0))
    assert prefix.length == 160


def test_device_memory_is_given_back(trt_engine: Path, device: HostDevice) -> None:
    manifest = Engine.open(trt_engine, threads=1).manifest
    decoder = TensorRtDecoder(device, open_fake(trt_engine, device), manifest, SHAPES)
    before = set(device.blocks)
    caches = decoder.new_caches()
    assert len(device.blocks) > len(before)
    del caches
    assert set(device.blocks) == before
    decoder.close()
    assert not device.blocks


def test_a_full_device_leaves_nothing_allocated(trt_engine: Path) -> None:
    device = HostDevice(limit_bytes=2**20)
    manifest = Engine.open(trt_engine, threads=1).manifest
    decoder = TensorRtDecoder(device, open_fake(trt_engine, device), manifest, SHAPES)
    before = set(device.blocks)
    device.limit(sum(block.size for block in device.blocks.values()) + 5000)
    with pytest.raises(DeviceMemoryError):
        decoder.new_caches()
    assert set(device.blocks) == before


def test_saved_rows_come_back(trt_engine: Path, device: HostDevice) -> None:
    manifest = Engine.open(trt_engine, threads=1).manifest
    decoder = TensorRtDecoder(device, open_fake(trt_engine, device), manifest, SHAPES)
    caches = decoder.new_caches()
    rng = np.random.default_rng(0)
    shape = (1, manifest.text.kv_heads, 30, manifest.text.head_dim)
    rows = [rng.standard_normal(shape, np.float32) for _ in caches.view("local", 0)]
    caches.restore("local", rows)
    for saved, row in zip(caches.view("local", 30), rows, strict=True):
        np.testing.assert_array_equal(saved, row)
    caches.drop("local", 10, 30)
    for saved, row in zip(caches.view("local", 20), rows, strict=True):
        np.testing.assert_array_equal(saved, row[:, :, 10:])


def test_a_batch_is_uploaded_while_the_one_before_is_computed(
    tiny_engine: Engine, trt_engine: Path, device: HostDevice
) -> None:
    manifest = Engine.open(trt_engine, threads=1).manifest
    shapes = VisionShapes((1, 2))
    graph = (trt_engine / "vision.onnx").read_bytes()
    plan = FakePlan(graph, trt_engine, device, shapes.profiles(manifest))
    vision = TensorRtVision(device, plan, manifest, shapes)
    size = manifest.vision.image_size
    pixels = np.random.default_rng(2).standard_normal((5, 3, size, size), np.float32)
    features = vision.run(pixels)
    assert plan.contexts[0].executed == [1, 1, 0]
    uploads = [i for i, call in enumerate(device.calls) if call == "upload 1"]
    downloads = [i for i, call in enumerate(device.calls) if call == "download 2"]
    assert uploads[1] < downloads[0] < uploads[2] < downloads[1] < downloads[2]
    expected = OrtVision(tiny_engine.directory, 1).run(pixels)
    difference = np.abs(features - expected)
    message = f"max {difference.max():.2e} mean {difference.mean():.2e}"
    assert difference.max() < TOLERANCE, message
    vision.close()
    assert not device.blocks


def test_bfloat16_is_the_upper_half_of_float32() -> None:
    values = np.array([0.0, 1.0, -2.5, 3.0e38, np.inf], np.float32)
    exact = np.array([0.0, 1.0, -2.5], np.float32)
    assert to_stored(exact, "bf16").tolist() == [0, 0x3F80, 0xC020]
    once = from_stored(to_stored(values, "bf16"), "bf16")
    np.testing.assert_array_equal(from_stored(to_stored(once, "bf16"), "bf16"), once)
