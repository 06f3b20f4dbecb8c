"""A graph whose products in blocks read bfloat16 scales as they are stored.

The file casts them to the float32 that onnxruntime's MatMulNBits takes; the kernels' own takes bfloat16.
Models, graphs, nodes and attributes with graphs have no fields of fixed width.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_medgemma.runtime.backends.onnxruntime.graph_nodes import Node, node_of
from edge_medgemma.runtime.backends.protobuf import (
    bytes_field,
    bytes_of,
    fields,
    same_field,
    text_field,
    text_of,
)

PRODUCT = "MatMulNBits"
GATED_PRODUCT = "GatedMatMulNBits"
"""MatMulNBits; GELU by tanh of the first half of its outputs, times the other."""

_BFLOAT16 = 16
"""TensorProto.DataType"""
_SCALES = 2
"""Place of a product's input"""


@dataclass(frozen=True, slots=True)
class _Known:
    """Names of a graph and of those around it."""

    stored: frozenset[str] = frozenset()
    """Weights in bfloat16"""
    casts: Mapping[str, str] = field(default_factory=dict)
    """A stored weight in another type, and that weight"""


def with_stored_scales(model: bytes) -> bytes:
    """The model with the casts of scales left out.

    Raises:
        ValueError, TypeError, IndexError, KeyError: it is cut short, or no model.
    """
    return b"".join(
        bytes_field(7, _graph(bytes_of(value), _Known()))
        if number == 7
        else same_field(number, value)
        for number, value in fields(model)
    )


def _graph(message: bytes, outer: _Known) -> bytes:
    """A GraphProto: 1 holds a node, 5 a weight, 12 an output."""
    graph = list(fields(message))
    nodes = [node_of(bytes_of(value)) for number, value in graph if number == 1]
    weights = [_bfloat16_name(bytes_of(value)) for number, value in graph if number == 5]
    stored = outer.stored | {name for name in weights if name is not None}
    casts = {
        node.outputs[0]: node.inputs[0]
        for node in nodes
        if node.operator == "Cast" and node.inputs[0] in stored
    }
    known = _Known(stored, {**outer.casts, **casts})
    messages = {node.message: _node(node, known) for node in nodes}
    read = {name for new in messages.values() for name in node_of(new).names_read()}
    read |= {text_of(bytes_of(value), 1) for number, value in graph if number == 12}
    for node in nodes:
        if node.outputs[0] in casts and node.outputs[0] not in read:
            del messages[node.message]
    return b"".join(
        same_field(number, messages[bytes_of(value)] if number == 1 else value)
        for number, value in graph
        if number != 1 or value in messages
    )


def _node(node: Node, known: _Known) -> bytes:
    """A NodeProto: 1 holds an input, 5 an attribute."""
    is_product = node.operator in (PRODUCT, GATED_PRODUCT)
    new, place = [], 0
    for number, value in fields(node.message):
        if number == 1:
            name = node.inputs[place]
            is_scales = is_product and place == _SCALES
            new.append(text_field(1, known.casts.get(name, name) if is_scales else name))
            place += 1
        elif number == 5:
            new.append(bytes_field(5, _attribute(bytes_of(value), known)))
        else:
            new.append(same_field(number, value))
    return b"".join(new)


def _attribute(message: bytes, known: _Known) -> bytes:
    """An AttributeProto: 6 holds a graph."""
    parts = list(fields(message))
    if not any(number == 6 for number, _ in parts):
        return message
    return b"".join(
        bytes_field(6, _graph(bytes_of(value), known)) if number == 6 else same_field(number, value)
        for number, value in parts
    )


def _bfloat16_name(message: bytes) -> str | None:
    """Of a TensorProto: 2 holds its type, 8 its name; None of another type."""
    parts = dict(fields(message))
    return bytes_of(parts[8]).decode() if parts.get(2) == _BFLOAT16 else None
