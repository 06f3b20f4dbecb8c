"""TensorRT takes every quantised form written here; its RTX edition builds without a GPU."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from support.tensorrt_builder import ARCHITECTURES, plan_bytes

from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.export.checkpoint.synthetic import RandomTensor, synthetic_checkpoint
from edge_medgemma.export.checkpoint.tensor_names import EMBEDDING
from edge_medgemma.export.engine import write_engine
from edge_medgemma.export.graphs.graph import GraphBuilder
from edge_medgemma.export.graphs.mixed_precision import to_half
from edge_medgemma.export.graphs.qdq import quantized_input_linear, quantized_weight_linear
from edge_medgemma.export.graphs.weights import FLOAT32, Matrix, WeightFormat
from edge_medgemma.export.graphs.writer import write_data
from edge_medgemma.export.quantisation.quant_scheme import plan_export
from edge_medgemma.export.target import Target
from edge_medgemma.runtime.backends.tensorrt.cache_axes import (
    GLOBAL_AXIS,
    LOCAL_AXIS,
    with_capacities,
)
from edge_medgemma.runtime.backends.tensorrt.library import BuildOptions, find_tensorrt
from edge_medgemma.runtime.backends.tensorrt.shapes import FUSED_ROWS, DecoderShapes
from edge_medgemma.runtime.manifest import load_manifest
from edge_medgemma.runtime.memory.device_memory import QUESTION_SLOTS

INPUTS, OUTPUTS = 256, 192
ROWS = 64


def matrix():
    values = np.random.default_rng(0).normal(size=(OUTPUTS, INPUTS)).astype(np.float32)
    values /= np.float32(np.sqrt(INPUTS))
    return values, Matrix("map", INPUTS, OUTPUTS, lambda n, k: values[n, k])


def w8a8(graph, x):
    return quantized_input_linear(graph, x, matrix()[1], 4 / 127)


def weight_only(kind, block_size):
    def build(graph, x):
        return quantized_weight_linear(graph, x, matrix()[1], WeightFormat(kind, block_size))

    return build


FORMS = {"w8a8": w8a8} | {
    f"{kind}-{block}": weight_only(kind, block)
    for kind in ("int4", "int8")
    for block in (32, 64, 128)
}


def write_model(build, folder: Path, activations: str, images: int | str = 1) -> Path:
    """x @ map, then GELU and a bias, as the vision tower has them."""
    graph = GraphBuilder("form", {"": 23})
    x = graph.input("x", ir.DataType.FLOAT, [images, ROWS, INPUTS])
    product = build(graph, x)
    shifted = graph.node(
        "Add", [product, graph.array("bias", np.ones(OUTPUTS, np.float32))], name="sum"
    )
    active = graph.node("Gelu", [shifted], {"approximate": "tanh"}, name="active")
    graph.output(active, "y", ir.DataType.FLOAT, [images, ROWS, OUTPUTS])
    if activations != "fp32":
        to_half(graph, activations, (), wide_stream=True)
    path = folder / "form.onnx"
    path.write_bytes(graph.serialize("form.data"))
    write_data(folder / "form.data", graph.blobs, lambda count: None)
    return path


@pytest.mark.parametrize("activations", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("form", FORMS)
def test_quantised_forms_build(form, activations, tmp_path):
    path = write_model(FORMS[form], tmp_path, activations)
    assert plan_bytes(path.read_bytes(), tmp_path) > 0


@pytest.mark.parametrize("form", FORMS)
def test_the_forms_compute_the_map(form, tmp_path):
    path = write_model(FORMS[form], tmp_path, "fp32")
    model = onnx.load(path)
    model.graph.output.insert(0, onnx.ValueInfoProto(name="map.product"))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    x = np.random.default_rng(1).normal(size=(1, ROWS, INPUTS)).astype(np.float32)
    (actual,) = session.run(["map.product"], {"x": x})
    expected = x @ matrix()[0].T
    error = np.linalg.norm(actual - expected) / np.linalg.norm(expected)
    assert 1e-4 < error < (0.02 if "4-" not in form else 0.2), error


def test_onnxruntime_multiplies_integers(tmp_path):
    """No float MatMul may be left of the calibrated form."""
    path = write_model(w8a8, tmp_path, "fp32", images="N")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(str(path), options)
    optimised = onnx.load(tmp_path / "optimised.onnx", load_external_data=False)
    operators = [node.op_type for node in optimised.graph.node]
    assert "MatMulIntegerToFloat" in operators
    assert "MatMul" not in operators


def test_a_block_that_does_not_divide_is_refused():
    from edge_medgemma.export.graphs.weights import check_blocks
    from edge_medgemma.runtime.errors import CheckpointError

    odd = dataclasses.replace(matrix()[1], inputs=4304)
    with pytest.raises(CheckpointError, match="blocks of 128 do not divide"):
        check_blocks(odd, WeightFormat("int4", 128))


PHANTOM = Path(__file__).resolve().parents[1] / "data" / "demo_checkpoint"
RECIPES = (
    ("int4", "bf16"),
    ("int4", "fp16"),
    ("int8", "bf16"),
    ("int8", "fp16"),
    ("bf16", "bf16"),
    ("fp16", "fp16"),
)


def true_width_checkpoint():
    """A local and a global layer and one layer of the tower as wide as MedGemma 4B's."""
    whole = synthetic_checkpoint("4b")
    text = dataclasses.replace(whole.text, layers=2, layer_is_global=(False, True), vocabulary=1024)
    shape = (text.vocabulary, text.hidden_size)
    tensors = {**whole.tensors, EMBEDDING: RandomTensor("few words", shape, 0.0, 0.03, 0)}
    vision = dataclasses.replace(whole.vision, layers=1)
    return dataclasses.replace(whole, text=text, vision=vision, tensors=tensors)


def int8_activations(name):
    """As a calibration would have it, with one range for all maps of the tower."""
    is_projector = name == "projector"
    return FLOAT32 if is_projector else WeightFormat("int8", 0, input_scale=4 / 127)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """Engine directory in the `trt` dialect; each is written once, if there is what builds it."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="the tensorrt-rtx wheel is absent")
    folders = {}

    def write(checkpoint, precision, activations, vision_storage=None):
        key = (checkpoint, precision, activations, vision_storage)
        if key not in folders:
            opened = CHECKPOINTS[checkpoint]()
            plan = plan_export(opened, precision, 32, target=Target("trt", activations))
            if vision_storage is not None:
                plan = dataclasses.replace(plan, vision=vision_storage)
            folders[key] = tmp_path_factory.mktemp("trt")
            write_engine(plan, folders[key], None, None)
        return folders[key]

    return write


CHECKPOINTS = {
    "phantom": lambda: open_checkpoint(str(PHANTOM)),
    "4b pair": true_width_checkpoint,
}


def decoder_profile(text, tokens, rows, capacity):
    """One profile from least, usual and largest number of tokens and of projected rows."""
    return {
        "embeddings": tuple([1, count, text.hidden_size] for count in tokens),
        "position_ids": tuple([1, count] for count in tokens),
        "mask_global": tuple([1, 1, count, capacity[GLOBAL_AXIS]] for count in tokens),
        "mask_local": tuple([1, 1, count, capacity[LOCAL_AXIS]] for count in tokens),
        "logit_rows": tuple([count] for count in rows),
    }


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("precision", "activations"), RECIPES)
@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_decoders_build(engine, checkpoint, precision, activations, architecture):
    """Decoding and prefill in one plan; a chunk of prefill may project no row at all.

    Quantised weights are in the plan once, 16-bit ones once for each profile.
    """
    folder = engine(checkpoint, precision, activations)
    text = load_manifest(folder).text
    capacity = {GLOBAL_AXIS: 4096, LOCAL_AXIS: text.sliding_window + 512}
    profiles = [
        decoder_profile(text, (1, 1, 1), (1, 1, 1), capacity),
        decoder_profile(text, (1, 256, 512), (0, 0, 16), capacity),
    ]
    model = with_capacities((folder / "decoder.onnx").read_bytes(), capacity)
    size = plan_bytes(model, folder, profiles, architecture)
    print(f"{checkpoint} {precision} {activations} {architecture}: {size / 1e6:.1f} MB")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("weight_format", [None, int8_activations], ids=["float", "w8a8"])
@pytest.mark.parametrize("activations", ["bf16", "fp16"])
@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_towers_build_for_batches(engine, checkpoint, activations, weight_format, architecture):
    folder = engine(checkpoint, "int4", activations, weight_format)
    size = load_manifest(folder).vision.image_size
    profiles = [{"pixel_values": ([images, 3, size, size],) * 3} for images in (1, 4, 8)]
    model = (folder / "vision.onnx").read_bytes()
    plan = plan_bytes(model, folder, profiles, architecture)
    print(f"{checkpoint} {activations} {architecture}: {plan / 1e6:.1f} MB")


def test_a_free_capacity_does_not_parse(engine):
    """Why capacities are written into the file: remove `with_capacities` when this fails."""
    folder = engine("phantom", "int4", "bf16")
    with pytest.raises(AssertionError, match="static sequence length"):
        plan_bytes((folder / "decoder.onnx").read_bytes(), folder)


@pytest.mark.parametrize("rows", [FUSED_ROWS, 85 * 266 + QUESTION_SLOTS])
def test_the_longest_scan_builds_as_build_does_it(engine, rows):
    """One row more than FUSED_ROWS is an error without the permission that the library gives."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="the tensorrt-rtx wheel is absent")
    folder = engine("4b pair", "int4", "fp16")
    library = find_tensorrt()
    shapes = DecoderShapes(rows, 1344)
    graph = (folder / "decoder.onnx").read_bytes()
    graph = with_capacities(graph, {GLOBAL_AXIS: rows, LOCAL_AXIS: 1344})
    profiles = shapes.profiles(load_manifest(folder))
    plan = library.build(graph, folder / "decoder.onnx", profiles, BuildOptions(), (8, 6))
    assert plan.engine.nbytes > 1000


def test_fused_rows_are_as_many_as_one_kernel_takes(engine):
    """Raise FUSED_ROWS when this fails."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="the tensorrt-rtx wheel is absent")
    folder = engine("4b pair", "int4", "fp16")
    text = load_manifest(folder).text
    for rows, is_taken in ((FUSED_ROWS, True), (FUSED_ROWS + 64, False)):
        capacity = {GLOBAL_AXIS: rows, LOCAL_AXIS: 1344}
        profiles = [
            decoder_profile(text, (1, 1, 1), (1, 1, 1), capacity),
            decoder_profile(text, (2, 256, 512), (1, 1, 16), capacity),
        ]
        model = with_capacities((folder / "decoder.onnx").read_bytes(), capacity)
        if is_taken:
            assert plan_bytes(model, folder, profiles) > 0
        else:
            with pytest.raises(AssertionError, match="no plan"):
                plan_bytes(model, folder, profiles)
