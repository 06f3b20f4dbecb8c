"""The demo network: transformers' own Gemma 3 vision-language class, made very small."""

from functools import cache

import torch
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from edge_medgemma.export.checkpoint.config import vision_spec
from edge_medgemma.export.demo.vocabulary import TOKENS, VOCABULARY_SIZE
from edge_medgemma.runtime.model_shape import VisionSpec

IMAGE_SIZE = 224
PATCH_SIZE = 14
TOKENS_PER_IMAGE = 16
HIDDEN_SIZE = 128
VISION_HIDDEN_SIZE = 128
TEXT_LAYERS = 7
GLOBAL_LAYER = 5
"""The only one, by the pattern of Gemma 3."""
SLIDING_WINDOW = 64
"""Less than three slices: so small that a question must use the global layer to see a scan."""
MAX_POSITIONS = 4096


def network_config() -> Gemma3Config:
    """The configuration of the demo network."""
    return Gemma3Config(
        text_config={
            "vocab_size": VOCABULARY_SIZE,
            "hidden_size": HIDDEN_SIZE,
            "intermediate_size": 256,
            "num_hidden_layers": TEXT_LAYERS,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "query_pre_attn_scalar": 64,
            "sliding_window": SLIDING_WINDOW,
            "sliding_window_pattern": 6,
            "max_position_embeddings": MAX_POSITIONS,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
        vision_config={
            "hidden_size": VISION_HIDDEN_SIZE,
            "intermediate_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": IMAGE_SIZE,
            "patch_size": PATCH_SIZE,
            "vision_use_head": False,
        },
        mm_tokens_per_image=TOKENS_PER_IMAGE,
        boi_token_index=TOKENS.image_begin,
        eoi_token_index=TOKENS.image_end,
        image_token_index=TOKENS.image,
        bos_token_id=TOKENS.bos,
        eos_token_id=list(TOKENS.stop),
        pad_token_id=TOKENS.pad,
    )


def new_network() -> Gemma3ForConditionalGeneration:
    """An untrained network; the caller seeds torch."""
    network = Gemma3ForConditionalGeneration(network_config())
    with torch.no_grad():  # transformers leaves the projector at zero
        projection = network.model.multi_modal_projector.mm_input_projection_weight
        projection.normal_(0.0, VISION_HIDDEN_SIZE**-0.5)
    return network


@cache
def vision_of_network() -> VisionSpec:
    """The shape of the vision tower and how its images are normalised."""
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    return vision_spec(network_config().to_dict(), {"size": size})
