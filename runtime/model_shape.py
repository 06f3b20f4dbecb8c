"""Shape of the model in an engine, with the range of every number and what must fit what."""

import math
from dataclasses import dataclass
from typing import Annotated

import msgspec

Layers = Annotated[int, msgspec.Meta(ge=1, le=1024)]
Width = Annotated[int, msgspec.Meta(ge=1, le=2**20)]
Tokens = Annotated[int, msgspec.Meta(ge=1, le=2**24)]
Epsilon = Annotated[float, msgspec.Meta(gt=0, le=1)]
Factor = Annotated[float, msgspec.Meta(gt=0, le=1e12)]
Filter = Annotated[int, msgspec.Meta(ge=0, le=5)]
TokenId = Annotated[int, msgspec.Meta(ge=0, lt=2**24)]


@dataclass(frozen=True, slots=True)
class TextSpec:
    """Shape of the language model, from `text_config` of the checkpoint."""

    layers: Layers
    hidden_size: Width
    intermediate_size: Width
    heads: Layers
    kv_heads: Layers
    head_dim: Width
    vocabulary: Tokens
    sliding_window: Tokens
    layer_is_global: tuple[bool, ...]
    """Of each layer: whether it attends to everything, not to a sliding window"""
    rms_norm_eps: Epsilon
    query_scale: Factor
    """query_pre_attn_scalar ** -0.5"""
    rope_theta_global: Factor
    rope_factor_global: Factor
    """Linear position scaling of global layers: inverse frequencies are divided by it."""
    rope_theta_local: Factor
    embed_scale: Factor
    """sqrt(hidden_size), rounded to the dtype of the checkpoint's weights; for fp16 less, by a power of 2."""
    max_positions: Tokens

    def __post_init__(self) -> None:
        kinds = len(self.layer_is_global)
        require(kinds == self.layers, f"{kinds} kinds of layers for {self.layers} layers")
        fits = self.heads % self.kv_heads == 0
        require(fits, f"{self.heads} heads over {self.kv_heads} key heads, not a multiple")
        require(self.head_dim % 2 == 0, f"an odd head_dim, {self.head_dim}")
        at_most = math.sqrt(self.hidden_size) * 1.01
        is_root = self.embed_scale <= at_most
        require(is_root, f"embed_scale {self.embed_scale:g}, above the root of {self.hidden_size}")


@dataclass(frozen=True, slots=True)
class VisionSpec:
    """Shape of the SigLIP tower and the projector, from `vision_config`."""

    layers: Layers
    hidden_size: Width
    intermediate_size: Width
    heads: Layers
    image_size: Width
    patch_size: Width
    tokens_per_image: Tokens
    layer_norm_eps: Epsilon
    image_mean: tuple[float, ...]
    """Of each channel, of rescaled values"""
    image_std: tuple[float, ...]
    """The same"""
    rescale_factor: Factor = 1 / 255
    """What 8-bit pixels are multiplied by"""
    resample: Filter = 2
    """Pillow's number of the filter that resizes slices; 2 is bilinear"""

    def __post_init__(self) -> None:
        fits = self.hidden_size % self.heads == 0
        require(fits, f"{self.heads} heads in {self.hidden_size} columns, not a divisor")
        image, patch = self.image_size, self.patch_size
        require(image % patch == 0, f"patches of {patch} in an image of {image}, not a divisor")
        tokens, side, patches = (
            self.tokens_per_image,
            math.isqrt(self.tokens_per_image),
            image // patch,
        )
        require(
            side**2 == tokens and patches % side == 0,
            f"it pools {patches} x {patches} patches to {tokens} tokens, not a square that fits",
        )
        mean, std = self.image_mean, self.image_std
        has_channels = len(mean) == len(std) == 3
        require(has_channels, f"mean and std for {len(mean)} and {len(std)} channels, not for 3")
        reach = 255 * self.rescale_factor
        """Of values before mean and deviation apply."""
        fits = all(0 <= one <= reach for one in mean)
        require(fits, f"image_mean {mean}, not within the values' 0 .. {reach:g}")
        fits = all(0 < one <= 10 * reach for one in std)
        require(fits, f"image_std {std}, not within 0 .. {10 * reach:g}")


@dataclass(frozen=True, slots=True)
class TokenSpec:
    """Ids with a meaning of their own."""

    bos: TokenId
    pad: TokenId
    stop: tuple[TokenId, ...]
    image: TokenId
    image_begin: TokenId
    image_end: TokenId
    thought_begin: TokenId | None
    thought_end: TokenId | None
    eos: TokenId | None = None
    """What a chat template may name as eos_token; `stop` says what ends an answer"""

    def __post_init__(self) -> None:
        require(len(self.stop) > 0, "no token stops an answer")
        is_pair = (self.thought_begin is None) == (self.thought_end is None)
        require(is_pair, "a thought begins or ends, but not both")
        around = (self.image_begin, self.image, self.image_end)
        require(len(set(around)) == 3, f"tokens {around} around an image are not three")

    @property
    def ids(self) -> frozenset[int]:
        """All of them."""
        single = (self.bos, self.pad, self.image, self.image_begin, self.image_end)
        thoughts = (self.thought_begin, self.thought_end)
        return frozenset(one for one in (*single, *self.stop, *thoughts) if one is not None)


def require(is_met: bool, problem: str) -> None:
    """Raise a ValueError with what is wrong; msgspec adds the place in the document."""
    if not is_met:
        raise ValueError(problem)
