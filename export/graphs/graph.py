"""An ONNX graph under construction: its nodes in order, and the weights it will take from a file."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edge_medgemma.export.graphs.weights import (
    WeightBlob,
    array_blob,
)
from edge_medgemma.export.graphs.writer import external_tensors

IR_VERSION = 11
"""ONNX 1.18, which brought opset 23."""

Shape = Sequence[int | str]
"""Strings name free axes."""

Attributes = Mapping[str, int | float | str | Sequence[int] | ir.Graph]


class GraphBuilder:
    """Collects nodes, inputs, outputs and weights; says nothing about which device runs them."""

    def __init__(self, name: str, opsets: Mapping[str, int]) -> None:
        self.name = name
        self.blobs: list[WeightBlob] = []
        self.shared: dict[str, list[WeightBlob]] = {}
        """Weights that another part of the engine reads as well, by file name."""
        self.graph = ir.Graph([], [], nodes=[], name=name, opset_imports=dict(opsets))
        self._weights = self.graph.initializers
        self._parts: dict[str, tuple[ir.Value, int]] = {}
        """The weight whose rows a value has, and the first of them, by name."""
        self._arrays: set[str] = set()
        """Names of weights that are no linear layer: norms, biases, angles."""

    def branch(self, name: str) -> "GraphBuilder":
        """A graph for an attribute of `If`; it reads this one's values and keeps its weights here."""
        inner = GraphBuilder(name, {})
        inner.blobs, inner.shared, inner._weights = self.blobs, self.shared, self._weights
        inner._parts, inner._arrays = self._parts, self._arrays
        return inner

    def input(self, name: str, dtype: ir.DataType, shape: Shape) -> ir.Value:
        """A graph input; strings in `shape` are free axes."""
        value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))
        self.graph.inputs.append(value)
        return value

    def output(self, value: ir.Value, name: str, dtype: ir.DataType, shape: Shape) -> None:
        """Make `value` a graph output called `name`."""
        value.name = name
        value.shape = ir.Shape(shape)
        value.type = ir.TensorType(dtype)
        self.graph.outputs.append(value)

    def returns(self, values: Sequence[ir.Value]) -> None:
        """Make `values` outputs of a branch."""
        self.graph.outputs.extend(values)

    def nodes(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Attributes | None = None,
        *,
        outputs: int,
        domain: str = "",
        name: str,
    ) -> Sequence[ir.Value]:
        """Append a node and return its outputs."""
        node = ir.node(
            op_type, inputs, attributes or {}, domain=domain, num_outputs=outputs, name=name
        )
        for index, output in enumerate(node.outputs):
            output.name = name if outputs == 1 else f"{name}.{index}"
        self.graph.append(node)
        return node.outputs

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Attributes | None = None,
        *,
        domain: str = "",
        name: str,
    ) -> ir.Value:
        """Append a node with one output and return it."""
        return self.nodes(op_type, inputs, attributes, outputs=1, domain=domain, name=name)[0]

    def floats(self, value: ir.Value, name: str) -> ir.Value:
        """`value` in float32."""
        return self.node("Cast", [value], {"to": int(ir.DataType.FLOAT)}, name=name)

    def constant(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        """A small tensor kept in the graph file itself, such as a shape."""
        if name not in self._weights:
            tensor = ir.tensor(array, name=name)
            self._weights[name] = ir.Value(
                name=name,
                shape=ir.Shape(array.shape),
                type=ir.TensorType(tensor.dtype),
                const_value=tensor,
            )
        return self._weights[name]

    def array(self, name: str, array: NDArray[np.float32]) -> ir.Value:
        """A float32 weight kept in the data file."""
        (value,) = self.stored(array_blob(name, array))
        self._arrays.add(name)
        return value

    def stored(self, blob: WeightBlob, shared_file: str | None = None) -> list[ir.Value]:
        """Weights kept in the data file, one value for each initializer of `blob`.

        `shared_file` keeps them in a file of their own instead, for others to read.
        """
        blobs = self.blobs
        if shared_file is not None:
            blobs = self.shared.setdefault(shared_file, [])
        blobs.append(blob)
        values = []
        for initializer in blob.initializers:
            value = ir.Value(
                name=initializer.name,
                shape=ir.Shape(initializer.shape),
                type=ir.TensorType(initializer.dtype),
            )
            self._weights[initializer.name] = value
            values.append(value)
        return values

    def rows_of(self, weight: ir.Value, first: int, count: int) -> ir.Value:
        """Some rows of a stored weight as a weight of its own, over the same bytes of the file."""
        assert weight.shape is not None
        name = f"{weight.name}.from_{first}"
        if name in self._parts:
            return self._weights[name]
        shape = ir.Shape([count, *weight.shape[1:]])
        self._weights[name] = ir.Value(name=name, shape=shape, type=weight.type)
        self._parts[name] = (weight, first)
        return self._weights[name]

    def serialize(self, data_name: str) -> bytes:
        """The graph file, its weights referring to `data_name` beside it."""
        for name, tensor in self._tensors(data_name).items():
            self.graph.initializers[name].const_value = tensor
        for name, (whole, first) in self._parts.items():
            self.graph.initializers[name].const_value = _rows_tensor(
                self.graph.initializers[name], whole, first
            )
            if not whole.uses():
                self.graph.initializers.pop(str(whole.name), None)
        return self._serialized({})

    def serialize_fed(self, data_name: str) -> bytes:
        """The graph file with its linear layers as inputs, for several graphs over one copy of them.

        Metadata says where each lies: `{name}` is `{file} {offset} {bytes}`. The graph is changed.
        """
        places = {}
        for name, tensor in self._tensors(data_name).items():
            value = self.graph.initializers[name]
            if name in self._arrays:
                value.const_value = tensor
                continue
            value.const_value = None
            del self.graph.initializers[name]
            self.graph.inputs.append(value)
            places[name] = f"{tensor.location} {tensor.offset} {tensor.nbytes}"
        return self._serialized(places)

    def _tensors(self, data_name: str) -> dict[str, ir.ExternalTensor]:
        """Place of every stored weight in its file, by name."""
        tensors: dict[str, ir.ExternalTensor] = {}
        for file, blobs in ({data_name: self.blobs} | self.shared).items():
            tensors |= external_tensors(file, blobs)
        return tensors

    def _serialized(self, metadata: dict[str, str]) -> bytes:
        model = ir.Model(
            self.graph,
            ir_version=IR_VERSION,
            producer_name="edge-medgemma",
            metadata_props=metadata,
        )
        serialized: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
        return serialized


def _rows_tensor(part: ir.Value, whole: ir.Value, first: int) -> ir.ExternalTensor:
    """Place in its file of the rows of `whole` from `first` on, as many as `part` has."""
    tensor = whole.const_value
    assert isinstance(tensor, ir.ExternalTensor) and part.shape is not None
    row_bytes = tensor.nbytes // tensor.shape.numpy()[0]
    return ir.ExternalTensor(
        tensor.location,
        (tensor.offset or 0) + first * row_bytes,
        part.shape.numpy()[0] * row_bytes,
        tensor.dtype,
        shape=part.shape,
        name=str(part.name),
    )
