"""Equivalent checkpoints: scales moved from one tensor into another, the float model unchanged.

Every move is written as factors on stored tensors, applied as they are read. RMSNorm weights are
stored as w and used as 1 + w, so their factor f gives (1 + w) * f - 1.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.calibration.record import Calibration
from edge_medgemma.export.checkpoint.checkpoint import Checkpoint, Tensor

Array = NDArray[np.float32]
ONE = np.float32(1)


@dataclass(frozen=True, slots=True)
class ScaledTensor:
    """A stored tensor times factors."""

    base: Tensor
    factors: Array
    """Broadcasts to the tensor's shape"""
    plus_one: bool
    """An RMSNorm weight: (1 + w) * factors - 1"""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the stored tensor."""
        return self.base.shape

    def read(self, *index: slice) -> Array:
        """The part that `index` selects."""
        factors = np.broadcast_to(self.factors, self.shape)[index]
        values = self.base.read(*index)
        scaled: Array = (1 + values) * factors - 1 if self.plus_one else values * factors
        return scaled.astype(np.float32, copy=False)


class Folding:
    """Collects factors and gives the checkpoint that has them."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._tensors = dict(checkpoint.tensors)

    @property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint with all factors so far."""
        return replace(self._checkpoint, tensors=dict(self._tensors))

    def inputs(self, name: str, factors: Array) -> None:
        """Multiply a linear layer's weights [N, K] along K."""
        self._times(f"{name}.weight", factors[None, :])

    def outputs(self, name: str, factors: Array) -> None:
        """Multiply a linear layer's weights [N, K] and bias [N] along N."""
        self._times(f"{name}.weight", factors[:, None])
        if f"{name}.bias" in self._tensors:
            self._times(f"{name}.bias", factors)

    def layer_norm(self, name: str, factors: Array) -> None:
        """Multiply the output of a LayerNorm."""
        self._times(f"{name}.weight", factors)
        self._times(f"{name}.bias", factors)

    def rms_norm(self, name: str, factors: Array) -> None:
        """Multiply the output of an RMSNorm, whose weight is used as 1 + w."""
        self._times(f"{name}.weight", factors, plus_one=True)

    def tensor(self, name: str, factor: float) -> None:
        """Multiply a whole tensor."""
        self._times(name, np.array(factor, np.float32))

    def _times(self, name: str, factors: Array, *, plus_one: bool = False) -> None:
        self._tensors[name] = ScaledTensor(self._tensors[name], factors, plus_one)


def smooth_vision(checkpoint: Checkpoint, calibration: Calibration) -> Checkpoint:
    """SmoothQuant's moves in the vision tower, as the calibration chose them."""
    folding = Folding(checkpoint)
    for layer in range(checkpoint.vision.layers):
        prefix = f"vision.encoder.layers.{layer}"
        attention = f"{prefix}.self_attn"
        scale = calibration.smoothing(f"{attention}.qkv_proj")
        folding.layer_norm(f"{prefix}.layer_norm1", ONE / scale)
        for name in "qkv":
            folding.inputs(f"{attention}.{name}_proj", scale)
        scale = calibration.smoothing(f"{attention}.out_proj")
        folding.outputs(f"{attention}.v_proj", ONE / scale)
        folding.inputs(f"{attention}.out_proj", scale)
        scale = calibration.smoothing(f"{prefix}.mlp.fc1")
        folding.layer_norm(f"{prefix}.layer_norm2", ONE / scale)
        folding.inputs(f"{prefix}.mlp.fc1", scale)
    return folding.checkpoint


def scale_residual(checkpoint: Checkpoint, scale: float) -> Checkpoint:
    """The residual stream of the decoder divided by `scale`, a power of two.

    All that enters it is divided: embeddings, image features and the two post-norms of each layer.
    All that reads it is an RMSNorm, whose epsilon `DecoderWriter` divides by scale².
    (https://github.com/huggingface/transformers/pull/37226)
    """
    folding = Folding(checkpoint)
    factors = np.full(checkpoint.text.hidden_size, 1 / scale, np.float32)
    for layer in range(checkpoint.text.layers):
        for name in ("post_attention_layernorm", "post_feedforward_layernorm"):
            folding.rms_norm(f"text.layers.{layer}.{name}", factors)
    folding.tensor("projector.mm_input_projection_weight", 1 / scale)
    text = replace(checkpoint.text, embed_scale=checkpoint.text.embed_scale / scale)
    return replace(folding.checkpoint, text=text)
