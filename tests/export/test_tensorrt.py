"""TensorRT takes every quantised form written here; its RTX edition builds without a GPU."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from edge_medgemma.export.graph import GraphBuilder
from edge_medgemma.export.half import to_half
from edge_medgemma.export.qdq import quantized_input_linear, quantized_weight_linear
from edge_medgemma.export.weights import Matrix, Storage
from edge_medgemma.export.writer import write_data

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
        return quantized_weight_linear(graph, x, matrix()[1], Storage(kind, block_size))

    return build


FORMS = {"w8a8": w8a8} | {
    f"{kind}-{block}": weight_only(kind, block)
    for kind in ("int4", "int8")
    for block in (32, 64, 128)
}


def write_model(build, folder: Path, *, half: bool, images: int | str = 1) -> Path:
    """x @ map, then GELU and a bias, as the vision tower has them."""
    graph = GraphBuilder("form", {"": 23})
    x = graph.input("x", ir.DataType.FLOAT, [images, ROWS, INPUTS])
    product = build(graph, x)
    shifted = graph.node(
        "Add", [product, graph.array("bias", np.ones(OUTPUTS, np.float32))], name="sum"
    )
    active = graph.node("Gelu", [shifted], {"approximate": "tanh"}, name="active")
    graph.output(active, "y", ir.DataType.FLOAT, [images, ROWS, OUTPUTS])
    if half:
        to_half(graph, ())
    path = folder / "form.onnx"
    path.write_bytes(graph.serialize("form.data"))
    write_data(folder / "form.data", graph.payloads, lambda count: None)
    return path


@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
@pytest.mark.parametrize("form", FORMS)
def test_sm86_builds(form, half, tmp_path):
    trt = pytest.importorskip("tensorrt_rtx_bindings", reason="the tensorrt-rtx wheel is absent")
    path = write_model(FORMS[form], tmp_path, half=half)
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse_from_file(str(path))
    assert parsed, [parser.get_error(i).desc() for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    assert builder.build_serialized_network(network, config) is not None


@pytest.mark.parametrize("form", FORMS)
def test_the_forms_compute_the_map(form, tmp_path):
    path = write_model(FORMS[form], tmp_path, half=False)
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
    path = write_model(w8a8, tmp_path, half=False, images="N")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(str(path), options)
    optimised = onnx.load(tmp_path / "optimised.onnx", load_external_data=False)
    operators = [node.op_type for node in optimised.graph.node]
    assert "MatMulIntegerToFloat" in operators
    assert "MatMul" not in operators


def test_a_block_that_does_not_divide_is_refused():
    from edge_medgemma.export.weights import check_blocks
    from edge_medgemma.runtime.errors import CheckpointError

    odd = dataclasses.replace(matrix()[1], inputs=4304)
    with pytest.raises(CheckpointError, match="blocks of 128 do not divide"):
        check_blocks(odd, Storage("int4", 128))
