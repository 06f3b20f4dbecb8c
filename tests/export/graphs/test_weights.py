import tracemalloc

import ml_dtypes
import numpy as np
import onnx
import onnx.numpy_helper
import onnx_ir as ir
import onnxruntime
import pytest

from edge_medgemma.export.checkpoint.synthetic import RandomTensor
from edge_medgemma.export.graphs.embedding import embedding_blobs
from edge_medgemma.export.graphs.graph import GraphBuilder
from edge_medgemma.export.graphs.ort_dialect import OrtDialect
from edge_medgemma.export.graphs.weights import (
    FLOAT32,
    Matrix,
    WeightFormat,
    blocks_blob,
    pack_unsigned,
    quantize_blocks,
    stacked,
)
from edge_medgemma.export.graphs.writer import ALIGNMENT, write_data
from edge_medgemma.runtime.errors import CheckpointError


def reference_quantization(values, largest, block_size):
    """The same arithmetic, one block at a time."""
    integers = np.zeros(values.shape, np.int8)
    scales = np.ones((values.shape[0], values.shape[1] // block_size), np.float32)
    for output in range(values.shape[0]):
        for block in range(scales.shape[1]):
            inputs = slice(block * block_size, (block + 1) * block_size)
            part = values[output, inputs]
            if np.abs(part).max() > 0:
                step = np.abs(part).max() / np.float32(largest)
                scales[output, block] = ml_dtypes.bfloat16(step)
            nearest = np.rint(part / scales[output, block])
            integers[output, inputs] = np.clip(nearest, -largest, largest)
    return integers, scales


def test_8_bits_are_rounded_to_nearest():
    values = np.random.default_rng(0).standard_normal((10, 96), np.float32)
    values[3, 32:64] = 0
    integers, scales = quantize_blocks(values, "int8", 32)
    expected_integers, expected_scales = reference_quantization(values, 127, 32)
    np.testing.assert_array_equal(integers, expected_integers)
    np.testing.assert_array_equal(scales, expected_scales)
    error = np.abs(integers * np.repeat(scales, 32, axis=1) - values)
    assert (error <= np.repeat(scales, 32, axis=1) / 2 + 1e-7).all()


def test_packing_raises_and_puts_the_first_element_low():
    integers = np.array([[1, -2], [-7, 7]], np.int8)
    assert pack_unsigned(integers, "int4").tolist() == [[0x69], [0xF1]]
    assert pack_unsigned(integers, "int8").tolist() == [[129, 126], [121, 135]]


@pytest.mark.parametrize("scale_kind", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("kind", "block_size"), [("int4", 32), ("int4", 128), ("int8", 32), ("int8", 128)]
)
def test_onnxruntime_multiplies_by_the_dequantised_weights(tmp_path, kind, block_size, scale_kind):
    """Inputs of whole numbers up to 127 in every block survive the rounding of activations."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((96, 256), np.float32)
    x = rng.integers(-127, 128, (5, 256)).astype(np.float32)
    x[:, ::32] = 127
    integers, scales = quantize_blocks(values, kind, block_size)
    expected = x @ (integers * np.repeat(scales, block_size, axis=1)).T
    weight_format = WeightFormat(kind, block_size, scale_kind=scale_kind)
    found = run(write_graph(tmp_path, matrix_of(values), weight_format), x)
    relative = np.abs(found - expected) / np.abs(expected).mean()
    assert relative.max() < 1e-5, f"max {relative.max():.2e}, mean {relative.mean():.2e}"


def test_rounding_of_activations_stays_small(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.standard_normal((96, 256), np.float32)
    x = rng.standard_normal((5, 256), np.float32)
    integers, scales = quantize_blocks(values, "int8", 32)
    expected = x @ (integers * np.repeat(scales, 32, axis=1)).T
    found = run(write_graph(tmp_path, matrix_of(values), WeightFormat("int8", 32)), x)
    relative = np.abs(found - expected) / np.abs(expected).mean()
    assert relative.max() < 0.03, f"max {relative.max():.2e}, mean {relative.mean():.2e}"


def test_dense_weights_are_exact_in_every_slab(tmp_path, monkeypatch):
    monkeypatch.setattr("edge_medgemma.export.graphs.weights.SLAB_BYTES", 4096)
    values = np.random.default_rng(0).standard_normal((70, 300), np.float32)
    path = write_graph(tmp_path, matrix_of(values), FLOAT32)
    (tensor,) = onnx.load(path).graph.initializer
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), values.T)


def test_slabs_do_not_change_the_blocks(monkeypatch):
    values = np.random.default_rng(0).standard_normal((1100, 64), np.float32)
    blob = blocks_blob(matrix_of(values), WeightFormat("int4", 32))
    whole = b"".join(piece.tobytes() for piece in blob.pieces())
    monkeypatch.setattr("edge_medgemma.export.graphs.weights.SLAB_BYTES", 4096)
    parts = [piece.tobytes() for piece in blob.pieces()]
    assert len(parts) == 6
    assert b"".join(parts) == whole


@pytest.mark.parametrize("part", ["layer", "embedding"])
def test_a_matrix_of_64_mb_is_never_held_whole(monkeypatch, part):
    for module in ("weights", "embedding"):
        monkeypatch.setattr(f"edge_medgemma.export.graphs.{module}.SLAB_BYTES", 1 << 20)
    weights = RandomTensor("wide", (16_384, 1024), 0.0, 1.0, 0)
    if part == "layer":
        blobs = [blocks_blob(stacked("wide", weights), WeightFormat("int4", 128))]
    else:
        blobs = list(embedding_blobs(weights, "int8").values())
    tracemalloc.start()
    written = sum(piece.nbytes for blob in blobs for piece in blob.pieces())
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert written >= 16_384 * 1024 // 2
    assert peak_bytes < 20e6, f"{peak_bytes / 1e6:.1f} MB at once"


def test_stacked_weights_are_read_across_their_borders():
    class Stored:
        def __init__(self, values):
            self.values, self.shape = values, values.shape

        def read(self, *index):
            return self.values[index]

    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((rows, 8), np.float32) for rows in (5, 3, 4)]
    matrix = stacked("qkv", *map(Stored, weights))
    assert (matrix.inputs, matrix.outputs) == (8, 12)
    for start, stop in ((0, 12), (4, 9), (5, 8), (11, 12)):
        expected = np.concatenate(weights)[start:stop, 2:7]
        np.testing.assert_array_equal(matrix.read(slice(start, stop), slice(2, 7)), expected)


def test_blocks_must_divide_the_inputs():
    matrix = Matrix("text.odd", 96, 4, lambda outputs, inputs: np.zeros((4, 96), np.float32))
    with pytest.raises(CheckpointError, match=r"'text\.odd' has 96 inputs.*--block-size"):
        blocks_blob(matrix, WeightFormat("int4", 64))


def test_initializers_start_on_pages(tmp_path):
    path = write_graph(tmp_path, matrix_of(np.ones((6, 64), np.float32)), WeightFormat("int8", 32))
    for tensor in onnx.load(path, load_external_data=False).graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        assert int(entries["offset"]) % ALIGNMENT == 0


def matrix_of(values):
    """A matrix of weights [N, K] in memory."""
    outputs, inputs = values.shape
    return Matrix("weight", inputs, outputs, lambda n, k: values[n, k])


def write_graph(folder, matrix, weight_format):
    """A graph y = x @ matrix on disk."""
    ops = OrtDialect()
    graph = GraphBuilder("linear", ops.opsets)
    x = graph.input("x", ir.DataType.FLOAT, ["S", matrix.inputs])
    y = ops.linear(graph, x, matrix, weight_format)
    graph.output(y, "y", ir.DataType.FLOAT, ["S", matrix.outputs])
    (folder / "linear.onnx").write_bytes(graph.serialize("linear.data"))
    write_data(folder / "linear.data", graph.blobs, lambda count: None)
    return folder / "linear.onnx"


def run(path, x):
    return onnxruntime.InferenceSession(str(path)).run(None, {"x": x})[0]
