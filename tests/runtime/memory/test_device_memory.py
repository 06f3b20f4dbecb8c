"""What fits on a GPU, as it is said before a study is begun."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.host_backend import HostBackend

from edge_medgemma.runtime.backends.gpu import DeviceBudget
from edge_medgemma.runtime.backends.select import AUTOMATIC, Provider, Providers
from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE
from edge_medgemma.runtime.errors import ResourceError
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.manifest import FileRecord, Manifest, load_manifest
from edge_medgemma.runtime.memory.device_memory import (
    CONTEXT_BYTES,
    QUESTION_SLOTS,
    fits_together_on_device,
    largest_device_slices,
    plan_device_memory,
    require_device_memory,
)
from edge_medgemma.runtime.memory.host_memory import host_bytes

SHAPE = (512, 512)
GIGABYTE = 10**9
PLENTY = 10**12


@pytest.fixture
def manifest() -> Manifest:
    """The shape of the 4B model in int4, as `--target tensorrt --activations fp16` writes it."""
    small = load_manifest(BUILTIN_ENGINE)
    sizes = {
        "vision.data": 840_519_680, "decoder.data": 2_520_037_376, "embedding.data": 671_252_480,
    }  # fmt: skip
    text = replace(
        small.text, layers=34, hidden_size=2560, intermediate_size=10240, heads=8, kv_heads=4,
        head_dim=256, vocabulary=262_208, sliding_window=1024, max_positions=131_072,
        layer_is_global=((False,) * 5 + (True,)) * 5 + (False,) * 4, embed_scale=50.5,
    )  # fmt: skip
    vision = replace(
        small.vision, image_size=896, patch_size=14, intermediate_size=4304, tokens_per_image=256
    )
    return replace(
        small,
        text=text,
        vision=vision,
        files={name: FileRecord(size, "0" * 64) for name, size in sizes.items()},
        precision=replace(small.precision, activations="fp16", cache="fp16", decoder="int4"),
        dialect="trt",
    )


def test_a_slice_more_costs_its_rows_in_the_global_layers(manifest: Manifest) -> None:
    few, more = plan_device_memory(manifest, 10), plan_device_memory(manifest, 20)
    rows = 10 * 266
    row = 4 * 256 * 2
    assert more.cache_bytes - few.cache_bytes == rows * row * (2 * 5 + 1), "and one of scratch"
    assert more.vision_bytes == few.vision_bytes
    masks = more.decoder_bytes - few.decoder_bytes
    assert masks == 512 * rows * (4 + 1), "as float32, and as the input's bytes"


def test_the_weights_are_counted_once(manifest: Manifest) -> None:
    plan = plan_device_memory(manifest, 1)
    assert 2.52e9 < plan.decoder_bytes < 3.1e9
    assert 0.84e9 < plan.vision_bytes < 2.5e9
    assert plan.peak_bytes == CONTEXT_BYTES + plan.decoder_bytes + plan.cache_bytes
    assert plan.together_bytes == plan.peak_bytes + plan.vision_bytes
    shared = replace(
        manifest, dialect="ort", precision=replace(manifest.precision, embedding="head")
    )
    own = replace(shared, precision=replace(manifest.precision, embedding="int8"))
    table = manifest.files["embedding.data"].bytes
    shared_bytes = plan_device_memory(shared, 1).decoder_bytes
    assert shared_bytes - plan_device_memory(own, 1).decoder_bytes == table


def test_the_number_that_fits_is_the_largest(manifest: Manifest) -> None:
    for free in (5 * GIGABYTE, 6 * GIGABYTE):
        room = DeviceBudget(free, is_shared=False)
        slices = largest_device_slices(manifest, room, PLENTY)
        assert slices > 0
        assert plan_device_memory(manifest, slices).peak_bytes <= free
        assert plan_device_memory(manifest, slices + 1).peak_bytes > free
        require_device_memory(manifest, slices, SHAPE, room, PLENTY)
        with pytest.raises(ResourceError, match=f"the GPU's memory.*use --slices {slices}$"):
            require_device_memory(manifest, slices + 1, SHAPE, room, PLENTY)
    small = DeviceBudget(2 * GIGABYTE, is_shared=False)
    with pytest.raises(ResourceError, match=r"2\.0 GB are free.*--provider cpu"):
        require_device_memory(manifest, 1, SHAPE, small, PLENTY)


def test_a_shared_memory_holds_the_program_too(manifest: Manifest) -> None:
    own = DeviceBudget(6 * GIGABYTE, is_shared=False)
    shared = DeviceBudget(10**6, is_shared=True)  # what is free beside caches of files
    slices = largest_device_slices(manifest, shared, 6 * GIGABYTE)
    assert 0 < slices < largest_device_slices(manifest, own, 10**12)
    needed = plan_device_memory(manifest, slices).peak_bytes + host_bytes(manifest, slices, SHAPE)
    assert needed <= 6 * GIGABYTE
    assert largest_device_slices(manifest, own, 10**6) == 0, "the host must hold the pixels"


def test_plans_of_fewer_slices_say_so(manifest: Manifest) -> None:
    room = DeviceBudget(10**12, is_shared=False, rows=24 * 266 + QUESTION_SLOTS)
    assert largest_device_slices(manifest, room, PLENTY) == 24
    with pytest.raises(ResourceError, match=r"hold 24 slices, 25.*build.*--slices 25"):
        require_device_memory(manifest, 25, SHAPE, room, PLENTY)


def test_both_parts_stay_on_a_large_card(manifest: Manifest) -> None:
    assert fits_together_on_device(manifest, DeviceBudget(12 * GIGABYTE, is_shared=False), PLENTY)
    assert not fits_together_on_device(
        manifest, DeviceBudget(6 * GIGABYTE, is_shared=False), PLENTY
    )
    shared = DeviceBudget(12 * GIGABYTE, is_shared=True)
    assert not fits_together_on_device(manifest, shared, 12 * GIGABYTE)


NAMED = Providers(Provider.TENSORRT, Provider.TENSORRT)


def open_on(room: DeviceBudget, directory: Path, providers: Providers) -> Engine:
    devices = {Provider.TENSORRT: HostBackend(room=room)}
    return Engine.open(
        directory, threads=1, providers=providers, check_files=False, devices=devices
    )


@pytest.mark.parametrize("providers", [AUTOMATIC, NAMED])
def test_what_a_device_cannot_hold_is_refused_with_a_number_that_it_can(
    tiny_tensorrt_directory: Path, providers: Providers
) -> None:
    tokens = load_manifest(tiny_tensorrt_directory).vision.tokens_per_image
    room = DeviceBudget(10**12, is_shared=False, rows=QUESTION_SLOTS + 5 * (tokens + 10))
    with open_on(room, tiny_tensorrt_directory, providers) as engine:
        engine.require_memory(5, SHAPE)
        with pytest.raises(ResourceError, match="use --slices 5 or"):
            engine.require_memory(6, SHAPE)
        assert engine.choice.decoder is Provider.TENSORRT


def test_plans_say_how_many_slices_they_hold(tiny_tensorrt_directory: Path) -> None:
    tokens = load_manifest(tiny_tensorrt_directory).vision.tokens_per_image
    room = DeviceBudget(10**12, is_shared=False, rows=QUESTION_SLOTS + 5 * (tokens + 10))
    with open_on(room, tiny_tensorrt_directory, NAMED) as engine:
        assert engine.plan_slices == 5
    with open_on(replace(room, rows=None), tiny_tensorrt_directory, NAMED) as engine:
        assert engine.plan_slices is None


def test_a_device_that_holds_nothing_is_left_for_the_cpu_by_auto(
    tiny_tensorrt_directory: Path,
) -> None:
    room = DeviceBudget(10**6, is_shared=False)
    with open_on(room, tiny_tensorrt_directory, AUTOMATIC) as engine:
        engine.require_memory(3, SHAPE)
        assert engine.choice.decoder is Provider.CPU
        assert "3 slices need" in engine.choice.fallbacks[-1].reason
    with (
        open_on(room, tiny_tensorrt_directory, NAMED) as engine,
        pytest.raises(ResourceError, match="--provider cpu"),
    ):
        engine.require_memory(3, SHAPE)
