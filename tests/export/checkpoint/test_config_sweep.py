"""Every field of config.json with every kind of wrong value: refused, or read as transformers reads it."""

import copy
import json
import math
from typing import Any

import numpy as np
import pytest
from support.tiny_checkpoint import CONFIG, PROCESSOR

from edge_medgemma.export.checkpoint import config_fields
from edge_medgemma.export.checkpoint.config import text_spec, vision_spec
from edge_medgemma.runtime.errors import CheckpointError
from edge_medgemma.runtime.model_shape import TextSpec, VisionSpec

WRONG = (None, "x", "", "2", -1, 0, 1, 2, 3, 0.5, 2.0, 10**30, True, False, [], [1], ["x"], [2, 2], {},
         {"a": 1}, {"factor": 2.0}, {"rope_type": "linear"}, {"rope_type": "linear", "factor": 4.0},
         {"type": "linear", "factor": 4.0}, {"rope_theta": 1e3}, {"rope_theta": None},
         math.inf, math.nan)  # fmt: skip
MINIMAL = {
    "model_type": "gemma3",
    "text_config": {"hidden_size": 96, "num_attention_heads": 4, "rope_theta": 5e5},
    "vision_config": {},
    "mm_tokens_per_image": 49,
}
"""In the spelling of hub files, which leave fields out."""


def fields_of(kind):
    return [*kind.__struct_fields__, "quantization_config", "per_layer_config",
            "partial_rotary_factor", "transformers_weights", "_sliding_window_pattern", "unknown"]  # fmt: skip


PLACES = [
    *[(name,) for name in fields_of(config_fields.ConfigFields)],
    *[("text_config", name) for name in fields_of(config_fields.TextFields)],
    *[("vision_config", name) for name in fields_of(config_fields.VisionFields)],
    *[("text_config", "rope_parameters", kind) for kind in config_fields.RopeParameters.__struct_fields__],
    *[("text_config", "rope_parameters", kind, name) for kind in config_fields.RopeParameters.__struct_fields__
      for name in fields_of(config_fields.RopeFields)],
    ("text_config", "layer_types", 0),
]  # fmt: skip


def specs_of(config: Any) -> tuple[TextSpec, VisionSpec]:
    """What transformers' own config object says, as the specs of an engine."""
    text, vision = config.text_config, config.vision_config
    rope = text.rope_parameters
    full, sliding = rope["full_attention"], rope["sliding_attention"]
    assert sliding["rope_type"] == "default"
    assert {full.get("partial_rotary_factor", 1.0), sliding.get("partial_rotary_factor", 1.0)} == {
        1.0
    }
    heads = TextSpec(
        layers=text.num_hidden_layers,
        hidden_size=text.hidden_size,
        intermediate_size=text.intermediate_size,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head_dim=text.head_dim,
        vocabulary=text.vocab_size,
        sliding_window=text.sliding_window,
        layer_is_global=tuple(kind == "full_attention" for kind in text.layer_types),
        rms_norm_eps=text.rms_norm_eps,
        query_scale=text.query_pre_attn_scalar**-0.5,
        rope_theta_global=full["rope_theta"],
        rope_factor_global=full["factor"] if full["rope_type"] == "linear" else 1.0,
        rope_theta_local=sliding["rope_theta"],
        embed_scale=float(np.float32(text.hidden_size**0.5)),
        max_positions=text.max_position_embeddings,
    )
    image, patch = (
        one if isinstance(one, int) else one[0] for one in (vision.image_size, vision.patch_size)
    )
    return heads, VisionSpec(
        layers=vision.num_hidden_layers,
        hidden_size=vision.hidden_size,
        intermediate_size=vision.intermediate_size,
        heads=vision.num_attention_heads,
        image_size=image,
        patch_size=patch,
        tokens_per_image=config.mm_tokens_per_image,
        layer_norm_eps=vision.layer_norm_eps,
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.5, 0.5, 0.5),
    )  # fmt: skip


def processor_for(config):
    vision = config["vision_config"] or {} if isinstance(config.get("vision_config"), dict) else {}
    side = vision.get("image_size", 224)
    is_size = isinstance(side, int) and not isinstance(side, bool)
    return PROCESSOR | {"size": {"height": side, "width": side} if is_size else PROCESSOR["size"]}


@pytest.mark.parametrize("start", [CONFIG, MINIMAL], ids=["written", "minimal"])
@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)))
def test_a_wrong_value_is_refused_or_read_as_transformers_reads_it(start, place):
    from transformers import Gemma3Config

    *path, key = place
    for value in WRONG:
        config = copy.deepcopy(start)
        holder: Any = config
        for step in path:
            holder = holder[step] if isinstance(holder, list) else holder.setdefault(step, {})
        if isinstance(key, int) and not (isinstance(holder, list) and holder):
            return
        holder[key] = value
        config = json.loads(json.dumps(config))
        try:
            found = (
                text_spec(config, np.dtype(np.float32)),
                vision_spec(config, processor_for(config)),
            )
        except CheckpointError as error:
            assert "\n" not in str(error)
            continue
        expected = specs_of(Gemma3Config.from_dict(copy.deepcopy(config)))
        assert found == expected, (place, value)
