"""The head in two planes of 4 bits: its integers, and both forms of its logits in onnxruntime."""

import numpy as np
import onnx_ir as ir
import pytest

from edge_medgemma.export.graphs import ort_head
from edge_medgemma.export.graphs.graph import GraphBuilder
from edge_medgemma.export.graphs.head_planes import planes_blob, quantize_bytes, split_planes
from edge_medgemma.export.graphs.ort_dialect import OrtDialect
from edge_medgemma.export.graphs.ort_head import drafted_head
from edge_medgemma.export.graphs.weights import Matrix, WeightFormat
from edge_medgemma.export.graphs.writer import write_data
from edge_medgemma.runtime.backends.onnxruntime.custom_ops import custom_ops_library
from edge_medgemma.runtime.backends.onnxruntime.fused_graph import fused_graph
from edge_medgemma.runtime.backends.onnxruntime.session import open_session
from edge_medgemma.runtime.generation.embedding import PLANES_ZERO, join_planes

ROWS, INPUTS, OUTPUTS = 5, 256, 1800


def matrix_of(values: np.ndarray) -> Matrix:
    return Matrix(
        "head", values.shape[1], values.shape[0], lambda some, inputs: values[some, inputs]
    )


BFLOAT16_ERROR = 2**-8
"""Of a scale's rounding"""


def dequantised(integers: np.ndarray, scales: np.ndarray) -> np.ndarray:
    width = integers.shape[1] // scales.shape[1]
    return integers * np.repeat(scales, width, axis=1)


def test_the_planes_are_the_halves_of_every_byte() -> None:
    integers = np.arange(256, dtype=np.uint8).reshape(4, 64)
    high, low = split_planes(integers)
    np.testing.assert_array_equal(join_planes(high, low), integers)
    centred = integers[:, 0::2].astype(int) - PLANES_ZERO
    first_high, first_low = (high & 15).astype(int) - 8, (low & 15).astype(int) - 8
    np.testing.assert_array_equal(16 * first_high + first_low, centred)


def test_weights_are_within_half_a_step_and_the_step_is_no_larger_than_symmetric() -> None:
    values = np.random.default_rng(0).standard_normal((50, 96), np.float32)
    values[0] = np.abs(values[0])
    values[1] = -np.abs(values[1])
    values[2, :32] = 0
    integers, scales = quantize_bytes(values, 32)
    found = dequantised(integers.astype(np.float32) - PLANES_ZERO, scales)
    step = np.repeat(np.abs(scales), 32, axis=1)
    error = np.abs(found - values) / step
    assert error.max() <= max(0.5, 136 * BFLOAT16_ERROR) + 1e-4, (
        f"max {error.max():.4f}, mean {error.mean():.4f} steps"
    )
    largest = np.abs(values).reshape(50, 3, 32).max(axis=2)
    assert (np.abs(scales)[3:] <= largest[3:] / 119 * (1 + BFLOAT16_ERROR)).all()
    one_sided = largest[:2] / 136
    np.testing.assert_allclose(scales[:2], one_sided * [[-1], [1]], rtol=BFLOAT16_ERROR)
    assert integers[2, :32].tolist() == [PLANES_ZERO] * 32


def test_subnormal_blocks_stay_finite() -> None:
    values = np.full((2, 32), 1e-44, np.float32) * [[1], [-1]]
    integers, scales = quantize_bytes(values.astype(np.float32), 32)
    assert np.isfinite(scales).all()
    assert np.abs(dequantised(integers.astype(np.float32) - PLANES_ZERO, scales)).max() < 1e-37


def test_slabs_do_not_change_the_planes(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).standard_normal((1100, 64), np.float32)
    blob = planes_blob(matrix_of(values), WeightFormat("int8", 32))
    whole = b"".join(piece.tobytes() for piece in blob.pieces())
    assert len(whole) == sum(one.bytes for one in blob.initializers)
    monkeypatch.setattr("edge_medgemma.export.graphs.weights.SLAB_BYTES", 4096)
    parts = [piece.tobytes() for piece in blob.pieces()]
    assert len(parts) == 9
    assert b"".join(parts) == whole


@pytest.mark.parametrize("tile_rows", [1 << 16, 700])
@pytest.mark.parametrize("block_size", [32, 128])
@pytest.mark.parametrize("has_kernel", [True, False])
def test_both_forms_are_products_of_the_stored_weights(
    tmp_path, monkeypatch, tile_rows, block_size, has_kernel
) -> None:
    """Inputs of whole numbers up to 127 in every block survive the rounding of activations."""
    monkeypatch.setattr(ort_head, "HEAD_TILE_ROWS", tile_rows)
    generator = np.random.default_rng(0)
    values = generator.standard_normal((OUTPUTS, INPUTS), np.float32)
    x = generator.integers(-127, 128, (ROWS, INPUTS)).astype(np.float32)
    x[:, ::32] = 127

    graph = GraphBuilder("head", OrtDialect().opsets)
    rows = graph.input("x", ir.DataType.FLOAT, ["R", INPUTS])
    is_drafted = graph.input("use_draft_head", ir.DataType.BOOL, [])
    head = drafted_head(
        graph, rows, matrix_of(values), WeightFormat("int8", block_size), is_drafted
    )
    graph.output(head, "logits", ir.DataType.FLOAT, ["R", OUTPUTS])
    write_data(tmp_path / "head.data", graph.blobs, lambda _: None)
    path = tmp_path / "head.onnx"
    path.write_bytes(graph.serialize("head.data"))
    library = custom_ops_library() if has_kernel else None
    session = open_session(path, None, model=library and fused_graph(path), library=library)

    integers, scales = quantize_bytes(values, block_size)
    centred = integers.astype(np.float32) - PLANES_ZERO
    exact = x @ dequantised(centred, scales).T
    drafted = x @ dequantised(16 * ((integers >> 4).astype(np.float32) - 8), scales).T
    best = np.argsort(drafted, axis=1)[:, -ort_head.CANDIDATES :]
    np.put_along_axis(drafted, best, np.take_along_axis(exact, best, 1), 1)
    for is_draft, expected in ((False, exact), (True, drafted)):
        (found,) = session.run(None, {"x": x, "use_draft_head": np.array(is_draft)})
        relative = np.abs(found - expected) / np.abs(expected).mean()
        assert relative.max() < 1e-5, f"max {relative.max():.2e}, mean {relative.mean():.2e}"
