"""The model lowered for TensorRT: standard operators of opset 24, strongly typed.

TensorRT >= 10.15 takes it, and so does onnxruntime, by which its numbers are checked. What only
one of them takes is left out: attention with past and present, zero points, float32 attention,
`nonpad_kv_seqlen` (which TensorRT accepts and ignores).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edge_medgemma.export.graphs.dialect import (
    Cache,
    CachedAttention,
    Geometry,
    Heads,
    RopeTables,
    Weight,
)
from edge_medgemma.export.graphs.graph import GraphBuilder
from edge_medgemma.export.graphs.qdq import quantized_input_linear, quantized_weight_linear
from edge_medgemma.export.graphs.rounding import BITS
from edge_medgemma.export.graphs.weights import Matrix, WeightFormat, dense_blob
from edge_medgemma.runtime.backends.tensorrt.cache_axes import GLOBAL_AXIS, LOCAL_AXIS

HEADS_FIRST = [0, 2, 1, 3]
"""[batch, rows, heads, D] to [batch, heads, rows, D], and back."""

HIDDEN_SCORE = -30_000.0
"""Added to the score of a hidden row: its exponential is 0 in float32, and float16 holds it."""


def _opsets() -> dict[str, int]:
    return {"": 24}


@dataclass(frozen=True, slots=True)
class TrtDialect:
    """TensorRT >= 10.15, TensorRT-RTX, onnxruntime; queries and keys lie as in the caches."""

    opsets: Mapping[str, int] = field(default_factory=_opsets)
    wide_stream: bool = True
    convolves: bool = True

    def linear(
        self,
        graph: GraphBuilder,
        x: ir.Value,
        matrix: Matrix,
        weight_format: WeightFormat,
        bias: Weight | None = None,
    ) -> ir.Value:
        """MatMul of dense, dequantised or, where calibrated, int8 weights and inputs."""
        name = matrix.name
        if weight_format.input_scale is not None:
            product = quantized_input_linear(graph, x, matrix, weight_format.input_scale)
        elif weight_format.kind in BITS:
            product = quantized_weight_linear(graph, x, matrix, weight_format)
        else:
            weights = graph.stored(dense_blob(matrix))
            product = graph.node("MatMul", [x, *weights], name=f"{name}.product")
        if bias is None:
            return product
        return graph.node("Add", [product, graph.array(f"{name}.bias", bias)], name=f"{name}.sum")

    def rms_norm(
        self, graph: GraphBuilder, x: ir.Value, weight: Weight, epsilon: float, name: str
    ) -> ir.Value:
        """RMSNormalization."""
        inputs = [x, graph.array(f"{name}.weight", weight)]
        return graph.node("RMSNormalization", inputs, {"axis": -1, "epsilon": epsilon}, name=name)

    def layer_norm(
        self,
        graph: GraphBuilder,
        x: ir.Value,
        weight: Weight,
        bias: Weight,
        epsilon: float,
        name: str,
    ) -> ir.Value:
        """LayerNormalization."""
        inputs = [x, graph.array(f"{name}.weight", weight), graph.array(f"{name}.bias", bias)]
        return graph.node("LayerNormalization", inputs, {"axis": -1, "epsilon": epsilon}, name=name)

    def rope(
        self, graph: GraphBuilder, x: ir.Value, tables: RopeTables, heads: int, name: str
    ) -> ir.Value:
        """RotaryEmbedding on [1, heads, S, D]."""
        turned = graph.node("Transpose", [x], {"perm": HEADS_FIRST}, name=f"{name}.heads_first")
        return graph.node("RotaryEmbedding", [turned, tables.cos, tables.sin], name=name)

    def geometry(self, graph: GraphBuilder, kind: str) -> Geometry:
        """A mask over the whole capacity and the row where a chunk is written."""
        axis = {"global": GLOBAL_AXIS, "local": LOCAL_AXIS}[kind]
        visible = graph.input(f"mask_{kind}", ir.DataType.BOOL, [1, 1, "S", axis])
        write = graph.input(f"write_{kind}", ir.DataType.INT64, [1])
        # Boolean masks build too, but layer by layer, and several of them in bfloat16 not at all.
        scores = [
            graph.constant("visible_score", np.array(0, np.float32)),
            graph.constant("hidden_score", np.array(HIDDEN_SCORE, np.float32)),
        ]
        mask = graph.node("Where", [visible, *scores], name=f"mask_{kind}.added")
        return Geometry(axis, mask, (write,))

    def cached_attention(
        self,
        graph: GraphBuilder,
        query: ir.Value,
        key: ir.Value,
        value: ir.Value,
        cache: Cache,
        heads: Heads,
        scale: float,
        name: str,
    ) -> CachedAttention:
        """TensorScatter into both caches, then Attention over all of their rows."""
        (write,) = cache.geometry.place
        value = _heads_first(graph, value, heads.key, heads.size, f"{name}.value")
        present = [
            graph.node("TensorScatter", [past, rows, write], {"axis": -2}, name=f"{name}.{kind}s")
            for kind, past, rows in (
                ("key", cache.past_key, key),
                ("value", cache.past_value, value),
            )
        ]
        inputs = [query, *present, cache.geometry.mask]
        output = graph.node("Attention", inputs, {"scale": scale}, name=f"{name}.attended")
        joined = _rows_first(graph, output, name)
        return CachedAttention(joined, present[0], present[1])

    def attention(
        self,
        graph: GraphBuilder,
        query: ir.Value,
        key: ir.Value,
        value: ir.Value,
        heads: Heads,
        name: str,
    ) -> ir.Value:
        """Attention."""
        inputs = [
            _heads_first(graph, one, heads.query, heads.size, f"{name}.{kind}")
            for kind, one in (("query", query), ("key", key), ("value", value))
        ]
        output = graph.node(
            "Attention", inputs, {"scale": heads.size**-0.5}, name=f"{name}.attended"
        )
        return _rows_first(graph, output, name)

    def gelu(self, graph: GraphBuilder, x: ir.Value, name: str) -> ir.Value:
        """Gelu."""
        return graph.node("Gelu", [x], {"approximate": "tanh"}, name=name)


def _heads_first(graph: GraphBuilder, x: ir.Value, heads: int, size: int, name: str) -> ir.Value:
    """[batch, rows, heads * D] to [batch, heads, rows, D]."""
    shape = graph.constant(f"shape_{heads}_heads", np.array([0, 0, heads, size], np.int64))
    apart = graph.node("Reshape", [x, shape], name=f"{name}.apart")
    return graph.node("Transpose", [apart], {"perm": HEADS_FIRST}, name=f"{name}.heads_first")


def _rows_first(graph: GraphBuilder, x: ir.Value, name: str) -> ir.Value:
    """[batch, heads, rows, D] to [batch, rows, heads * D]."""
    turned = graph.node("Transpose", [x], {"perm": HEADS_FIRST}, name=f"{name}.rows_first")
    shape = graph.constant("shape_joined", np.array([0, 0, -1], np.int64))
    return graph.node("Reshape", [turned, shape], name=name)
