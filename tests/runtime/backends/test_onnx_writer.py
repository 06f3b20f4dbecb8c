import numpy as np
import onnx
import onnxruntime
import pytest
from support.fake_engine import fake_manifest

from edge_medgemma.runtime.backends.onnx_writer import Value, one_node_model
from edge_medgemma.runtime.profiling.peaks import measure_peaks


def test_the_bytes_are_a_model_that_multiplies() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.random((5, 300), np.float32), generator.random((300, 7), np.float32)
    model = one_node_model(
        "MatMul", "", {"a": Value("float32")}, {"b": b}, {"c": Value("float32")}, {}
    )
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    difference = np.abs(session.run(None, {"a": a})[0] - a @ b)
    assert difference.max() < 1e-3, f"max {difference.max()}, mean {difference.mean()}"


def test_attributes_and_another_domain() -> None:
    model = one_node_model(
        "Made",
        "com.example",
        {"a": Value("uint8")},
        {},
        {"c": Value("int32")},
        {"count": 300, "zero": 0},
    )
    loaded = onnx.load_from_string(model)
    node = loaded.graph.node[0]
    assert (node.op_type, node.domain) == ("Made", "com.example")
    assert {one.name: one.i for one in node.attribute} == {"count": 300, "zero": 0}
    assert {one.domain for one in loaded.opset_import} == {"", "com.example"}


def test_peaks_of_this_machine_are_in_the_range_of_machines() -> None:
    peaks = measure_peaks(fake_manifest(), threads=2)  # int4
    figures = (peaks.f32_flop_per_s, peaks.int8_flop_per_s, peaks.weight_only_flop_per_s)
    assert all(figure is not None and 1e8 < figure < 1e15 for figure in figures)
    assert 1e8 < peaks.copy_bytes_per_s < 1e13 and 1e8 < peaks.read_bytes_per_s < 1e13


@pytest.mark.parametrize("shape", [(1, 1), (2, 70_000)])
def test_sizes_beyond_one_byte(shape: tuple[int, int]) -> None:
    model = one_node_model(
        "MatMul",
        "",
        {"a": Value("float32")},
        {"b": np.ones(shape, np.float32)},
        {"c": Value("float32")},
        {},
    )
    assert tuple(onnx.load_from_string(model).graph.initializer[0].dims) == shape
