"""Building the plans of an engine on the device that will run them."""

from collections.abc import Callable
from pathlib import Path

from edge_medgemma.runtime.backends.cuda.device import Device
from edge_medgemma.runtime.backends.tensorrt.cache_axes import (
    GLOBAL_AXIS,
    LOCAL_AXIS,
    with_capacities,
)
from edge_medgemma.runtime.backends.tensorrt.library import BuildOptions, TensorRt
from edge_medgemma.runtime.backends.tensorrt.plan_files import (
    DECODER_PLAN,
    TIMING_CACHE,
    VISION_PLAN,
    PlanRecord,
    current_place,
    read_timing_cache,
    write_plans,
)
from edge_medgemma.runtime.backends.tensorrt.shapes import DecoderShapes, VisionShapes
from edge_medgemma.runtime.errors import EngineError, ResourceError
from edge_medgemma.runtime.manifest import Manifest

BUILDER_BYTES_PER_WEIGHT_BYTE = 4
"""TensorRT-RTX 1.7 takes 3.7 for the 4B shape in int4 (8.7 GB); TensorRT Edge-LLM
reports a peak of 11.9 GB for building a 4B model with int4 weights."""


def check_buildable(manifest: Manifest, available_bytes: int) -> None:
    """Refuse what cannot become a plan before an hour is spent on it.

    Raises:
        EngineError: the engine was exported for something else.
        ResourceError: the builder would not have the memory.
    """
    if manifest.dialect != "trt":
        raise EngineError(
            "this engine is lowered for onnxruntime; export it again with --target tensorrt"
        )
    if manifest.precision.activations == "fp32":
        raise EngineError(
            "TensorRT has no float32 attention; export the engine with --activations fp16 or bf16"
        )
    largest = max(record.bytes for record in manifest.files.values())
    needed = BUILDER_BYTES_PER_WEIGHT_BYTE * largest
    if needed > available_bytes:
        raise ResourceError(
            f"building needs about {needed / 1e9:.1f} GB of memory, {available_bytes / 1e9:.1f} GB "
            "are free; close other programs, add swap (jetson/install.sh --swap 8), or export with "
            "--precision int4"
        )


def build_plans(
    directory: Path,
    manifest: Manifest,
    library: TensorRt,
    device: Device,
    shapes: DecoderShapes,
    workspace_bytes: int | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> PlanRecord:
    """Build and write both plans.

    Args:
        shapes: what decoder.plan must hold
        workspace_bytes: most scratch memory of the builder's kernels
        on_stage: called with `decoder`, `vision`, `write` as each begins

    Returns:
        The record beside the plans.

    Raises:
        EngineError: the library does not take a graph.
        ProviderError: a build failed.
        ResourceError: no space for the plans.
    """
    vision_shapes = VisionShapes()
    known = read_timing_cache(directory)
    on_stage("decoder")  # first: its builder takes most, and a finished plan is kept beside it
    path = directory / "decoder.onnx"
    rows = {GLOBAL_AXIS: shapes.global_rows, LOCAL_AXIS: shapes.local_rows}
    graph = with_capacities(path.read_bytes(), rows)
    options = BuildOptions(workspace_bytes, known)
    decoder = library.build(graph, path, shapes.profiles(manifest), options)
    on_stage("vision")
    path = directory / "vision.onnx"
    options = BuildOptions(workspace_bytes, decoder.timing_cache)
    vision = library.build(path.read_bytes(), path, vision_shapes.profiles(manifest), options)
    on_stage("write")
    record = PlanRecord(
        current_place(library, device, manifest),
        shapes.global_rows,
        shapes.local_rows,
        shapes.prefill_rows,
        shapes.logit_rows,
        shapes.has_decode_profile,
        vision_shapes.batches,
        {},
    )
    contents: dict[str, bytes | memoryview] = {
        VISION_PLAN: vision.engine,
        DECODER_PLAN: decoder.engine,
        TIMING_CACHE: vision.timing_cache,
    }
    return write_plans(directory, record, contents)
