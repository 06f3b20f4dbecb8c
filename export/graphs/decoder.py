"""The language model's graph: one chunk of embeddings in, logits of chosen rows out.

transformers' Gemma3TextModel, with masks and cache geometry as inputs; the tensors are those of
`runtime.manifest`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edge_medgemma.export.checkpoint.checkpoint import Checkpoint
from edge_medgemma.export.graphs.dialect import (
    Cache,
    Dialect,
    Geometry,
    Heads,
    Int8Cache,
    RopeTables,
)
from edge_medgemma.export.graphs.graph import GraphBuilder
from edge_medgemma.export.graphs.weights import Matrix, WeightFormat, WeightFormatOf, stacked

BOOL = ir.DataType.BOOL
FLOAT = ir.DataType.FLOAT
INT8 = ir.DataType.INT8
INT64 = ir.DataType.INT64


@dataclass(frozen=True, slots=True)
class Answers:
    """What is read in fewer bytes while an answer is generated, besides int8 caches."""

    head: Callable[[GraphBuilder, ir.Value, Matrix, WeightFormat, ir.Value], ir.Value]
    """Logits of rows, by the head or by a draft of it, as a value says."""


@dataclass(frozen=True, slots=True)
class _LayerKind:
    """Values that the layers of one kind, global or local, share."""

    geometry: Geometry
    tables: RopeTables


class DecoderWriter:
    """Builds decoder.onnx from a checkpoint in a dialect."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        ops: Dialect,
        format_of: WeightFormatOf,
        residual_scale: float = 1.0,
        answers: Answers | None = None,
    ) -> None:
        """Name what to write.

        Args:
            checkpoint: gives the weights
            ops: lowers them
            format_of: format of a linear layer by its name
            residual_scale: what the checkpoint's residual stream was divided by
            answers: how tokens of an answer are computed where that differs; the graph then takes
                int8 caches as well
        """
        self.graph = GraphBuilder("decoder", ops.opsets)
        self._checkpoint = checkpoint
        self._text = checkpoint.text
        self._ops = ops
        self._format_of = format_of
        self._answers = answers
        self._stream_epsilon = checkpoint.text.rms_norm_eps / residual_scale**2

    def write(self) -> GraphBuilder:
        """The whole graph, its weights not yet read."""
        graph, text = self.graph, self._text
        hidden = graph.input("embeddings", FLOAT, [1, "S", text.hidden_size])
        position_ids = graph.input("position_ids", INT64, [1, "S"])
        kinds = self._kinds(position_ids)
        logit_rows = graph.input("logit_rows", INT64, ["R"])
        if self._answers is not None:
            self._is_int8 = graph.input("use_int8_caches", BOOL, [])
        for layer, is_global in enumerate(text.layer_is_global):
            hidden = self._layer(hidden, layer, kinds[is_global])
        zero = graph.constant("zero", np.array([0], np.int64))
        rows = graph.node("Squeeze", [hidden, zero], name="hidden_rows")
        chosen = graph.node("Gather", [rows, logit_rows], {"axis": 0}, name="chosen_rows")
        normed = self._stream_norm(chosen, "text.norm")
        graph.output(self._head(normed), "logits", FLOAT, ["R", text.vocabulary])
        return graph

    def _head(self, x: ir.Value) -> ir.Value:
        head = stacked("head", self._checkpoint.head)
        weight_format = self._format_of(head.name)
        if self._answers is None:
            return self._ops.linear(self.graph, x, head, weight_format)
        is_drafted = self.graph.input("use_draft_head", BOOL, [])
        return self._answers.head(self.graph, x, head, weight_format, is_drafted)

    def _kinds(self, position_ids: ir.Value) -> dict[bool, _LayerKind]:
        """Inputs and rotary tables of global (True) and local (False) layers."""
        text, graph = self._text, self.graph
        position = graph.node("Cast", [position_ids], {"to": int(FLOAT)}, name="position")
        last = graph.constant("last_axis", np.array([-1], np.int64))
        column = graph.node("Unsqueeze", [position, last], name="position_column")
        kinds = {}
        for is_global, name, theta, factor in (
            (True, "global", text.rope_theta_global, text.rope_factor_global),
            (False, "local", text.rope_theta_local, 1.0),
        ):
            frequencies = inverse_frequencies(text.head_dim, theta, factor)
            geometry = self._ops.geometry(graph, name)
            kinds[is_global] = _LayerKind(geometry, self._tables(column, frequencies, name))
        return kinds

    def _tables(
        self, position_column: ir.Value, frequencies: NDArray[np.float32], kind: str
    ) -> RopeTables:
        graph = self.graph
        inverse = graph.array(f"inverse_frequencies_{kind}", frequencies)
        angles = graph.node("Mul", [position_column, inverse], name=f"angles_{kind}")
        return RopeTables(
            graph.node("Cos", [angles], name=f"cos_{kind}"),
            graph.node("Sin", [angles], name=f"sin_{kind}"),
        )

    def _layer(self, hidden: ir.Value, layer: int, kind: _LayerKind) -> ir.Value:
        prefix = f"text.layers.{layer}"
        graph = self.graph
        normed = self._stream_norm(hidden, f"{prefix}.input_layernorm")
        attended = self._attention(normed, layer, kind)
        normed = self._norm(attended, f"{prefix}.post_attention_layernorm")
        hidden = graph.node("Add", [hidden, normed], name=f"{prefix}.attention_residual")
        normed = self._stream_norm(hidden, f"{prefix}.pre_feedforward_layernorm")
        fed = self._feed_forward(normed, f"{prefix}.mlp")
        normed = self._norm(fed, f"{prefix}.post_feedforward_layernorm")
        return graph.node("Add", [hidden, normed], name=f"{prefix}.mlp_residual")

    def _attention(self, x: ir.Value, layer: int, kind: _LayerKind) -> ir.Value:
        text, graph, ops = self._text, self.graph, self._ops
        prefix = f"text.layers.{layer}.self_attn"
        heads = Heads(text.heads, text.kv_heads, text.head_dim)
        query, key, value = self._queries_keys_values(x, prefix, heads)
        query = self._rotated(query, f"{prefix}.q_norm", heads.query, kind.tables)
        key = self._rotated(key, f"{prefix}.k_norm", heads.key, kind.tables)
        shape: list[int | str] = [1, heads.key, kind.geometry.capacity, heads.size]
        cache = Cache(
            graph.input(f"past_key.{layer}", FLOAT, shape),
            graph.input(f"past_value.{layer}", FLOAT, shape),
            kind.geometry,
            self._int8_cache(layer, kind.geometry),
        )
        attended = ops.cached_attention(
            graph, query, key, value, cache, heads, text.query_scale, prefix
        )
        graph.output(attended.present_key, f"present_key.{layer}", FLOAT, shape)
        graph.output(attended.present_value, f"present_value.{layer}", FLOAT, shape)
        if attended.present_int8 is not None:
            shape = [1, heads.key, f"{kind.geometry.capacity}_int8", heads.size]
            for role, value in zip(("key", "value"), attended.present_int8, strict=True):
                graph.output(value, f"present_{role}_int8.{layer}", INT8, shape)
        return self._linear(attended.output, f"{prefix}.o_proj", f"{prefix}.o_proj")

    def _queries_keys_values(self, x: ir.Value, prefix: str, heads: Heads) -> list[ir.Value]:
        """One product or, where the values' weights have a format of their own, two."""
        sizes = [heads.query * heads.size, heads.key * heads.size, heads.key * heads.size]
        joined, value = f"{prefix}.qkv_proj", f"{prefix}.v_proj"
        names = [f"{prefix}.{letter}_proj" for letter in "qkv"]
        if self._format_of(value).kind == self._format_of(joined).kind:
            return self._split(self._linear(x, joined, *names), sizes, f"{prefix}.qkv")
        product = self._linear(x, f"{prefix}.qk_proj", *names[:2])
        queries_keys = self._split(product, sizes[:2], f"{prefix}.qk")
        return [*queries_keys, self._linear(x, value, value)]

    def _int8_cache(self, layer: int, geometry: Geometry) -> Int8Cache | None:
        if self._answers is None:
            return None
        text, graph = self._text, self.graph
        shape: list[int | str] = [1, text.kv_heads, f"{geometry.capacity}_int8", text.head_dim]
        width = [text.kv_heads * text.head_dim]
        return Int8Cache(
            self._is_int8,
            graph.input(f"past_key_int8.{layer}", INT8, shape),
            graph.input(f"past_value_int8.{layer}", INT8, shape),
            graph.input(f"key_scale.{layer}", FLOAT, width),
            graph.input(f"value_scale.{layer}", FLOAT, width),
        )

    def _rotated(self, x: ir.Value, norm: str, heads: int, tables: RopeTables) -> ir.Value:
        """Normalise every head of x [1, S, heads * D], then turn it to its position."""
        graph, size = self.graph, self._text.head_dim
        apart = graph.constant(f"shape_{heads}_heads", np.array([1, -1, heads, size], np.int64))
        by_head = graph.node("Reshape", [x, apart], name=f"{norm}.heads")
        normed = self._norm(by_head, norm)
        return self._ops.rope(graph, normed, tables, heads, f"{norm}.rotated")

    def _feed_forward(self, x: ir.Value, prefix: str) -> ir.Value:
        graph, size = self.graph, self._text.intermediate_size
        product = self._linear(
            x, f"{prefix}.gate_up_proj", f"{prefix}.gate_proj", f"{prefix}.up_proj"
        )
        gate, up = self._split(product, [size, size], f"{prefix}.gate_up")
        active = self._ops.gelu(graph, gate, f"{prefix}.gelu")
        gated = graph.node("Mul", [active, up], name=f"{prefix}.gated")
        return self._linear(gated, f"{prefix}.down_proj", f"{prefix}.down_proj")

    def _linear(self, x: ir.Value, name: str, *parts: str) -> ir.Value:
        weights = (self._checkpoint.tensors[f"{part}.weight"] for part in parts)
        return self._ops.linear(self.graph, x, stacked(name, *weights), self._format_of(name))

    def _split(self, x: ir.Value, sizes: list[int], name: str) -> list[ir.Value]:
        label = "split_" + "_".join(map(str, sizes))
        lengths = self.graph.constant(label, np.array(sizes, np.int64))
        return list(
            self.graph.nodes("Split", [x, lengths], {"axis": -1}, outputs=len(sizes), name=name)
        )

    def _norm(self, x: ir.Value, name: str) -> ir.Value:
        return self._scaled_norm(x, name, self._text.rms_norm_eps)

    def _stream_norm(self, x: ir.Value, name: str) -> ir.Value:
        """The norm of a reader of the residual stream."""
        return self._scaled_norm(x, name, self._stream_epsilon)

    def _scaled_norm(self, x: ir.Value, name: str, epsilon: float) -> ir.Value:
        weight = 1 + self._checkpoint.tensors[f"{name}.weight"].read()
        return self._ops.rms_norm(self.graph, x, weight, epsilon, name)


def inverse_frequencies(head_dim: int, theta: float, factor: float) -> NDArray[np.float32]:
    """Rotary frequencies [1, 1, head_dim / 2], computed in float32 as transformers does."""
    exponent = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    periods: NDArray[np.float32] = np.power(np.float32(theta), exponent)
    return (np.float32(1) / periods / np.float32(factor)).reshape(1, 1, -1)
