"""Checkpoints of a true shape with random weights, to measure a device before having the licence."""

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from edge_medgemma.export.checkpoint.checkpoint import TILE_INPUTS, TILE_OUTPUTS, Checkpoint, Tensor
from edge_medgemma.export.checkpoint.config import embed_scale
from edge_medgemma.export.checkpoint.synthetic_tokenizer import CHAT_TEMPLATE, tokenizer_json
from edge_medgemma.export.checkpoint.tensor_names import EMBEDDING, expected_shapes
from edge_medgemma.runtime.errors import CheckpointError
from edge_medgemma.runtime.model_shape import TextSpec, TokenSpec, VisionSpec

VERSION = 2
"""Goes up when the same seed gives other weights."""

SPREAD = 0.06
"""Standard deviation of norm weights around their neutral value and of biases around zero."""

_QUANTILES = [NormalDist().inv_cdf((byte + 0.5) / 256) for byte in range(256)]
_NORMAL = (np.array(_QUANTILES) / np.std(_QUANTILES)).astype(np.float32)
"""The number that stands for each value of a random byte: as near to normal as 256 numbers are."""


@dataclass(frozen=True, slots=True)
class RandomTensor:
    """Normal weights, as trained ones nearly are, the same whichever part of them is read.

    None is further from the centre than 2.9 deviations.
    """

    name: str
    shape: tuple[int, ...]
    centre: float
    deviation: float
    seed: int

    def read(self, *index: slice) -> NDArray[np.float32]:
        """The part that `index` selects, float32."""
        if len(self.shape) != 2:
            flat = self._tile(0, 0, int(np.prod(self.shape)), 1)
            return flat.reshape(self.shape)[index]
        (top, bottom), (left, right) = (
            part.indices(size)[:2]
            for part, size in zip((*index, slice(None), slice(None))[:2], self.shape, strict=True)
        )
        first_row, first_column = top // TILE_OUTPUTS, left // TILE_INPUTS
        tiles = [
            [
                self._tile(row, column, *self._tile_shape(row, column))
                for column in range(first_column, -(-right // TILE_INPUTS))
            ]
            for row in range(first_row, -(-bottom // TILE_OUTPUTS))
        ]
        top_edge, left_edge = first_row * TILE_OUTPUTS, first_column * TILE_INPUTS
        values = np.block(tiles)
        return values[top - top_edge : bottom - top_edge, left - left_edge : right - left_edge]

    def _tile_shape(self, row: int, column: int) -> tuple[int, int]:
        rows, columns = self.shape
        return (
            min(TILE_OUTPUTS, rows - row * TILE_OUTPUTS),
            min(TILE_INPUTS, columns - column * TILE_INPUTS),
        )

    def _tile(self, row: int, column: int, rows: int, columns: int) -> NDArray[np.float32]:
        """Bytes of a generator seeded by the tile's place, as quantiles of the distribution."""
        seed = (self.seed, zlib.crc32(self.name.encode()), row, column)
        words = np.random.SFC64(seed).random_raw(-(-rows * columns // 8))
        places = words.astype("<u8", copy=False).view(np.uint8)[: rows * columns]
        values = np.take(_NORMAL * np.float32(self.deviation), places)
        if self.centre:
            values += np.float32(self.centre)
        return values.reshape(rows, columns)


def synthetic_checkpoint(size: str, seed: int = 0) -> Checkpoint:
    """A checkpoint of the shape `4b`, `27b` or `tiny` with random weights from `seed`.

    Raises:
        CheckpointError: another size.
    """
    if size not in SHAPES:
        raise CheckpointError(
            f"no synthetic size '{size}'; MedGemma is published as 4b and 27b, and 'tiny' is for "
            "tests"
        )
    text, vision, tokens = SHAPES[size]
    name = f"synthetic-{size}-seed{seed}"
    identity = f"edge-medgemma {name} version {VERSION}"
    return Checkpoint(
        kind="synthetic",
        name=name,
        revision=None,
        text=text,
        vision=vision,
        tokens=tokens,
        tensors=_tensors(text, vision, seed),
        tokenizer_json=tokenizer_json(tokens),
        chat_template=CHAT_TEMPLATE,
        fingerprint=lambda: hashlib.sha256(identity.encode()).hexdigest(),
    )


def _tensors(text: TextSpec, vision: VisionSpec, seed: int) -> Mapping[str, Tensor]:
    shapes = expected_shapes(text, vision)
    return {
        name: RandomTensor(name, shape, *_distribution(name, shape), seed)
        for name, shape in shapes.items()
    }


def _distribution(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Centre and deviation that keep activations near 1: variance 1 / inputs for linear layers."""
    if len(shape) == 1:
        is_layer_norm = name.startswith("vision.") and "norm" in name and name.endswith(".weight")
        return (1.0 if is_layer_norm else 0.0), SPREAD
    if name == EMBEDDING:
        inputs = shape[1]
    elif name.endswith("mm_input_projection_weight"):
        inputs = shape[0]
    else:
        inputs = int(np.prod(shape[1:]))
    return 0.0, inputs**-0.5


def _text(
    layers: int, hidden_size: int, intermediate_size: int, heads: int, kv_heads: int, **sizes: int
) -> TextSpec:
    return TextSpec(
        layers=layers,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=sizes["head_dim"],
        vocabulary=sizes.get("vocabulary", 262_208),
        sliding_window=sizes.get("sliding_window", 1024),
        layer_is_global=tuple((layer + 1) % 6 == 0 for layer in range(layers)),
        rms_norm_eps=1e-6,
        query_scale=sizes["query_pre_attn_scalar"] ** -0.5,
        rope_theta_global=1e6,
        rope_factor_global=8.0,
        rope_theta_local=1e4,
        embed_scale=embed_scale(hidden_size, np.dtype(ml_dtypes.bfloat16)),
        max_positions=131_072,
    )


_SIGLIP = VisionSpec(
    layers=27,
    hidden_size=1152,
    intermediate_size=4304,
    heads=16,
    image_size=896,
    patch_size=14,
    tokens_per_image=256,
    layer_norm_eps=1e-6,
    image_mean=(0.5, 0.5, 0.5),
    image_std=(0.5, 0.5, 0.5),
)
_TINY_VISION = VisionSpec(
    layers=2,
    hidden_size=64,
    intermediate_size=112,
    heads=4,
    image_size=112,
    patch_size=14,
    tokens_per_image=16,
    layer_norm_eps=1e-6,
    image_mean=(0.5, 0.5, 0.5),
    image_std=(0.5, 0.5, 0.5),
)
_TOKENS = TokenSpec(
    bos=2,
    pad=0,
    stop=(1, 106),
    image=262_144,
    image_begin=255_999,
    image_end=256_000,
    thought_begin=100,
    thought_end=101,
    eos=1,
)
_TINY_TOKENS = TokenSpec(
    bos=2,
    pad=0,
    stop=(1, 106),
    image=762,
    image_begin=760,
    image_end=761,
    thought_begin=100,
    thought_end=101,
    eos=1,
)

SHAPES = {
    "4b": (
        _text(34, 2560, 10240, 8, 4, head_dim=256, query_pre_attn_scalar=256),
        _SIGLIP,
        _TOKENS,
    ),
    "27b": (
        _text(62, 5376, 21504, 32, 16, head_dim=128, query_pre_attn_scalar=168),
        _SIGLIP,
        _TOKENS,
    ),
    "tiny": (
        _text(
            7,
            128,
            256,
            4,
            2,
            head_dim=64,
            query_pre_attn_scalar=48,
            vocabulary=768,
            sliding_window=24,
        ),
        _TINY_VISION,
        _TINY_TOKENS,
    ),
}
"""Published Gemma 3 configurations (config.json of google/gemma-3-4b-it and -27b-it), and a small one."""
