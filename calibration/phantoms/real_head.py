"""A real head CT as a background for drawn lesions: its slices, and where the skull is on each."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.errors import ScanError
from edge_medgemma.runtime.slicing.scan import find_series, read_volume
from edge_medgemma.runtime.slicing.volume import BodyPart, Modality

BONE_HOUNSFIELD = 250.0
AIR_HOUNSFIELD = -1000.0
RAYS = 180
STEP_MM = 0.5
FIRST_MM, LAST_MM = 18.0, 110.0
"""The rays from the middle of the skull are searched here."""
LEAST_BONE_MM = 3.5
"""Bone shorter than this along a ray is a calcification."""
SMOOTHED_RAYS = 9
LEAST_RADIUS_MM = 30.0
"""A vault's inner table lies further from the middle; near the vertex and the base it does not."""
LEAST_REGULAR_SHARE = 0.85
MOST_DEVIATION_MM = 3.0
"""A vault's inner table lies this near to its running median on that share of the rays."""

_Array = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class RealHead:
    """An axial head CT in mm: x to the patient's left, y to the back, z along the stack, upwards."""

    hounsfield: NDArray[np.float32]
    """[slices, rows, columns], ascending."""
    pixel_mm: float
    positions_mm: NDArray[np.float64]
    """[slices]: z, 0 at the height of the vault's widest part as in a phantom."""
    centres_mm: NDArray[np.float64]
    """[slices, 2]: x and y of the middle of the skull from the middle of the image."""
    inner_table_mm: tuple[_Array | None, ...]
    """Per slice: distance of the inner table from the middle of the skull at RAYS azimuths from
    -pi; None where the skull is no closed vault."""
    sha256: str
    """Of the values."""


def open_real_head(folder: Path) -> RealHead:
    """Read the one head CT in `folder`, and find its skull.

    Raises:
        ScanError: no axial CT of a head, of square pixels, with the patient's left at the right.
    """
    found_series = find_series(folder).series
    if len(found_series) != 1:
        raise ScanError(
            f"{folder} holds {len(found_series)} series; give a folder with one axial head CT"
        )
    series = found_series[0]
    affine = series.affine_lps_mm
    upright = affine[0, 2] > 0 and affine[1, 1] > 0 and affine[2, 0] > 0
    _, row_mm, column_mm = series.spacing_mm
    is_head_ct = series.modality is Modality.CT and series.orientation == "axial" and upright
    if not is_head_ct or series.body_part not in (BodyPart.HEAD, BodyPart.UNKNOWN):
        raise ScanError(
            f"{folder} is {series.modality} of {series.body_part}, {series.orientation}; "
            "give a folder with one axial head CT, face up"
        )
    if abs(row_mm - column_mm) > 1e-3:
        raise ScanError(f"pixels of {row_mm:g} x {column_mm:g} mm; give a CT of square pixels")
    volume = read_volume(series)
    found = {i: _middle_mm(plane, row_mm) for i, plane in enumerate(volume.array)}
    vault = {i: middle for i, middle in found.items() if middle is not None}
    if len(vault) < 2:
        raise ScanError(f"no closed skull in {folder}; give a head CT that shows the vault")
    positions = np.asarray(series.positions_mm[volume.slice_indices], np.float64)
    centres = _line_through(vault, positions)
    tables = tuple(
        _inner_table_mm(plane, row_mm, (float(x), float(y)))[0] if i in vault else None
        for i, (plane, (x, y)) in enumerate(zip(volume.array, centres, strict=True))
    )
    widths = [0.0 if table is None else float(np.median(table)) for table in tables]
    digest = hashlib.sha256(volume.array.tobytes()).hexdigest()
    middle_mm = float(positions[int(np.argmax(widths))])
    return RealHead(volume.array, row_mm, positions - middle_mm, centres, tables, digest)


def _line_through(
    vault: dict[int, tuple[float, float]], positions_mm: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Middles of the skull [slices, 2] on one line: a tilted gantry shifts the head evenly."""
    heights = positions_mm[list(vault)]
    middles = np.array(list(vault.values()))
    design = np.stack([heights, np.ones_like(heights)], axis=1)
    slope, start = np.linalg.lstsq(design, middles, rcond=None)[0]
    return np.asarray(positions_mm[:, None] * slope + start, np.float64)


def _middle_mm(plane: _Array, pixel_mm: float) -> tuple[float, float] | None:
    """Middle of the skull (x, y) from the middle of the image; None where it is no closed vault."""
    rows, columns = np.nonzero(plane > BONE_HOUNSFIELD)
    if not len(rows):
        return None
    half = (np.array(plane.shape) - 1) / 2
    y = (np.percentile(rows, 1) + np.percentile(rows, 99)) / 2 - half[0]
    x = (np.percentile(columns, 1) + np.percentile(columns, 99)) / 2 - half[1]
    centre = (float(x * pixel_mm), float(y * pixel_mm))
    return centre if _inner_table_mm(plane, pixel_mm, centre)[1] else None


def _inner_table_mm(
    plane: _Array, pixel_mm: float, centre_mm: tuple[float, float]
) -> tuple[_Array, bool]:
    """Distance of the inner table at each azimuth [RAYS], and whether it is a closed vault's."""
    azimuths = -math.pi + 2 * math.pi * np.arange(RAYS) / RAYS
    distances = np.arange(FIRST_MM, LAST_MM, STEP_MM)
    x = centre_mm[0] + distances * np.cos(azimuths)[:, None]
    y = centre_mm[1] + distances * np.sin(azimuths)[:, None]
    bone = sample_plane(plane, pixel_mm, x, y) > BONE_HOUNSFIELD
    run = round(LEAST_BONE_MM / STEP_MM)
    solid = np.lib.stride_tricks.sliding_window_view(bone, run, axis=1).all(axis=2)
    hit = np.any(solid, axis=1)
    if not hit.any():
        return np.zeros(RAYS, np.float32), False
    found = distances[solid.argmax(1)]
    raw = np.where(hit, found, np.median(found[hit]))
    padded = np.r_[raw[-(SMOOTHED_RAYS // 2) :], raw, raw[: SMOOTHED_RAYS // 2]]
    windows = np.lib.stride_tricks.sliding_window_view(padded, SMOOTHED_RAYS)
    smooth = np.asarray(np.median(windows, axis=1), np.float32)
    regular = (hit & (np.abs(raw - smooth) < MOST_DEVIATION_MM)).mean() >= LEAST_REGULAR_SHARE
    return smooth, bool(regular and smooth.min() >= LEAST_RADIUS_MM)


def sample_plane(plane: _Array, pixel_mm: float, x_mm: _Array, y_mm: _Array) -> NDArray[np.float32]:
    """Linear interpolation at points in mm from the middle of the image; air outside."""
    rows, columns = plane.shape
    row = np.asarray(y_mm / pixel_mm + (rows - 1) / 2, np.float32)
    column = np.asarray(x_mm / pixel_mm + (columns - 1) / 2, np.float32)
    inside = (row >= 0) & (row <= rows - 1) & (column >= 0) & (column <= columns - 1)
    top = np.clip(row, 0, rows - 2).astype(np.int32)
    left = np.clip(column, 0, columns - 2).astype(np.int32)
    down, right = row - top, column - left
    flat, at = plane.ravel(), top * columns + left
    upper = flat[at] + right * (flat[at + 1] - flat[at])
    lower = flat[at + columns] + right * (flat[at + columns + 1] - flat[at + columns])
    mixed = upper + down * (lower - upper)
    return np.asarray(np.where(inside, mixed, AIR_HOUNSFIELD), np.float32)
