"""Settings of the image processor are computed as transformers computes them, or refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.processor_folder import edit_json, write_json, write_processor_folder
from support.tiny_checkpoint import CONFIG, PROCESSOR

from edge_medgemma.export.checkpoint.config import vision_spec
from edge_medgemma.export.checkpoint.processor import pixel_settings, processor_config
from edge_medgemma.runtime.errors import CheckpointError
from edge_medgemma.runtime.generation.images import to_pixel_values

MEAN, STD = [0.48, 0.4, 0.31], [0.26, 0.3, 0.5]
HONOURED: dict[str, dict[str, object]] = {
    "published": {},
    "size as a number": {"size": 112},
    "size as a list": {"size": [112, 112]},
    **{f"resample {number}": {"resample": number} for number in range(6)},
    "mean and std of channels": {"image_mean": MEAN, "image_std": STD},
    "one mean and std": {"image_mean": 0.3, "image_std": 0.7},
    "whole numbers": {"image_mean": 0, "image_std": 1},
    "not normalised": {"do_normalize": False, "image_mean": None, "image_std": None},
    "not rescaled": {"do_rescale": False, "image_mean": 127.5, "image_std": 127.5},
    "neither": {"do_rescale": False, "do_normalize": False},
    "another factor": {"rescale_factor": 1 / 127.5, "image_mean": 1.0, "image_std": 1.0},
    "grey values kept": {"do_convert_rgb": False},
    "as the hub writes it": {
        "do_convert_rgb": None,
        "do_pan_and_scan": None,
        "pan_and_scan_min_crop_size": None,
        "pan_and_scan_max_num_crops": None,
        "pan_and_scan_min_ratio_to_activate": None,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
    },
    "sizes of crops without crops": {"do_pan_and_scan": False, "pan_and_scan_min_crop_size": 9},
}
SHAPES = [(512, 512), (3000, 2400), (40, 61), (112, 112)]

REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "keeps the aspect": ({"size": {"shortest_edge": 112}}, "size"),
    "longest edge": ({"size": {"longest_edge": 112}}, "size"),
    "both": ({"size": {"height": 112, "width": 112, "shortest_edge": 9}}, "size"),
    "no square": ({"size": {"height": 112, "width": 56}}, "size"),
    "no square list": ({"size": [112, 56]}, "size"),
    "a number of an edge": ({"size": 112, "default_to_square": False}, "size"),
    "at most": ({"size": {"max_height": 112, "max_width": 112}}, "size"),
    "size as a float": ({"size": 112.0}, "size"),
    "size as text": ({"size": "112"}, "size"),
    "size as truth": ({"size": True}, "size"),
    "no size": ({"size": None}, "size"),
    "another size": ({"size": 224}, "image sizes"),
    "not resized": ({"do_resize": False}, "do_resize"),
    "resized maybe": ({"do_resize": None}, "do_resize"),
    "filter 6": ({"resample": 6}, "resample"),
    "filter -1": ({"resample": -1}, "resample"),
    "filter by name": ({"resample": "bicubic"}, "resample 'bicubic'"),
    "filter as truth": ({"resample": True}, "resample"),
    "no filter": ({"resample": None}, "resample"),
    "too few channels": ({"image_mean": [0.5]}, "image_mean"),
    "too many channels": ({"image_std": [0.5] * 4}, "image_std"),
    "no mean": ({"image_mean": None}, "image_mean"),
    "mean as text": ({"image_mean": ["a", "b", "c"]}, "image_mean"),
    "mean not a number": ({"image_mean": float("nan")}, "image_mean"),
    "mean beyond all": ({"image_mean": 1e300}, "image_mean"),
    "std 0": ({"image_std": [0.5, 0.5, 0]}, "image_std"),
    "std below 0": ({"image_std": -0.5}, "image_std"),
    "factor 0": ({"rescale_factor": 0}, "rescale_factor"),
    "no factor": ({"rescale_factor": None}, "rescale_factor"),
    "factor as text": ({"rescale_factor": "1/255"}, "rescale_factor"),
    "rescaled maybe": ({"do_rescale": None}, "do_rescale"),
    "normalised as text": ({"do_normalize": "false"}, "do_normalize 'false'"),
    "pan and scan": ({"do_pan_and_scan": True}, "do_pan_and_scan True.*one whole image"),
    "centre crop": ({"do_center_crop": True, "crop_size": 9}, "do_center_crop"),
    "padded": ({"do_pad": True}, "do_pad"),
    "another class": ({"image_processor_type": "SiglipImageProcessor"}, "image_processor_type"),
    "an old class": (
        {"image_processor_type": None, "feature_extractor_type": "CLIPFeatureExtractor"},
        "feature_extractor_type",
    ),
    "another processor": ({"processor_class": "PaliGemmaProcessor"}, "processor_class"),
    "tokens an image": ({"image_seq_length": 64}, "writes 64 tokens .* the model makes 16"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = write_processor_folder(tmp_path / "checkpoint")
    (folder / "processor_config.json").unlink()
    return folder


@pytest.mark.parametrize("name", HONOURED)
def test_pixels_are_those_of_the_checkpoints_own_processor(folder: Path, name: str) -> None:
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    edit_json(folder / "preprocessor_config.json", **HONOURED[name])
    processor = Gemma3ImageProcessorPil.from_pretrained(folder)
    vision = vision_spec(CONFIG, processor_config(folder))
    generator = np.random.default_rng(0)
    for shape in SHAPES:
        pixels = generator.integers(0, 256, (1, *shape, 3), np.uint8)
        (expected,) = processor(images=list(pixels)).pixel_values
        ours = to_pixel_values(pixels, vision)[0]
        difference = np.abs(ours - np.asarray(expected, np.float32)).max()
        assert difference == 0, f"{shape}: off by up to {difference:g}"


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_runtime_does_not_compute_is_refused_by_name(folder: Path, name: str) -> None:
    changes, message = REFUSED[name]
    edit_json(folder / "preprocessor_config.json", **changes)
    with pytest.raises(CheckpointError, match=message):
        vision_spec(CONFIG, processor_config(folder))


def test_defaults_are_those_of_the_class() -> None:
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    own, ours = Gemma3ImageProcessorPil(), pixel_settings({})
    assert ours.image_size == own.size.height == own.size.width
    assert (ours.mean, ours.std) == (tuple(own.image_mean), tuple(own.image_std))
    assert (ours.rescale_factor, ours.resample) == (own.rescale_factor, own.resample)


@pytest.mark.parametrize(
    ("nested", "own", "resample"),
    [
        ({**PROCESSOR, "resample": 3}, {**PROCESSOR, "resample": 1}, 3),
        ({**PROCESSOR, "resample": 3}, None, 3),
        (None, {**PROCESSOR, "resample": 1}, 1),
        ({}, {**PROCESSOR, "resample": 1}, None),
    ],
)
def test_nested_settings_win_over_a_file_of_their_own(
    folder: Path, nested: object, own: dict[str, object] | None, resample: int | None
) -> None:
    from transformers import AutoProcessor

    (folder / "preprocessor_config.json").unlink()
    if own is not None:
        write_json(folder / "preprocessor_config.json", own)
    write_json(
        folder / "processor_config.json",
        {"image_processor": nested, "processor_class": "Gemma3Processor"},
    )
    expected = AutoProcessor.from_pretrained(folder).image_processor
    settings = pixel_settings(processor_config(folder))
    assert settings.resample == expected.resample
    assert settings.image_size == expected.size.height
    assert resample in (None, settings.resample)


def test_no_settings_at_all_are_missing_as_they_are_to_transformers(folder: Path) -> None:
    from transformers import AutoProcessor

    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(OSError, match="preprocessor_config"):
        AutoProcessor.from_pretrained(folder)
    with pytest.raises(CheckpointError, match=r"no preprocessor_config\.json"):
        processor_config(folder)


def test_the_processors_own_count_of_tokens_wins(folder: Path) -> None:
    write_json(folder / "processor_config.json", {"image_seq_length": 64})
    with pytest.raises(CheckpointError, match="writes 64 tokens"):
        vision_spec(CONFIG, processor_config(folder))
    edit_json(folder / "preprocessor_config.json", image_seq_length=256)
    write_json(folder / "processor_config.json", {"image_seq_length": 16})
    assert vision_spec(CONFIG, processor_config(folder)).tokens_per_image == 16


def test_settings_are_part_of_what_image_features_are_kept_by() -> None:
    """The key of kept features holds the manifest's hash, and that holds every setting."""
    from dataclasses import replace

    from support.tiny_checkpoint import TINY_ENGINE

    from edge_medgemma.runtime.manifest import dump_manifest, load_manifest

    manifest = load_manifest(TINY_ENGINE)
    hashes = {
        json.loads(dump_manifest(replace(manifest, vision=replace(manifest.vision, **change))))[
            "sha256"
        ]
        for change in ({}, {"resample": 3}, {"rescale_factor": 0.5}, {"image_mean": (0.4,) * 3})
    }
    assert len(hashes) == 4
