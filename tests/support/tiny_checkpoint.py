"""A tiny random MedGemma checkpoint, complete as a folder, written by transformers itself."""

import json
import math
from pathlib import Path
from typing import Any

from edge_medgemma.export.checkpoint.synthetic_tokenizer import CHAT_TEMPLATE, tokenizer_json
from edge_medgemma.runtime.manifest import TokenSpec

TINY_TOKENS = TokenSpec(
    bos=2,
    pad=0,
    stop=(1, 106),
    image=762,
    image_begin=760,
    image_end=761,
    thought_begin=100,
    thought_end=101,
)


def build_tiny_checkpoint(folder: Path, *, dtype: str = "float32", seed: int = 0) -> Path:
    """Write a Gemma3ForConditionalGeneration with random weights to `folder` and return it.

    Seven text layers (layer 5 is global), 4 query and 2 key heads of 64 on a hidden size of 128,
    rotary factor 8 on the global layer, window 24, 112-px images of 64 patches and 16 tokens,
    vocabulary 768. transformers leaves norms, biases and the projector at zero; here they are
    random too, or comparing against it would prove nothing.
    """
    import torch
    from transformers import Gemma3ForConditionalGeneration

    torch.manual_seed(seed)
    model = Gemma3ForConditionalGeneration(_config()).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                is_layer_norm_scale = "vision_tower" in name and name.endswith("norm.weight")
                is_layer_norm_scale |= "layer_norm" in name and name.endswith(".weight")
                parameter.normal_(1.0 if is_layer_norm_scale else 0.0, 0.2)
            elif name.endswith("embed_tokens.weight"):
                # Larger, and the tied head would only echo the last token.
                parameter.normal_(0.0, 0.08)
            elif name.endswith("position_embedding.weight"):
                parameter.normal_(0.0, 0.3)
            else:
                is_projection = name.endswith("mm_input_projection_weight")
                fan_in = parameter.shape[0] if is_projection else parameter[0].numel()
                parameter.normal_(0.0, 1.0 / math.sqrt(fan_in))
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(tokenizer_json(TINY_TOKENS))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "image_processor_type": "Gemma3ImageProcessor",
                "processor_class": "Gemma3Processor",
                "image_mean": [0.5, 0.5, 0.5],
                "image_std": [0.5, 0.5, 0.5],
                "image_seq_length": 16,
                "resample": 2,
                "rescale_factor": 1 / 255,
                "size": {"height": 112, "width": 112},
            }
        )
    )
    return folder


def _config() -> Any:
    from transformers import Gemma3Config

    return Gemma3Config(
        text_config={
            "vocab_size": 768,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 7,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "query_pre_attn_scalar": 48,
            "sliding_window": 24,
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 112,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 112,
            "patch_size": 14,
            "vision_use_head": False,
        },
        mm_tokens_per_image=16,
        boi_token_index=TINY_TOKENS.image_begin,
        eoi_token_index=TINY_TOKENS.image_end,
        image_token_index=TINY_TOKENS.image,
        bos_token_id=TINY_TOKENS.bos,
        eos_token_id=list(TINY_TOKENS.stop),
        pad_token_id=TINY_TOKENS.pad,
    )
