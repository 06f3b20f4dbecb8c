"""Gates of a decoder's graph, joined with their products."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.kernel_levels import level  # noqa: F401 - each test runs at every level

from edge_medgemma.runtime.backends.onnxruntime.custom_ops import cpu_kernels
from edge_medgemma.runtime.backends.onnxruntime.gated_graph import OPERATOR, gated_graph
from edge_medgemma.runtime.backends.onnxruntime.session import open_session
from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE
from edge_medgemma.runtime.errors import EngineError

INPUTS, WIDTH, BLOCK = 64, 40, 32


def gate_model() -> onnx.ModelProto:
    """`y` [rows, WIDTH] of `x` [rows, INPUTS], as the export stage writes a gate."""
    draw = np.random.default_rng(0)
    blocks = INPUTS // BLOCK
    attributes = {"K": INPUTS, "N": 2 * WIDTH, "bits": 4, "block_size": BLOCK, "accuracy_level": 4}
    nodes = [
        helper.make_node(
            "MatMulNBits", ["x", "w", "s"], ["both"], domain="com.microsoft", **attributes
        ),
        helper.make_node("Split", ["both", "halves"], ["gate", "up"], axis=-1),
        helper.make_node("Gelu", ["gate"], ["active"], approximate="tanh"),
        helper.make_node("Mul", ["active", "up"], ["y"]),
    ]
    weights = {
        "w": draw.integers(0, 256, (2 * WIDTH, blocks, BLOCK // 2), np.uint8),
        "s": draw.random((2 * WIDTH, blocks), np.float32),
        "halves": np.array([WIDTH, WIDTH], np.int64),
    }
    graph = helper.make_graph(
        nodes,
        "gate",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", INPUTS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", None])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def operators(model: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_from_string(model).graph.node)


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "decoder.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def gate_is_an_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(onnx.ValueInfoProto(name="gate"))


def up_is_read_twice(model: onnx.ModelProto) -> None:
    model.graph.node[-1].output[0] = "once"
    model.graph.node.append(helper.make_node("Add", ["once", "up"], ["y"]))


def up_is_read_within_a_branch(model: onnx.ModelProto) -> None:
    branch = helper.make_graph(
        [helper.make_node("Identity", ["up"], ["inner"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    truth = numpy_helper.from_array(np.array(True), "truth")
    model.graph.initializer.append(truth)
    model.graph.node.append(
        helper.make_node("If", ["truth"], ["z"], then_branch=branch, else_branch=branch)
    )


def unequal_parts(model: onnx.ModelProto) -> None:
    halves = numpy_helper.from_array(np.array([WIDTH + 1, WIDTH - 1], np.int64), "halves")
    model.graph.initializer[-1].CopyFrom(halves)


def another_axis(model: onnx.ModelProto) -> None:
    model.graph.node[1].attribute[0].i = 0


def erf(model: onnx.ModelProto) -> None:
    model.graph.node[2].attribute[0].s = b"none"


def the_other_half_is_activated(model: onnx.ModelProto) -> None:
    model.graph.node[2].input[0] = "up"
    model.graph.node[3].input[1] = "gate"


def a_bias(model: onnx.ModelProto) -> None:
    model.graph.node[0].input.extend(["", "", "b"])


def test_a_gate_becomes_one_operator(tmp_path: Path) -> None:
    path = saved(gate_model(), tmp_path)
    model = gated_graph(path)
    assert operators(model) == {OPERATOR: 1}
    before, after = onnx.load(path), onnx.load_from_string(model)
    del before.graph.node[:], after.graph.node[:]
    assert after == before  # inputs, outputs, weights, versions


@pytest.mark.parametrize(
    "alter",
    [
        gate_is_an_output,
        up_is_read_twice,
        up_is_read_within_a_branch,
        unequal_parts,
        another_axis,
        erf,
        the_other_half_is_activated,
        a_bias,
    ],
)
def test_what_is_not_quite_a_gate_stays(
    alter: Callable[[onnx.ModelProto], None], tmp_path: Path
) -> None:
    model = gate_model()
    alter(model)
    assert onnx.load_from_string(gated_graph(saved(model, tmp_path))) == model


@pytest.mark.skipif(
    cpu_kernels is None or not cpu_kernels.claimed_levels(), reason="no kernels here"
)
@pytest.mark.parametrize("rows", [2, 30])
def test_it_computes_what_the_file_says(rows: int, tmp_path: Path) -> None:
    path = saved(gate_model(), tmp_path)
    x = np.random.default_rng(1).standard_normal((rows, INPUTS), np.float32)
    expected = open_session(path, 1).run(None, {"x": x})[0]
    session = open_session(path, 1, model=gated_graph(path), library=cpu_kernels.__file__)
    difference = np.abs(session.run(None, {"x": x})[0] - expected) / np.abs(expected).max()
    assert difference.max() < 1e-5, f"max {difference.max():.1e}, mean {difference.mean():.1e}"


def test_every_layer_of_an_engine_has_one() -> None:
    path = BUILTIN_ENGINE / "decoder.onnx"
    before, after = operators(path.read_bytes()), operators(gated_graph(path))
    assert after[OPERATOR] == before["Gelu"] > 0
    assert after["Gelu"] == 0


@pytest.mark.parametrize("end", [1, 40, 200])
def test_a_cut_file_is_an_error(end: int, tmp_path: Path) -> None:
    path = saved(gate_model(), tmp_path)
    path.write_bytes(path.read_bytes()[:-end])
    with pytest.raises(EngineError, match="export the engine again"):
        gated_graph(path)
