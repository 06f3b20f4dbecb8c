"""The display window a radiograph carries, applied: values of interest to black and white."""

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from edge_medgemma.runtime.slicing.dicom.frames import Frame
from edge_medgemma.runtime.slicing.volume import Problem

MIN_SHOWN_FRACTION = 0.1
"""Share of the pixels that a usable window leaves neither black nor white. Three quarters of a
collimated radiograph may be black; a window of other values leaves nothing."""

MAX_WHITE_FRACTION = 0.5
"""Share of pixels that a usable window may cut off at white."""

NEARLY = 0.02
"""Darker than this is black, and as near to white is white."""

ROBUST_PERCENTILES = (1.0, 99.0)

OUTLIER_RATIO = 2.0
"""Without a window the picture runs from the lowest to the highest value, unless these lie so much
further apart than the percentiles: then a dead row or a hot pixel would turn all else black."""

WINDOW_REPLACED = Problem(
    "display_window_replaced",
    "the display window of the image shows nearly all black or white; the middle 98 % of its values "
    "are shown instead",
)

OUTLYING_PIXELS = Problem(
    "outlying_pixels",
    "a few pixels are far brighter or darker than all others; the middle 98 % of the values are shown",
)


def display_values(
    frame: Frame, values: NDArray[np.float32]
) -> tuple[NDArray[np.float32], tuple[Problem, ...]]:
    """Values [rows, columns] after the VOI LUT or window, 0 (black) to 1 (white).

    The VOI LUT (0028,3010) goes before the first window, as PS3.3 C.11.2 lets a viewer choose;
    without either, minimum to maximum. Inverted for MONOCHROME1 and for the presentation LUT shape
    (2050,0020) INVERSE, which mean the same (PS3.3 C.8.11.3.1.2).
    """
    shown, problems = _with_lut_or_window(frame, values)
    is_inverted = (
        frame.term("PhotometricInterpretation") == "MONOCHROME1"
        or frame.term("PresentationLUTShape") == "INVERSE"
    )
    if _is_blank(shown) or _is_mostly_white(shown, is_inverted=is_inverted):
        for sample in (values, _without_ends(values)):
            if not _is_blank(robust := _robust(values, sample)):
                shown, problems = robust, (WINDOW_REPLACED,)
                break
    return np.clip(np.float32(1) - shown if is_inverted else shown, 0, 1), problems


def _with_lut_or_window(
    frame: Frame, values: NDArray[np.float32]
) -> tuple[NDArray[np.float32], tuple[Problem, ...]]:
    if frame.dataset.get("VOILUTSequence"):
        return _looked_up(frame.dataset.VOILUTSequence[0], values), ()
    centre, width = frame.number("WindowCenter"), frame.number("WindowWidth")
    if centre is not None and width is not None and width >= 1:
        return window(values, centre, width, frame.term("VOILUTFunction") or "LINEAR"), ()
    low, high = float(values.min()), float(values.max())
    inner = _without_ends(values)
    robust_low, robust_high = (float(v) for v in np.percentile(inner, ROBUST_PERCENTILES))
    if robust_high > robust_low and high - low > OUTLIER_RATIO * (robust_high - robust_low):
        return _robust(values, inner), (OUTLYING_PIXELS,)
    return (values - np.float32(low)) / np.float32(high - low if high > low else 1), ()


def _looked_up(item: Dataset, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Entries of a VOI LUT by value, 0 to 1 (PS3.3 C.11.2.1.1); values beyond take its ends.

    White is 2^bits - 1 by its descriptor, unless the entries are of other bits.
    """
    count, first, bits = (int(number) for number in item.LUTDescriptor)
    count = count or 2**16
    data = item.LUTData
    if isinstance(data, bytes):
        data = np.frombuffer(data, np.uint8 if len(data) <= count + 1 else np.uint16)
    entries: NDArray[np.float32] = np.atleast_1d(np.asarray(data, dtype=np.float32))[:count]
    largest, stated = max(float(entries.max()), 1.0), 2.0**bits - 1
    white = stated if stated / 4 < largest <= stated else largest
    index = np.clip(np.rint(values).astype(np.int64) - first, 0, len(entries) - 1)
    return np.asarray(entries[index] / np.float32(white), dtype=np.float32)


def _robust(values: NDArray[np.float32], sample: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values with black and white at the percentiles of a sample of them."""
    low, high = (float(value) for value in np.percentile(sample, ROBUST_PERCENTILES))
    return (values - np.float32(low)) / np.float32(high - low if high > low else 1)


def _without_ends(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Those that are neither the lowest nor the highest; all, where there are no others."""
    inner = values[(values > values.min()) & (values < values.max())]
    return inner if inner.size else values


def _is_mostly_white(shown: NDArray[np.float32], *, is_inverted: bool) -> bool:
    """Whether most of the picture is cut off at white, which no body fills; collimators are black."""
    white = shown <= 0 if is_inverted else shown >= 1
    return float(white.mean()) > MAX_WHITE_FRACTION


def _is_blank(shown: NDArray[np.float32]) -> bool:
    """Whether hardly a pixel is neither black nor white."""
    return float(((shown > NEARLY) & (shown < 1 - NEARLY)).mean()) < MIN_SHOWN_FRACTION


def window(
    values: NDArray[np.float32], centre: float, width: float, function: str
) -> NDArray[np.float32]:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3: LINEAR, LINEAR_EXACT or SIGMOID, to 0..1."""
    if function == "SIGMOID":
        exponent = np.clip(-4 * (values - centre) / width, -80, 80)
        return np.asarray(1 / (1 + np.exp(exponent)), dtype=np.float32)
    if function == "LINEAR_EXACT":
        return ((values - centre) / width + 0.5).astype(np.float32)
    if width == 1:
        return (values > centre - 0.5).astype(np.float32)
    return ((values - (centre - 0.5)) / (width - 1) + 0.5).astype(np.float32)
