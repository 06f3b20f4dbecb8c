"""Caches and head as onnxruntime reads them once per decoded token: exact or in fewer bytes.

Both forms stand in the branches of an `If`, so one session and one copy of the weights serve the
reading of a scan and the answers. Inside `If`, past and present still share their bound buffer.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import onnx_ir as ir

from edge_medgemma.export.graphs.dialect import Cache, CachedAttention, Heads, Int8Cache
from edge_medgemma.export.graphs.graph import GraphBuilder
from edge_medgemma.export.graphs.weights import BITS, Matrix, WeightFormat, blocks_blob

CONTRIB = "com.microsoft"

INT8_ACTIVATIONS = 4
"""MatMulNBits' accuracy_level: activations are rounded to int8 in blocks."""

CANDIDATES = 256
"""Best rows of the draft that are computed again by the head itself."""

HEAD_TILE_ROWS = 1 << 16
"""Rows of the head in one product. onnxruntime packs a whole product's weights at every start, even
to find them packed in a file: the head of MedGemma 4B in one piece takes 0.7 GB for that moment."""

HEAD_TILE_UNIT = 256
"""Tiles are multiples of it, so that they begin where a page of the file does."""

FLOAT = ir.DataType.FLOAT

UINT8_ZERO = 128
"""Zero point of the head's integers."""


def blocks_product(
    graph: GraphBuilder,
    x: ir.Value,
    weights: Sequence[ir.Value],
    matrix: Matrix,
    weight_format: WeightFormat,
) -> ir.Value:
    """MatMulNBits of x [.., K] and the `weights` of `blocks_blob`."""
    attributes = {
        "K": matrix.inputs,
        "N": matrix.outputs,
        "bits": BITS[weight_format.kind],
        "block_size": weight_format.block_size,
        "accuracy_level": INT8_ACTIVATIONS,
    }
    name = f"{matrix.name}.product"
    return graph.node("MatMulNBits", [x, *weights], attributes, domain=CONTRIB, name=name)


def cached_attention(
    graph: GraphBuilder,
    product: tuple[ir.Value, ir.Value, ir.Value],
    cache: Cache,
    heads: Heads,
    scale: float,
    name: str,
) -> CachedAttention:
    """GroupQueryAttention over the float cache or, where there is one and it is used, the int8 one."""
    int8 = cache.int8
    if int8 is None:
        output, key, value = _grouped_attention(graph, product, cache, heads, scale, name, None)
        return CachedAttention(output, key, value)
    exact, fast = graph.branch(f"{name}.exact"), graph.branch(f"{name}.fast")
    floats, integers = (cache.past_key, cache.past_value), (int8.past_key, int8.past_value)
    output, *written = _grouped_attention(exact, product, cache, heads, scale, exact.name, None)
    _return(exact, [output, *written, *_unchanged(exact, integers)])
    output, *written = _grouped_attention(fast, product, cache, heads, scale, fast.name, int8)
    _return(fast, [output, *_unchanged(fast, floats), *written])
    branches = {"then_branch": fast.graph, "else_branch": exact.graph}
    output, *present = graph.nodes("If", [int8.is_used], branches, outputs=5, name=name)
    return CachedAttention(output, present[0], present[1], (present[2], present[3]))


def drafted_head(
    graph: GraphBuilder,
    x: ir.Value,
    head: tuple[Matrix, WeightFormat],
    draft: tuple[Matrix, WeightFormat],
    is_drafted: ir.Value,
) -> ir.Value:
    """Logits [R, V] of x [R, H] by the head or, where `is_drafted`, by the draft.

    The draft's CANDIDATES best logits are then replaced by those of the head's rows, so that the
    choice among likely tokens is the head's.
    """
    weights = graph.stored(blocks_blob(*head), head[1].shared_file)
    draft_weights = graph.stored(blocks_blob(*draft))
    exact, fast = graph.branch("head.exact"), graph.branch("head.fast")
    _return(exact, [_tiled_product(exact, x, weights, *head)])
    drafted = _tiled_product(fast, x, draft_weights, *draft)
    _return(fast, [_with_exact_candidates(fast, x, drafted, weights, head[0])])
    branches = {"then_branch": fast.graph, "else_branch": exact.graph}
    return graph.node("If", [is_drafted], branches, name="head.logits")


def _tiled_product(
    graph: GraphBuilder,
    x: ir.Value,
    weights: Sequence[ir.Value],
    matrix: Matrix,
    weight_format: WeightFormat,
) -> ir.Value:
    """`blocks_product` of many outputs in nearly equal tiles of about HEAD_TILE_ROWS at most."""
    tiles = -(-matrix.outputs // HEAD_TILE_ROWS)
    if tiles == 1:
        return blocks_product(graph, x, weights, matrix, weight_format)
    products = []
    units = matrix.outputs // HEAD_TILE_UNIT
    ends = [units * tile // tiles * HEAD_TILE_UNIT for tile in range(tiles)]
    for first, end in pairwise([*ends, matrix.outputs]):
        rows = [graph.rows_of(weight, first, end - first) for weight in weights]
        tile = replace(matrix, name=f"{matrix.name}.{first}", outputs=end - first)
        products.append(blocks_product(graph, x, rows, tile, weight_format))
    return graph.node("Concat", products, {"axis": -1}, name=f"{matrix.name}.tiles")


def _with_exact_candidates(
    graph: GraphBuilder, x: ir.Value, drafted: ir.Value, weights: Sequence[ir.Value], head: Matrix
) -> ir.Value:
    def node(op_type: str, inputs: list[ir.Value], label: str, **attributes: int) -> ir.Value:
        return graph.node(op_type, inputs, attributes, name=f"head.candidates.{label}")

    blocks, scales = weights
    number = min(CANDIDATES, head.outputs)
    count = graph.constant("head.candidates", np.array([number], np.int64))
    _, rows = graph.nodes("TopK", [drafted, count], {"axis": -1}, outputs=2, name="head.best")
    integers = node("Cast", [node("Gather", [blocks, rows], "blocks")], "float", to=int(FLOAT))
    zero = graph.constant("head.zero", np.array(UINT8_ZERO, np.float32))
    centred = node("Sub", [integers, zero], "centred")  # [R, candidates, blocks, block size]
    last = graph.constant("head.last_axis", np.array([-1], np.int64))
    row_scales = node("Unsqueeze", [node("Gather", [scales, rows], "scales"), last], "steps")
    shape = graph.constant("head.row_shape", np.array([0, number, head.inputs], np.int64))
    matrix = node("Reshape", [node("Mul", [centred, row_scales], "scaled"), shape], "rows")
    column = node("Unsqueeze", [x, last], "column")
    logits = node("Squeeze", [node("MatMul", [matrix, column], "product"), last], "logits")
    return node("ScatterElements", [drafted, rows, logits], "replaced", axis=-1)


def _grouped_attention(
    graph: GraphBuilder,
    product: tuple[ir.Value, ir.Value, ir.Value],
    cache: Cache,
    heads: Heads,
    scale: float,
    name: str,
    int8: Int8Cache | None,
) -> Sequence[ir.Value]:
    geometry = cache.geometry
    inputs: list[ir.Value | None] = [
        *product,
        *((int8.past_key, int8.past_value) if int8 else (cache.past_key, cache.past_value)),
        *geometry.place,
    ]
    if geometry.mask is not None:
        inputs += [None, None, None, geometry.mask]  # None: cos_cache, sin_cache, position_ids
    attributes: dict[str, int | float | str] = {
        "num_heads": heads.query,
        "kv_num_heads": heads.key,
        "scale": scale,
        "causal": int(geometry.mask is None),
        "do_rotary": 0,
        "local_window_size": geometry.window or -1,
    }
    if int8 is not None:
        inputs += [None, int8.key_scale, int8.value_scale]  # None: head_sink
        attributes |= {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL"}
        attributes["kv_cache_bit_width"] = 8
    return graph.nodes(
        "GroupQueryAttention", inputs, attributes, outputs=3, domain=CONTRIB, name=name
    )


def _unchanged(graph: GraphBuilder, cache: tuple[ir.Value, ir.Value]) -> list[ir.Value]:
    """A cache that this branch does not write; onnxruntime copies nothing where it stays in place."""
    return [graph.node("Identity", [value], name=f"{graph.name}.{value.name}") for value in cache]


def _return(graph: GraphBuilder, values: Sequence[ir.Value]) -> None:
    graph.graph.outputs.extend(values)
