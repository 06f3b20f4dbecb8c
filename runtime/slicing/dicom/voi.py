"""The display window a radiograph carries, applied: values of interest to black and white."""

import numpy as np
from numpy.typing import NDArray
from pydicom.pixels.processing import apply_voi

from edge_medgemma.runtime.slicing.dicom.frames import Frame


def display_values(frame: Frame, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values [rows, columns] after the VOI LUT or window, 0 (black) to 1 (white).

    The VOI LUT (0028,3010) goes before the first window, as PS3.3 C.11.2 lets a viewer choose;
    without either, minimum to maximum. MONOCHROME1 is inverted.
    """
    if frame.dataset.get("VOILUTSequence"):
        table = apply_voi(np.rint(values).astype(np.int32), frame.dataset)
        bits = int(frame.dataset.VOILUTSequence[0].LUTDescriptor[2])
        shown = np.asarray(table / float(2**bits - 1), dtype=np.float32)
    else:
        shown = _windowed(frame, values)
    if frame.term("PhotometricInterpretation") == "MONOCHROME1":
        shown = np.float32(1) - shown
    return np.clip(shown, 0, 1)


def _windowed(frame: Frame, values: NDArray[np.float32]) -> NDArray[np.float32]:
    centre, width = frame.number("WindowCenter"), frame.number("WindowWidth")
    function = frame.term("VOILUTFunction") or "LINEAR"
    if centre is None or width is None or width < 1:
        low, high = float(values.min()), float(values.max())
        return (values - np.float32(low)) / np.float32(high - low if high > low else 1)
    return window(values, centre, width, function)


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
