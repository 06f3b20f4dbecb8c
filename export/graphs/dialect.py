"""The layers that a target must lower for the model files to be written for it.

`decoder.py` and `vision.py` call these and GraphBuilder's standard nodes, and name no target.
Shapes: S tokens, H hidden size, N batch, P patches, D head size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edge_medgemma.export.graphs.graph import GraphBuilder
from edge_medgemma.export.graphs.weights import Matrix, WeightFormat

Weight = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Heads:
    """Attention heads into which the rows of query, key and value divide."""

    query: int
    key: int
    size: int


@dataclass(frozen=True, slots=True)
class RopeTables:
    """cos and sin of every token's angles, [1, S, D / 2] each."""

    cos: ir.Value
    sin: ir.Value


@dataclass(frozen=True, slots=True)
class Geometry:
    """Graph inputs that the layers of one kind, global or local, share; see runtime.manifest."""

    capacity: str
    """Name of the caches' axis of rows"""
    mask: ir.Value | None
    """None where a single token sees its whole window."""
    place: tuple[ir.Value, ...]
    """Position of a chunk's rows in the caches, as the dialect's attention reads it."""
    window: int | None = None
    """Rows that a token without a mask sees, itself included; None for all"""


@dataclass(frozen=True, slots=True)
class Int8Cache:
    """One layer's int8 cache for the tokens of an answer, read in place of the float one."""

    is_used: ir.Value
    """[] bool"""
    past_key: ir.Value
    past_value: ir.Value
    key_scale: ir.Value
    """[kv heads * D], one scale for each channel"""
    value_scale: ir.Value


@dataclass(frozen=True, slots=True)
class Cache:
    """One layer's cache."""

    past_key: ir.Value
    past_value: ir.Value
    geometry: Geometry
    int8: Int8Cache | None = None


@dataclass(frozen=True, slots=True)
class CachedAttention:
    """Attention output [1, S, heads * D] and the cache after the write."""

    output: ir.Value
    present_key: ir.Value
    present_value: ir.Value
    present_int8: tuple[ir.Value, ir.Value] | None = None
    """Key and value, where the cache has an int8 form."""


class Dialect(Protocol):
    """The layers, lowered for one target."""

    @property
    def opsets(self) -> Mapping[str, int]:
        """Domain -> version of the operators it uses."""
        ...

    @property
    def wide_stream(self) -> bool:
        """Norms, rotary embedding and residual stream stay float32 in a 16-bit graph.

        Free where a builder fuses the casts; elsewhere the stream is scaled to fit.
        """
        ...

    @property
    def convolves(self) -> bool:
        """Patches and pooling of the vision tower by Conv and AveragePool; else by MatMul."""
        ...

    def linear(
        self,
        graph: GraphBuilder,
        x: ir.Value,
        matrix: Matrix,
        weight_format: WeightFormat,
        bias: Weight | None = None,
    ) -> ir.Value:
        """x @ matrix (+ bias), the weights stored as `weight_format` says."""
        ...

    def rms_norm(
        self, graph: GraphBuilder, x: ir.Value, weight: Weight, epsilon: float, name: str
    ) -> ir.Value:
        """x * rsqrt(mean(x²) + epsilon) * weight over the last axis, in float32."""
        ...

    def layer_norm(
        self,
        graph: GraphBuilder,
        x: ir.Value,
        weight: Weight,
        bias: Weight,
        epsilon: float,
        name: str,
    ) -> ir.Value:
        """Layer normalization over the last axis, in float32."""
        ...

    def rope(
        self, graph: GraphBuilder, x: ir.Value, tables: RopeTables, heads: int, name: str
    ) -> ir.Value:
        """Rotate the halves of every head of x [1, S, heads, D], as `cached_attention` takes it."""
        ...

    def geometry(self, graph: GraphBuilder, kind: str) -> Geometry:
        """Graph inputs for the caches of `kind`, `global` or `local`."""
        ...

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
        """Write key and value [1, S, heads * D] to the cache, then attend to it under the mask.

        Query and key come from `rope`.
        """
        ...

    def attention(
        self,
        graph: GraphBuilder,
        query: ir.Value,
        key: ir.Value,
        value: ir.Value,
        heads: Heads,
        name: str,
    ) -> ir.Value:
        """Attention without mask or cache over [N, P, heads * D], scale D ** -0.5."""
        ...

    def gelu(self, graph: GraphBuilder, x: ir.Value, name: str) -> ir.Value:
        """GELU in its tanh form."""
        ...
