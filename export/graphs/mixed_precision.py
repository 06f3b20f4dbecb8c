"""A float32 graph rewritten for 16 bits: exact up to rounding where nothing passes their range.

Every value gets a type of its own. Float16 or bfloat16 is the rule; float32 are the rotary angles,
whose positions 16 bits cannot count, and `fp32_ops`: values that calibration saw above FP16_PEAK,
with the nodes that make and read them. A wide stream keeps norms, rotary embedding and the residual
stream in float32 as well; without it normalisations compute in float32 inside their kernels
(`stash_type` 1). The head multiplies in float16 either way: a bfloat16 logit of 16 has steps of
1/8. Logits and image features leave as float32, keys and values in 16 bits.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edge_medgemma.calibration.record import FP16_PEAK
from edge_medgemma.export.graphs.graph import GraphBuilder
from edge_medgemma.export.graphs.weights import WeightBlob

FLOAT = ir.DataType.FLOAT
FLOAT16 = ir.DataType.FLOAT16
BFLOAT16 = ir.DataType.BFLOAT16

DTYPES = {"fp16": FLOAT16, "bf16": BFLOAT16}
ARRAY_DTYPES = {FLOAT16: np.dtype(np.float16), BFLOAT16: np.dtype(ml_dtypes.bfloat16)}

ANGLES = ("position", "position_column", "angles_", "cos_", "sin_")
"""Beginnings of the names of what makes the rotary tables."""

WIDE_OPERATORS = ("RMSNormalization", "LayerNormalization", "RotaryEmbedding")
STREAM_SUMS = ("_residual", "position_embedding")
"""Ends of the names of additions to the residual stream."""
LAYOUT_OPERATORS = ("Reshape", "Transpose", "Squeeze", "Gather")
"""They move values and stay in the type these have."""


def fp32_ops(peaks: Mapping[str, float], residual_scale: float) -> tuple[str, ...]:
    """Names of the values that stay float32, their peaks seen by calibration in the float model.

    `residual_scale` is what the residual stream and all that enters it is divided by.
    """
    return tuple(
        sorted(
            name
            for name, peak in peaks.items()
            if peak / (residual_scale if _is_stream(name) else 1.0) > FP16_PEAK
        )
    )


def to_half(
    builder: GraphBuilder, activations: str, kept: Collection[str], *, wide_stream: bool
) -> None:
    """Rewrite the graph and its weights in place.

    Args:
        builder: of a float32 graph
        activations: `fp16` or `bf16`
        kept: names of values that stay float32, with the nodes that make and read them
        wide_stream: norms, rotary embedding and residual additions stay float32
    """
    shared = {
        initializer.name
        for blobs in builder.shared.values()
        for blob in blobs
        for initializer in blob.initializers
    }
    _Halving(builder.graph, DTYPES[activations], frozenset(kept), wide_stream, shared).run()
    builder.blobs[:] = [_half_blob(blob, builder.graph) for blob in builder.blobs]


def _is_stream(name: str) -> bool:
    enters = (
        "_residual",
        "embeddings",
        "image_features",
        "post_attention_layernorm",
        "post_feedforward_layernorm",
        "hidden_rows",
        "chosen_rows",
    )
    return not name.startswith("vision.") and name.endswith(enters)


class _Halving:
    def __init__(
        self,
        graph: ir.Graph,
        dtype: ir.DataType,
        kept: frozenset[str],
        wide_stream: bool,
        shared: set[str],
    ) -> None:
        """`shared` names the weights that another part of the engine reads as they are."""
        self._graph = graph
        self._dtype = dtype
        self._kept = kept
        self._wide_stream = wide_stream
        self._shared = shared
        self._types: dict[ir.Value, ir.DataType] = {}
        self._casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def run(self) -> None:
        for value in self._graph.inputs:
            if value.dtype == FLOAT:
                is_cache = str(value.name).startswith("past_")
                self._types[value] = self._dtype if is_cache else FLOAT
                value.type = ir.TensorType(self._types[value])
        for value in self._graph.initializers.values():
            if value.dtype == FLOAT:
                # Vectors and rotary frequencies go with their one reader; matrices are 16-bit.
                name = str(value.name)
                is_matrix = value.shape is not None and len(value.shape) > 1
                is_angle = name.startswith("inverse_frequencies")
                is_kept = is_angle or name in self._shared or not is_matrix
                dtype = FLOAT if is_kept else self._narrow(name)
                self._types[value] = dtype
                value.type = ir.TensorType(dtype)
        for node in list(self._graph):
            self._retype(node)
        for value in list(self._graph.outputs):
            self._finish(value)

    def _narrow(self, name: str) -> ir.DataType:
        return FLOAT16 if name.startswith("head.") or name == "head" else self._dtype

    def _retype(self, node: ir.Node) -> None:
        inputs = [value for value in node.inputs if value in self._types]
        is_angle = str(node.name).startswith(ANGLES)
        if not inputs and not is_angle:
            return
        dtype = FLOAT if is_angle else self._dtype_of(node, inputs)
        for index, value in enumerate(node.inputs):
            if value is not None and value in self._types and self._types[value] != dtype:
                node.replace_input_with(index, self._cast(value, dtype, node))
        for output in node.outputs:
            if node.op_type == "QuantizeLinear":
                continue  # integers
            self._types[output] = dtype
            output.type = ir.TensorType(dtype)

    def _dtype_of(self, node: ir.Node, inputs: list[ir.Value]) -> ir.DataType:
        names = {str(value.name) for value in (*node.inputs, *node.outputs) if value is not None}
        if names & self._kept:
            return FLOAT
        if self._wide_stream:
            if node.op_type in WIDE_OPERATORS or str(node.name).endswith(STREAM_SUMS):
                return FLOAT
            if node.op_type in LAYOUT_OPERATORS:
                return self._types[inputs[0]]
        return self._narrow(str(node.name))

    def _cast(self, value: ir.Value, dtype: ir.DataType, before: ir.Node) -> ir.Value:
        is_own = value.is_initializer() and value.name not in self._shared
        if is_own and dtype != FLOAT and self._types[value] == FLOAT:
            self._types[value] = dtype  # stored in 16 bits, no node needed
            value.type = ir.TensorType(dtype)
            if value.const_value is not None:  # kept in the graph file itself
                half = value.const_value.numpy().astype(ARRAY_DTYPES[dtype])
                value.const_value = ir.tensor(half, name=value.name)
            return value
        if (value, dtype) not in self._casts:
            suffix = "float" if dtype == FLOAT else "half"
            node = ir.node("Cast", [value], {"to": int(dtype)}, name=f"{value.name}.{suffix}")
            node.outputs[0].name = f"{value.name}.{suffix}"
            node.outputs[0].type = ir.TensorType(dtype)
            self._graph.insert_before(before, node)
            self._casts[value, dtype] = node.outputs[0]
        return self._casts[value, dtype]

    def _finish(self, value: ir.Value) -> None:
        """Caches leave in 16 bits; what the runtime reads leaves as float32."""
        if str(value.name).startswith("present_") or self._types[value] == FLOAT:
            return
        name = str(value.name)
        value.name = f"{name}.half"
        node = ir.node("Cast", [value], {"to": int(FLOAT)}, name=name)
        node.outputs[0].name = name
        node.outputs[0].type = ir.TensorType(FLOAT)
        node.outputs[0].shape = value.shape
        self._graph.append(node)
        self._graph.outputs[list(self._graph.outputs).index(value)] = node.outputs[0]


def _half_blob(blob: WeightBlob, graph: ir.Graph) -> WeightBlob:
    """The payload with the float32 tensors that the graph now wants in 16 bits."""
    dtypes = [graph.initializers[one.name].dtype for one in blob.initializers]
    if not any(dtype in ARRAY_DTYPES for dtype in dtypes):
        return blob

    def pieces() -> Iterator[NDArray[np.generic]]:
        source = blob.pieces()
        for initializer, dtype in zip(blob.initializers, dtypes, strict=True):
            missing = initializer.bytes
            while missing > 0:
                piece = next(source)
                missing -= piece.nbytes
                if dtype in ARRAY_DTYPES:
                    piece = piece.astype(ARRAY_DTYPES[dtype]).view(np.uint16)
                yield piece

    initializers = tuple(
        replace(one, dtype=dtype) if dtype in ARRAY_DTYPES else one
        for one, dtype in zip(blob.initializers, dtypes, strict=True)
    )
    return WeightBlob(initializers, pieces)
