"""Slices as the vision tower takes them."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_medgemma.runtime.model_shape import VisionSpec


def to_pixel_values(pixels: NDArray[np.uint8], vision: VisionSpec) -> NDArray[np.float32]:
    """Resize without keeping the aspect, rescale and normalise, as `Gemma3ImageProcessorPil` does.

    Args:
        pixels: [N, rows, columns, 3]
        vision: gives image_size, resample, rescale_factor, image_mean and image_std

    Returns:
        [N, 3, image_size, image_size], (x * rescale_factor - mean) / std
    """
    size = vision.image_size
    rescaled = (np.arange(256) * vision.rescale_factor).astype(np.float32)
    values = np.empty((len(pixels), size, size, 3), np.float32)
    for i, one in enumerate(pixels):
        image = Image.fromarray(one)
        if image.size != (size, size):
            image = image.resize((size, size), Image.Resampling(vision.resample))
        values[i] = rescaled[np.asarray(image)]
    mean = np.asarray(vision.image_mean, np.float32)
    std = np.asarray(vision.image_std, np.float32)
    return np.ascontiguousarray(((values - mean) / std).transpose(0, 3, 1, 2))
