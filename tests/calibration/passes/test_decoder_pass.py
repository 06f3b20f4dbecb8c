import numpy as np

from edge_medgemma.calibration.passes.decoder_pass import image_weight
from edge_medgemma.calibration.prompts import Prompt
from edge_medgemma.runtime.generation.masks import NO_BRANCH, NO_IMAGE, TokenMeta


def prompt(text: int, images: int) -> Prompt:
    count = text + images
    nothing = np.zeros(count, np.int64)
    numbers = np.where(np.arange(count) < images, 0, NO_IMAGE)
    rows = TokenMeta(np.arange(count), numbers, nothing, nothing + NO_BRANCH)
    return Prompt((0,) * count, rows, (), (), np.zeros(0, np.int64))


def test_images_count_as_much_as_text_and_no_more() -> None:
    prompts = [prompt(10, 300), prompt(40, 200)]
    assert 500 * image_weight(prompts) == 50


def test_few_images_are_not_blown_up_and_none_are_no_division_by_zero() -> None:
    assert image_weight([prompt(500, 20)]) == 1
    assert image_weight([prompt(500, 0)]) == 1
