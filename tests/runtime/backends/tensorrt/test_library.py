"""The real builder of TensorRT-RTX, which needs no GPU to build for one."""

from pathlib import Path
from typing import Any

import pytest
from support.host_device import HostDevice

from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.export.engine import export_engine
from edge_medgemma.export.target import Target
from edge_medgemma.runtime.backends.tensorrt import library as tensorrt_library
from edge_medgemma.runtime.backends.tensorrt.builder import build_plans
from edge_medgemma.runtime.backends.tensorrt.cache_axes import (
    GLOBAL_AXIS,
    LOCAL_AXIS,
    with_capacities,
)
from edge_medgemma.runtime.backends.tensorrt.library import (
    BuildOptions,
    Plan,
    TensorRt,
    find_tensorrt,
)
from edge_medgemma.runtime.backends.tensorrt.plan_files import current_place, read_record
from edge_medgemma.runtime.backends.tensorrt.shapes import DecoderShapes, VisionShapes
from edge_medgemma.runtime.errors import DependencyError, EngineError, ProviderError
from edge_medgemma.runtime.manifest import Manifest, load_manifest


@pytest.fixture(scope="module")
def library() -> TensorRt:
    try:
        return find_tensorrt()
    except DependencyError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def engine(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("trt") / "engine"
    checkpoint = open_checkpoint(str(tiny_checkpoint))
    target = Target("trt", "fp16")
    export_engine(checkpoint, directory, precision="int4", block_size=32, target=target)
    return directory


@pytest.fixture
def manifest(engine: Path) -> Manifest:
    return load_manifest(engine)


@pytest.mark.parametrize("capability", [(8, 6), (8, 9)])
def test_both_graphs_become_plans(
    library: TensorRt, engine: Path, manifest: Manifest, capability: tuple[int, int]
) -> None:
    path = engine / "vision.onnx"
    profiles = VisionShapes().profiles(manifest)
    options = BuildOptions(workspace_bytes=2**28)
    vision = library.build(path.read_bytes(), path, profiles, options, capability)
    shapes = DecoderShapes(global_rows=256, local_rows=128, prefill_rows=64, logit_rows=4)
    path = engine / "decoder.onnx"
    graph = with_capacities(path.read_bytes(), {GLOBAL_AXIS: 256, LOCAL_AXIS: 128})
    options = BuildOptions(timing_cache=vision.timing_cache)
    decoder = library.build(graph, path, shapes.profiles(manifest), options, capability)
    assert min(len(vision.engine), len(decoder.engine)) > 1000


class ForRtx30(TensorRt):
    """Builds for a device that is not here."""

    def build(self, *arguments: Any) -> Plan:
        return super().build(*arguments, compute_capability=(8, 6))


def test_a_build_is_written_and_found_again(
    library: TensorRt, engine: Path, manifest: Manifest
) -> None:
    builder, device = ForRtx30(library._module), HostDevice()
    shapes = DecoderShapes(global_rows=256, local_rows=128, prefill_rows=64, logit_rows=4)
    record = build_plans(engine, manifest, builder, device, shapes)
    assert read_record(engine, current_place(library, device, manifest)) == record
    sizes = {name: file.bytes for name, file in record.files.items()}
    assert min(sizes["vision.plan"], sizes["decoder.plan"]) > 1000


def test_a_graph_that_is_not_taken_names_the_node(
    library: TensorRt, tiny_engine_directory: Path
) -> None:
    path = tiny_engine_directory / "decoder.onnx"
    with pytest.raises(EngineError, match=r"does not take 'decoder\.onnx' at node '.+--target"):
        library.build(path.read_bytes(), path, [], BuildOptions())


def test_a_plan_of_nothing_is_refused(library: TensorRt) -> None:
    with pytest.raises(ProviderError, match="edge-medgemma build"):
        library.open(b"not a plan")


def test_opened_plans_have_what_is_asked_of_them(library: TensorRt) -> None:
    """Nothing opens a plan without a device; names at least can be looked up."""
    module = library._module
    assert module.ExecutionContextAllocationStrategy.USER_MANAGED
    assert {"device_memory_size_v2", "create_execution_context"} <= set(dir(module.ICudaEngine))
    assert {
        "set_device_memory",
        "set_optimization_profile_async",
        "set_input_shape",
        "set_tensor_address",
        "execute_async_v3",
    } <= set(dir(module.IExecutionContext))


def test_without_tensorrt_the_place_to_get_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_library, "MODULES", ("no_such_tensorrt",))
    with pytest.raises(DependencyError, match=r"JetPack 7\.2"):
        find_tensorrt()
