"""Caches as onnxruntime reads them once per decoded token: exact or in fewer bytes.

Both forms stand in the branches of an `If`, so one session and one copy of the weights serve the
reading of a scan and the answers. Inside `If`, past and present still share their bound buffer.
"""

from collections.abc import Sequence

import onnx_ir as ir

from edge_medgemma.export.graphs.dialect import Cache, CachedAttention, Heads, Int8Cache
from edge_medgemma.export.graphs.graph import GraphBuilder
from edge_medgemma.export.graphs.rounding import BITS
from edge_medgemma.export.graphs.weights import Matrix, WeightFormat

CONTRIB = "com.microsoft"

INT8_ACTIVATIONS = 4
"""MatMulNBits' accuracy_level: activations are rounded to int8 in blocks."""


def blocks_product(
    graph: GraphBuilder,
    x: ir.Value,
    weights: Sequence[ir.Value],
    matrix: Matrix,
    weight_format: WeightFormat,
) -> ir.Value:
    """MatMulNBits of x [.., K] and the `weights` of `blocks_blob`.

    onnxruntime casts narrow scales once, as it opens the graph.
    """
    attributes = {
        "K": matrix.inputs,
        "N": matrix.outputs,
        "bits": BITS[weight_format.kind],
        "block_size": weight_format.block_size,
        "accuracy_level": INT8_ACTIVATIONS,
    }
    integers, scales = weights
    if scales.dtype != ir.DataType.FLOAT:
        scales = graph.floats(scales, f"{matrix.name}.scales_float")
    inputs = [x, integers, scales]
    return graph.node(
        "MatMulNBits", inputs, attributes, domain=CONTRIB, name=f"{matrix.name}.product"
    )


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
    exact.returns([output, *written, *_unchanged(exact, integers)])
    output, *written = _grouped_attention(fast, product, cache, heads, scale, fast.name, int8)
    fast.returns([output, *_unchanged(fast, floats), *written])
    branches = {"then_branch": fast.graph, "else_branch": exact.graph}
    output, *present = graph.nodes("If", [int8.is_used], branches, outputs=5, name=name)
    return CachedAttention(output, present[0], present[1], (present[2], present[3]))


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
