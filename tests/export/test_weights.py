import numpy as np
import onnx
import onnx.numpy_helper
import onnx_ir as ir
import onnxruntime
import pytest

from edge_medgemma.export.graph import GraphBuilder
from edge_medgemma.export.ort_dialect import OrtDialect
from edge_medgemma.export.weights import Matrix, Storage, pack_int4, quantize_blocks
from edge_medgemma.export.writer import ALIGNMENT, write_data
from edge_medgemma.runtime.errors import CheckpointError


def reference_quantization(values, largest, block_size):
    """The same arithmetic, one block at a time."""
    integers = np.zeros(values.shape, np.int8)
    scales = np.ones((values.shape[0] // block_size, values.shape[1]), np.float32)
    for block in range(scales.shape[0]):
        rows = slice(block * block_size, (block + 1) * block_size)
        for column in range(values.shape[1]):
            part = values[rows, column]
            if np.abs(part).max() > 0:
                scales[block, column] = np.abs(part).max() / np.float32(largest)
            integers[rows, column] = np.rint(part / scales[block, column])
    return integers, scales


@pytest.mark.parametrize(("kind", "largest"), [("int8", 127), ("int4", 7)])
def test_quantization_equals_the_reference(kind, largest):
    values = np.random.default_rng(0).standard_normal((96, 10), np.float32)
    values[32:64, 3] = 0
    integers, scales = quantize_blocks(values, kind, 32)
    expected_integers, expected_scales = reference_quantization(values, largest, 32)
    np.testing.assert_array_equal(integers, expected_integers)
    np.testing.assert_array_equal(scales, expected_scales)
    error = np.abs(integers * np.repeat(scales, 32, axis=0) - values)
    assert (error <= np.repeat(scales, 32, axis=0) / 2 + 1e-7).all()


def test_subnormal_blocks_stay_finite():
    integers, scales = quantize_blocks(np.full((32, 2), 1e-44, np.float32), "int4", 32)
    assert np.isfinite(scales).all()
    assert np.abs(integers).max() <= 7


def test_int4_packs_the_first_element_low():
    assert pack_int4(np.array([[1, -2], [-7, 7]], np.int8)).tolist() == [[0xE1], [0x79]]


@pytest.mark.parametrize(("kind", "block_size"), [("int4", 32), ("int4", 128), ("int8", 64)])
def test_fused_product_equals_dequantised_weights(tmp_path, kind, block_size):
    rng = np.random.default_rng(0)
    values = rng.standard_normal((256, 96), np.float32)
    matrix = Matrix("weight", 256, 96, lambda start, stop: values[start:stop])
    path = write_graph(tmp_path, matrix, Storage(kind, block_size))
    stored = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(path).graph.initializer
    }
    integers, scales = quantize_blocks(values, kind, block_size)
    np.testing.assert_array_equal(stored["weight.quantized"].astype(np.int8), integers)
    np.testing.assert_array_equal(stored["weight.scale"], scales)

    x = rng.standard_normal((5, 256), np.float32)
    expected = x @ (integers * np.repeat(scales, block_size, axis=0))
    exact = run(path, x, {"session.qdq_matmulnbits_accuracy_level": "0"})
    fused = run(path, x, {})
    for found, limit in ((exact, 1e-5), (fused, 0.03)):
        relative = np.abs(found - expected) / np.abs(expected).mean()
        assert relative.max() < limit, f"max {relative.max():.2e}, mean {relative.mean():.2e}"


@pytest.mark.parametrize("kind", ["int4", "int8"])
def test_onnxruntime_fuses_every_quantised_product(tmp_path, kind):
    """8-bit MatMulNBits without accuracy level 4 is two orders of magnitude slower."""
    values = np.random.default_rng(0).standard_normal((128, 64), np.float32)
    matrix = Matrix("weight", 128, 64, lambda start, stop: values[start:stop])
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    path = write_graph(tmp_path, matrix, Storage(kind, 32))
    onnxruntime.InferenceSession(str(path), options)
    (node,) = onnx.load(tmp_path / "optimised.onnx").graph.node
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    assert node.op_type == "MatMulNBits"
    assert attributes["accuracy_level"] == 4


def test_blocks_must_divide_the_rows():
    matrix = Matrix("text.odd", 96, 4, lambda start, stop: np.zeros((stop - start, 4), np.float32))
    with pytest.raises(CheckpointError, match=r"'text\.odd' has 96 rows.*--block-size"):
        GraphBuilder("g", {"": 23}).matrix(matrix, Storage("int4", 64))


def test_initializers_start_on_pages(tmp_path):
    values = np.ones((64, 6), np.float32)
    matrix = Matrix("weight", 64, 6, lambda start, stop: values[start:stop])
    path = write_graph(tmp_path, matrix, Storage("int8", 32))
    for tensor in onnx.load(path, load_external_data=False).graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        assert int(entries["offset"]) % ALIGNMENT == 0


def write_graph(folder, matrix, storage):
    """A graph y = x @ matrix on disk."""
    ops = OrtDialect()
    graph = GraphBuilder("linear", ops.opsets)
    float_type = ir.DataType.FLOAT
    x = graph.input("x", float_type, ["S", matrix.rows])
    y = ops.linear(graph, x, matrix, storage)
    graph.output(y, "y", float_type, ["S", matrix.columns])
    (folder / "linear.onnx").write_bytes(graph.serialize("linear.data"))
    write_data(folder / "linear.data", graph.payloads, lambda count: None)
    return folder / "linear.onnx"


def run(path, x, config):
    options = onnxruntime.SessionOptions()
    for key, value in config.items():
        options.add_session_config_entry(key, value)
    return onnxruntime.InferenceSession(str(path), options).run(None, {"x": x})[0]
