"""Whether the picture that the model is shown can be one: neither black, nor white, nor a negative."""

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.slicing.volume import BodyPart, Modality, Problem, Series, View

DARK, BRIGHT = 12, 243
"""Of 255: darker is black to the eye, brighter white."""

MIN_SHOWN_FRACTION = 0.03
"""Share of pixels that must not be black, or not be white. A head fills a fifth of an MR."""

NEGATIVE_MARGIN = 12.0
"""Of 255: the middle of a chest radiograph is so much darker than both lungs in a negative only."""


NEGATIVE_PARTS = {BodyPart.CHEST, BodyPart.UNKNOWN}


def display_problems(pixels: NDArray[np.uint8], series: Series) -> list[Problem]:
    """Problems of slices [N, rows, columns, 3] as the model is shown them."""
    lightest = pixels.max(axis=-1)
    if float((lightest > DARK).mean()) < MIN_SHOWN_FRACTION:
        return [Problem("display_black", "nearly all of the picture is black")]
    if float((pixels.min(axis=-1) < BRIGHT).mean()) < MIN_SHOWN_FRACTION:
        return [Problem("display_white", "nearly all of the picture is white")]
    is_radiograph = series.modality in (Modality.CR, Modality.DX)
    # a part that is not stated may be a chest, if the protocol was asked for by name
    if is_radiograph and not NEGATIVE_PARTS.isdisjoint(series.body_parts):
        frontal = [
            one for one, view in zip(pixels, series.views, strict=False) if view is not View.LATERAL
        ]
        if any(map(_is_negative, frontal)):
            detail = (
                "the middle of the chest is darker than the lungs: black and white are exchanged"
            )
            return [Problem("display_inverted", detail)]
    return []


def _is_negative(image: NDArray[np.uint8]) -> bool:
    """Whether the spine of a frontal chest [rows, columns, 3] is darker than what lies beside it."""
    rows, columns = image.shape[:2]
    middle = image[rows // 4 : 3 * rows // 5, :, 0].astype(np.float32)
    if not middle.size or columns < 20:
        return False
    left, centre, right = (
        float(middle[:, round(low * columns) : round(high * columns)].mean())
        for low, high in ((0.2, 0.38), (0.45, 0.55), (0.62, 0.8))
    )
    return centre + NEGATIVE_MARGIN < min(left, right)
