"""Slices as the vision tower takes them."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_medgemma.runtime.model_shape import VisionSpec


def to_pixel_values(pixels: NDArray[np.uint8], vision: VisionSpec) -> NDArray[np.float32]:
    """Resize without keeping the aspect and normalise, as `Gemma3ImageProcessorPil` does.

    Args:
        pixels: [N, rows, columns, 3]
        vision: gives image_size, image_mean and image_std

    Returns:
        [N, 3, image_size, image_size], (x / 255 - mean) / std
    """
    size = vision.image_size
    resized = np.empty((len(pixels), size, size, 3), np.float32)
    for i, one in enumerate(pixels):
        image = Image.fromarray(one)
        if image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.BILINEAR)
        resized[i] = np.asarray(image)
    mean = np.asarray(vision.image_mean, np.float32)
    std = np.asarray(vision.image_std, np.float32)
    values = (resized / np.float32(255) - mean) / std
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))
