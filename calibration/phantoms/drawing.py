"""Synthetic head CTs drawn from a seed, for training and measuring the demo engine."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.calibration.phantoms.anatomy import (
    FINDINGS,
    FRACTURE,
    HAEMORRHAGE,
    MASS_EFFECT,
    Head,
    sample_head,
)
from edge_medgemma.calibration.phantoms.painting import (
    AIR_HOUNSFIELD,
    VISIBLE_SHIFT_MM,
    paint_plane,
)

MATRIX_SIZES = (128, 160, 192, 256, 320, 512)
MATRIX_WEIGHTS = (0.08, 0.25, 0.3, 0.27, 0.07, 0.03)
SLICE_SPACINGS_MM = (2.5, 3.0, 4.0, 5.0, 5.0, 6.0, 7.0)
VISIBLE_AREA_MM2: Mapping[str, float] = {HAEMORRHAGE: 60.0, FRACTURE: 20.0}
"""Area of a finding from which a slice counts as showing it."""


@dataclass(frozen=True, slots=True)
class Phantom:
    """A synthetic head CT and the truth about it."""

    seed: int
    hounsfield: NDArray[np.float32]
    """[slices, rows, columns], ascending from the skull base to the vertex."""
    spacing_mm: tuple[float, float, float]
    """Slice, row, column."""
    affine_lps_mm: NDArray[np.float64]
    """[4, 4]: (slice, row, column, 1) at pixel centres to patient LPS mm."""
    findings: frozenset[str]
    finding_slices: Mapping[str, tuple[int, ...]]
    """Per finding present: the slices, as indices of the first axis, that show it."""
    finding_masks: Mapping[str, NDArray[np.bool_]]
    """Per finding present: [slices, rows, columns]. For mass effect, the mass."""
    midline_shift_mm: NDArray[np.float32]
    """[slices]: largest in each slice, positive towards the patient's left."""
    slice_indices: tuple[int, ...]
    """Numbers of the slices of the whole scan that were drawn."""
    background: str = ""
    """Hash of the real head that the findings are drawn into; empty where the head is drawn too."""


@dataclass(frozen=True, slots=True)
class _Scan:
    rows: int
    slices: int
    spacing_mm: tuple[float, float, float]
    affine: NDArray[np.float64]
    noise_hounsfield: float
    cupping_hounsfield: float
    table_mm: float


def draw_phantom(
    seed: int,
    *,
    findings: frozenset[str] | None = None,
    fractures: int = 1,
    count: int | None = None,
    noise: bool = True,
) -> Phantom:
    """The phantom of a seed; the same seed gives the same voxels on every machine.

    Args:
        seed: any non-negative integer.
        findings: codes to draw; each with a chance of its own where none are given.
        fractures: how many breaks a fractured skull has.
        count: draw only this many slices, evenly spaced over the scan, for speed.
        noise: False leaves the image noise out, for measuring.
    """
    rng = np.random.default_rng(seed)
    head = sample_head(rng, findings, fractures)
    scan = _sample_scan(rng, head)
    chosen = evenly(scan.slices, count)
    planes = []
    for index in chosen:
        points = _points(head, scan, index)
        plane = paint_plane(head, points, scan.spacing_mm[1], scan.spacing_mm[0])
        _paint_table(plane.hounsfield, scan)
        if noise:
            _add_noise(plane.hounsfield, scan, np.random.default_rng((seed, index)))
        planes.append(plane)
    present = _present(head)
    masks = {code: np.stack([plane.masks[code] for plane in planes]) for code in present}
    pixel_mm2 = scan.spacing_mm[1] * scan.spacing_mm[2]
    shown = {
        code: _visible_slices(masks[code], VISIBLE_AREA_MM2[code] / pixel_mm2)
        for code in present - {MASS_EFFECT}
    }
    shift = np.array([plane.midline_shift_mm for plane in planes], np.float32)
    if MASS_EFFECT in present:
        shown[MASS_EFFECT] = tuple(map(int, np.flatnonzero(np.abs(shift) >= VISIBLE_SHIFT_MM)))
    return Phantom(
        seed=seed,
        hounsfield=np.clip(np.stack([plane.hounsfield for plane in planes]), -1024, 3071),
        spacing_mm=scan.spacing_mm,
        affine_lps_mm=scan.affine,
        findings=present,
        finding_slices=shown,
        finding_masks=masks,
        midline_shift_mm=shift,
        slice_indices=chosen,
    )


def draw_blank(slices: int = 24, rows: int = 192, spacing_mm: float = 5.0) -> Phantom:
    """A scan of air: nothing to find, nothing to see."""
    affine = np.diag([1.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]] * spacing_mm
    affine[3, 3] = 1.0
    return Phantom(
        seed=0,
        hounsfield=np.full((slices, rows, rows), AIR_HOUNSFIELD, np.float32),
        spacing_mm=(spacing_mm, spacing_mm, spacing_mm),
        affine_lps_mm=affine,
        findings=frozenset(),
        finding_slices={},
        finding_masks={},
        midline_shift_mm=np.zeros(slices, np.float32),
        slice_indices=tuple(range(slices)),
    )


def _present(head: Head) -> frozenset[str]:
    lesions = (head.haematoma, head.mass, head.fractures)
    return frozenset(code for code, lesion in zip(FINDINGS, lesions, strict=True) if lesion)


def _visible_slices(mask: NDArray[np.bool_], least_pixels: float) -> tuple[int, ...]:
    areas = mask.sum(axis=(1, 2))
    return tuple(int(i) for i in np.flatnonzero(areas >= least_pixels))


def evenly(slices: int, count: int | None) -> tuple[int, ...]:
    if count is None or count >= slices:
        return tuple(range(slices))
    return tuple(round((i + 0.5) / count * slices - 0.5) for i in range(count))


def _sample_scan(rng: np.random.Generator, head: Head) -> _Scan:
    rows = int(rng.choice(MATRIX_SIZES, p=MATRIX_WEIGHTS))
    field_mm = rng.uniform(215, 255)
    pixel_mm = field_mm / rows
    slice_mm = float(rng.choice(SLICE_SPACINGS_MM))
    tilt = math.radians(rng.normal(0, 5))
    low, high = -rng.uniform(36, 50), head.skull_semi_axes_mm[2] + rng.uniform(2, 10)
    column = np.array([1.0, 0.0, 0.0])
    row = np.array([0.0, math.cos(tilt), math.sin(tilt)])
    normal = np.cross(column, row)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = (
        normal * slice_mm,
        row * pixel_mm,
        column * pixel_mm,
    )
    half = (rows - 1) / 2 * pixel_mm
    affine[:3, 3] = normal * low - (row + column) * half
    return _Scan(
        rows=rows,
        slices=int((high - low) / slice_mm) + 1,
        spacing_mm=(slice_mm, pixel_mm, pixel_mm),
        affine=affine,
        noise_hounsfield=rng.uniform(1.5, 4.5),
        cupping_hounsfield=rng.uniform(-2, 3),
        table_mm=rng.uniform(3, 9),
    )


def _points(head: Head, scan: _Scan, index: int) -> NDArray[np.float32]:
    """[3, rows, columns]: positions of a slice's pixels in the head frame."""
    to_head = head.rotation.T
    affine = scan.affine
    origin = to_head @ (affine[:3, 3] + affine[:3, 0] * index - np.array(head.centre_lps_mm))
    row, column = to_head @ affine[:3, 1], to_head @ affine[:3, 2]
    steps = np.arange(scan.rows, dtype=np.float32)
    return np.asarray(
        origin[:, None, None]
        + row[:, None, None] * steps[None, :, None]
        + column[:, None, None] * steps[None, None, :],
        np.float32,
    )


def _paint_table(hounsfield: NDArray[np.float32], scan: _Scan) -> None:
    """A head rest: two thin curved sheets below the head, where there is air."""
    pixel = scan.spacing_mm[1]
    steps = (np.arange(scan.rows, dtype=np.float32) - (scan.rows - 1) / 2) * np.float32(pixel)
    below = steps[:, None] + (steps[None, :] / 16) ** 2 - np.float32(108 + scan.table_mm)
    sheet = np.clip(1.5 - np.minimum(np.abs(below), np.abs(below - 12)) / np.float32(pixel), 0, 1)
    free = hounsfield < -900
    hounsfield[free] += (sheet * np.float32(900))[free]


def _add_noise(hounsfield: NDArray[np.float32], scan: _Scan, rng: np.random.Generator) -> None:
    """Noise with the short correlation of a reconstruction kernel, and slight cupping."""
    noise = rng.standard_normal(hounsfield.shape, dtype=np.float32)
    noise = noise + np.roll(noise, 1, 0)
    noise = (noise + np.roll(noise, 1, 1)) * np.float32(0.5 * scan.noise_hounsfield)
    steps = np.linspace(-1, 1, scan.rows, dtype=np.float32)
    bowl = steps[:, None] ** 2 + steps[None, :] ** 2 - np.float32(0.5)
    hounsfield += noise + np.float32(scan.cupping_hounsfield) * bowl
