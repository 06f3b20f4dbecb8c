"""The vision graph: SigLIP's tower, pooling and Gemma 3's projector, pixels to image features.

transformers' SiglipVisionModel and Gemma3MultiModalProjector; the tensors are those of
`runtime.manifest`.
"""

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edge_medgemma.export.checkpoint.checkpoint import Checkpoint
from edge_medgemma.export.graphs.dialect import Dialect, Heads
from edge_medgemma.export.graphs.graph import GraphBuilder
from edge_medgemma.export.graphs.patches import averaged, convolved, grid_of, multiplied, pooled
from edge_medgemma.export.graphs.weights import Matrix, WeightFormatOf, stacked

FLOAT = ir.DataType.FLOAT


class VisionWriter:
    """Builds vision.onnx from a checkpoint in a dialect."""

    def __init__(self, checkpoint: Checkpoint, ops: Dialect, format_of: WeightFormatOf) -> None:
        self.graph = GraphBuilder("vision", ops.opsets)
        self._checkpoint = checkpoint
        self._vision = checkpoint.vision
        self._ops = ops
        self._format_of = format_of
        vision = checkpoint.vision
        self._grid = grid_of(
            vision.image_size, vision.patch_size, vision.hidden_size, vision.tokens_per_image
        )

    def write(self) -> GraphBuilder:
        """The whole graph, its large weights not yet read."""
        graph, vision = self.graph, self._vision
        size = vision.image_size
        pixels = graph.input("pixel_values", FLOAT, ["N", 3, size, size])
        hidden = self._patches(pixels)
        for layer in range(vision.layers):
            hidden = self._layer(hidden, f"vision.encoder.layers.{layer}")
        hidden = self._norm(hidden, "vision.post_layernorm")
        pool = pooled if self._ops.convolves else averaged
        features = self._projected(pool(graph, hidden, self._grid))
        shape: list[int | str] = ["N", vision.tokens_per_image, self._checkpoint.text.hidden_size]
        graph.output(features, "image_features", FLOAT, shape)
        return graph

    def _patches(self, pixels: ir.Value) -> ir.Value:
        """Patch embeddings plus learned positions, [N, P, hidden]."""
        graph = self.graph
        prefix = "vision.embeddings.patch_embedding"
        kernel, bias = self._read(f"{prefix}.weight"), self._read(f"{prefix}.bias")
        write = convolved if self._ops.convolves else multiplied
        patches = write(graph, pixels, kernel, bias, self._grid, prefix)
        name = "vision.embeddings.position_embedding"
        positions = graph.array(f"{name}.weight", self._read(f"{name}.weight")[None])
        return graph.node("Add", [patches, positions], name=name)

    def _layer(self, hidden: ir.Value, prefix: str) -> ir.Value:
        graph = self.graph
        normed = self._norm(hidden, f"{prefix}.layer_norm1")
        attended = self._attention(normed, f"{prefix}.self_attn")
        hidden = graph.node("Add", [hidden, attended], name=f"{prefix}.attention_residual")
        normed = self._norm(hidden, f"{prefix}.layer_norm2")
        wide = self._linear(normed, f"{prefix}.mlp.fc1", f"{prefix}.mlp.fc1")
        active = self._ops.gelu(graph, wide, f"{prefix}.mlp.gelu")
        fed = self._linear(active, f"{prefix}.mlp.fc2", f"{prefix}.mlp.fc2")
        return graph.node("Add", [hidden, fed], name=f"{prefix}.mlp_residual")

    def _attention(self, x: ir.Value, prefix: str) -> ir.Value:
        vision, graph = self._vision, self.graph
        heads = Heads(vision.heads, vision.heads, vision.hidden_size // vision.heads)
        parts = [f"{prefix}.{name}_proj" for name in "qkv"]
        product = self._linear(x, f"{prefix}.qkv_proj", *parts)
        sizes = graph.constant("split_qkv", np.full(3, vision.hidden_size, np.int64))
        query, key, value = graph.nodes(
            "Split", [product, sizes], {"axis": -1}, outputs=3, name=f"{prefix}.qkv"
        )
        attended = self._ops.attention(graph, query, key, value, heads, prefix)
        return self._linear(attended, f"{prefix}.out_proj", f"{prefix}.out_proj")

    def _projected(self, tokens: ir.Value) -> ir.Value:
        name = "projector.mm_soft_emb_norm"
        weight = 1 + self._read(f"{name}.weight")
        epsilon = self._vision.layer_norm_eps
        normed = self._ops.rms_norm(self.graph, tokens, weight, epsilon, name)
        projection = self._checkpoint.tensors["projector.mm_input_projection_weight"]
        inputs, outputs = projection.shape  # the one linear layer that is stored as [K, N]
        matrix = Matrix("projector", inputs, outputs, lambda n, k: projection.read(k, n).T)
        return self._ops.linear(self.graph, normed, matrix, self._format_of(matrix.name))

    def _linear(self, x: ir.Value, name: str, *parts: str) -> ir.Value:
        weights = (self._checkpoint.tensors[f"{part}.weight"] for part in parts)
        bias = np.concatenate([self._read(f"{part}.bias") for part in parts])
        matrix = stacked(name, *weights)
        return self._ops.linear(self.graph, x, matrix, self._format_of(name), bias)

    def _norm(self, x: ir.Value, name: str) -> ir.Value:
        weight, bias = self._read(f"{name}.weight"), self._read(f"{name}.bias")
        epsilon = self._vision.layer_norm_eps
        return self._ops.layer_norm(self.graph, x, weight, bias, epsilon, name)

    def _read(self, name: str) -> NDArray[np.float32]:
        return self._checkpoint.tensors[name].read()
