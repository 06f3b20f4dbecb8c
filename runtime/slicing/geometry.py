"""Geometry of a stack of parallel slices, as pure functions of positions and directions.

Patient coordinates are DICOM's LPS (towards left, posterior, head) in millimetres.
"""

import numpy as np
from numpy.typing import NDArray

SAME_DIRECTION_TOLERANCE = 0.01
"""Largest difference of a direction cosine between slices of one stack: half a degree. Tags rounded to
two decimals differ by as much, radial stacks by ten times that."""

ORIENTATION_TOLERANCE = 0.02
"""Deviation from perpendicular unit vectors still read: two decimals of the cosines."""

MAX_POSITION_MM = 1e5
"""Positions further from the origin than any table moves are damage."""

SAME_POSITION_MM = 0.01
"""Slices closer along the normal are at the same position; the thinnest CT step is 0.2 mm."""

OBLIQUE_COSINE = 0.8
"""A normal further from every patient axis is oblique. The threshold of PixelMed's ImageOrientation
class, which many viewers share."""

SPACING_TOLERANCE = 0.01
"""Relative deviation of a step that is still regular spacing: highdicom's default."""

ROUNDED_POSITION_MM = 0.051
"""Absolute deviation that is still regular spacing: positions rounded to one decimal."""

ANISOTROPIC_RATIO = 1.05
"""Pixels longer than wide by more than this look deformed to a model that takes them for square."""

MISSING_SLICE_RATIO = 1.5
"""A step wider than this many medians hides a missing slice (ITK warns from there, too)."""

MAX_MISSING_RUN = 2
"""More wide steps in a row than this are a coarser block of the stack, not missing slices."""

MIN_TILT_DEG = 1.0
"""Smaller angles are rounding or the shear of 3D MR (0.4° seen); gantries tilt by whole degrees."""


def is_orientation(orientation: NDArray[np.float64]) -> bool:
    """Whether six numbers are two perpendicular unit vectors, within `ORIENTATION_TOLERANCE`."""
    row, column = orientation[:3], orientation[3:]
    errors = row @ row - 1, column @ column - 1, row @ column
    return bool(np.abs(errors).max() <= ORIENTATION_TOLERANCE)


def stack_normal(orientation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit normal [3] of image orientation (patient) [6], turned towards left, posterior or head.

    The turn makes the order of slices depend on the patient alone, not on which way the rows of
    the image run: an axial stack always ascends towards the head.

    Raises:
        ValueError: the two directions are not perpendicular unit vectors.
    """
    row, column = orientation[:3], orientation[3:]
    if not is_orientation(orientation):
        raise ValueError("image orientation is not two perpendicular unit vectors")
    normal = np.cross(row, column)
    normal /= np.linalg.norm(normal)
    return normal if normal[np.argmax(np.abs(normal))] > 0 else -normal


def plane_name(normal: NDArray[np.float64]) -> str:
    """`sagittal`, `coronal` or `axial` by the nearest patient axis, `oblique` if none is near."""
    axis = int(np.argmax(np.abs(normal)))
    if abs(normal[axis]) < OBLIQUE_COSINE:
        return "oblique"
    return ("sagittal", "coronal", "axial")[axis]


def affine_lps_mm(
    orientation: NDArray[np.float64],
    corners_mm: NDArray[np.float64],
    pixel_spacing_mm: tuple[float, float],
    slice_spacing_mm: float,
) -> NDArray[np.float64]:
    """[4, 4] from (slice, row, column, 1) to LPS mm (PS3.3 C.7.6.2.1.1).

    `corners_mm` [N, 3] are the centres of the first pixel of each slice, in order. The slice step
    is the mean step, so that first and last slice are exact; a single slice steps by
    `slice_spacing_mm` along the normal.
    """
    affine = np.eye(4)
    if len(corners_mm) > 1:
        affine[:3, 0] = (corners_mm[-1] - corners_mm[0]) / (len(corners_mm) - 1)
    else:
        affine[:3, 0] = stack_normal(orientation) * slice_spacing_mm
    affine[:3, 1] = orientation[3:] * pixel_spacing_mm[0]
    affine[:3, 2] = orientation[:3] * pixel_spacing_mm[1]
    affine[:3, 3] = corners_mm[0]
    return affine


def tilt_deg(normal: NDArray[np.float64], corners_mm: NDArray[np.float64]) -> float:
    """Angle between the stack normal and the line from the first to the last slice corner.

    Taken from positions and not from gantry/detector tilt (0018,1120), whose sign depends on the
    vendor. 0 for fewer than two positions.
    """
    step = corners_mm[-1] - corners_mm[0]
    length = float(np.linalg.norm(step))
    if length < SAME_POSITION_MM:
        return 0.0
    return float(np.degrees(np.arccos(np.clip(abs(step @ normal) / length, 0.0, 1.0))))


def missing_slices(positions_mm: NDArray[np.float64]) -> list[tuple[float, float, int]]:
    """Gaps in ascending positions, as (from mm, to mm, slices that would fill it)."""
    steps = np.diff(positions_mm)
    if len(steps) < 2:
        return []
    median = float(np.median(steps))
    wide = steps > MISSING_SLICE_RATIO * median
    gaps = []
    for index in np.flatnonzero(wide):
        if _run_length(wide, int(index)) <= MAX_MISSING_RUN:
            count = max(1, round(float(steps[index]) / median) - 1)
            gaps.append((float(positions_mm[index]), float(positions_mm[index + 1]), count))
    return gaps


def _run_length(flags: NDArray[np.bool_], index: int) -> int:
    first, last = index, index
    while first > 0 and flags[first - 1]:
        first -= 1
    while last + 1 < len(flags) and flags[last + 1]:
        last += 1
    return last - first + 1


def is_uniform(positions_mm: NDArray[np.float64]) -> bool:
    """Whether steps are equal, gaps that are whole multiples of the median step aside."""
    steps = np.diff(positions_mm)
    if len(steps) < 2:
        return True
    median = float(np.median(steps))
    multiples = np.ones_like(steps)
    for start, end, count in missing_slices(positions_mm):
        multiples[np.searchsorted(positions_mm, (start + end) / 2) - 1] = count + 1
    allowed = np.maximum(SPACING_TOLERANCE * median * multiples, 2 * ROUNDED_POSITION_MM)
    return bool(np.all(np.abs(steps - multiples * median) <= np.minimum(allowed, median / 4)))
