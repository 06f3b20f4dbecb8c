import json
from unittest.mock import Mock

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file
from support.checkpoint_files import rewrite_weights

from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.export.checkpoint.tensor_names import canonical_name
from edge_medgemma.runtime.errors import CheckpointError, ResourceError


def test_weights_are_read_as_stored(folder):
    stored = load_file(folder / "model.safetensors")
    tensors = open_checkpoint(str(folder)).tensors
    for name, array in stored.items():
        np.testing.assert_array_equal(tensors[canonical_name(name)].read(), array)
    queries = tensors["text.layers.0.self_attn.q_proj.weight"]
    part = queries.read(slice(None), slice(32, 64))
    np.testing.assert_array_equal(part, queries.read()[:, 32:64])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_weights(folder, dtype):
    rewrite_weights(folder, lambda tensors: {k: v.astype(dtype) for k, v in tensors.items()})
    checkpoint = open_checkpoint(str(folder))
    assert checkpoint.text.embed_scale == float(np.array(96**0.5).astype(dtype))
    assert checkpoint.tensors["text.norm.weight"].read().dtype == np.float32


def drop(name):
    return lambda tensors: {k: v for k, v in tensors.items() if not k.endswith(name)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("layers.6.mlp.up_proj.weight"), "no tensor 'text.layers.6.mlp.up_proj.weight'"),
        (drop("embed_tokens.weight"), "no token embedding"),
        (lambda t: t | {"language_model.model.extra": t["language_model.model.norm.weight"]},
         "a tensor 'language_model.model.extra' that config.json has no place for"),
        (lambda t: t | {"language_model.model.norm.weight": np.ones(3, np.float32)},
         r"norm\.weight' has shape \(3,\), config\.json says \(96,\)"),
        (lambda t: t | {"language_model.model.norm.weight": np.ones(96, np.int8)},
         "stored as I8"),
    ],
)  # fmt: skip
def test_tensors_must_fit_the_config(folder, change, message):
    rewrite_weights(folder, change)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(str(folder))


def test_buffers_and_the_pooling_head_are_not_read_whatever_their_dtype(folder):
    positions = "vision_tower.vision_model.embeddings.position_ids"
    head = "vision_tower.vision_model.head.probe"
    rewrite_weights(folder, lambda t: t | {positions: np.arange(64), head: np.ones(2, np.int8)})
    assert (
        len(open_checkpoint(str(folder)).tensors)
        == len(load_file(folder / "model.safetensors")) - 2
    )


def test_truncated_weights(folder):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    for size in (0, 5, 1000, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(CheckpointError, match=r"'model\.safetensors' is damaged"):
            open_checkpoint(str(folder))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", "no config.json"),
        ("model.safetensors", "neither model.safetensors nor"),
        ("tokenizer.json", "no tokenizer.json"),
        ("chat_template.jinja", "no chat template"),
    ],
)
def test_missing_files_are_named(folder, name, message):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(str(folder))


def test_chat_template_of_the_tokenizer_config(folder):
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    assert open_checkpoint(str(folder)).chat_template == template


def test_no_such_folder():
    with pytest.raises(CheckpointError, match=r"no checkpoint folder at '\./nowhere'"):
        open_checkpoint("./nowhere")


def test_offline_says_where_to_put_a_copy(monkeypatch, tmp_path):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def unreachable(*args, **kwargs):
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(CheckpointError, match=r"hub cannot be reached.*copy the model's folder"):
        open_checkpoint("google/medgemma-1.5-4b-it")


def test_gated_model_names_the_page_to_accept(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError

    def gated(*args, **kwargs):
        raise GatedRepoError("gated", response=Mock(headers={}))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", gated)
    page = "https://huggingface.co/google/medgemma-1.5-4b-it"
    with pytest.raises(CheckpointError, match=f"accept its terms at {page}"):
        open_checkpoint("google/medgemma-1.5-4b-it")


@pytest.mark.parametrize(
    ("raised", "expected", "message"),
    [
        (lambda base: OSError(28, "No space left on device"), ResourceError, "No space left.*HF_HOME"),
        (lambda base: base("407 Proxy Authentication Required"), CheckpointError, "cannot be reached"),
    ],
)  # fmt: skip
def test_a_full_disk_and_a_wrong_proxy_are_told_apart(monkeypatch, raised, expected, message):
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    def failing(*args, **kwargs):
        raise raised(HfHubHTTPError.__bases__[0])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", failing)
    with pytest.raises(expected, match=message):
        open_checkpoint("google/medgemma-1.5-4b-it")
