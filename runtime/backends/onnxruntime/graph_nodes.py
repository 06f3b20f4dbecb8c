"""Nodes of an ONNX graph, and what reads what they make."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from edge_medgemma.runtime.backends.onnx_reader import OnnxGraph
from edge_medgemma.runtime.backends.protobuf import bytes_of, fields, text_of

_INTEGER, _TEXT, _GRAPH = 3, 4, 6
"""Fields of onnx.proto's AttributeProto"""


@dataclass(frozen=True, slots=True)
class Node:
    """Field numbers are those of onnx.proto's NodeProto."""

    message: bytes
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, bytes]

    def text(self, attribute: str) -> str:
        """Of a text attribute; empty where there is none."""
        return text_of(self.attributes.get(attribute, b""), _TEXT)

    def integer(self, attribute: str) -> int | None:
        """Of an integer attribute; None where there is none."""
        for field, value in fields(self.attributes.get(attribute, b"")):
            if field == _INTEGER and isinstance(value, int):
                return value - 2**64 if value >= 2**63 else value
        return None

    def names_read(self) -> Iterator[str]:
        """Its own inputs and those of graphs in its attributes, which see the outer names."""
        yield from self.inputs
        for attribute in self.attributes.values():
            for graph in (bytes_of(value) for field, value in fields(attribute) if field == _GRAPH):
                for field, value in fields(graph):
                    if field == 1:
                        yield from node_of(bytes_of(value)).names_read()
                    elif field == 12:
                        yield text_of(bytes_of(value), 1)


def node_of(message: bytes) -> Node:
    """A NodeProto: 1 input, 2 output, 4 operator, 5 attribute."""
    texts: dict[int, list[str]] = {1: [], 2: [], 4: []}
    attributes = {}
    for field, value in fields(message):
        if field in texts:
            texts[field].append(bytes_of(value).decode())
        elif field == 5:
            attributes[text_of(bytes_of(value), 1)] = bytes_of(value)
    return Node(message, texts[4][0], tuple(texts[1]), tuple(texts[2]), attributes)


class GraphNodes:
    """Nodes in the graph's order, and the places of those that read a name."""

    def __init__(self, nodes: Sequence[Node], outputs: Sequence[str], stored: OnnxGraph) -> None:
        """Read a graph.

        Args:
            nodes: in the graph's order
            outputs: names that the graph gives, which are read after all nodes
            stored: the weights
        """
        self.nodes = tuple(nodes)
        self._stored = stored
        self._makers = {name: node for node in nodes for name in node.outputs}
        self._places = {node.outputs: place for place, node in enumerate(nodes)}
        self._readers: dict[str, list[int]] = defaultdict(list)
        for place, node in enumerate(nodes):
            for name in node.names_read():
                self._readers[name].append(place)
        for name in outputs:
            self._readers[name].append(len(nodes))

    def maker(self, name: str, operator: str) -> Node | None:
        """The node that makes `name`, if it is of this operator."""
        node = self._makers.get(name)
        return node if node is not None and node.operator == operator else None

    def reader(self, name: str, operator: str) -> Node | None:
        """The node that alone reads `name`, if it is of this operator."""
        places = self._readers[name]
        if len(places) != 1 or places[0] == len(self.nodes):
            return None
        node = self.nodes[places[0]]
        return node if node.operator == operator else None

    def integers(self, name: str, count: int) -> tuple[int, ...]:
        """So many integers of a weight; empty where it is not of that shape."""
        tensor = self._stored.tensors.get(name)
        if tensor is None or tensor.dtype != "<i8" or tensor.shape != (count,):
            return ()
        return tuple(int(value) for value in self._stored.read(name, "<i8", (count,)))

    def length(self, name: str) -> int | None:
        """Of a weight of one axis; None where it is none."""
        tensor = self._stored.tensors.get(name)
        return tensor.shape[0] if tensor is not None and len(tensor.shape) == 1 else None

    def can_join(
        self, parts: Sequence[Node], inputs: Sequence[str], outputs: Sequence[str]
    ) -> bool:
        """Whether one node in the last part's place could give `outputs` and nobody misses the rest."""
        places = {self._places[part.outputs] for part in parts}
        if any(name in part.outputs for part in parts for name in inputs):
            return False
        for name in (name for part in parts for name in part.outputs):
            others = [place for place in self._readers[name] if place not in places]
            if others and (name not in outputs or min(others) < max(places)):
                return False
        return True
