"""The weights of a vision tower as `export.graphs.vision` writes them, one layer after the other."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.backends.onnx_reader import OnnxGraph, read_graph
from edge_medgemma.runtime.errors import ProviderError
from edge_medgemma.runtime.manifest import Manifest

Floats = NDArray[np.float32]

_QUANTISED = ["QuantizeLinear", "DequantizeLinear", "DequantizeLinear"]
_BEGIN = ["Conv", "Reshape", "Transpose", "Add"]
_END = ["LayerNormalization", "Transpose", "Reshape", "AveragePool", "Reshape", "Transpose"]
_END += ["RMSNormalization", "MatMul"]


@dataclass(frozen=True, slots=True)
class Norm:
    """Weight and bias, [size]."""

    weight: Floats
    bias: Floats


@dataclass(frozen=True, slots=True)
class LinearWeights:
    """A linear layer in int8, as are then its inputs, or in float32."""

    weights: NDArray[np.int8] | Floats
    """[inputs, outputs]"""
    scales: Floats | None
    """[outputs], of weights times inputs; None in float32"""
    bias: Floats
    """[outputs]"""
    input_scale: float

    @property
    def inputs(self) -> int:
        """Of a row."""
        return len(self.weights)

    @property
    def outputs(self) -> int:
        """The same."""
        return len(self.bias)


@dataclass(frozen=True, slots=True)
class Ends:
    """What stands before the first layer and after the last."""

    patches: Floats
    """[3 * patch * patch, hidden]"""
    positions: Floats
    """[patches, hidden], the patches' bias included"""
    norm: Norm
    token_norm: Floats
    """[hidden]"""
    projector: Floats
    """[hidden, width of the decoder]"""


class Tower:
    """Reads weights when they are asked for: each is in memory only while someone keeps it."""

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        """Look at the graph, not yet at its weights.

        Raises:
            EngineError: the graph does not load.
            ProviderError: its operators are not those of an int8 or float32 tower for onnxruntime.
        """
        self._graph: OnnxGraph = read_graph(directory / "vision.onnx")
        self._vision = vision = manifest.vision
        self.is_float = manifest.precision.vision == "fp32"
        """Whether linear layers are in float32."""
        self._width = manifest.text.hidden_size
        layer = ["LayerNormalization", *self._linear(), "Split", "MultiHeadAttention"]
        layer += [*self._linear(), "Add", "LayerNormalization", *self._linear(), "Gelu"]
        layer += [*self._linear(), "Add"]
        if list(self._graph.operators) != [*_BEGIN, *layer * vision.layers, *_END]:
            raise ProviderError(
                "its kernels are for int8 and float32 vision towers, exported for onnxruntime on a CPU; "
                "use --provider vision=cpu"
            )

    def ends(self) -> Ends:
        """See `Ends`; raises as `linear` does."""
        vision, hidden = self._vision, self._vision.hidden_size
        side, name = vision.patch_size, "vision.embeddings.patch_embedding"
        kernel = self._floats(f"{name}.weight", hidden, 3, side, side)
        count = (vision.image_size // side) ** 2
        positions = self._floats("vision.embeddings.position_embedding.weight", 1, count, hidden)
        return Ends(
            np.ascontiguousarray(kernel.reshape(hidden, -1).T),
            positions[0] + self._floats(f"{name}.bias", hidden),
            self.norm("vision.post_layernorm"),
            self._floats("projector.mm_soft_emb_norm.weight", hidden),
            self._floats("projector", hidden, self._width),
        )

    def norm(self, name: str) -> Norm:
        """Of the hidden size; raises as `linear` does."""
        size = self._vision.hidden_size
        return Norm(self._floats(f"{name}.weight", size), self._floats(f"{name}.bias", size))

    def linear(self, name: str, inputs: int, outputs: int) -> LinearWeights:
        """A linear layer.

        Raises:
            EngineError: the graph has none of this name and shape.
        """
        bias = self._floats(f"{name}.bias", outputs)
        if self.is_float:
            return LinearWeights(self._floats(name, inputs, outputs), None, bias, 1.0)
        input_scale = float(self._floats(f"{name}.input_scale"))
        weights = self._graph.read(f"{name}.quantized", "int8", (inputs, outputs))
        return LinearWeights(
            cast(NDArray[np.int8], weights),
            self._floats(f"{name}.scale", outputs) * np.float32(input_scale),
            bias,
            input_scale,
        )

    def _linear(self) -> list[str]:
        return [*([] if self.is_float else _QUANTISED), "MatMul", "Add"]

    def _floats(self, name: str, *shape: int) -> Floats:
        return cast(Floats, self._graph.read(name, "float32", shape))
