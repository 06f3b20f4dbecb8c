import ml_dtypes
import numpy as np
import pytest

from edge_medgemma.export.checkpoint.config import text_spec, vision_spec
from edge_medgemma.runtime.errors import CheckpointError

FLOAT32 = np.dtype(np.float32)
OLD = {
    "model_type": "gemma3",
    "eos_token_id": [1, 106],
    "mm_tokens_per_image": 256,
    "torch_dtype": "bfloat16",
    "text_config": {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
    "vision_config": {
        "hidden_size": 1152,
        "image_size": 896,
        "intermediate_size": 4304,
        "model_type": "siglip_vision_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 27,
        "patch_size": 14,
        "vision_use_head": False,
    },
}
"""config.json of google/gemma-3-4b-it, whose hub file leaves the rest to the class."""


def changed(**text):
    return {**OLD, "text_config": {**OLD["text_config"], **text}}


def test_the_published_4b_config_in_its_minimal_spelling():
    spec = text_spec(OLD, np.dtype(ml_dtypes.bfloat16))
    assert (spec.heads, spec.kv_heads, spec.head_dim, spec.vocabulary) == (8, 4, 256, 262_208)
    assert [i for i, is_global in enumerate(spec.layer_is_global) if is_global] == [
        5,
        11,
        17,
        23,
        29,
    ]
    assert (spec.rope_theta_global, spec.rope_factor_global) == (1e6, 8.0)
    assert spec.rope_theta_local == 1e4
    assert (spec.query_scale, spec.embed_scale) == (1 / 16, 50.5)


def test_new_spelling_means_the_same():
    new = changed(
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
        layer_types=["sliding_attention" if (i + 1) % 6 else "full_attention" for i in range(34)],
        dtype="bfloat16",
    )
    del new["text_config"]["rope_scaling"]
    assert text_spec(new, FLOAT32) == text_spec(OLD, FLOAT32)


def test_old_rope_fields_and_pattern_are_read():
    spec = text_spec(
        changed(rope_theta=5e5, rope_local_base_freq=2e4, sliding_window_pattern=3), FLOAT32
    )
    assert (spec.rope_theta_global, spec.rope_theta_local) == (5e5, 2e4)
    assert spec.layer_is_global[:6] == (False, False, True, False, False, True)


def test_embedding_scale_follows_the_stored_dtype():
    assert text_spec(OLD, np.dtype(np.float16)).embed_scale == 50.59375
    assert text_spec(OLD, FLOAT32).embed_scale == pytest.approx(2560**0.5, abs=1e-5)


def test_equal_to_transformers_own_reading():
    transformers = pytest.importorskip("transformers")
    expected = transformers.Gemma3Config(**OLD).text_config
    spec = text_spec(OLD, FLOAT32)
    assert spec.layers == expected.num_hidden_layers
    assert spec.sliding_window == expected.sliding_window
    assert spec.layer_is_global == tuple(k == "full_attention" for k in expected.layer_types)
    rope = expected.rope_parameters
    assert spec.rope_factor_global == rope["full_attention"]["factor"]
    assert spec.rope_theta_global == rope["full_attention"]["rope_theta"]
    assert spec.rope_theta_local == rope["sliding_attention"]["rope_theta"]
    empty = {"model_type": "gemma3", "mm_tokens_per_image": 49}
    defaults = transformers.Gemma3Config()
    spec, vision = text_spec(empty, FLOAT32), vision_spec(empty, {})
    assert (spec.layers, spec.hidden_size) == (26, 2304)
    assert spec.intermediate_size == defaults.text_config.intermediate_size
    assert spec.rope_factor_global == 1.0
    assert vision.hidden_size == defaults.vision_config.hidden_size
    assert vision.patch_size == defaults.vision_config.patch_size


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "gemma2"}, "model_type 'gemma2'.*expected 'gemma3'"),
        ({"model_type": "gemma3_text"}, "no vision tower"),
        (changed(final_logit_softcapping=30.0), "final_logit_softcapping 30.0"),
        (changed(attn_logit_softcapping=50.0), "attn_logit_softcapping 50.0"),
        (changed(hidden_activation="silu"), "hidden_activation 'silu'"),
        (changed(attention_bias=True), "attention_bias True"),
        (changed(rope_scaling={"rope_type": "yarn", "factor": 2}), "rope_type 'yarn'"),
        (changed(layer_types=["full_attention"]), "layer_types do not fit"),
        (changed(num_key_value_heads=3), "8 heads over 3 key heads"),
    ],
)
def test_refuses_what_the_graph_does_not_have(config, message):
    with pytest.raises(CheckpointError, match=message):
        text_spec(config, FLOAT32)


def test_image_sizes_must_agree():
    assert vision_spec(OLD, {"size": {"height": 896, "width": 896}}).image_size == 896
    with pytest.raises(CheckpointError, match=r"\[224, 896\]"):
        vision_spec(OLD, {"size": {"height": 224, "width": 224}})
    with pytest.raises(CheckpointError, match="pools 64 x 64 patches to 200 tokens"):
        vision_spec({**OLD, "mm_tokens_per_image": 200}, {"size": 896})


@pytest.mark.parametrize(
    ("method", "named"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "awq"}, "awq"),
        ({"quant_method": "compressed-tensors"}, "compressed-tensors"),
        ({"quant_method": "fp8"}, "fp8"),
        ({"load_in_8bit": True}, "unnamed"),
        ("x", "unnamed"),
    ],
)
@pytest.mark.parametrize("place", [None, "text_config", "vision_config"])
def test_quantised_checkpoints_are_refused_by_name(method, named, place):
    key = {"quantization_config": method}
    config = OLD | key if place is None else OLD | {place: OLD[place] | key}
    with pytest.raises(CheckpointError, match=rf"quantised \(quantization_config, {named}\)"):
        text_spec(config, FLOAT32)


def test_mlx_is_a_quantisation_and_a_dequantised_gguf_is_none():
    with pytest.raises(CheckpointError, match=r"quantised \(quantization, MLX\)"):
        text_spec(OLD | {"quantization": {"group_size": 64, "bits": 4}}, FLOAT32)
    gguf = {"quant_method": "gguf", "dequantize": False, "gguf_file": "gemma-q4_k_m.gguf"}
    for harmless in (gguf, {}, None):
        assert text_spec(OLD | {"quantization_config": harmless}, FLOAT32).layers == 34


@pytest.mark.parametrize("model_type", [None, "paligemma", "llama", 3, ["gemma3"], {"gemma3": 1}])
def test_other_models_are_refused(model_type):
    with pytest.raises(CheckpointError, match="says model_type"):
        text_spec(OLD | {"model_type": model_type}, FLOAT32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 8.0}}, "transformers 4 scales by it"),
        ({"rope_scaling": {"rope_type": "linear"}}, "without its factor"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 8.0}}, "unknown field `rope_type`"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
        ({"per_layer_config": {"0": {"sliding_window": 3}}}, "per_layer_config"),
        ({"_sliding_window_pattern": 3}, "_sliding_window_pattern 3 without layer_types"),
        ({"num_attention_heads": 7}, "do not divide; transformers refuses it too"),
        ({"hidden_size": "2560"}, "got `str` - at `text_config.hidden_size`"),
        ({"hidden_size": 2560.0}, "got `float` - at `text_config.hidden_size`"),
        ({"rms_norm_eps": 1}, r"text_config\.rms_norm_eps is 1, expected a float"),
    ],
)
def test_what_transformers_refuses_or_reads_otherwise(change, message):
    with pytest.raises(CheckpointError, match=message):
        text_spec(changed(**change), FLOAT32)
