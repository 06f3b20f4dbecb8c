"""Damaged files of a checkpoint end in one line and leave nothing behind, whichever file it is."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.checkpoint_files import rewrite_json, rewrite_weights, write_shards

from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.runtime.errors import CheckpointError

INDEX = "model.safetensors.index.json"
NOT_AN_OBJECT = (b"", b"{", b"[]", b"null", b"3", b'"x"', b"\xff\xfe\x00", b"[" * 100_000,
                 b'{"a": ' * 100_000, b"1" * 10_000)  # fmt: skip
WRONG = (None, "x", "", -1, 0.5, True, [], [1], {}, {"a": 1}, {"a": None}, {"a": "b.safetensors"})


@pytest.fixture
def shards(folder):
    """The copy with its weights in two shards."""
    write_shards(folder, load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").unlink()
    return folder


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json",
                                  "generation_config.json", "preprocessor_config.json", INDEX])  # fmt: skip
def test_files_that_are_no_json_object(shards, name):
    for content in NOT_AN_OBJECT:
        (shards / name).write_bytes(content)
        with pytest.raises(CheckpointError) as error:
            open_checkpoint(str(shards))
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 500


@pytest.mark.parametrize("key", ["weight_map", "metadata", "unknown"])
def test_index_with_a_wrong_value(shards, key):
    """Refused, or the same model: nothing but the weight_map is read."""
    expected = open_checkpoint(str(shards)).tensors
    original = (shards / INDEX).read_text()
    for wrong in WRONG:
        rewrite_json(shards / INDEX, {key: wrong})
        try:
            found = open_checkpoint(str(shards)).tensors
        except CheckpointError as error:
            assert key == "weight_map"
            assert "\n" not in str(error)
        else:
            assert key != "weight_map"
            assert found == expected
        (shards / INDEX).write_text(original)


def test_index_with_a_wrong_shard(shards):
    original = json.loads((shards / INDEX).read_text())["weight_map"]
    for wrong in (*WRONG, "nowhere.safetensors", "/etc/passwd", "../copy/model.safetensors"):
        name = min(original)
        rewrite_json(shards / INDEX, {"weight_map": original | {name: wrong}})
        with pytest.raises(CheckpointError) as error:
            open_checkpoint(str(shards))
        assert "\n" not in str(error.value)


def test_a_vocabulary_of_any_size_is_that_of_transformers(folder):
    """Rows added for tokens of a fine-tuning, then config.json left behind."""
    from transformers import Gemma3ForConditionalGeneration

    table = "language_model.model.embed_tokens.weight"
    rewrite_weights(folder, lambda t: t | {table: np.concatenate([t[table], t[table][:5]])})
    with pytest.raises(CheckpointError, match=rf"'{table}' has shape \(773, 96\), .* \(768, 96\)"):
        open_checkpoint(str(folder))
    with pytest.raises(RuntimeError, match="mismatch"):
        Gemma3ForConditionalGeneration.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["vocab_size"] = 773
    rewrite_json(folder / "config.json", config)
    assert open_checkpoint(str(folder)).text.vocabulary == 773
    loaded = Gemma3ForConditionalGeneration.from_pretrained(folder)
    assert loaded.get_input_embeddings().weight.shape == (773, 96)


def damage_config(folder):
    rewrite_json(folder / "config.json", {"text_config": []})


def damage_weights(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-1])


def late_damage(folder):
    """Found only while the engine is being written."""
    name = "language_model.model.layers.6.mlp.down_proj.weight"
    rewrite_weights(folder, lambda tensors: tensors | {name: tensors[name] * np.float32(np.nan)})


def adapter_only(folder):
    for path in folder.iterdir():
        path.unlink()
    (folder / "adapter_config.json").write_text("{}")


def gguf_only(folder):
    (folder / "model.safetensors").rename(folder / "model-Q4_K_M.gguf")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_config, "text_config"),
        (damage_weights, "is damaged"),
        (late_damage, "not finite"),
        (adapter_only, "--lora"),
        (gguf_only, "GGUF"),
        (shutil.rmtree, "no checkpoint folder"),
    ],
)
def test_the_command_prints_one_line_and_writes_nothing(folder, tmp_path, damage, message):
    damage(folder)
    engine = tmp_path / "engine"
    result = subprocess.run(
        [sys.executable, "-m", "edge_medgemma", "export", str(folder), "-o", str(engine), "--precision", "fp32"],
        capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "1000"},
    )  # fmt: skip
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.strip().count("\n") == 0
    assert not result.stdout
    assert {path.name for path in tmp_path.iterdir()} <= {"copy"}
