"""Names are held to what transformers itself maps to a weight."""

import itertools

import pytest
from support.tiny_checkpoint import CONFIG

from edge_medgemma.export.checkpoint.tensor_names import canonical_name, why_foreign

LAYER = "layers.0.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("stored", "name"),
    [
        ("language_model.model.embed_tokens.weight", "text.embed_tokens.weight"),
        ("model.language_model.embed_tokens.weight", "text.embed_tokens.weight"),
        ("language_model.model.layers.3.mlp.up_proj.weight", "text.layers.3.mlp.up_proj.weight"),
        ("model.language_model.norm.weight", "text.norm.weight"),
        ("language_model.lm_head.weight", "head.weight"),
        ("lm_head.weight", "head.weight"),
        ("vision_tower.vision_model.post_layernorm.bias", "vision.post_layernorm.bias"),
        ("model.vision_tower.post_layernorm.bias", "vision.post_layernorm.bias"),
        ("vision_tower.vision_model.head.probe", None),
        ("vision_tower.vision_model.embeddings.position_ids", None),
        ("language_model.model.layers.0.self_attn.rotary_emb.inv_freq", None),
        ("model.language_model.rotary_emb_local.inv_freq", None),
        ("model.language_model.rotary_emb.sliding_attention_inv_freq", None),
        ("model.language_model.embed_tokens.embed_scale", None),
    ],
)
def test_every_spelling_of_a_name(stored, name):
    assert canonical_name(stored) == name


@pytest.fixture(scope="module")
def loads():
    """Name in a file -> the weight that transformers loads it as, None where it leaves it out."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    model = Gemma3ForConditionalGeneration(Gemma3Config(**CONFIG))
    weights = model.state_dict()
    renamings = get_model_conversion_mapping(model)
    assert all(isinstance(one, WeightRenaming) for one in renamings)

    def loaded(stored):
        prefix = model.base_model_prefix
        name, _ = rename_source_key(stored, renamings, [], prefix, weights)
        return name if name in weights else None

    return loaded


def test_a_spelling_is_read_exactly_where_transformers_loads_it(loads):
    ours = {
        loads(one): canonical_name(one)
        for one in (
            "lm_head.weight",
            f"model.language_model.{LAYER}",
            "model.vision_tower.post_layernorm.bias",
            "model.multi_modal_projector.mm_soft_emb_norm.weight",
        )
    }
    parts = ("", "model.", "language_model.", "vision_tower.", "vision_model.", "module.",
             "multi_modal_projector.", "_orig_mod.", "base_model.")  # fmt: skip
    ends = ("lm_head.weight", LAYER, "post_layernorm.bias", "mm_soft_emb_norm.weight")
    loaded = 0
    for *prefix, end in itertools.product(parts, parts, parts, ends):
        stored = "".join(prefix) + end
        name = loads(stored)
        found = canonical_name(stored) if why_foreign(stored) is None else None
        assert (found if found in ours.values() else None) == ours.get(name), stored
        loaded += name is not None
    assert loaded > 20


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (f"language_model.model.{LAYER.replace('.weight', '.base_layer.weight')}", "merge_and_unload"),
        ("language_model.model.layers.0.mlp.up_proj.lora_A.default.weight", "merge_and_unload"),
        ("model.language_model.embed_tokens.modules_to_save.default.weight", "merge_and_unload"),
        (f"_orig_mod.model.language_model.{LAYER}", "torch.compile"),
        (f"module.model.language_model.{LAYER}", "training wrapper"),
        (f"_fsdp_wrapped_module.model.language_model.{LAYER}", "training wrapper"),
        (f"model.{LAYER}", "Gemma3ForCausalLM"),
        ("language_model.model.layers.0.mlp.up_proj.qweight", "quantised"),
        ("language_model.model.layers.0.mlp.up_proj.weight.absmax", "quantised"),
        ("language_model.model.layers.0.mlp.up_proj.weight_scale_inv", "quantised"),
    ],
)  # fmt: skip
def test_foreign_names_say_where_they_come_from(stored, reason):
    assert reason in why_foreign(stored)
