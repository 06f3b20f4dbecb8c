"""PNG and JPEG pictures of a dataset as the engine is shown them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from edge_medgemma.runtime.errors import DatasetError

MAX_PIXELS = 64_000_000
"""A larger file is no picture of these datasets: the largest chest radiographs have 20 million."""

FORMATS = ("PNG", "JPEG")


def read_picture(path: Path, is_square: bool = False) -> NDArray[np.uint8]:
    """Pixels [rows, columns, 3] of a picture, turned as it says and made RGB as transformers does.

    Grey becomes three equal channels, a palette its colours, what is transparent white, as by
    `Gemma3ImageProcessorPil` with `do_convert_rgb`. `is_square` pads with black to a square.

    Raises:
        DatasetError: missing, no PNG or JPEG, damaged, too large, or of more than 8 bits.
    """
    try:
        with Image.open(path, formats=FORMATS) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise DatasetError(
                    f"'{path}' has {opened.width} × {opened.height} pixels, more than {MAX_PIXELS:,}; "
                    "scale it down"
                )
            if opened.mode.startswith(("I", "F")):
                raise DatasetError(f"'{path}' has more than 8 bits a pixel; save it with 8 bits")
            picture = _opaque(ImageOps.exif_transpose(opened)).convert("RGB")
    except FileNotFoundError:
        raise DatasetError(
            f"the picture '{path}' is missing; unpack all of the dataset's pictures"
        ) from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(
            f"'{path}' is no PNG or JPEG that can be read; take it from the dataset once more"
        ) from None
    return _padded(np.asarray(picture, np.uint8)) if is_square else np.asarray(picture, np.uint8)


def _opaque(picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        return picture
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture.convert("RGBA"))


def _padded(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Black on both sides of the shorter axis, as in Google's notebooks of one picture."""
    rows, columns, _ = pixels.shape
    side = max(rows, columns)
    before = (side - rows) // 2, (side - columns) // 2
    padded = np.zeros((side, side, 3), np.uint8)
    padded[before[0] : before[0] + rows, before[1] : before[1] + columns] = pixels
    return padded
