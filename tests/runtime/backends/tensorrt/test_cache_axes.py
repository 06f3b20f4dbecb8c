import onnx
import pytest

from edge_medgemma.runtime.backends.tensorrt.cache_axes import (
    GLOBAL_AXIS,
    LOCAL_AXIS,
    with_capacities,
)
from edge_medgemma.runtime.errors import EngineError


def model():
    shape = [1, 4, GLOBAL_AXIS, 64]
    value = onnx.helper.make_tensor_value_info("cache", onnx.TensorProto.FLOAT, shape)
    mask = onnx.helper.make_tensor_value_info("mask", onnx.TensorProto.BOOL, ["S", LOCAL_AXIS])
    out = onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, shape)
    node = onnx.helper.make_node("Identity", ["cache"], ["out"])
    return onnx.helper.make_model(onnx.helper.make_graph([node], "g", [value, mask], [out]))


@pytest.mark.parametrize("rows", [1, 127, 128, 24_576, 131_072])
def test_the_named_axes_become_numbers(rows):
    expected = model()
    graph = expected.graph
    graph.input[0].type.tensor_type.shape.dim[2].dim_value = rows
    graph.input[1].type.tensor_type.shape.dim[1].dim_value = 7
    graph.output[0].type.tensor_type.shape.dim[2].dim_value = rows
    found = with_capacities(model().SerializeToString(), {GLOBAL_AXIS: rows, LOCAL_AXIS: 7})
    assert onnx.load_from_string(found) == expected


def test_a_graph_of_the_other_dialect_is_named():
    fixed = with_capacities(model().SerializeToString(), {GLOBAL_AXIS: 8})
    with pytest.raises(EngineError, match="no axis 'GLOBAL'"):
        with_capacities(fixed, {GLOBAL_AXIS: 9})
