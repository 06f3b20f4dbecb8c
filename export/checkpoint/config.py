"""config.json of a Gemma 3 checkpoint, in its old and new spellings, as the specs of the manifest.

Omitted fields take the class defaults of transformers' Gemma3TextConfig, Gemma3Config and
SiglipVisionConfig (5.23), as transformers itself does: hub files leave many out.
"""

import math
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

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
}


def text_spec(config: Config, embedding_dtype: np.dtype) -> TextSpec:
    """The language model's shape. `embedding_dtype` rounds the embedding scale, as transformers does.

    Raises:
        CheckpointError: another architecture, or a feature that the graphs do not have.
    """
    require_gemma3(config)
    text = config.get("text_config") or {}
    _require(text, "hidden_activation", ACTIVATION, ACTIVATION)
    _require(text, "attention_bias", False, False)
    _require(text, "use_bidirectional_attention", False, False)
    for softcap in ("attn_logit_softcapping", "final_logit_softcapping"):
        _require(text, softcap, None, None)
    layers = int(text.get("num_hidden_layers", 26))
    hidden_size = int(text.get("hidden_size", 2304))
    global_rope, local_rope = _rope(text)
    factor = _linear_factor(global_rope, "full_attention")
    if _linear_factor(local_rope, "sliding_attention") != 1.0:
        raise CheckpointError(
            "config.json scales the rotary embedding of sliding layers; not in Gemma 3"
        )
    return build_spec(
        TextSpec,
        layers=layers,
        hidden_size=hidden_size,
        intermediate_size=int(text.get("intermediate_size", 9216)),
        heads=int(text.get("num_attention_heads", 8)),
        kv_heads=int(text.get("num_key_value_heads", 4)),
        head_dim=int(text.get("head_dim", 256)),
        vocabulary=int(text.get("vocab_size", 262_208)),
        sliding_window=int(text.get("sliding_window") or 4096),
        layer_is_global=_layer_is_global(text, layers),
        rms_norm_eps=float(text.get("rms_norm_eps", 1e-6)),
        query_scale=float(text.get("query_pre_attn_scalar", 256)) ** -0.5,
        rope_theta_global=float(global_rope["rope_theta"]),
        rope_factor_global=factor,
        rope_theta_local=float(local_rope["rope_theta"]),
        embed_scale=embed_scale(hidden_size, embedding_dtype),
        max_positions=int(text.get("max_position_embeddings", 131_072)),
    )


def build_spec(kind: type[Spec], **values: Any) -> Spec:
    """A spec of the manifest, or a CheckpointError that says which numbers do not fit each other."""
    try:
        return kind(**values)
    except (ValueError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"config.json does not describe a model that can run: {error}"
        ) from None


def embed_scale(hidden_size: int, dtype: np.dtype) -> float:
    """sqrt(hidden_size) in the precision of the embedding table: 50.5 for 2560 in bfloat16."""
    return float(np.array(math.sqrt(hidden_size)).astype(dtype))


def vision_spec(config: Config, processor: Config) -> VisionSpec:
    """The vision tower's shape; `processor` is preprocessor_config.json, empty when absent.

    Raises:
        CheckpointError: another tower, or sizes that do not fit each other.
    """
    vision = config.get("vision_config") or {}
    _require(vision, "model_type", "siglip_vision_model", "siglip_vision_model")
    _require(vision, "hidden_act", ACTIVATION, ACTIVATION)
    _require(vision, "num_channels", 3, 3)
    size = vision.get("image_size", 224)
    sides = {int(side) for side in (size if isinstance(size, list | tuple) else [size])}
    pixels = pixel_settings(processor)
    sides |= pixels.sides
    if len(sides) != 1:
        raise CheckpointError(
            f"the checkpoint names image sizes {sorted(sides)}; config.json and "
            "preprocessor_config.json must agree on one square size"
        )
    return build_spec(
        VisionSpec,
        layers=int(vision.get("num_hidden_layers", 12)),
        hidden_size=int(vision.get("hidden_size", 768)),
        intermediate_size=int(vision.get("intermediate_size", 3072)),
        heads=int(vision.get("num_attention_heads", 12)),
        image_size=sides.pop(),
        patch_size=int(vision.get("patch_size", 16)),
        tokens_per_image=int(config.get("mm_tokens_per_image", 256)),
        layer_norm_eps=float(vision.get("layer_norm_eps", 1e-6)),
        image_mean=pixels.mean,
        image_std=pixels.std,
    )


def require_gemma3(config: Config) -> None:
    model_type = config.get("model_type")
    if model_type != "gemma3":
        reason = OTHER_MODEL_TYPES.get(str(model_type), "its graph is another one")
        raise CheckpointError(
            f"config.json says model_type '{model_type}': {reason}; expected 'gemma3' "
            "(MedGemma 1.5 4B, MedGemma 4B and 27B multimodal)"
        )


def _require(config: Config, field: str, expected: object, default: object) -> None:
    found = config.get(field, default)
    if found != expected:
        raise CheckpointError(
            f"config.json says {field} {found!r}; no Gemma 3 model has it and the exported graph "
            f"would ignore it, expected {expected!r}"
        )


def _rope(text: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    """Rotary parameters of global and local layers, each with `rope_theta`."""
    parameters = text.get("rope_parameters") or {}
    global_rope = {
        "rope_theta": text.get("rope_theta", 1_000_000.0),
        **(parameters.get("full_attention") or {}),
        **(text.get("rope_scaling") or {}),
    }
    local_rope = {
        "rope_theta": text.get("rope_local_base_freq", 10_000.0),
        **(parameters.get("sliding_attention") or {}),
    }
    return global_rope, local_rope


def _linear_factor(rope: Mapping[str, Any], layer_type: str) -> float:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return 1.0
    if kind == "linear":
        return float(rope["factor"])
    raise CheckpointError(
        f"config.json says rope_type '{kind}' for {layer_type}; expected 'default' or 'linear'"
    )


def _layer_is_global(text: Config, layers: int) -> tuple[bool, ...]:
    layer_types = text.get("layer_types")
    if layer_types is None:
        pattern = text.get("sliding_window_pattern", text.get("_sliding_window_pattern", 6))
        return tuple((layer + 1) % int(pattern) == 0 for layer in range(layers))
    if len(layer_types) != layers or set(layer_types) - {"full_attention", "sliding_attention"}:
        raise CheckpointError(
            "config.json's layer_types do not fit its layers; expected 'full_attention' or "
            f"'sliding_attention' {layers} times"
        )
    return tuple(kind == "full_attention" for kind in layer_types)
