import json
from pathlib import Path

from comparisons.checkpoint import write_checkpoint
from comparisons.genai_checkpoint import write_readable
from transformers import AutoConfig

from edge_medgemma.export.checkpoint.synthetic import synthetic_checkpoint


def test_the_builder_finds_rotary_settings_and_the_language_model_keeps_its_own(tmp_path: Path):
    checkpoint = write_checkpoint(synthetic_checkpoint("tiny"), tmp_path / "checkpoint")
    readable = write_readable(checkpoint, tmp_path / "readable")
    config, original = (AutoConfig.from_pretrained(folder) for folder in (readable, checkpoint))
    text = json.loads((checkpoint / "config.json").read_text())["text_config"]
    assert config.rope_parameters == text["rope_scaling"] | {"rope_theta": text["rope_theta"]}
    assert config.rope_local_base_freq == text["rope_local_base_freq"]
    assert config.text_config.rope_parameters == original.text_config.rope_parameters
    assert not hasattr(original, "rope_parameters")


def test_weights_are_links_and_writing_again_replaces_the_folder(tmp_path: Path):
    checkpoint = write_checkpoint(synthetic_checkpoint("tiny"), tmp_path / "checkpoint")
    for _ in range(2):
        readable = write_readable(checkpoint, tmp_path / "readable")
    assert {path.name for path in readable.iterdir()} == {
        path.name for path in checkpoint.iterdir()
    }
    assert (readable / "model.safetensors").resolve() == checkpoint / "model.safetensors"
    assert not (readable / "config.json").is_symlink()
