"""Synthetic chests drawn from a seed: volumes, and their projections as radiographs.

Simple on purpose: a body, two lungs, heart, spine and ribs, and lesions that are plain shapes of the
right density in the right place. Frame: millimetres, origin in the middle of the chest, x to the
patient's left, y to the back, z to the head (DICOM LPS).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EFFUSION, CONSOLIDATION, NODULE = "pleural_effusion", "consolidation", "lung_nodule_or_mass"
PNEUMOTHORAX, OEDEMA = "pneumothorax", "pulmonary_oedema"
CARDIOMEGALY, PERICARDIAL = "cardiomegaly", "pericardial_effusion"

FINDINGS = (
    PNEUMOTHORAX, EFFUSION, CONSOLIDATION, OEDEMA, CARDIOMEGALY, PERICARDIAL, NODULE,
)  # fmt: skip
"""Codes as in the protocols of the chest."""

PREVALENCE = 0.3
"""Chance of each finding, independent of the others."""

HALF_MM = (180.0, 125.0, 160.0)
"""Half of the volume drawn, along x, y and z."""

AIR, LUNG, FAT, SOFT, BONE = -1000.0, -850.0, -95.0, 40.0, 450.0

_Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Chest:
    """A synthetic chest and the truth about it."""

    seed: int
    hounsfield: _Array
    """[slices, rows, columns]: z ascending, y ascending, x ascending."""
    spacing_mm: tuple[float, float, float]
    """Slice, row, column."""
    findings: frozenset[str]


def draw_chest(
    seed: int,
    spacing_mm: tuple[float, float, float],
    *,
    is_upright: bool,
    findings: frozenset[str] | None = None,
) -> Chest:
    """The chest of a seed.

    Args:
        seed: any non-negative integer.
        spacing_mm: slice, row, column.
        is_upright: fluid then lies on the diaphragm and free air at the top; else at back and front.
        findings: codes to draw; each with a chance of its own where none are given.
    """
    rng = np.random.default_rng((seed, 1))
    drawn = frozenset(code for code in FINDINGS if rng.random() < PREVALENCE)
    present = drawn if findings is None else findings
    x, y, z = _grid(spacing_mm)
    scale = np.float32(rng.uniform(0.92, 1.06))
    x, y, z = x / scale, y / scale, z / scale
    hounsfield = np.full(np.broadcast_shapes(x.shape, y.shape, z.shape), AIR, np.float32)
    body = (x / 165) ** 2 + (y / 108) ** 2
    hounsfield[np.broadcast_to(body < 1, hounsfield.shape)] = FAT
    hounsfield[np.broadcast_to(body < 0.88, hounsfield.shape)] = SOFT
    cage = np.abs(np.sqrt(body) - 0.88) < 0.035
    ribs = cage & (np.cos((z + 0.35 * y + 0.1 * np.abs(x)) / 3.7) > 0.35) & (np.abs(z) < 135)
    hounsfield[ribs] = BONE
    lungs = {side: _lung(rng, side, x, y, z, hounsfield) for side in (-1.0, 1.0)}
    _paint_heart(rng, present, x, y, z, hounsfield)
    hounsfield[np.broadcast_to((x / 22) ** 2 + ((y - 78) / 20) ** 2 < 1, hounsfield.shape)] = 260
    _paint_lesions(rng, present, lungs, (x, y, z), hounsfield, is_upright=is_upright)
    hounsfield += rng.standard_normal(hounsfield.shape, dtype=np.float32) * np.float32(12)
    return Chest(seed, np.clip(hounsfield, -1024, 3071), spacing_mm, present)


def project(chest: Chest, *, is_lateral: bool = False) -> NDArray[np.uint8]:
    """A radiograph [rows, columns]: head up, the patient's left (or back) at the right edge.

    Attenuation summed along parallel rays, bone white.
    """
    axis = 2 if is_lateral else 1
    step_mm = chest.spacing_mm[axis]
    attenuation = np.clip(chest.hounsfield / 1000 + 1, 0, None) * np.float32(0.02 * step_mm)
    rays = attenuation.sum(axis=axis)[::-1]
    low, high = np.percentile(rays, (2, 99.5))
    shown = np.clip((rays - low) / max(high - low, 1e-6), 0, 1) ** 0.8
    return np.asarray(np.rint(shown * 255), np.uint8)


def affine_lps_mm(chest: Chest) -> NDArray[np.float64]:
    """[4, 4]: (slice, row, column, 1) at voxel centres to patient LPS mm."""
    slice_mm, row_mm, column_mm = chest.spacing_mm
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, column_mm], [0, row_mm, 0], [slice_mm, 0, 0]])
    affine[:3, 3] = [-half for half in HALF_MM]
    return affine


def _grid(spacing_mm: tuple[float, float, float]) -> tuple[_Array, _Array, _Array]:
    """x, y and z of the voxels, each of a shape that broadcasts to [slices, rows, columns]."""
    x_half, y_half, z_half = HALF_MM
    z, y, x = (
        np.arange(-half, half, step, dtype=np.float32)
        for half, step in zip((z_half, y_half, x_half), spacing_mm, strict=True)
    )
    return x[None, None, :], y[None, :, None], z[:, None, None]


def _lung(
    rng: np.random.Generator, side: float, x: _Array, y: _Array, z: _Array, hounsfield: _Array
) -> _Array:
    """Paint one lung; 1 at its hull and 0 in its middle, where it is, and 9 elsewhere."""
    centre = side * 76 + rng.normal(0, 2)
    radii = rng.uniform((55, 78, 122), (62, 86, 132))
    distance = ((x - centre) / radii[0]) ** 2 + (y / radii[1]) ** 2 + (z / radii[2]) ** 2
    dome = -88 - 0.002 * (x - centre) ** 2 - 0.001 * y**2 + (6 if side < 0 else 0)
    hull = np.where(z > dome, np.sqrt(distance), np.float32(9)).astype(np.float32)
    inside = hull < 1
    texture = rng.standard_normal((8, 6, 8), dtype=np.float32)
    grown = np.kron(
        texture, np.ones([-(-n // m) for n, m in zip(hull.shape, texture.shape, strict=True)])
    )
    rows, columns, slices = hull.shape
    grown = grown[:rows, :columns, :slices].astype(np.float32) * 25
    hounsfield[inside] = LUNG + grown[inside]
    return hull


def _paint_heart(
    rng: np.random.Generator,
    present: frozenset[str],
    x: _Array,
    y: _Array,
    z: _Array,
    hounsfield: _Array,
) -> None:
    """Mediastinum and heart; larger with cardiomegaly, with a rim of fluid where there is some."""
    column = ((x / 26) ** 2 + ((y - 5) / 55) ** 2 < 1) & (z > -90)
    hounsfield[column] = SOFT
    factor = rng.uniform(1.4, 1.55) if CARDIOMEGALY in present else rng.uniform(0.92, 1.08)
    radii = np.array((52.0, 46.0, 50.0)) * factor
    centre = (22 + 12 * (factor - 1), -18.0, -42.0)
    distance = np.sqrt(
        ((x - centre[0]) / radii[0]) ** 2
        + ((y - centre[1]) / radii[1]) ** 2
        + ((z - centre[2]) / radii[2]) ** 2
    )
    rim_mm = rng.uniform(10, 18)
    if PERICARDIAL in present:
        hounsfield[distance < 1 + rim_mm / radii.mean()] = 8
    hounsfield[distance < 1] = SOFT + 5


def _paint_lesions(
    rng: np.random.Generator,
    present: frozenset[str],
    lungs: Mapping[float, _Array],
    points: tuple[_Array, _Array, _Array],
    hounsfield: _Array,
    *,
    is_upright: bool,
) -> None:
    x, y, z = points
    sides = [1.0 if rng.random() < 0.5 else -1.0 for _ in range(4)]
    sizes = rng.uniform(size=8)
    if OEDEMA in present:
        for side, hull in lungs.items():
            cloud = np.exp(-(((x - side * 45) / 45) ** 2 + (z / 75) ** 2 + (y / 75) ** 2))
            hounsfield += np.where(hull < 1, cloud * np.float32(330 + 150 * sizes[0]), 0)
    if CONSOLIDATION in present:
        hull, radius = lungs[sides[0]], 26 + 14 * sizes[1]
        centre = (sides[0] * 80, 10.0, -60 + 110 * sizes[2])
        near = sum((p - c) ** 2 for p, c in zip(points, centre, strict=True)) < radius**2
        hounsfield[near & (hull < 1)] = 25
    if NODULE in present:
        radius = 9 + 9 * sizes[3]
        centre = (sides[1] * 82, -10.0, -20 + 90 * sizes[4])
        near = sum((p - c) ** 2 for p, c in zip(points, centre, strict=True)) < radius**2
        hounsfield[near & (lungs[sides[1]] < 1)] = 45
    if EFFUSION in present:
        hull = lungs[sides[2]]
        depth = 42 + 35 * sizes[5]
        fluid = z < -100 + depth if is_upright else y > 62 - depth
        hounsfield[fluid & (hull < 1)] = 12
    if PNEUMOTHORAX in present:
        hull = lungs[sides[3]]
        free = (hull > 0.80 - 0.1 * sizes[6]) & (hull < 1)
        free &= (z > -10) if is_upright else (y < 10)
        hounsfield[free] = AIR
        hounsfield[(hull < 0.80 - 0.1 * sizes[6]) & (hounsfield < -600)] += 90
