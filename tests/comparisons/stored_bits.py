"""Bits that an engine spends on a weight, scales included."""

import re
from pathlib import Path

import numpy as np
import onnx

from edge_medgemma.runtime.manifest import load_manifest

LINEAR = re.compile(
    r"text\.layers\.\d+\.(self_attn\.(qkv|qk|v|o)_proj|mlp\.(gate_up|down)_proj)(\.|$)"
)
"""Beginning of the names of all that a linear layer of the decoder takes from its data file."""


def stored_bits(engine: Path) -> tuple[float, float]:
    """Of the decoder's linear layers, and of the embedding, whose rows a quantised head shares."""
    model = onnx.load(engine / "decoder.onnx", load_external_data=False)
    manifest = load_manifest(engine)
    text = manifest.text
    width = text.heads * text.head_dim
    attention = (width + 2 * text.kv_heads * text.head_dim + width) * text.hidden_size
    weights = text.layers * (attention + 3 * text.hidden_size * text.intermediate_size)
    tensors = [tensor for tensor in model.graph.initializer if LINEAR.match(tensor.name)]
    embedding = sum(
        record.bytes for name, record in manifest.files.items() if name.startswith("embedding")
    )
    return (
        8 * sum(map(_bytes, tensors)) / weights,
        8 * embedding / (text.vocabulary * text.hidden_size),
    )


def _bytes(tensor: onnx.TensorProto) -> int:
    for entry in tensor.external_data:
        if entry.key == "length":
            return int(entry.value)
    array: np.ndarray = onnx.numpy_helper.to_array(tensor)
    return array.nbytes
