"""One synthetic image, the same everywhere, on which a vision tower is tried without a scan."""

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.model_shape import VisionSpec

NOISE = 0.05
"""Standard deviation of the grain, of a range of 2: about that of a head CT in a brain window."""


def synthetic_pixel_values(vision: VisionSpec) -> NDArray[np.float32]:
    """A bright ring around grey with two dark ellipses and a bright spot, in grain.

    Returns:
        [1, 3, image_size, image_size] within -1 .. 1; the channels differ as three windows do
    """
    side = np.linspace(-1, 1, vision.image_size, dtype=np.float32)
    y, x = side[:, None], side[None, :]
    radius = np.hypot(x / 0.7, y / 0.85)
    image = np.full_like(radius, -1)
    image[radius < 1] = 1.0
    image[radius < 0.92] = -0.1
    image[np.hypot((np.abs(x) - 0.15) / 0.1, y / 0.3) < 1] = -0.6
    image[np.hypot(x - 0.3, y - 0.35) < 0.08] = 0.5
    grain = np.random.default_rng(0).standard_normal(image.shape, np.float32) * NOISE
    windows = [(image + grain) * width for width in (0.4, 0.8, 1.2)]
    clipped: NDArray[np.float32] = np.clip(np.stack(windows), -1, 1)
    return clipped[None]
