"""The model lowered for onnxruntime, CPU and CUDA: its own fused attention operators."""

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
from edge_medgemma.export.graphs.ort_decode import CONTRIB, blocks_product, cached_attention
from edge_medgemma.export.graphs.qdq import quantized_input_linear
from edge_medgemma.export.graphs.rounding import BITS
from edge_medgemma.export.graphs.weights import (
    Matrix,
    WeightFormat,
    blocks_blob,
    dense_blob,
)


def _opsets() -> dict[str, int]:
    return {"": 23, CONTRIB: 1}


@dataclass(frozen=True, slots=True)
class OrtDialect:
    """onnxruntime >= 1.31: the first whose GroupQueryAttention has `causal` and an added mask."""

    opsets: Mapping[str, int] = field(default_factory=_opsets)
    wide_stream: bool = False
    convolves: bool = True

    def linear(
        self,
        graph: GraphBuilder,
        x: ir.Value,
        matrix: Matrix,
        weight_format: WeightFormat,
        bias: Weight | None = None,
    ) -> ir.Value:
        """MatMul, MatMulNBits with int8 activations, or the Q/DQ form of a calibrated int8 layer.

        MatMulNBits is written directly rather than as DequantizeLinear, which onnxruntime would turn into it at
        every start: the 4B decoder then loads five times faster. Without accuracy level 4 the
        8-bit form is two orders of magnitude slower.
        """
        name = matrix.name
        if weight_format.input_scale is not None:
            product = quantized_input_linear(graph, x, matrix, weight_format.input_scale)
        elif weight_format.kind not in BITS:
            inputs = [x, *graph.stored(dense_blob(matrix))]
            product = graph.node("MatMul", inputs, name=f"{name}.product")
        else:
            weights = graph.stored(blocks_blob(matrix, weight_format), weight_format.shared_file)
            product = blocks_product(graph, x, weights, matrix, weight_format)
        if bias is None:
            return product
        return graph.node("Add", [product, graph.array(f"{name}.bias", bias)], name=f"{name}.sum")

    def rms_norm(
        self, graph: GraphBuilder, x: ir.Value, weight: Weight, epsilon: float, name: str
    ) -> ir.Value:
        """RMSNormalization, standard since opset 23."""
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
        """RotaryEmbedding, standard since opset 23, on [1, S, heads * D]."""
        joined = graph.constant("shape_joined", np.array([0, 0, -1], np.int64))
        flat = graph.node("Reshape", [x, joined], name=f"{name}.joined")
        inputs = [flat, tables.cos, tables.sin]
        return graph.node("RotaryEmbedding", inputs, {"num_heads": heads}, name=name)

    def geometry(self, graph: GraphBuilder, kind: str) -> Geometry:
        """A mask over the rows in use and, for GroupQueryAttention, their number twice."""
        letter = kind[0]
        mask = graph.input(f"mask_{kind}", ir.DataType.FLOAT, [1, 1, "S", f"T{letter}"])
        return Geometry(letter.upper(), mask, _lengths(graph, kind))

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
        """GroupQueryAttention: writes in place when past and present are bound to one buffer."""
        product = (query, key, value)
        return cached_attention(graph, product, cache, heads, scale, name)

    def attention(
        self,
        graph: GraphBuilder,
        query: ir.Value,
        key: ir.Value,
        value: ir.Value,
        heads: Heads,
        name: str,
    ) -> ir.Value:
        """MultiHeadAttention: 16 % faster here than the standard Attention operator."""
        attributes = {"num_heads": heads.query}
        return graph.node(
            "MultiHeadAttention", [query, key, value], attributes, domain=CONTRIB, name=name
        )

    def gelu(self, graph: GraphBuilder, x: ir.Value, name: str) -> ir.Value:
        """Gelu, standard since opset 20."""
        return graph.node("Gelu", [x], {"approximate": "tanh"}, name=name)


@dataclass(frozen=True, slots=True)
class OrtCudaDialect(OrtDialect):
    """onnxruntime on CUDA without cuDNN, which its MultiHeadAttention asks for."""

    convolves: bool = False

    def attention(
        self,
        graph: GraphBuilder,
        query: ir.Value,
        key: ir.Value,
        value: ir.Value,
        heads: Heads,
        name: str,
    ) -> ir.Value:
        """Attention, standard since opset 23."""
        attributes: dict[str, int | float] = {
            "q_num_heads": heads.query,
            "kv_num_heads": heads.key,
            "scale": heads.size**-0.5,
        }
        return graph.node("Attention", [query, key, value], attributes, name=name)


@dataclass(frozen=True, slots=True)
class OrtTokenDialect(OrtCudaDialect):
    """One token of an answer on CUDA: without a mask its attention takes the fused kernels."""

    window: int = 0
    """`text.sliding_window`"""

    def geometry(self, graph: GraphBuilder, kind: str) -> Geometry:
        """The rows in use; the window is the operator's own."""
        window = self.window if kind == "local" else None
        return Geometry(kind[0].upper(), None, _lengths(graph, kind), window)


def _lengths(graph: GraphBuilder, kind: str) -> tuple[ir.Value, ir.Value]:
    """`seqlens_k` and `total_sequence_length` of GroupQueryAttention."""
    return (
        graph.input(f"seqlen_{kind}", ir.DataType.INT32, [1]),
        graph.input(f"total_{kind}", ir.DataType.INT32, []),
    )
