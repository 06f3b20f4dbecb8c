from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.host_device import HostDevice

from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.export.engine import export_engine
from edge_medgemma.export.target import Target
from edge_medgemma.runtime.backends.tensorrt.builder import build_plans, check_buildable
from edge_medgemma.runtime.backends.tensorrt.library import BuildOptions, Plan, Profile
from edge_medgemma.runtime.backends.tensorrt.plan_files import (
    DECODER_PLAN,
    RECORD_NAME,
    TIMING_CACHE,
    Place,
    PlanRecord,
    current_place,
    plan_folder,
    read_plan,
    read_record,
    read_timing_cache,
    write_plans,
)
from edge_medgemma.runtime.backends.tensorrt.shapes import DecoderShapes
from edge_medgemma.runtime.errors import EngineError, ProviderError, ResourceError
from edge_medgemma.runtime.generation.engine import Engine

PLACE = Place("TensorRT", "10.16.2.10", "Orin", "8.7", 13020, "0" * 64)
RECORD = PlanRecord(PLACE, 160, 100, 64, 4, True, (1, 4, 8), {})


def test_what_was_written_is_read(tmp_path: Path) -> None:
    written = write_plans(tmp_path, RECORD, {DECODER_PLAN: b"plan"})
    assert read_record(tmp_path, PLACE) == written
    assert written.decoder_shapes.global_rows == 160
    assert read_plan(tmp_path, DECODER_PLAN) == b"plan"


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("library_version", "10.16.3", "library version 10.16.2.10, here it is 10.16.3"),
        ("device", "Thor", "device Orin, here it is Thor"),
        ("compute_capability", "11.0", "compute capability 8.7"),
        ("engine_sha256", "1" * 64, "engine sha256 000"),
    ],
)
def test_plans_of_another_place_are_not_used(
    tmp_path: Path, field: str, value: str, words: str
) -> None:
    write_plans(tmp_path, RECORD, {DECODER_PLAN: b"plan"})
    with pytest.raises(ProviderError, match=words) as caught:
        read_record(tmp_path, replace(PLACE, **{field: value}))
    assert "edge-medgemma build" in str(caught.value)


def test_an_altered_plan_is_refused(tmp_path: Path) -> None:
    write_plans(tmp_path, RECORD, {DECODER_PLAN: b"plan"})
    (plan_folder(tmp_path) / DECODER_PLAN).write_bytes(b"plam")
    with pytest.raises(EngineError, match="was altered"):
        read_record(tmp_path, PLACE)
    (plan_folder(tmp_path) / DECODER_PLAN).write_bytes(b"pla")
    with pytest.raises(EngineError, match="3 bytes"):
        read_record(tmp_path, PLACE)


def test_timings_are_taken_from_any_build_but_only_as_they_were_written(tmp_path: Path) -> None:
    assert read_timing_cache(tmp_path) == b""
    write_plans(tmp_path, RECORD, {DECODER_PLAN: b"plan", TIMING_CACHE: b"times"})
    assert read_timing_cache(tmp_path) == b"times"
    (plan_folder(tmp_path) / TIMING_CACHE).write_bytes(b"timez")
    assert read_timing_cache(tmp_path) == b""


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"place": 3}'])
def test_a_broken_record_asks_for_a_build(tmp_path: Path, text: str) -> None:
    write_plans(tmp_path, RECORD, {DECODER_PLAN: b"plan"})
    (plan_folder(tmp_path) / RECORD_NAME).write_text(text)
    with pytest.raises(ProviderError, match="edge-medgemma build"):
        read_record(tmp_path, PLACE)


def test_a_build_that_dies_while_writing_leaves_no_valid_record(tmp_path: Path) -> None:
    write_plans(tmp_path, RECORD, {DECODER_PLAN: b"plan"})
    with pytest.raises(TypeError):
        write_plans(tmp_path, RECORD, {DECODER_PLAN: b"next", "vision.plan": None})  # type: ignore[dict-item]
    with pytest.raises(ProviderError, match="has no TensorRT plans"):
        read_record(tmp_path, PLACE)


class RecordingLibrary:
    """Builds plans of nothing; each build adds its graph's name to the timing cache."""

    name, version = "TensorRT", "10.16.2.10"

    def __init__(self) -> None:
        self.built: list[tuple[str, int, BuildOptions]] = []

    def build(
        self, graph: bytes, path: Path, profiles: Sequence[Profile], options: BuildOptions
    ) -> Plan:
        self.built.append((path.name, len(profiles), options))
        plan = memoryview(f"plan of {path.name}".encode())
        return Plan(plan, options.timing_cache + path.name.encode())


def test_a_build_hands_its_timing_cache_on_and_begins_with_the_larger_part(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    directory = tmp_path / "engine"
    manifest = export_engine(
        open_checkpoint(str(tiny_checkpoint)),
        directory,
        precision="int4",
        block_size=32,
        target=Target("trt", "fp16"),
    )
    device, stages = HostDevice(), []
    for known in (b"", b"decoder.onnxvision.onnx"):
        library: Any = RecordingLibrary()
        shapes = DecoderShapes(160, 100, 64, 4)
        record = build_plans(directory, manifest, library, device, shapes, 2**20, stages.append)
        (decoder, decoding, first), (vision, batches, second) = library.built
        assert (decoder, decoding, vision, batches) == ("decoder.onnx", 2, "vision.onnx", 3)
        assert first == BuildOptions(2**20, known)
        assert second == BuildOptions(2**20, known + b"decoder.onnx")
    assert stages == ["decoder", "vision", "write"] * 2
    assert read_record(directory, current_place(library, device, manifest)) == record
    assert read_plan(directory, DECODER_PLAN) == b"plan of decoder.onnx"
    assert record.decoder_shapes == shapes


def test_what_cannot_be_built_is_refused_at_once(tiny_engine: Engine) -> None:
    manifest = tiny_engine.manifest
    with pytest.raises(EngineError, match="--target tensorrt"):
        check_buildable(manifest, 10**12)
    spelt = replace(manifest, dialect="trt")
    with pytest.raises(EngineError, match="no float32 attention"):
        check_buildable(spelt, 10**12)
    half = replace(spelt, precision=replace(manifest.precision, activations="fp16"))
    check_buildable(half, 10**12)
    with pytest.raises(ResourceError, match="--swap 8"):
        check_buildable(half, 1000)
