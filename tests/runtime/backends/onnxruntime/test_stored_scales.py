"""Casts of bfloat16 scales that the kernels read as they are stored."""

from collections.abc import Sequence

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.kernel_levels import level  # noqa: F401 - each test runs at every level
from support.linear_layers import opened

from edge_medgemma.runtime.backends.onnxruntime.custom_ops import cpu_kernels
from edge_medgemma.runtime.backends.onnxruntime.stored_scales import with_stored_scales

INPUTS, OUTPUTS, BLOCK = 64, 10, 32


def product(scales: str, output: str) -> onnx.NodeProto:
    attributes = {"K": INPUTS, "N": OUTPUTS, "bits": 4, "block_size": BLOCK, "accuracy_level": 4}
    inputs = ["x", "w", scales]
    return helper.make_node("MatMulNBits", inputs, [output], domain="com.microsoft", **attributes)


def cast(stored: str, output: str) -> onnx.NodeProto:
    return helper.make_node("Cast", [stored], [output], to=TensorProto.FLOAT)


def branch(nodes: Sequence[onnx.NodeProto], output: str) -> onnx.GraphProto:
    given = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    return helper.make_graph(nodes, "branch", [], [given])


def model_of(nodes: Sequence[onnx.NodeProto], dtype: type = ml_dtypes.bfloat16) -> onnx.ModelProto:
    """`y` of `x`, with weights `w` and scales `stored`."""
    draw = np.random.default_rng(0)
    shape = (OUTPUTS, INPUTS // BLOCK)
    weights = {
        "w": draw.integers(0, 256, (*shape, BLOCK // 2), np.uint8),
        "stored": draw.random(shape, np.float32).astype(dtype),
        "truth": np.array(True),
    }
    graph = helper.make_graph(
        nodes,
        "part",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", INPUTS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def changed(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.load_from_string(with_stored_scales(model.SerializeToString()))


PLAIN = [cast("stored", "s"), product("s", "y")]
BRANCHES = [
    cast("stored", "s"),
    helper.make_node(
        "If",
        ["truth"],
        ["y"],
        then_branch=branch([product("s", "then")], "then"),
        else_branch=branch([cast("stored", "t"), product("t", "else")], "else"),
    ),
]


@pytest.mark.parametrize("nodes", [PLAIN, BRANCHES], ids=["plain", "in branches"])
def test_products_read_what_is_stored(nodes: list[onnx.NodeProto]) -> None:
    model = model_of(nodes)
    given = changed(model)
    text = str(given.graph)
    assert "Cast" not in text
    assert text.count('"stored"') == text.count('op_type: "MatMulNBits"') + 1  # the weight itself
    del model.graph.node[:], given.graph.node[:]
    assert given == model


@pytest.mark.skipif(
    cpu_kernels is None or not cpu_kernels.claimed_levels(), reason="no kernels here"
)
@pytest.mark.parametrize("nodes", [PLAIN, BRANCHES], ids=["plain", "in branches"])
def test_the_library_then_computes_what_the_file_says(nodes: list[onnx.NodeProto]) -> None:
    model = model_of(nodes).SerializeToString()
    x = {"x": np.random.default_rng(1).standard_normal((3, INPUTS)).astype(np.float32)}
    given, expected = (
        opened(model, library).run(None, x)[0] for library in (cpu_kernels.__file__, None)
    )
    difference = np.abs(given - expected).max() / np.abs(expected).max()
    assert difference < 1e-5, f"max {difference:.1e}"


def test_a_cast_that_others_read_stays() -> None:
    read_twice = [*PLAIN[:1], product("s", "p"), helper.make_node("Add", ["p", "t"], ["y"])]
    read_twice.insert(1, helper.make_node("ReduceSum", ["s"], ["t"]))
    given = changed(model_of(read_twice))
    assert [node.op_type for node in given.graph.node] == [
        "Cast",
        "ReduceSum",
        "MatMulNBits",
        "Add",
    ]
    assert given.graph.node[2].input[2] == "stored"


@pytest.mark.parametrize(
    ("nodes", "dtype"),
    [
        (PLAIN, np.float16),
        ([product("stored", "y")], np.float32),
        ([cast("x", "s"), helper.make_node("Relu", ["s"], ["y"])], ml_dtypes.bfloat16),
    ],
    ids=["another type", "no cast", "no product"],
)
def test_what_is_not_that_stays(nodes: list[onnx.NodeProto], dtype: type) -> None:
    model = model_of(nodes, dtype)
    assert changed(model) == model
