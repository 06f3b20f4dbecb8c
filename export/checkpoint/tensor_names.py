"""Every spelling of a Gemma 3 checkpoint's tensor names, as one; and the shapes they must have.

Hub files say `language_model.model.layers…` and `vision_tower.vision_model.…`; transformers 4.52
to 5 also wrote `model.language_model.layers…`, `model.vision_tower.…` and `lm_head.weight`. The
spellings are those that transformers 5.24 maps to a weight of Gemma3ForConditionalGeneration.
"""

import re

from edge_medgemma.runtime.model_shape import TextSpec, VisionSpec

EMBEDDING = "text.embed_tokens.weight"
HEAD = "head.weight"

_PREFIXES = (
    (re.compile(r"^(language_model\.|(model\.)?)lm_head\."), "head."),
    (
        re.compile(r"^(model\.model\.language_model\.|(model\.)?language_model\.(model\.){0,2})"),
        "text.",
    ),
    (
        re.compile(r"^(model\.model\.vision_tower\.|(model\.)?vision_tower\.(vision_model\.)?)"),
        "vision.",
    ),
    (re.compile(r"^(model\.){0,2}multi_modal_projector\."), "projector."),
)
_UNUSED = re.compile(
    r"^vision\.head\.|(^|\.)position_ids$"
    r"|^text\.(layers\.\d+\.self_attn\.)?rotary_emb(_local|_global)?\.(\w+_)?inv_freq$"
    r"|^text\.embed_tokens\.embed_scale$"
)
"""SigLIP's pooling head, which Gemma 3 does not read, and buffers that are computed anew."""

_FOREIGN = (
    (r"(^|\.)lora_|\.base_layer\.|\.(modules_to_save|original_module)\.",
     "PEFT saved it around its layers without merging them; merge with merge_and_unload and save"),
    (r"(^|\.)_orig_mod\.", "torch.compile renamed it; save the model that was compiled"),
    (r"(^|\.)_(fsdp_wrapped|checkpoint_wrapped)_module\.|(^|\.)_forward_module\.",
     "the training wrapper renamed it; save the model with save_pretrained"),
    (r"^module\.", "the training wrapper renamed it; save the model inside with save_pretrained"),
    (r"^(model\.)?(embed_tokens|layers|norm)\.",
     "it is of a Gemma3ForCausalLM, without vision tower; put it back into the whole model"),
    (r"\.(qweight|qzeros|g_idx|scales|biases|(weight|input)_scale(_inv)?|weight_packed|absmax|SCB)$",
     "the weights are quantised; export the original ones, --precision quantises them"),
    (r"\.(quant_map|quant_state)\b",
     "the weights are quantised; export the original ones, --precision quantises them"),
)  # fmt: skip
"""Names that no Gemma 3 has, and why a file has them."""


def canonical_name(stored: str) -> str | None:
    """The internal name of a stored tensor; None for one that no Gemma 3 graph reads."""
    for pattern, prefix in _PREFIXES:
        if pattern.match(stored):
            name = pattern.sub(prefix, stored, count=1)
            return None if _UNUSED.search(name) else name
    return None if _UNUSED.search(stored) else stored


def why_foreign(stored: str) -> str | None:
    """How a stored tensor came to a name that no Gemma 3 has, where the name tells; else None."""
    return next((why for pattern, why in _FOREIGN if re.search(pattern, stored)), None)


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
