"""A decoder's graph for the kernels' library, with operators joined that it computes as one.

The file stays plain ONNX, which any runtime computes. Apart, a gate's operators read and write each
product of a layer three times, a tenth of the time of a prefill; and norms, sums and rotations of one row
take a tenth of the time of a token, next to all of it between operators.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_medgemma.runtime.backends.onnx_reader import read_graph
from edge_medgemma.runtime.backends.onnx_writer import (
    CONTRIB,
    attribute_message,
    node_message,
)
from edge_medgemma.runtime.backends.onnxruntime.graph_nodes import GraphNodes, Node, node_of
from edge_medgemma.runtime.backends.onnxruntime.stored_scales import (
    GATED_PRODUCT,
    PRODUCT,
    with_stored_scales,
)
from edge_medgemma.runtime.backends.protobuf import (
    bytes_field,
    bytes_of,
    fields,
    same_field,
    text_field,
    text_of,
)
from edge_medgemma.runtime.errors import EngineError

RESIDUAL_NORM = "ResidualNormalization"
"""A residual plus the norm of a product, and the norm of that sum."""
HEAD_NORM = "RotaryHeadNormalization"
"""Queries and keys of one product, each head normed and then rotated."""


@dataclass(frozen=True, slots=True)
class _Fusion:
    """Nodes, and the one that stands for them."""

    parts: tuple[Node, ...]
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: tuple[bytes, ...]

    def message(self) -> bytes:
        """A NodeProto, named after its last output."""
        node = node_message(self.operator, CONTRIB, self.inputs, self.outputs, self.attributes)
        return node + text_field(3, self.outputs[-1])


def fused_graph(path: Path) -> bytes:
    """The model in `path` for the library, with what can be joined joined; its weights lie beside it.

    Raises:
        EngineError: the file is cut or no ONNX.
    """
    try:
        return b"".join(
            bytes_field(7, _graph(bytes_of(value), path))
            if field == 7
            else same_field(field, value)
            for field, value in fields(with_stored_scales(path.read_bytes()))
        )
    except (ValueError, TypeError, IndexError, KeyError, OSError) as error:
        raise EngineError(f"'{path}' does not load ({error!r}); export the engine again") from None


def _graph(message: bytes, path: Path) -> bytes:
    """A GraphProto: 1 holds a node, 12 an output."""
    graph = list(fields(message))
    nodes = [node_of(bytes_of(value)) for field, value in graph if field == 1]
    outputs = [text_of(bytes_of(value), 1) for field, value in graph if field == 12]
    known = GraphNodes(nodes, outputs, read_graph(path))
    joined: dict[bytes, bytes] = {}
    for node in nodes:
        find = _FUSIONS.get(node.operator)
        fusion = find(node, known) if find else None
        if fusion is None or not known.can_join(fusion.parts, fusion.inputs, fusion.outputs):
            continue
        messages = [part.message for part in fusion.parts]
        if not joined.keys() & set(messages):
            joined |= dict.fromkeys(messages, b"")
            joined[node.message] = bytes_field(1, fusion.message())
    return b"".join(
        joined[bytes_of(value)] if field == 1 and value in joined else same_field(field, value)
        for field, value in graph
    )


def _gate(multiply: Node, known: GraphNodes) -> _Fusion | None:
    """Product, Split, GELU and Mul."""
    activated, up = multiply.inputs
    gelu, split = known.maker(activated, "Gelu"), known.maker(up, "Split")
    if gelu is None or split is None or gelu.text("approximate") != "tanh":
        return None
    if split.outputs != (gelu.inputs[0], up) or _split_lengths(split, known, equal=True) is None:
        return None
    product = known.maker(split.inputs[0], PRODUCT)
    if product is None or len(product.inputs) != 3:
        return None
    attributes = tuple(product.attributes.values())
    parts = (product, split, gelu, multiply)
    return _Fusion(parts, GATED_PRODUCT, product.inputs, multiply.outputs, attributes)


def _residual(following: Node, known: GraphNodes) -> _Fusion | None:
    """A norm, Add, and the norm that follows."""
    add = known.maker(following.inputs[0], "Add")
    if add is None:
        return None
    residual, normed = add.inputs
    norm = known.maker(normed, following.operator)
    epsilon = _epsilon(following)
    if norm is None or epsilon is None or _epsilon(norm) != epsilon:
        return None
    size = known.length(norm.inputs[1])
    if size is None or size == 1 or known.length(following.inputs[1]) != size:
        return None  # one number is for all
    inputs = (residual, norm.inputs[0], norm.inputs[1], following.inputs[1])
    outputs = (*add.outputs, *following.outputs)
    return _Fusion((norm, add, following), RESIDUAL_NORM, inputs, outputs, (epsilon,))


@dataclass(frozen=True, slots=True)
class _Heads:
    """Queries or keys, normed and rotated."""

    parts: tuple[Node, Node, Node, Node]
    """Two Reshapes about the norm, and the rotation"""
    product: str
    weight: str
    angles: tuple[str, ...]
    """Cosines and sines"""
    epsilon: bytes
    count: int
    size: int


def _rotated_heads(rotary: Node, known: GraphNodes) -> _Heads | None:
    count = rotary.integer("num_heads")
    joined = known.maker(rotary.inputs[0], "Reshape")
    if rotary.attributes.keys() != {"num_heads"} or len(rotary.inputs) != 3 or joined is None:
        return None
    norm = known.maker(joined.inputs[0], "RMSNormalization")
    apart = known.maker(norm.inputs[0], "Reshape") if norm else None
    if norm is None or apart is None or joined.attributes or apart.attributes:
        return None
    epsilon, size = _epsilon(norm), known.length(norm.inputs[1])
    if epsilon is None or count is None or size is None:
        return None
    if known.integers(joined.inputs[1], 3) != (0, 0, -1):
        return None
    if known.integers(apart.inputs[1], 4) != (1, -1, count, size):
        return None
    parts = (apart, norm, joined, rotary)
    product, weight = apart.inputs[0], norm.inputs[1]
    return _Heads(parts, product, weight, rotary.inputs[1:], epsilon, count, size)


def _head_norms(rotary: Node, known: GraphNodes) -> _Fusion | None:
    """Split, and for queries and keys Reshape, norm, Reshape and rotation: found at the keys' rotation."""
    keys = _rotated_heads(rotary, known)
    split = known.maker(keys.product, "Split") if keys else None
    if keys is None or split is None or split.outputs[1:] != (keys.product,):
        return None
    rotary_of_queries = _end_of_chain(split.outputs[0], keys.parts, known)
    queries = _rotated_heads(rotary_of_queries, known) if rotary_of_queries else None
    if queries is None or (queries.angles, queries.epsilon, queries.size) != (
        keys.angles,
        keys.epsilon,
        keys.size,
    ):
        return None
    lengths = tuple(heads.count * heads.size for heads in (queries, keys))
    if _split_lengths(split, known) != lengths:
        return None
    attributes = (
        attribute_message("num_heads", queries.count),
        attribute_message("kv_num_heads", keys.count),
        keys.epsilon,
    )
    inputs = (split.inputs[0], queries.weight, keys.weight, *keys.angles)
    outputs = (*queries.parts[-1].outputs, *rotary.outputs)
    return _Fusion((split, *queries.parts, *keys.parts), HEAD_NORM, inputs, outputs, attributes)


def _end_of_chain(name: str, like: Sequence[Node], known: GraphNodes) -> Node | None:
    """The last of nodes of the same operators as `like`, each of which alone reads the one before."""
    node = None
    for one in like:
        node = known.reader(name, one.operator)
        if node is None:
            return None
        (name,) = node.outputs
    return node


_FUSIONS: dict[str, Callable[[Node, GraphNodes], _Fusion | None]] = {
    "Mul": _gate,
    "RMSNormalization": _residual,
    "RotaryEmbedding": _head_norms,
}
"""By the operator of the last part, in whose place the fusion stands."""


def _split_lengths(split: Node, known: GraphNodes, *, equal: bool = False) -> Sequence[int] | None:
    """Of the two parts of the last axis; None where it is another one, or they are not equal as they should."""
    if split.integer("axis") != -1 or len(split.inputs) != 2:
        return None
    lengths = known.integers(split.inputs[1], 2)
    return None if not lengths or (equal and lengths[0] != lengths[1]) else lengths


def _epsilon(norm: Node) -> bytes | None:
    """The attribute of a norm of the last axis; None of another norm."""
    if norm.attributes.keys() != {"axis", "epsilon"} or norm.integer("axis") != -1:
        return None
    return norm.attributes["epsilon"]
