"""PNG and JPEG pictures of a dataset as the engine is shown them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.errors import DatasetError, ScanError
from edge_medgemma.runtime.slicing import pictures


def read_picture(path: Path, is_square: bool = False) -> NDArray[np.uint8]:
    """Pixels [rows, columns, 3] of a picture; `is_square` pads with black to a square.

    Raises:
        DatasetError: missing, no PNG or JPEG, damaged, too large, or of more than 8 bits.
    """
    if not path.exists():
        raise DatasetError(f"the picture '{path}' is missing; unpack all of the dataset's pictures")
    try:
        pixels = pictures.read_picture(path)
    except ScanError as error:
        raise DatasetError(str(error)) from None
    return _padded(pixels) if is_square else pixels


def _padded(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Black on both sides of the shorter axis, as in Google's notebooks of one picture."""
    rows, columns, _ = pixels.shape
    side = max(rows, columns)
    before = (side - rows) // 2, (side - columns) // 2
    padded = np.zeros((side, side, 3), np.uint8)
    padded[before[0] : before[0] + rows, before[1] : before[1] + columns] = pixels
    return padded
