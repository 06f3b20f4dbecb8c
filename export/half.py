"""A float32 graph rewritten for float16: exact up to rounding where nothing passes its range.

Every value gets a type of its own. Float16 is the rule; float32 are the rotary angles, whose
positions float16 cannot count, and the islands: values that calibration saw above FP16_PEAK,
with the nodes that make and read them. Normalisations compute in float32 inside their kernels
(`stash_type` 1), logits and image features leave as float32, keys and values as float16.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edge_medgemma.calibration.record import FP16_PEAK
from edge_medgemma.export.graph import GraphBuilder
from edge_medgemma.export.weights import Payload

FLOAT = ir.DataType.FLOAT
FLOAT16 = ir.DataType.FLOAT16

ANGLES = ("position", "position_column", "angles_", "cos_", "sin_")
"""Beginnings of the names of what makes the rotary tables."""


def islands(peaks: Mapping[str, float], residual_scale: float) -> tuple[str, ...]:
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


def to_half(builder: GraphBuilder, kept: Collection[str]) -> None:
    """Rewrite the graph and its weights in place; values named in `kept` stay float32."""
    _Halving(builder.graph, frozenset(kept)).run()
    builder.payloads[:] = [_half_payload(payload, builder.graph) for payload in builder.payloads]


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
    def __init__(self, graph: ir.Graph, kept: frozenset[str]) -> None:
        self._graph = graph
        self._kept = kept
        self._types: dict[ir.Value, ir.DataType] = {}
        self._casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def run(self) -> None:
        for value in self._graph.inputs:
            if value.dtype == FLOAT:
                is_cache = str(value.name).startswith("past_")
                self._types[value] = FLOAT16 if is_cache else FLOAT
                value.type = ir.TensorType(self._types[value])
        for value in self._graph.initializers.values():
            if value.dtype == FLOAT:
                # Vectors and rotary frequencies go with their one reader; matrices are float16.
                is_matrix = value.shape is not None and len(value.shape) > 1
                is_angle = str(value.name).startswith("inverse_frequencies")
                self._types[value] = FLOAT16 if is_matrix and not is_angle else FLOAT
                value.type = ir.TensorType(self._types[value])
        for node in list(self._graph):
            self._retype(node)
        for value in list(self._graph.outputs):
            self._finish(value)

    def _retype(self, node: ir.Node) -> None:
        inputs = [value for value in node.inputs if value in self._types]
        is_angle = str(node.name).startswith(ANGLES)
        if not inputs and not is_angle:
            return
        names = {value.name for value in (*node.inputs, *node.outputs) if value is not None}
        dtype = FLOAT if is_angle or names & self._kept else FLOAT16
        for index, value in enumerate(node.inputs):
            if value is not None and value in self._types and self._types[value] != dtype:
                node.replace_input_with(index, self._cast(value, dtype, node))
        for output in node.outputs:
            self._types[output] = dtype
            output.type = ir.TensorType(dtype)

    def _cast(self, value: ir.Value, dtype: ir.DataType, before: ir.Node) -> ir.Value:
        if value.is_initializer() and dtype == FLOAT16:
            self._types[value] = FLOAT16  # stored as float16, no node needed
            value.type = ir.TensorType(FLOAT16)
            if value.const_value is not None:  # kept in the graph file itself
                half = value.const_value.numpy().astype(np.float16)
                value.const_value = ir.tensor(half, name=value.name)
            return value
        if (value, dtype) not in self._casts:
            suffix = "half" if dtype == FLOAT16 else "float"
            node = ir.node("Cast", [value], {"to": int(dtype)}, name=f"{value.name}.{suffix}")
            node.outputs[0].name = f"{value.name}.{suffix}"
            node.outputs[0].type = ir.TensorType(dtype)
            self._graph.insert_before(before, node)
            self._casts[value, dtype] = node.outputs[0]
        return self._casts[value, dtype]

    def _finish(self, value: ir.Value) -> None:
        """Caches leave as float16; what the runtime reads leaves as float32."""
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


def _half_payload(payload: Payload, graph: ir.Graph) -> Payload:
    """The payload with the float32 tensors that the graph now wants in float16."""
    dtypes = [graph.initializers[one.name].dtype for one in payload.initializers]
    if FLOAT16 not in dtypes:
        return payload

    def pieces() -> Iterator[NDArray[np.generic]]:
        source = payload.pieces()
        for initializer, dtype in zip(payload.initializers, dtypes, strict=True):
            missing = initializer.bytes
            while missing > 0:
                piece = next(source)
                missing -= piece.nbytes
                yield piece.astype(np.float16) if dtype == FLOAT16 else piece

    initializers = tuple(
        replace(one, dtype=FLOAT16) if dtype == FLOAT16 else one
        for one, dtype in zip(payload.initializers, dtypes, strict=True)
    )
    return Payload(initializers, pieces)
