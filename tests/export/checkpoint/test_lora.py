"""Adapters that PEFT saves are merged to the weights that PEFT merges them to, or refused by name."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.checkpoint_files import rewrite_json

from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.export.checkpoint.tensor_names import HEAD, canonical_name
from edge_medgemma.runtime.errors import CheckpointError

TARGETS = r".*(language_model\.layers\.[05]\..*_proj|vision_tower\..*(q_proj|out_proj|fc2))"
PATTERNS = {
    "rank_pattern": {"layers.5.mlp.down_proj": 8, r"layers\.\d+\.mlp\..*": 2},
    "alpha_pattern": {"layers.0.self_attn.q_proj": 3, "v_proj": 7.5},
}
VARIANTS = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "patterns": PATTERNS,
    "patterns-rslora": PATTERNS | {"use_rslora": True, "init_lora_weights": "gaussian"},
    "drawn": {"init_lora_weights": False},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "some-layers": {"target_modules": ["q_proj", "up_proj"], "layers_to_transform": [1, 3],
                    "exclude_modules": r".*vision_tower.*"},
}  # fmt: skip
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def save_adapter(folder, model, options):
    """Save an adapter of random pairs with PEFT; what PEFT merges it to."""
    import peft
    import torch

    torch.manual_seed(0)
    defaults = {"r": 4, "lora_alpha": 10, "target_modules": TARGETS}
    model = peft.get_peft_model(model, peft.LoraConfig(**(defaults | options)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    model.save_pretrained(folder)
    merged = model.merge_and_unload().state_dict()
    return {name: tensor.numpy() for name, tensor in merged.items()}


@pytest.fixture(scope="module", params=VARIANTS)
def adapted(request, tiny_checkpoint, tmp_path_factory):
    """Folder of an adapter of the whole model, and the weights PEFT merges it to."""
    from transformers import Gemma3ForConditionalGeneration

    model = Gemma3ForConditionalGeneration.from_pretrained(tiny_checkpoint)
    folder = tmp_path_factory.mktemp("adapter")
    return folder, save_adapter(folder, model, VARIANTS[request.param])


@pytest.fixture(scope="module")
def plain(tiny_checkpoint, tmp_path_factory):
    """Folder of the adapter with PEFT's default options."""
    from transformers import Gemma3ForConditionalGeneration

    folder = tmp_path_factory.mktemp("plain")
    save_adapter(folder, Gemma3ForConditionalGeneration.from_pretrained(tiny_checkpoint), {})
    return folder


@pytest.fixture
def adapter(plain, tmp_path):
    """A copy of it that a test may damage."""
    return shutil.copytree(plain, tmp_path / "adapter")


def rename(folder, change):
    """Replace the keys of the weights."""
    tensors = load_file(folder / WEIGHTS)
    save_file({change(key): array for key, array in tensors.items()}, folder / WEIGHTS)


def refused(tiny_checkpoint, adapter, message):
    with pytest.raises(CheckpointError, match=message) as error:
        open_checkpoint(str(tiny_checkpoint), adapter=adapter)
    assert "\n" not in str(error.value)


def require_equal(checkpoint, merged, tiny_checkpoint):
    """The merged weights are PEFT's; how many of them the adapter changes."""
    plain = open_checkpoint(str(tiny_checkpoint)).tensors
    changed, difference = 0, 0.0
    for stored, expected in merged.items():
        name = canonical_name(stored)
        if name == HEAD:
            continue
        found = checkpoint.tensors[name].read()
        difference = max(difference, float(np.abs(found - expected).max()))
        changed += not np.array_equal(found, plain[name].read())
    assert difference < 1e-6, f"largest difference from PEFT's weights: {difference:g}"
    return changed


def test_merged_weights_equal_peft(adapted, tiny_checkpoint):
    folder, merged = adapted
    checkpoint = open_checkpoint(str(tiny_checkpoint), adapter=folder)
    pairs = len(load_file(folder / WEIGHTS)) // 2
    assert require_equal(checkpoint, merged, tiny_checkpoint) == pairs >= 4
    assert checkpoint.adapter_sha256 is not None


def test_an_adapter_of_the_text_class_goes_into_the_language_model(tiny_checkpoint, tmp_path):
    """PEFT loads it into Gemma3ForCausalLM alone, which is the language model here."""
    from transformers import Gemma3ForCausalLM, Gemma3ForConditionalGeneration

    whole = Gemma3ForConditionalGeneration.from_pretrained(tiny_checkpoint)
    text = Gemma3ForCausalLM(whole.config.text_config)
    text.model.load_state_dict(whole.model.language_model.state_dict())
    targets = {"target_modules": r"model\.layers\.[05]\..*_proj"} | PATTERNS
    merged = save_adapter(tmp_path, text, targets)
    assert all(
        key.startswith("base_model.model.model.layers") for key in load_file(tmp_path / WEIGHTS)
    )
    names = {name.replace("model.", "model.language_model.", 1): w for name, w in merged.items()}
    checkpoint = open_checkpoint(str(tiny_checkpoint), adapter=tmp_path)
    assert require_equal(checkpoint, names, tiny_checkpoint) == 14


@pytest.mark.parametrize(
    "change",
    [
        lambda key: key.replace(".weight", ".default.weight"),
        lambda key: key.removeprefix("base_model.model."),
        lambda key: key.replace("model.language_model.", "language_model.model.")
        .replace("model.vision_tower.", "vision_tower.vision_model."),
    ],
    ids=["default", "no-prefix", "transformers-4.50"],
)  # fmt: skip
def test_keys_that_peft_also_reads(adapter, plain, tiny_checkpoint, change):
    rename(adapter, change)
    name = "text.layers.5.mlp.down_proj.weight"
    tensors, expected = (
        open_checkpoint(str(tiny_checkpoint), adapter=folder).tensors[name].read()
        for folder in (adapter, plain)
    )
    np.testing.assert_array_equal(tensors, expected)


def test_a_slab_equals_the_whole(plain, tiny_checkpoint):
    tensor = open_checkpoint(str(tiny_checkpoint), adapter=plain).tensors[
        "text.layers.5.mlp.down_proj.weight"
    ]
    part = tensor.read(slice(None), slice(32, 64))
    np.testing.assert_allclose(part, tensor.read()[:, 32:64], atol=1e-6)


USED = {
    "use_dora": True,
    "lora_bias": True,
    "fan_in_fan_out": True,
    "modules_to_save": ["embed_tokens"],
    "trainable_token_indices": [1],
    "target_parameters": ["mlp"],
    "layer_replication": [[0, 2]],
    "megatron_config": {"a": 1},
    "loftq_config": {"loftq_bits": 4},
    "corda_config": {"a": 1},
    "lora_ga_config": {"a": 1},
    "alora_invocation_tokens": [1],
    "use_qalora": True,
    "use_bdlora": {"nblocks": 2},
    "arrow_config": {"top_k": 3},
    "kasa_config": {"beta": 1e-4},
    "velora_config": {"a": 1},
    "monteclora_config": {"a": 1},
    "an_option_of_later_years": 1,
}


@pytest.mark.parametrize("option", USED)
def test_options_that_are_not_merged_are_named(adapter, tiny_checkpoint, option):
    rewrite_json(adapter / CONFIG, {option: USED[option]})
    refused(tiny_checkpoint, adapter, f"the adapter uses {option}, which is not merged here")


def test_every_option_of_the_installed_peft_is_known_at_its_default(adapter, tiny_checkpoint):
    """And those of no effect are no more than listed, so that a new one of PEFT is looked at."""
    import peft

    from edge_medgemma.export.checkpoint import adapter_config

    options = json.loads((adapter / CONFIG).read_text())
    assert options.keys() >= peft.LoraConfig().to_dict().keys() - {"runtime_config"}
    rest = options.keys() - adapter_config._READ - adapter_config._WITHOUT_EFFECT
    assert rest == USED.keys() - {"an_option_of_later_years"}
    open_checkpoint(str(tiny_checkpoint), adapter=adapter)


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_16", "olora", "loftq", "corda", "lora_ga",
                                   "mica", "Gaussian", 1, ["eva"]])  # fmt: skip
def test_initialisations_that_change_the_base_are_refused(adapter, tiny_checkpoint, start):
    rewrite_json(adapter / CONFIG, {"init_lora_weights": start})
    refused(tiny_checkpoint, adapter, r"initialised with .* \(init_lora_weights\)")


def test_eva_is_an_initialisation_like_the_default(adapter, tiny_checkpoint):
    rewrite_json(adapter / CONFIG, {"init_lora_weights": "eva", "eva_config": {"rho": 2.0}})
    open_checkpoint(str(tiny_checkpoint), adapter=adapter)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "type 'IA3'; only LORA"),
        ({"peft_type": None}, "type None; only LORA"),
        ({"bias": "all"}, "trains biases"),
        ({"r": 8}, "has rank 4, adapter_config.json says 8"),
        ({"rank_pattern": {"layers.0.self_attn.q_proj": 3}}, "rank 4, .* says 3"),
        ({"rank_pattern": {"[": 3}}, "rank_pattern .* a regular expression"),
        ({"alpha_pattern": {r"model\.language_model\.layers\.0\.mlp\.up_proj": 5},
          "target_modules": ["q_proj"]}, "which its target_modules leave out"),
        ({"exclude_modules": ["up_proj"]}, "which its target_modules leave out"),
        ({"layers_to_transform": [7], "target_modules": ["q_proj"]}, "leave out"),
        ({"layers_pattern": "blocks", "layers_to_transform": 0}, "layers_pattern"),
    ],
)  # fmt: skip
def test_other_adapters_are_refused(adapter, tiny_checkpoint, change, message):
    rewrite_json(adapter / CONFIG, change)
    refused(tiny_checkpoint, adapter, message)


def test_an_alpha_that_only_one_spelling_has_is_refused(adapter, tiny_checkpoint):
    rename(adapter, lambda key: key.replace("model.language_model.", "language_model.model."))
    new = {r"model\.language_model\.layers\.0\.mlp\.up_proj": 5}
    rewrite_json(adapter / CONFIG, {"alpha_pattern": new})
    refused(tiny_checkpoint, adapter, "alpha_pattern of adapter_config.json fits")


WRONG = (None, "x", "", -1, 0, 0.5, True, float("nan"), [], [1], {}, {"a": None})


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_wrong_value_is_refused_or_means_what_peft_takes_it_for(adapter, tiny_checkpoint, wrong):
    """For every option: refused in one line, or merged to weights that do not depend on it."""
    name = "text.layers.0.self_attn.q_proj.weight"
    expected = open_checkpoint(str(tiny_checkpoint), adapter=adapter).tensors[name].read()
    original = (adapter / CONFIG).read_text()
    for option in json.loads(original):
        rewrite_json(adapter / CONFIG, {option: wrong})
        try:
            checkpoint = open_checkpoint(str(tiny_checkpoint), adapter=adapter)
        except CheckpointError as error:
            assert "\n" not in str(error), option
        else:
            if option not in ("use_rslora", "lora_alpha"):
                np.testing.assert_array_equal(checkpoint.tensors[name].read(), expected, option)
        (adapter / CONFIG).write_text(original)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda key, value: {key.replace("layers.0", "layers.9"): value}, "checkpoint lacks"),
        (lambda key, value: {key.replace("lora_A", "lora_magnitude_vector"): value}, "no part"),
        (lambda key, value: {key.replace("lora_A.weight", "lora_embedding_A"): value}, "no part"),
        (lambda key, value: {key.replace(".weight", ".med.weight"): value}, "carries the name 'med'"),
        (lambda key, value: {key: value[..., :3].copy()}, "belongs to another model"),
        (lambda key, value: {} if "lora_B" in key else {key: value}, "only half of the pair"),
        (lambda key, value: {}, "changes nothing"),
        (lambda key, value: {key: value.astype(np.int8)}, "stored as I8"),
        (lambda key, value: {key: value * np.nan}, "not finite"),
        (lambda key, value: {key: value, key.replace(".weight", ".default.weight"): value}, "twice"),
        (lambda key, value: {key: value, key.replace("model.language_", "language_").replace("model.layers", "model.model.layers"): value}, "twice"),
        (lambda key, value: {key.replace("layers.0.mlp.up_proj", "embed_tokens"): value}, "both embedding and head"),
    ],
)  # fmt: skip
def test_adapters_of_other_models_are_refused(adapter, tiny_checkpoint, change, message):
    tensors = load_file(adapter / WEIGHTS)
    changed = {k: v for item in tensors.items() for k, v in change(*item).items()}
    save_file(changed, adapter / WEIGHTS)
    refused(tiny_checkpoint, adapter, message)


def test_adapter_folders_without_weights(adapter, tiny_checkpoint, tmp_path):
    refused(tiny_checkpoint, tmp_path / "nowhere", "no adapter folder")
    (adapter / WEIGHTS).rename(adapter / "adapter_model.bin")
    refused(tiny_checkpoint, adapter, "only the pickled adapter_model.bin")
    (adapter / "adapter_model.bin").unlink()
    refused(tiny_checkpoint, adapter, "has no adapter_model.safetensors")
    (adapter / CONFIG).unlink()
    refused(tiny_checkpoint, adapter, "has no adapter_config.json")
