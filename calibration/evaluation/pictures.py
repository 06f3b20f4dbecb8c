"""Key slices of wrong answers as small JPEG files, beside the results."""

import io
import math
from collections.abc import Sequence

from PIL import Image

from edge_medgemma.calibration.evaluation.document import Picture
from edge_medgemma.runtime.triage.report import FindingResult, KeyImage

PICTURES_FOLDER = "pictures"
MAX_PICTURES = 3
"""Of one finding of one study."""

JPEG_QUALITY = 85


def key_pictures(
    case_key: str, finding: FindingResult, images: Sequence[KeyImage]
) -> tuple[tuple[Picture, ...], dict[str, bytes]]:
    """Pictures of the slices that a finding rests on most, or an overview where it rests on none.

    Args:
        case_key: names the files, with the finding's code; no word of the scan does.
        finding: with its key slices.
        images: key images of the study.

    Returns:
        The pictures in spatial order, and the content of their files by path relative to the results.
    """
    effects = {key.slice_index: key.effect for key in finding.key_slices}
    own = [image for image in images if image.slice_index in effects]
    best = sorted(own, key=lambda image: -effects[image.slice_index])[:MAX_PICTURES]
    shown = sorted(best or images[:MAX_PICTURES], key=lambda image: image.slice_index)
    pictures, files = [], {}
    for image in shown:
        name = f"{PICTURES_FOLDER}/{case_key}-{finding.code}-{image.slice_index}.jpg"
        files[name] = _jpeg(image)
        pictures.append(
            Picture(
                name,
                image.slice_index,
                image.position_mm if math.isfinite(image.position_mm) else None,
                image.window,
                image.left_mark,
                image.right_mark,
            )
        )
    return tuple(pictures), files


def _jpeg(image: KeyImage) -> bytes:
    """Without metadata."""
    file = io.BytesIO()
    Image.fromarray(image.pixels).save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()
