"""Operators of a decoder's graph that become one: gates, norms beside a residual, rotated heads."""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.kernel_levels import level  # noqa: F401 - each test runs at every level

from edge_medgemma.runtime.backends.onnxruntime.custom_ops import cpu_kernels
from edge_medgemma.runtime.backends.onnxruntime.fused_graph import (
    HEAD_NORM,
    RESIDUAL_NORM,
    fused_graph,
)
from edge_medgemma.runtime.backends.onnxruntime.session import open_session
from edge_medgemma.runtime.backends.onnxruntime.stored_scales import (
    GATED_PRODUCT,
    with_stored_scales,
)
from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE
from edge_medgemma.runtime.errors import EngineError

INPUTS, WIDTH, BLOCK = 64, 40, 32
HEADS, KEY_HEADS, SIZE = 3, 2, 24


def gate_model() -> onnx.ModelProto:
    """`y` [rows, WIDTH] of `x` [rows, INPUTS], as the export stage writes a gate."""
    draw = np.random.default_rng(0)
    blocks = INPUTS // BLOCK
    attributes = {"K": INPUTS, "N": 2 * WIDTH, "bits": 4, "block_size": BLOCK, "accuracy_level": 4}
    nodes = [
        helper.make_node("Cast", ["stored"], ["s"], to=TensorProto.FLOAT),
        helper.make_node(
            "MatMulNBits", ["x", "w", "s"], ["both"], domain="com.microsoft", **attributes
        ),
        helper.make_node("Split", ["both", "halves"], ["gate", "up"], axis=-1),
        helper.make_node("Gelu", ["gate"], ["active"], approximate="tanh"),
        helper.make_node("Mul", ["active", "up"], ["y"]),
    ]
    weights = {
        "w": draw.integers(0, 256, (2 * WIDTH, blocks, BLOCK // 2), np.uint8),
        "stored": draw.random((2 * WIDTH, blocks), np.float32).astype(ml_dtypes.bfloat16),
        "halves": np.array([WIDTH, WIDTH], np.int64),
    }
    return model_of(nodes, {"x": ["rows", INPUTS]}, {"y": ["rows", None]}, weights)


def norm_model() -> onnx.ModelProto:
    """`next` and `sum` of `x` and `residual`, as the export stage writes the end of a layer's half."""
    draw = np.random.default_rng(0).standard_normal
    shape = [1, "rows", WIDTH]
    nodes = [
        norm_node("x", "w", "normed"),
        helper.make_node("Add", ["residual", "normed"], ["sum"]),
        norm_node("sum", "v", "next"),
        helper.make_node("Add", ["sum", "next"], ["y"]),
    ]
    weights = {"w": draw(WIDTH, np.float32), "v": draw(WIDTH, np.float32)}
    return model_of(nodes, {"residual": shape, "x": shape}, {"y": shape}, weights)


def head_model() -> onnx.ModelProto:
    """`q` and `k` of `x`, as the export stage writes them."""
    draw = np.random.default_rng(0).standard_normal
    nodes = [helper.make_node("Split", ["x", "lengths"], ["q_part", "k_part"], axis=-1)]
    for name, heads in (("q", HEADS), ("k", KEY_HEADS)):
        nodes += [
            helper.make_node("Reshape", [f"{name}_part", f"{name}_apart"], [f"{name}_heads"]),
            norm_node(f"{name}_heads", f"{name}_weight", f"{name}_normed"),
            helper.make_node("Reshape", [f"{name}_normed", "joined"], [f"{name}_joined"]),
            helper.make_node(
                "RotaryEmbedding", [f"{name}_joined", "cos", "sin"], [name], num_heads=heads
            ),
        ]
    weights = {
        "lengths": np.array([HEADS * SIZE, KEY_HEADS * SIZE], np.int64),
        "joined": np.array([0, 0, -1], np.int64),
        "q_apart": np.array([1, -1, HEADS, SIZE], np.int64),
        "k_apart": np.array([1, -1, KEY_HEADS, SIZE], np.int64),
        "q_weight": draw(SIZE, np.float32),
        "k_weight": draw(SIZE, np.float32),
    }
    inputs = {"x": [1, "rows", (HEADS + KEY_HEADS) * SIZE]}
    inputs |= {name: [1, "rows", SIZE // 2] for name in ("cos", "sin")}
    outputs = {"q": [1, "rows", HEADS * SIZE], "k": [1, "rows", KEY_HEADS * SIZE]}
    return model_of(nodes, inputs, outputs, weights)


def norm_node(given: str, weight: str, output: str) -> onnx.NodeProto:
    return helper.make_node("RMSNormalization", [given, weight], [output], axis=-1, epsilon=1e-6)


Shapes = Mapping[str, list[int | str | None]]


def model_of(
    nodes: list[onnx.NodeProto], inputs: Shapes, outputs: Shapes, weights: Mapping[str, np.ndarray]
) -> onnx.ModelProto:
    ends = [
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in some.items()
        ]
        for some in (inputs, outputs)
    ]
    initializers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "part", *ends, initializers)
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
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
    model.graph.node[2].attribute[0].i = 0


def erf(model: onnx.ModelProto) -> None:
    model.graph.node[3].attribute[0].s = b"none"


def the_other_half_is_activated(model: onnx.ModelProto) -> None:
    model.graph.node[3].input[0] = "up"
    model.graph.node[4].input[1] = "gate"


def a_bias(model: onnx.ModelProto) -> None:
    model.graph.node[1].input.extend(["", "", "b"])


def the_normed_product_is_an_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(onnx.ValueInfoProto(name="normed"))


def another_epsilon(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute[1].f = 1e-5


def a_norm_of_another_axis(model: onnx.ModelProto) -> None:
    model.graph.node[2].attribute[0].i = 1


def read_before(model: onnx.ModelProto, name: str, place: int) -> None:
    """A node that reads `name`, before the node at `place`."""
    nodes = list(model.graph.node)
    early = helper.make_node("Relu", [name], ["early"])
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:place], early, *nodes[place:]])


def the_sum_is_read_before_its_norm(model: onnx.ModelProto) -> None:
    read_before(model, "sum", 2)


def the_sum_is_the_other_way_round(model: onnx.ModelProto) -> None:
    add = model.graph.node[1]
    add.input[:] = ["normed", "residual"]


def a_normed_product_is_its_own_residual(model: onnx.ModelProto) -> None:
    model.graph.node[1].input[:] = ["normed", "normed"]


def weights_for_all(model: onnx.ModelProto) -> None:
    for place, name in enumerate(("w", "v")):
        one = numpy_helper.from_array(np.ones(1, np.float32), name)
        model.graph.initializer[place].CopyFrom(one)


def weights_of_two_sizes(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), "w"))


def queries_are_read_before_keys(model: onnx.ModelProto) -> None:
    read_before(model, "q", 5)


def interleaved(model: onnx.ModelProto) -> None:
    model.graph.node[8].attribute.append(helper.make_attribute("interleaved", 1))


def other_angles(model: onnx.ModelProto) -> None:
    model.graph.node[4].input[1:] = ["sin", "cos"]


def normed_queries_are_an_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(onnx.ValueInfoProto(name="q_normed"))


def other_heads(model: onnx.ModelProto) -> None:
    apart = numpy_helper.from_array(np.array([1, -1, KEY_HEADS * 2, SIZE // 2]), "k_apart")
    model.graph.initializer[3].CopyFrom(apart)


def keys_before_queries(model: onnx.ModelProto) -> None:
    model.graph.node[0].output[:] = ["k_part", "q_part"]


PARTS = {GATED_PRODUCT: gate_model, RESIDUAL_NORM: norm_model, HEAD_NORM: head_model}
OTHERS = {RESIDUAL_NORM: {"Add": 1}}
"""Operators of a part's model that are left"""


@pytest.mark.parametrize("operator", PARTS)
def test_parts_become_one_operator(operator: str, tmp_path: Path) -> None:
    path = saved(PARTS[operator](), tmp_path)
    model = fused_graph(path)
    assert operators(model) == {operator: 1, **OTHERS.get(operator, {})}
    before, after = onnx.load(path), onnx.load_from_string(model)
    del before.graph.node[:], after.graph.node[:]
    assert after == before  # inputs, outputs, weights, versions


NOT_QUITE = {
    gate_model: (
        gate_is_an_output,
        up_is_read_twice,
        up_is_read_within_a_branch,
        unequal_parts,
        another_axis,
        erf,
        the_other_half_is_activated,
        a_bias,
    ),
    norm_model: (
        the_normed_product_is_an_output,
        another_epsilon,
        a_norm_of_another_axis,
        the_sum_is_read_before_its_norm,
        the_sum_is_the_other_way_round,
        weights_of_two_sizes,
        weights_for_all,
        a_normed_product_is_its_own_residual,
    ),
    head_model: (
        queries_are_read_before_keys,
        interleaved,
        other_angles,
        normed_queries_are_an_output,
        other_heads,
        keys_before_queries,
    ),
}


@pytest.mark.parametrize(
    ("build", "alter"), [(build, alter) for build, alters in NOT_QUITE.items() for alter in alters]
)
def test_what_is_not_quite_that_stays(
    build: Callable[[], onnx.ModelProto],
    alter: Callable[[onnx.ModelProto], None],
    tmp_path: Path,
) -> None:
    model = build()
    alter(model)
    left = onnx.load_from_string(with_stored_scales(model.SerializeToString()))
    assert onnx.load_from_string(fused_graph(saved(model, tmp_path))) == left


@pytest.mark.skipif(
    cpu_kernels is None or not cpu_kernels.claimed_levels(), reason="no kernels here"
)
@pytest.mark.parametrize("rows", [1, 2, 30])
@pytest.mark.parametrize("operator", PARTS)
def test_it_computes_what_the_file_says(operator: str, rows: int, tmp_path: Path) -> None:
    model = PARTS[operator]()
    path = saved(model, tmp_path)
    draw = np.random.default_rng(1).standard_normal
    feeds = {
        value.name: draw([size.dim_value or rows for size in value.type.tensor_type.shape.dim])
        for value in model.graph.input
    }
    feeds = {name: array.astype(np.float32) for name, array in feeds.items()}
    own = open_session(path, 1).run(None, feeds)
    session = open_session(path, 1, model=fused_graph(path), library=cpu_kernels.__file__)
    for given, expected in zip(session.run(None, feeds), own, strict=True):
        difference = np.abs(given - expected) / np.abs(expected).max()
        figures = f"max {difference.max():.1e}, mean {difference.mean():.1e}"
        assert given.shape == expected.shape
        assert difference.max() < 1e-5, figures


def test_every_layer_of_an_engine_has_them() -> None:
    path = BUILTIN_ENGINE / "decoder.onnx"
    before, after = operators(path.read_bytes()), operators(fused_graph(path))
    layers = before["Gelu"]
    assert layers > 0
    assert (after[GATED_PRODUCT], after[HEAD_NORM]) == (layers, layers)
    assert after[RESIDUAL_NORM] == 2 * layers - 1  # rows are chosen before the last norm
    assert after["RotaryEmbedding"] == after["Gelu"] == 0
    assert after["RMSNormalization"] == 3


@pytest.mark.parametrize("end", [1, 40, 200])
def test_a_cut_file_is_an_error(end: int, tmp_path: Path) -> None:
    path = saved(gate_model(), tmp_path)
    path.write_bytes(path.read_bytes()[:-end])
    with pytest.raises(EngineError, match="export the engine again"):
        fused_graph(path)
