import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.runtime.errors import CheckpointError

TARGETS = r".*(language_model\.layers\.[05]\..*_proj|vision_tower\..*(q_proj|out_proj|fc2))"


@pytest.fixture(scope="module", params=[False, True], ids=["lora", "rslora"])
def adapted(request, tiny_checkpoint, tmp_path_factory):
    """Folder of an adapter saved by PEFT, and the weights PEFT merges it to."""
    import peft
    import torch
    from transformers import Gemma3ForConditionalGeneration

    torch.manual_seed(0)
    model = Gemma3ForConditionalGeneration.from_pretrained(tiny_checkpoint, dtype=torch.float32)
    config = peft.LoraConfig(
        r=4,
        lora_alpha=10,
        target_modules=TARGETS,
        use_rslora=request.param,
        rank_pattern={"layers.5.mlp.down_proj": 8},
        alpha_pattern={"layers.0.self_attn.q_proj": 3},
    )
    model = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(folder)
    merged = model.merge_and_unload().state_dict()
    return folder, {name: tensor.numpy() for name, tensor in merged.items()}


def test_merged_weights_equal_peft(adapted, tiny_checkpoint):
    from edge_medgemma.export.checkpoint.tensor_names import HEAD, canonical_name

    folder, merged = adapted
    plain = open_checkpoint(str(tiny_checkpoint)).tensors
    checkpoint = open_checkpoint(str(tiny_checkpoint), adapter=folder)
    changed = 0
    for stored, expected in merged.items():
        name = canonical_name(stored)
        if name == HEAD:
            continue
        found = checkpoint.tensors[name].read()
        np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=name)
        changed += not np.array_equal(found, plain[name].read())
    assert changed == 2 * 7 + 2 * 3
    assert checkpoint.adapter_sha256 is not None


def test_a_slab_equals_the_whole(adapted, tiny_checkpoint):
    folder, _ = adapted
    tensor = open_checkpoint(str(tiny_checkpoint), adapter=folder).tensors[
        "text.layers.5.mlp.down_proj.weight"
    ]
    part = tensor.read(slice(None), slice(64, 128))
    np.testing.assert_allclose(part, tensor.read()[:, 64:128], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "type 'IA3'; only LORA"),
        ({"use_dora": True}, "uses use_dora"),
        ({"bias": "all"}, "trains biases"),
    ],
)
def test_other_adapters_are_refused(adapted, tiny_checkpoint, tmp_path, change, message):
    folder = shutil.copytree(adapted[0], tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(str(tiny_checkpoint), adapter=folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda key, value: (key.replace("layers.0", "layers.9"), value), "checkpoint lacks"),
        (lambda key, value: (key.replace("lora_A", "lora_magnitude_vector"), value), "no part"),
        (lambda key, value: (key, value[..., :3].copy()), "belongs to another model"),
    ],
)
def test_adapters_of_other_models_are_refused(adapted, tiny_checkpoint, tmp_path, change, message):
    folder = shutil.copytree(adapted[0], tmp_path / "adapter")
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(dict(change(*item) for item in tensors.items()), folder / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(str(tiny_checkpoint), adapter=folder)
