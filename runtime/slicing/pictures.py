"""PNG and JPEG pictures as the engine is shown them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from edge_medgemma.runtime.errors import ScanError

MAX_PIXELS = 64_000_000
"""A larger file is no medical picture: the largest chest radiographs have 20 million."""

FORMATS = ("PNG", "JPEG")


def read_picture(path: Path, name: str | None = None) -> NDArray[np.uint8]:
    """Pixels [rows, columns, 3] of a picture, turned as it says and made RGB as transformers does.

    Grey becomes three equal channels, a palette its colours, what is transparent white, as by
    `Gemma3ImageProcessorPil` with `do_convert_rgb`.

    Args:
        path: of a PNG or JPEG file
        name: of the picture in messages; None is its path

    Raises:
        ScanError: missing, no PNG or JPEG, damaged, too large, or of more than 8 bits.
    """
    name = f"'{path}'" if name is None else name
    try:
        with Image.open(path, formats=FORMATS) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise ScanError(
                    f"{name} has {opened.width} × {opened.height} pixels, more than {MAX_PIXELS:,}; "
                    "scale it down"
                )
            if opened.mode.startswith(("I", "F")):
                raise ScanError(f"{name} has more than 8 bits a pixel; save it with 8 bits")
            picture = _opaque(ImageOps.exif_transpose(opened)).convert("RGB")
    except FileNotFoundError:
        raise ScanError(f"{name} is missing; put it back") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, ScanError):
            raise
        raise ScanError(f"{name} is no PNG or JPEG that can be read; save it once more") from None
    return np.asarray(picture, np.uint8)


def _opaque(picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        return picture
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture.convert("RGBA"))
