"""The prompts of `verify`: fixed texts, and drawn pictures that no preparation leaves as they are."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

INSTRUCTION = "You are a radiologist. Please review the slices provided below carefully."
QUESTION = "Based on the slices provided above, is there an abnormality? Answer yes or no."
LONG_SENTENCE = "The lungs are clear, the heart is of normal size, and no fracture is seen. "

_TEXTURE_CELLS = 16
"""Cells of the coarse texture along either side"""


@dataclass(frozen=True, slots=True)
class Case:
    """One user's turn: instruction, every picture and its "SLICE n", question."""

    name: str
    instruction: str
    """Not part of a prompt without pictures."""
    pictures: NDArray[np.uint8]
    """[images, rows, columns, 3]"""
    question: str


def verification_cases(image_size: int, window: int, sentence_tokens: int) -> Iterator[Case]:
    """Text, one picture, three that differ, and a prompt of more than two windows.

    Args:
        image_size: side in pixels that pictures are resized to
        window: tokens that a local layer sees
        sentence_tokens: of LONG_SENTENCE
    """
    yield Case("text", "", pictures(0, image_size), QUESTION)
    for images in (1, 3):
        name = f"{images} image{'s' * (images > 1)}"
        yield Case(name, INSTRUCTION, pictures(images, image_size), QUESTION)
    text = LONG_SENTENCE * (2 * window // sentence_tokens + 1)
    yield Case("long text", text, pictures(1, image_size), QUESTION)


def pictures(count: int, image_size: int) -> NDArray[np.uint8]:
    """Drawn cross-sections [count, rows, columns, 3], each with another texture and bright spot.

    One side is longer than `image_size` and one shorter, so that a wrong filter, aspect or size
    shows; noise of single pixels makes filters differ, and the channels differ as windows do.
    """
    rows, columns = image_size * 5 // 4, image_size * 3 // 4
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    radius = np.hypot(x, y)
    body = (radius < 0.85)[..., None]
    shell = (np.abs(radius - 0.8) < 0.05)[..., None]
    drawn = np.zeros((count, rows, columns, 3), np.uint8)
    for index in range(count):
        generator = np.random.default_rng(index)
        cells = generator.integers(0, 256, (_TEXTURE_CELLS, _TEXTURE_CELLS, 3), dtype=np.uint8)
        texture = Image.fromarray(cells).resize((columns, rows), Image.Resampling.BICUBIC)
        centre_x, centre_y = generator.uniform(-0.4, 0.4, 2)
        spot = (np.hypot(x - centre_x, y - centre_y) < 0.2)[..., None]
        grey = 0.6 * np.asarray(texture, np.float64) + 90 * spot + 200 * shell
        grey += generator.normal(0, 12, grey.shape)
        drawn[index] = np.clip(np.where(body, grey, 0), 0, 255).astype(np.uint8)
    return drawn
