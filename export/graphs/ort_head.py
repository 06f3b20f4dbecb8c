"""The head as onnxruntime reads it once per decoded token: both of its planes or, as a draft, the high one.

Both forms stand in the branches of an `If`, so one session and one copy of the weights serve the
reading of a scan and the answers.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import onnx_ir as ir

from edge_medgemma.export.graphs.graph import GraphBuilder
from edge_medgemma.export.graphs.head_planes import planes_blob
from edge_medgemma.export.graphs.ort_decode import blocks_product
from edge_medgemma.export.graphs.weights import Matrix, WeightFormat
from edge_medgemma.runtime.generation.embedding import PLANES_ZERO

CANDIDATES = 256
"""Best rows of the draft that are computed again by the head itself."""

HEAD_TILE_ROWS = 1 << 16
"""Rows of the head in one product. onnxruntime packs a whole product's weights at every start, even
to find them packed in a file: the head of MedGemma 4B in one piece takes 0.7 GB for that moment."""

HEAD_TILE_UNIT = 512
"""Tiles are multiples of it, so that they begin where a page of the file does."""

Weights = Sequence[ir.Value]
"""High plane, low plane and scales of `planes_blob`, or some rows of each."""


def drafted_head(
    graph: GraphBuilder,
    x: ir.Value,
    head: Matrix,
    weight_format: WeightFormat,
    is_drafted: ir.Value,
) -> ir.Value:
    """Logits [R, V] of x [R, H] by the head or, where `is_drafted`, by its high plane.

    The CANDIDATES best logits of the high plane are then replaced by those of the head's rows, so
    that the choice among likely tokens is the head's.
    """
    weights = graph.stored(planes_blob(head, weight_format), weight_format.shared_file)
    # x rather than the logits, which are many: sixteen times x is exact.
    step = graph.constant("head.high_step", np.array(16, np.float32))
    x_high = graph.node("Mul", [x, step], name="head.high_input")
    plane = replace(weight_format, kind="int4")

    def high(graph: GraphBuilder, some: Weights, tile: Matrix) -> ir.Value:
        tile = replace(tile, name=f"{graph.name}.{tile.name}.high")
        return blocks_product(graph, x_high, [some[0], some[2]], tile, plane)

    def both(graph: GraphBuilder, some: Weights, tile: Matrix) -> ir.Value:
        name = f"{graph.name}.{tile.name}"
        low = replace(tile, name=f"{name}.low")
        products = [high(graph, some, tile), blocks_product(graph, x, [*some[1:]], low, plane)]
        return graph.node("Add", products, name=f"{name}.sum")

    exact, fast = graph.branch("head.exact"), graph.branch("head.fast")
    exact.returns([_in_tiles(exact, weights, head, both)])
    drafted = _in_tiles(fast, weights, head, high)
    fast.returns([_with_exact_candidates(fast, x, drafted, weights, head)])
    branches = {"then_branch": fast.graph, "else_branch": exact.graph}
    return graph.node("If", [is_drafted], branches, name="head.logits")


def _in_tiles(
    graph: GraphBuilder,
    weights: Weights,
    matrix: Matrix,
    product: Callable[[GraphBuilder, Weights, Matrix], ir.Value],
) -> ir.Value:
    """The product of many outputs in nearly equal tiles of about HEAD_TILE_ROWS at most."""
    tiles = -(-matrix.outputs // HEAD_TILE_ROWS)
    if tiles == 1:
        return product(graph, weights, matrix)
    products = []
    units = matrix.outputs // HEAD_TILE_UNIT
    ends = [units * tile // tiles * HEAD_TILE_UNIT for tile in range(tiles)]
    for first, end in pairwise([*ends, matrix.outputs]):
        rows = [graph.rows_of(weight, first, end - first) for weight in weights]
        tile = replace(matrix, name=f"{matrix.name}.{first}", outputs=end - first)
        products.append(product(graph, rows, tile))
    return graph.node("Concat", products, {"axis": -1}, name=f"{graph.name}.tiles")


def _with_exact_candidates(
    graph: GraphBuilder, x: ir.Value, drafted: ir.Value, weights: Weights, head: Matrix
) -> ir.Value:
    def node(op_type: str, inputs: list[ir.Value], label: str, **attributes: int) -> ir.Value:
        return graph.node(op_type, inputs, attributes, name=f"head.candidates.{label}")

    number = min(CANDIDATES, head.outputs)
    count = graph.constant("head.candidates", np.array([number], np.int64))
    _, rows = graph.nodes("TopK", [drafted, count], {"axis": -1}, outputs=2, name="head.best")
    last = graph.constant("head.last_axis", np.array([-1], np.int64))
    high, low = (
        node("Gather", [plane, rows], label)
        for plane, label in zip(weights, ("high", "low"), strict=False)
    )
    columns = [
        node("Unsqueeze", [one, last], f"{one.name}.column") for one in _joined(graph, high, low)
    ]
    pairs = node("Concat", columns, "pairs", axis=-1)  # [R, candidates, blocks, block size / 2, 2]
    integers = graph.floats(pairs, "head.candidates.float")
    zero = graph.constant("head.zero", np.array(PLANES_ZERO, np.float32))
    blocks = graph.constant("head.blocks_shape", np.array([0, 0, 0, -1], np.int64))
    centred = node("Reshape", [node("Sub", [integers, zero], "centred"), blocks], "blocks")
    scales = graph.floats(node("Gather", [weights[2], rows], "scales"), "head.candidates.floats")
    row_scales = node("Unsqueeze", [scales, last], "steps")
    shape = graph.constant("head.row_shape", np.array([0, number, head.inputs], np.int64))
    matrix = node("Reshape", [node("Mul", [centred, row_scales], "scaled"), shape], "rows")
    column = node("Unsqueeze", [x, last], "column")
    logits = node("Squeeze", [node("MatMul", [matrix, column], "product"), last], "logits")
    return node("ScatterElements", [drafted, rows, logits], "replaced", axis=-1)


def _joined(graph: GraphBuilder, high: ir.Value, low: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Bytes of even and of odd columns from their halves: `embedding.join_planes` as a graph."""
    four = graph.constant("head.four_bits", np.array(4, np.uint8))
    lower = graph.constant("head.lower_half", np.array(0x0F, np.uint8))
    upper = graph.constant("head.upper_half", np.array(0xF0, np.uint8))

    def shift(one: ir.Value, direction: str) -> ir.Value:
        name = f"{one.name}.{direction.lower()}"
        return graph.node("BitShift", [one, four], {"direction": direction}, name=name)

    def masked(one: ir.Value, mask: ir.Value) -> ir.Value:
        return graph.node("BitwiseAnd", [one, mask], name=f"{one.name}.masked")

    even = [shift(high, "LEFT"), masked(low, lower)]
    odd = [masked(high, upper), shift(low, "RIGHT")]
    return (
        graph.node("BitwiseOr", even, name="head.candidates.even"),
        graph.node("BitwiseOr", odd, name="head.candidates.odd"),
    )
