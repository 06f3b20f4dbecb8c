"""Pictures reach the vision tower as transformers' processor of Gemma 3 would hand them over."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_medgemma.calibration.evaluation.language.pictures import read_picture
from edge_medgemma.runtime.errors import DatasetError
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.images import to_pixel_values


def _picture(mode: str) -> Image.Image:
    rng = np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(0, 255, (20, 33, 4), dtype=np.uint8), "RGBA")
    return colours if mode == "RGBA" else colours.convert("RGB").convert(mode)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1"])
def test_pixel_values_are_those_of_the_processor(
    tiny_engine: Engine, tmp_path: Path, mode: str
) -> None:
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    path = tmp_path / "picture.png"
    _picture(mode).save(path)
    size = tiny_engine.manifest.vision.image_size
    processor = Gemma3ImageProcessorPil(size={"height": size, "width": size}, do_convert_rgb=True)
    expected = processor(Image.open(path), return_tensors="np")["pixel_values"]
    found = to_pixel_values(read_picture(path)[None], tiny_engine.manifest.vision)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_picture_is_turned_as_it_says(tmp_path: Path) -> None:
    picture = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    picture.save(tmp_path / "turned.png", exif=exif)
    assert read_picture(tmp_path / "turned.png").shape == (4, 3, 3)


def test_padding_keeps_the_picture_in_the_middle(tmp_path: Path) -> None:
    Image.new("L", (6, 3), 200).save(tmp_path / "flat.png")
    padded = read_picture(tmp_path / "flat.png", is_square=True)
    assert padded.shape == (6, 6, 3)
    assert padded[1:4].min() == 200 and padded[0].max() == 0 == padded[4:].max()


def test_what_is_no_picture_is_refused_by_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    _picture("L").save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:300])
    for name, words in (
        ("text.png", "no PNG or JPEG"),
        ("cut.png", "no PNG or JPEG"),
        ("deep.png", "more than 8 bits"),
        ("none.png", "is missing"),
    ):
        with pytest.raises(DatasetError, match=words):
            read_picture(tmp_path / name)


def test_a_picture_of_too_many_pixels_is_not_decoded(tmp_path: Path) -> None:
    Image.new("1", (9000, 8000)).save(tmp_path / "vast.png")
    with pytest.raises(DatasetError, match="scale it down"):
        read_picture(tmp_path / "vast.png")
