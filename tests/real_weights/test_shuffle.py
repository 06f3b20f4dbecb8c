"""Channels in another order are the same network; on the tiny checkpoint, so everywhere."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from real_weights.shuffle import Shuffle
from safetensors.numpy import load_file, save_file

SEED = 3


@pytest.fixture(scope="module")
def shuffled(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint, shuffled."""
    folder = tmp_path_factory.mktemp("shuffled") / "tiny"
    shutil.copytree(tiny_checkpoint, folder)
    shuffle = Shuffle(json.loads((folder / "config.json").read_text())["text_config"], SEED)
    weights = load_file(folder / "model.safetensors")
    moved = {name: shuffle.apply(name, weight) for name, weight in weights.items()}
    save_file(moved, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def logits(checkpoint: Path) -> np.ndarray:
    """Of text around an image, by transformers in float32."""
    import torch
    from transformers import Gemma3ForConditionalGeneration

    model = Gemma3ForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
    ids = torch.tensor([[2, 300, 301, 760, *[762] * 16, 761, *range(400, 430)]])
    pixels = torch.from_numpy(np.random.default_rng(0).random((1, 3, 112, 112), np.float32))
    with torch.inference_mode():
        found = model(input_ids=ids, pixel_values=pixels, token_type_ids=(ids == 762).long())
    return found.logits[0].numpy()


def test_the_network_is_the_same(tiny_checkpoint: Path, shuffled: Path) -> None:
    expected, found = logits(tiny_checkpoint), logits(shuffled)
    assert np.abs(expected - found).max() < 1e-4 * np.abs(expected).max()


def test_no_row_of_a_matrix_of_the_decoder_stays_as_it_was(
    tiny_checkpoint: Path, shuffled: Path
) -> None:
    before, after = (load_file(path / "model.safetensors") for path in (tiny_checkpoint, shuffled))
    for name, weight in before.items():
        if name.startswith("language_model.") and weight.ndim == 2:
            assert not (weight == after[name]).all(axis=1).any(), name
