"""Every spelling of a Gemma 3 checkpoint's tensor names, as one; and the shapes they must have.

Hub files say `language_model.model.layers…` and `vision_tower.vision_model.…`; transformers 4.52
to 5 also wrote `model.language_model.layers…`, `model.vision_tower.…` and `lm_head.weight`.
"""

import re

from edge_medgemma.runtime.model_shape import TextSpec, VisionSpec

EMBEDDING = "text.embed_tokens.weight"
HEAD = "head.weight"

_PREFIXES = (
    (re.compile(r"^(model\.)?language_model\.lm_head\.|^lm_head\."), "head."),
    (re.compile(r"^(model\.)?language_model\.(model\.)?"), "text."),
    (re.compile(r"^(model\.)?vision_tower\.(vision_model\.)?"), "vision."),
    (re.compile(r"^(model\.)?multi_modal_projector\."), "projector."),
)
_UNUSED = re.compile(r"^vision\.(head\.|embeddings\.position_ids$)|\.rotary_emb\.inv_freq$")
"""SigLIP's pooling head and buffers of old files: Gemma 3 does not read them."""


def canonical_name(stored: str) -> str | None:
    """The internal name of a stored tensor; None for one that no Gemma 3 graph reads."""
    for pattern, prefix in _PREFIXES:
        if pattern.match(stored):
            name = pattern.sub(prefix, stored, count=1)
            return None if _UNUSED.search(name) else name
    return stored


def expected_shapes(text: TextSpec, vision: VisionSpec) -> dict[str, tuple[int, ...]]:
    """Internal name -> shape of every tensor of the checkpoint but the optional `head.weight`."""
    hidden = text.hidden_size
    shapes: dict[str, tuple[int, ...]] = {
        EMBEDDING: (text.vocabulary, hidden),
        "text.norm.weight": (hidden,),
        "projector.mm_input_projection_weight": (vision.hidden_size, hidden),
        "projector.mm_soft_emb_norm.weight": (vision.hidden_size,),
    }
    for layer in range(text.layers):
        shapes |= _text_layer(f"text.layers.{layer}.", text)
    patches = (vision.image_size // vision.patch_size) ** 2
    size, side = vision.hidden_size, vision.patch_size
    shapes |= {
        "vision.embeddings.patch_embedding.weight": (size, 3, side, side),
        "vision.embeddings.patch_embedding.bias": (size,),
        "vision.embeddings.position_embedding.weight": (patches, size),
        "vision.post_layernorm.weight": (size,),
        "vision.post_layernorm.bias": (size,),
    }
    for layer in range(vision.layers):
        shapes |= _vision_layer(f"vision.encoder.layers.{layer}.", vision)
    return shapes


def _text_layer(prefix: str, text: TextSpec) -> dict[str, tuple[int, ...]]:
    hidden, wide = text.hidden_size, text.intermediate_size
    queries, keys = text.heads * text.head_dim, text.kv_heads * text.head_dim
    norms = (
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    )
    return {
        prefix + "self_attn.q_proj.weight": (queries, hidden),
        prefix + "self_attn.k_proj.weight": (keys, hidden),
        prefix + "self_attn.v_proj.weight": (keys, hidden),
        prefix + "self_attn.o_proj.weight": (hidden, queries),
        prefix + "self_attn.q_norm.weight": (text.head_dim,),
        prefix + "self_attn.k_norm.weight": (text.head_dim,),
        prefix + "mlp.gate_proj.weight": (wide, hidden),
        prefix + "mlp.up_proj.weight": (wide, hidden),
        prefix + "mlp.down_proj.weight": (hidden, wide),
    } | {f"{prefix}{norm}.weight": (hidden,) for norm in norms}


def _vision_layer(prefix: str, vision: VisionSpec) -> dict[str, tuple[int, ...]]:
    size, wide = vision.hidden_size, vision.intermediate_size
    linears = {
        "self_attn.q_proj": (size, size),
        "self_attn.k_proj": (size, size),
        "self_attn.v_proj": (size, size),
        "self_attn.out_proj": (size, size),
        "mlp.fc1": (wide, size),
        "mlp.fc2": (size, wide),
    }
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (rows, columns) in linears.items():
        shapes |= {f"{prefix}{name}.weight": (rows, columns), f"{prefix}{name}.bias": (rows,)}
    for norm in ("layer_norm1", "layer_norm2"):
        shapes |= {f"{prefix}{norm}.weight": (size,), f"{prefix}{norm}.bias": (size,)}
    return shapes
