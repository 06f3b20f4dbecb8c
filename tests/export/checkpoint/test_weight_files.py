"""Which files of a folder are read, and what is said of a folder that holds no whole model."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.checkpoint_files import rewrite_weights, write_shards

from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.runtime.errors import CheckpointError

INDEX = "model.safetensors.index.json"
SHARD = "model-00002-of-00002.safetensors"
NORM = "language_model.model.norm.weight"
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 8600158944\n"


@pytest.fixture
def weights(folder):
    return load_file(folder / "model.safetensors")


@pytest.fixture
def shards(folder, weights):
    """The copy with its weights in two shards."""
    write_shards(folder, weights)
    (folder / "model.safetensors").unlink()
    return folder


def norm(folder):
    return open_checkpoint(str(folder)).tensors["text.norm.weight"].read()


def refused(folder, message):
    with pytest.raises(CheckpointError, match=message) as error:
        open_checkpoint(str(folder))
    assert "\n" not in str(error.value)


def test_shards_are_one_checkpoint(shards, weights):
    assert len(open_checkpoint(str(shards)).tensors) == len(weights)


def test_one_file_comes_before_the_shards_as_in_transformers(folder, weights):
    """Shards that make no whole model are left overs; transformers does not look at them."""
    from transformers import Gemma3ForConditionalGeneration

    write_shards(folder, {name: array + 1 for name, array in weights.items()})
    (folder / SHARD).unlink()
    loaded = Gemma3ForConditionalGeneration.from_pretrained(folder)
    expected = loaded.model.language_model.norm.weight.detach().numpy()
    np.testing.assert_array_equal(norm(folder), expected)


def test_the_same_model_twice_is_one(folder, weights):
    write_shards(folder, weights)
    np.testing.assert_array_equal(norm(folder), weights[NORM])


def test_two_models_in_one_folder_are_refused(folder, weights):
    tuned = weights | {NORM: weights[NORM] + np.float32(1e-3)}
    write_shards(folder, tuned)
    refused(folder, r"holds two models.*differ in 'text\.norm\.weight'.*delete")
    (folder / INDEX).unlink()
    np.testing.assert_array_equal(norm(folder), weights[NORM])


def test_weights_under_two_prefixes_are_refused(folder, weights):
    """transformers would take those that sort first, here the base model's."""
    twice = {NORM: weights[NORM], "model.language_model.norm.weight": weights[NORM] + 1}
    rewrite_weights(folder, lambda tensors: tensors | twice)
    refused(folder, rf"stored twice, as '{NORM}' .* as 'model\.language_model\.norm\.weight'")


def test_missing_shard(shards):
    (shards / SHARD).unlink()
    refused(shards, rf"lacks {SHARD} that {INDEX} names; download")
    cache = shards / ".cache" / "huggingface" / "download"
    cache.mkdir(parents=True)
    (cache / "abc.incomplete").touch()
    refused(shards, rf"lacks {SHARD}.*a download is unfinished")


def test_shard_cut_short(shards):
    data = (shards / SHARD).read_bytes()
    (shards / SHARD).write_bytes(data[:-1])
    refused(shards, f"'{SHARD}' is damaged: it ends before")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda shard: {k: v for k, v in shard.items() if k != max(shard)}, "lists .* which lacks it"),
        (lambda shard: shard | {"more": np.zeros(1, np.float32)}, "does not list 'more'"),
    ],
)  # fmt: skip
def test_index_of_another_download(shards, change, message):
    save_file(change(load_file(shards / SHARD)), shards / SHARD)
    refused(shards, message)


@pytest.mark.parametrize(
    "index",
    [{}, {"weight_map": {}}, {"weight_map": []}, {"weight_map": {"a": 1}},
     {"weight_map": {"a": "../a.safetensors"}}, {"weight_map": {"a": "pytorch_model.bin"}}],
)  # fmt: skip
def test_index_that_is_none(shards, index):
    (shards / INDEX).write_text(json.dumps(index))
    refused(shards, INDEX)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_git_lfs_pointers(folder, name):
    (folder / name).write_bytes(LFS_POINTER)
    refused(folder, rf"{name}' is a Git LFS pointer.*git lfs pull")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("medgemma-Q4_K_M.gguf", "has medgemma-Q4_K_M.gguf but no model.safetensors: GGUF"),
        ("pytorch_model.bin", "has pytorch_model.bin .*pickled"),
        ("model.pth", "has model.pth .*pickled"),
        ("model.fp16.safetensors", "has model.fp16.safetensors"),
        ("consolidated.safetensors", "has consolidated.safetensors"),
    ],
)
def test_weights_in_another_form(folder, name, message):
    (folder / "model.safetensors").rename(folder / name)
    refused(folder, message)
    (folder / "config.json").unlink()
    refused(folder, message)


def test_pickled_weights_beside_are_not_looked_at(folder, weights):
    (folder / "pytorch_model.bin").write_bytes(b"no pickle")
    np.testing.assert_array_equal(norm(folder), weights[NORM])


def test_adapter_as_the_checkpoint(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    refused(tmp_path, r"holds a LoRA adapter without the model; give the model, and --lora")


def test_adapter_beside_the_model_is_given_or_moved_away(folder, tmp_path):
    (folder / "adapter_config.json").write_text("{}")
    refused(folder, r"adapter beside the model, which transformers would merge: give --lora")
    other = shutil.copytree(folder, tmp_path / "other")
    with pytest.raises(CheckpointError, match="beside the model"):
        open_checkpoint(str(folder), adapter=other)
    with pytest.raises(CheckpointError, match="type None; only LORA"):
        open_checkpoint(str(folder), adapter=folder)


def test_paths_that_are_no_folder(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "has neither model.safetensors nor")
    refused(folder / "config.json", "is a file; expected the folder")
    refused(tmp_path / ("n" * 300), "no checkpoint folder")
    (folder / "generation_config.json").mkdir()
    refused(folder, "generation_config.json' cannot be read: Is a directory")
