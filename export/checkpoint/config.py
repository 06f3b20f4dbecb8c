"""config.json of a Gemma 3 checkpoint, in its old and new spellings, as the specs of the manifest.

Omitted fields take the class defaults of transformers, as transformers itself does: hub files leave
many out.
"""

import math
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
import numpy as np
from msgspec import UNSET

from edge_medgemma.export.checkpoint.config_fields import (
    ConfigFields,
    RopeFields,
    RopeParameters,
    TextFields,
    config_fields,
)
from edge_medgemma.export.checkpoint.processor import pixel_settings
from edge_medgemma.runtime.errors import CheckpointError
from edge_medgemma.runtime.model_shape import TextSpec, TokenSpec, VisionSpec

Config = Mapping[str, Any]
Spec = TypeVar("Spec", TextSpec, VisionSpec, TokenSpec)

ACTIVATION = "gelu_pytorch_tanh"
OTHER_MODEL_TYPES = {
    "gemma3_text": "it has no vision tower, so it cannot read scans",
    "gemma3n": "Gemma 3n has another vision tower and per-layer embeddings",
    "gemma4": "Gemma 4 has other head sizes per layer, shared caches and another vision tower",
    "paligemma": "its language model is Gemma 1 or 2",
}
_OVERRIDES = ("per_layer_config", "partial_rotary_factor", "transformers_weights")
"""Keys that a Gemma 3 does not have, and that transformers would nevertheless obey."""


def text_spec(config: Config, embedding_dtype: np.dtype) -> TextSpec:
    """The language model's shape. `embedding_dtype` rounds the embedding scale, as transformers does.

    Raises:
        CheckpointError: another architecture, or a feature that the graphs do not have.
    """
    text = require_gemma3(config).text
    _require("hidden_activation", text.hidden_activation, ACTIVATION)
    _require("attention_bias", text.attention_bias, False)
    _require("use_bidirectional_attention", bool(text.use_bidirectional_attention), False)
    _require("attn_logit_softcapping", text.attn_logit_softcapping, None)
    _require("final_logit_softcapping", text.final_logit_softcapping, None)
    layers = text.num_hidden_layers
    if text.hidden_size % text.num_attention_heads:
        raise CheckpointError(
            f"config.json says hidden_size {text.hidden_size}, which {text.num_attention_heads} "
            "heads (num_attention_heads) do not divide; transformers refuses it too"
        )
    parameters = text.rope_parameters or RopeParameters()
    old, full, sliding = text.rope_scaling, parameters.full_attention, parameters.sliding_attention
    if old is not None and old.type is not UNSET and old.rope_type is UNSET:
        raise CheckpointError(
            "config.json's rope_scaling has a type and no rope_type: transformers 4 scales by it, "
            "transformers 5 does not; write rope_type"
        )
    if _linear_factor("sliding_attention", sliding) != 1.0:
        raise CheckpointError(
            "config.json scales the rotary embedding of sliding layers; not in Gemma 3"
        )
    return build_spec(
        TextSpec,
        layers=layers,
        hidden_size=text.hidden_size,
        intermediate_size=text.intermediate_size,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head_dim=text.head_dim,
        vocabulary=text.vocab_size,
        sliding_window=text.sliding_window,
        layer_is_global=_layer_is_global(config, text),
        rms_norm_eps=text.rms_norm_eps,
        query_scale=float(text.query_pre_attn_scalar) ** -0.5,
        rope_theta_global=_rope_theta(text.rope_theta, full, old),
        rope_factor_global=_linear_factor("full_attention", full, old),
        rope_theta_local=_rope_theta(text.rope_local_base_freq, sliding),
        embed_scale=embed_scale(text.hidden_size, embedding_dtype),
        max_positions=text.max_position_embeddings,
    )


def build_spec(kind: type[Spec], **values: Any) -> Spec:
    """A spec of the manifest, or a CheckpointError that says which numbers do not fit each other."""
    try:
        return msgspec.convert(values, kind)
    except (msgspec.ValidationError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"config.json does not describe a model that can run: {error}"
        ) from None


def embed_scale(hidden_size: int, dtype: np.dtype) -> float:
    """sqrt(hidden_size) in the precision of the embedding table: 50.5 for 2560 in bfloat16."""
    return float(np.array(math.sqrt(hidden_size)).astype(dtype))


def vision_spec(config: Config, processor: Config) -> VisionSpec:
    """The vision tower's shape; `processor` is preprocessor_config.json.

    Raises:
        CheckpointError: another tower, or sizes that do not fit each other.
    """
    fields = config_fields(config)
    vision = fields.vision
    _require("hidden_act", vision.hidden_act, ACTIVATION)
    _require("num_channels", vision.num_channels, 3)
    sides, patches = _sides(vision.image_size), _sides(vision.patch_size)
    pixels = pixel_settings(processor)
    sides |= {pixels.image_size}
    if len(sides) != 1:
        raise CheckpointError(
            f"the checkpoint names image sizes {sorted(sides)}; config.json and "
            "preprocessor_config.json must agree on one square size"
        )
    if len(patches) != 1:
        raise CheckpointError(f"config.json says patch_size {vision.patch_size}; expected a square")
    length = processor.get("image_seq_length")
    if length is not None and length != fields.mm_tokens_per_image:
        raise CheckpointError(
            f"the processor writes {length!r} tokens for an image (image_seq_length) and the model "
            f"makes {fields.mm_tokens_per_image} (mm_tokens_per_image); they must be equal"
        )
    return build_spec(
        VisionSpec,
        layers=vision.num_hidden_layers,
        hidden_size=vision.hidden_size,
        intermediate_size=vision.intermediate_size,
        heads=vision.num_attention_heads,
        image_size=pixels.image_size,
        patch_size=patches.pop(),
        tokens_per_image=fields.mm_tokens_per_image,
        layer_norm_eps=vision.layer_norm_eps,
        image_mean=pixels.mean,
        image_std=pixels.std,
        rescale_factor=pixels.rescale_factor,
        resample=pixels.resample,
    )


def require_gemma3(config: Config) -> ConfigFields:
    """The fields of a config.json that describes a Gemma 3 with vision, in floats.

    Raises:
        CheckpointError: another architecture, quantised weights, or a value of a wrong kind.
    """
    model_type = config.get("model_type")
    if model_type != "gemma3":
        reason = OTHER_MODEL_TYPES.get(str(model_type), "its graph is another one")
        raise CheckpointError(
            f"config.json says model_type {model_type!r}: {reason}; expected 'gemma3' "
            "(MedGemma 1.5 4B, MedGemma 4B and 27B multimodal)"
        )
    fields = config_fields(config)
    for part in (config, config.get("text_config") or {}, config.get("vision_config") or {}):
        _require_floats(part)
        for key in _OVERRIDES:
            if part.get(key) is not None:
                raise CheckpointError(
                    f"config.json says {key} {part[key]!r}; no Gemma 3 model has it and the exported "
                    "graph would ignore it, so leave it out"
                )
    return fields


def _require_floats(part: Config) -> None:
    """The config does not say that the weights are quantised.

    transformers leaves "gguf" behind where it has turned a GGUF file's weights into floats.
    """
    for key in ("quantization_config", "quantization", "compression_config"):
        quantisation = part.get(key)
        if quantisation in (None, {}):
            continue
        named = quantisation if isinstance(quantisation, dict) else {}
        methods = (named.get("quant_method"), named.get("quant_type"))
        method = next(
            (one for one in methods if one), "MLX" if key == "quantization" else "unnamed"
        )
        if method != "gguf":
            raise CheckpointError(
                f"config.json says that the weights are quantised ({key}, {method}); export the "
                "original checkpoint, --precision quantises it"
            )


def _require(field: str, found: object, expected: object) -> None:
    if found != expected:
        raise CheckpointError(
            f"config.json says {field} {found!r}; no Gemma 3 model has it and the exported graph "
            f"would ignore it, expected {expected!r}"
        )


def _sides(size: int | list[int]) -> set[int]:
    return set(size) if isinstance(size, list) else {size}


def _rope_theta(default: float, *ropes: RopeFields | None) -> float:
    for rope in reversed(ropes):
        if rope is not None and rope.rope_theta is not UNSET:
            return rope.rope_theta
    return default


def _linear_factor(layer_type: str, *ropes: RopeFields | None) -> float:
    """What positions are divided by; of two descriptions, the later one overrides."""
    kind, factor = "default", None
    for rope in ropes:
        if rope is not None:
            stated = rope.type if rope.rope_type is UNSET else rope.rope_type
            kind = kind if stated is UNSET else stated
            factor = factor if rope.factor is UNSET else rope.factor
    if kind == "default":
        return 1.0
    if kind != "linear":
        raise CheckpointError(
            f"config.json says rope_type {kind!r} for {layer_type}; expected 'default' or 'linear'"
        )
    if factor is None:
        raise CheckpointError(
            f"config.json says rope_type 'linear' for {layer_type} without its factor"
        )
    return factor


def _layer_is_global(config: Config, text: TextFields) -> tuple[bool, ...]:
    layers, kinds = text.num_hidden_layers, text.layer_types
    if kinds is None:
        pattern = text.sliding_window_pattern
        unread = (config.get("text_config") or {}).get("_sliding_window_pattern", pattern)
        if unread != pattern:
            raise CheckpointError(
                f"config.json says _sliding_window_pattern {unread!r} without layer_types; "
                f"transformers would take {pattern}, so say layer_types"
            )
        return tuple((layer + 1) % pattern == 0 for layer in range(layers))
    if len(kinds) != layers or set(kinds) - {"full_attention", "sliding_attention"}:
        raise CheckpointError(
            "config.json's layer_types do not fit its layers; expected 'full_attention' or "
            f"'sliding_attention' {layers} times"
        )
    return tuple(kind == "full_attention" for kind in kinds)
