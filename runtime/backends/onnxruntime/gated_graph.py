"""Feed-forward layers of a decoder's graph with gate, GELU and product in one node.

The file stays plain ONNX, which any runtime computes. Apart, the gate's operators read and write each
product of a layer three times, a tenth of the time of a prefill.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_medgemma.runtime.backends.onnx_reader import OnnxGraph, read_graph
from edge_medgemma.runtime.backends.protobuf import (
    bytes_field,
    bytes_of,
    fields,
    integer_field,
    text_field,
    text_of,
)
from edge_medgemma.runtime.errors import EngineError

OPERATOR = "GatedMatMulNBits"
"""Of the kernels' library: MatMulNBits; GELU by tanh of the first half of its outputs, times the other."""

_DOMAIN = "com.microsoft"
_LAST = 2**64 - 1
"""-1 as protobuf writes it"""


@dataclass(frozen=True, slots=True)
class _Node:
    """Field numbers are those of onnx.proto's NodeProto."""

    message: bytes
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, bytes]

    def text(self, attribute: str) -> str:
        """Of a text attribute; empty where there is none."""
        return text_of(self.attributes.get(attribute, b""), 4)

    def halves_last_axis(self, stored: OnnxGraph) -> bool:
        """Whether it is a Split into two equal parts."""
        axis = [value for field, value in fields(self.attributes.get("axis", b"")) if field == 3]
        lengths = stored.tensors.get(self.inputs[1]) if len(self.inputs) == 2 else None
        if self.operator != "Split" or axis != [_LAST] or lengths is None or lengths.shape != (2,):
            return False
        first, second = stored.read(self.inputs[1], "<i8", (2,))
        return bool(first == second)


def gated_graph(path: Path) -> bytes:
    """The model in `path` whose weights lie in a file beside it, its gates joined with their products.

    Raises:
        EngineError: the file is cut or no ONNX.
    """
    stored = read_graph(path)
    try:
        return b"".join(
            bytes_field(7, _graph(bytes_of(value), stored)) if field == 7 else _same(field, value)
            for field, value in fields(path.read_bytes())
        )
    except (ValueError, TypeError, IndexError, KeyError, OSError) as error:
        raise EngineError(f"'{path}' does not load ({error!r}); export the engine again") from None


def _graph(message: bytes, stored: OnnxGraph) -> bytes:
    """A GraphProto: 1 holds a node, 12 an output."""
    graph = list(fields(message))
    nodes = [_node(bytes_of(value)) for field, value in graph if field == 1]
    uses = Counter(name for node in nodes for name in _names_read(node))
    uses.update(text_of(bytes_of(value), 1) for field, value in graph if field == 12)
    makers = {name: node for node in nodes for name in node.outputs}
    joined: dict[bytes, bytes] = {}
    for node in nodes:
        parts = _gate_of(node, makers, uses, stored)
        if parts:
            joined |= dict.fromkeys((part.message for part in parts), b"")
            joined[node.message] = bytes_field(1, _joined(parts[0], node.outputs[0]))
    return b"".join(
        joined[bytes_of(value)] if field == 1 and value in joined else _same(field, value)
        for field, value in graph
    )


def _gate_of(
    multiply: _Node, makers: Mapping[str, _Node], uses: Mapping[str, int], stored: OnnxGraph
) -> Sequence[_Node]:
    """Product, Split and GELU that nothing but `multiply` reads; empty where it is no gate's."""
    if multiply.operator != "Mul":
        return ()
    activated, up = multiply.inputs
    gelu, split = makers.get(activated), makers.get(up)
    if gelu is None or split is None or not split.halves_last_axis(stored):
        return ()
    if (gelu.operator, gelu.text("approximate")) != ("Gelu", "tanh"):
        return ()
    product = makers.get(split.inputs[0])
    if product is None or product.operator != "MatMulNBits" or len(product.inputs) != 3:
        return ()
    if split.outputs != (gelu.inputs[0], up):
        return ()
    between = (activated, *split.outputs, *product.outputs)
    return (product, split, gelu) if all(uses[name] == 1 for name in between) else ()


def _joined(product: _Node, output: str) -> bytes:
    """A NodeProto: 1 input, 2 output, 3 name, 4 operator, 5 attribute, 7 domain."""
    return b"".join(
        [
            *(text_field(1, name) for name in product.inputs),
            text_field(2, output),
            text_field(3, output),
            text_field(4, OPERATOR),
            *(bytes_field(5, attribute) for attribute in product.attributes.values()),
            text_field(7, _DOMAIN),
        ]
    )


def _node(message: bytes) -> _Node:
    texts: dict[int, list[str]] = {1: [], 2: [], 4: []}
    attributes = {}
    for field, value in fields(message):
        if field in texts:
            texts[field].append(bytes_of(value).decode())
        elif field == 5:
            attributes[text_of(bytes_of(value), 1)] = bytes_of(value)
    return _Node(message, texts[4][0], tuple(texts[1]), tuple(texts[2]), attributes)


def _names_read(node: _Node) -> Iterator[str]:
    """Its own inputs and those of graphs in its attributes, which see the outer names."""
    yield from node.inputs
    for attribute in node.attributes.values():
        for graph in (bytes_of(value) for field, value in fields(attribute) if field == 6):
            for field, value in fields(graph):
                if field == 1:
                    yield from _names_read(_node(bytes_of(value)))
                elif field == 12:
                    yield text_of(bytes_of(value), 1)


def _same(field: int, value: int | bytes) -> bytes:
    """Neither models nor graphs have fields of fixed width."""
    return integer_field(field, value) if isinstance(value, int) else bytes_field(field, value)
