"""Key images: slices for a human, in one grey window, square pixels, left and right marked."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_medgemma.runtime.slicing.volume import BodyPart, Modality, Series, SliceStack
from edge_medgemma.runtime.triage.coverage import has_positions
from edge_medgemma.runtime.triage.report import FindingResult, KeyImage
from edge_medgemma.runtime.triage.scoring.evidence import MAX_KEY_SLICES

MAX_KEY_IMAGES = MAX_KEY_SLICES
MIN_KEY_IMAGES = 3
"""Fewer key slices are joined by their neighbours; without any, three slices give an overview."""

MAX_KEY_IMAGE_PIXELS = 384
"""Longer side; prints at about 180 dots per inch in a third of an A4 page."""

_CT_CHANNEL = {
    BodyPart.HEAD: (2, "0 to 80 HU"),
    BodyPart.ABDOMEN: (1, "−135 to 215 HU"),
    BodyPart.CHEST: (0, "−1024 to 1024 HU"),
}
"""Channel of the model's own pixels that shows the body part best, and its window."""

_CT_SOFT_TISSUE = 1, "−135 to 215 HU"
"""The same for any other part."""

_SIDES_UNKNOWN = {"sides_not_stated", "orientation_not_stated", "orientation_conflict"}
"""Problems under which left and right are not known."""

_MIN_MARK_COSINE = 0.9
"""Rows must run within 26 degrees of the patient's left-right axis to be marked."""


def make_key_images(
    stack: SliceStack, body_part: BodyPart, explained: Sequence[FindingResult]
) -> tuple[KeyImage, ...]:
    """At most `MAX_KEY_IMAGES` key slices of the findings, or an overview without any.

    Args:
        stack: slices as the model saw them.
        body_part: the protocol's, which knows it where the series does not say.
        explained: flagged findings, most urgent first, and others with key slices; each gets its
            best slice before any gets its second.
    """
    row_of = {int(index): row for row, index in enumerate(stack.slice_indices)}
    titles = _titles_by_slice(explained)
    shown = {
        int(stack.slice_indices[row]) for row in _rows([row_of[i] for i in titles], len(row_of))
    }
    channel, window = _grey(stack.series.modality, body_part)
    left, right = side_marks(stack.series)
    return tuple(
        KeyImage(
            slice_index=index,
            position_mm=float(stack.positions_mm[row_of[index]]),
            pixels=_square(stack.pixels[row_of[index], :, :, channel], stack.series),
            left_mark=left,
            right_mark=right,
            window=window,
            findings=titles.get(index, ()),
            view=stack.series.views[index].value if stack.series.views else "",
        )
        for index in sorted(shown)
    )


def side_marks(series: Series) -> tuple[str, str]:
    """Patient side (`R`, `L`) at the left and right edge; empty where the series does not say.

    Decided by the direction in which columns count up, in LPS: +x is the patient's left.
    PS3.3 C.7.6.2.1.1
    """
    names = {problem.name for problem in series.problems}
    if names & _SIDES_UNKNOWN or not has_positions(series):
        return "", ""
    if series.views and not series.views[0].is_frontal:
        return "", ""
    direction = series.affine_lps_mm[:3, 2]
    length = float(np.linalg.norm(direction))
    cosine = float(direction[0]) / length if length > 0 else 0.0
    if abs(cosine) < _MIN_MARK_COSINE:
        return "", ""
    return ("R", "L") if cosine > 0 else ("L", "R")


def _titles_by_slice(explained: Sequence[FindingResult]) -> Mapping[int, tuple[str, ...]]:
    ranked = [sorted(f.key_slices, key=lambda key: -key.effect) for f in explained]
    chosen: list[int] = []
    for place in range(MAX_KEY_SLICES):
        for keys in ranked:
            if place < len(keys) and keys[place].slice_index not in chosen:
                chosen.append(keys[place].slice_index)
    return {
        index: tuple(f.title for f in explained if index in {k.slice_index for k in f.key_slices})
        for index in chosen[:MAX_KEY_IMAGES]
    }


def _rows(key_rows: Sequence[int], count: int) -> set[int]:
    """Rows of the stack to show: the key rows, with neighbours or an overview up to the least."""
    if not key_rows:
        return set(np.linspace(0, count - 1, MIN_KEY_IMAGES + 2).round().astype(int)[1:-1].tolist())
    shown = set(key_rows)
    by_distance = sorted(range(count), key=lambda row: min(abs(row - key) for key in key_rows))
    for row in by_distance:
        if len(shown) >= MIN_KEY_IMAGES:
            break
        shown.add(row)
    return shown


def _grey(modality: Modality, body_part: BodyPart) -> tuple[int, str]:
    if modality is Modality.CT:
        return _CT_CHANNEL.get(body_part, _CT_SOFT_TISSUE)
    return 0, "full range" if modality is Modality.MR else "as stored for viewing"


def _square(grey: NDArray[np.uint8], series: Series) -> NDArray[np.uint8]:
    """Resample to square pixels, the longer side at most `MAX_KEY_IMAGE_PIXELS`."""
    rows, columns = grey.shape
    height_mm, width_mm = rows * series.spacing_mm[1], columns * series.spacing_mm[2]
    if not (height_mm > 0 and width_mm > 0):
        height_mm, width_mm = float(rows), float(columns)
    longer = min(MAX_KEY_IMAGE_PIXELS, max(rows, columns))
    scale = longer / max(height_mm, width_mm)
    size = max(1, round(width_mm * scale)), max(1, round(height_mm * scale))
    resized = Image.fromarray(grey).resize(size, Image.Resampling.LANCZOS)
    return np.asarray(resized, dtype=np.uint8)
