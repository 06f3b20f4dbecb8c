"""Shapes on one plane of a head, drawn or real: where a lesion lies, and how it moves what is there.

Every shape is a coverage in 0..1 whose edge is one pixel wide, so that a boundary carries the
partial volume that a scanner would show.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.calibration.phantoms.anatomy import Ellipsoid, Fracture, Mass, Point, Shell

_Array = NDArray[np.floating]
_PULL_Y_MM, _PULL_Z_MM = 45.0, 32.0  # reach of a mass along the midline


@dataclass(frozen=True, slots=True)
class Canvas:
    """One plane [rows, columns] being painted, and where its pixels lie in the head, in mm."""

    hounsfield: NDArray[np.float32]
    x: _Array
    y: _Array
    z: _Array
    depth: _Array
    """Millimetres inwards from the outer table along the ray from the origin."""
    azimuth: _Array
    radius: _Array
    """Distance in the plane from the z axis."""
    pixel_mm: float

    def paint(self, coverage: _Array, hounsfield: float | _Array) -> None:
        """Mix in `hounsfield` where `coverage` is above 0."""
        self.hounsfield[...] += coverage * (hounsfield - self.hounsfield)

    def edge(self, inside_mm: _Array) -> _Array:
        """Coverage of where `inside_mm` is positive."""
        inside = inside_mm / np.float32(self.pixel_mm) + np.float32(0.5)
        return np.asarray(np.clip(inside, 0, 1), np.float32)

    def arc_mm(self, azimuth: float) -> _Array:
        """Signed distance along the circle of latitude from `azimuth`."""
        turn = np.float32(2 * math.pi)
        difference = self.azimuth - np.float32(azimuth)
        turned = difference - turn * np.round(difference / turn)
        return np.asarray(turned * self.radius, np.float32)


def deform(mass: Mass | None, canvas: Canvas) -> tuple[float, Canvas]:
    """The largest midline shift in the plane, and the canvas as the undisturbed brain sees it."""
    if mass is None:
        return 0.0, canvas
    _, y, z = mass.body.centre_mm
    pull = np.exp(-(((canvas.y - y) / _PULL_Y_MM) ** 2) - ((canvas.z - z) / _PULL_Z_MM) ** 2)
    half_width = canvas.depth + np.abs(canvas.x) + np.float32(1e-3)
    room = np.clip(1 - (canvas.x / half_width) ** 2, 0, 1)
    moved = np.float32(mass.shift_mm) * pull * room
    in_brain = (canvas.depth > 10) & (np.abs(canvas.x) < 15)
    most = float(np.abs(moved[in_brain]).max()) if in_brain.any() else 0.0
    return math.copysign(most, mass.shift_mm), Canvas(
        canvas.hounsfield,
        canvas.x - moved,
        canvas.y,
        canvas.z,
        canvas.depth,
        canvas.azimuth,
        canvas.radius,
        canvas.pixel_mm,
    )


def inside_ellipsoid_mm(canvas: Canvas, centre: Point, radii: Point) -> _Array | None:
    """Millimetres inside an ellipsoid along the ray from its centre; None where the plane misses
    it."""
    cx, cy, cz = (np.float32(value) for value in centre)
    rx, ry, rz = (np.float32(max(value, 1e-3)) for value in radii)
    height = (canvas.z - cz) / rz
    if float(np.abs(height).min()) > 1.2:
        return None
    scaled = np.sqrt(((canvas.x - cx) / rx) ** 2 + ((canvas.y - cy) / ry) ** 2 + height**2)
    return np.asarray((1 - scaled) * min(rx, ry, rz), np.float32)


def paint_ellipsoid(
    canvas: Canvas, body: Ellipsoid, within: _Array, grow_mm: float = 0.0
) -> NDArray[np.bool_] | None:
    """Paint a body, grown by `grow_mm`, where `within` is 1; its mask, None where there is none."""
    rx, ry, rz = body.radii_mm
    radii = (rx + grow_mm, ry + grow_mm, rz + grow_mm)
    inside = inside_ellipsoid_mm(canvas, body.centre_mm, radii)
    if inside is None:
        return None
    coverage = canvas.edge(inside) * within
    canvas.paint(coverage, body.hounsfield)
    return np.asarray(coverage > 0.5)


def shell_mm(canvas: Canvas, shell: Shell, skull_mm: float) -> _Array:
    """Millimetres [rows, columns] inside the blood below a skull of this thickness."""
    arc = canvas.arc_mm(shell.azimuth) / np.float32(shell.half_arc_mm)
    height = (canvas.z - np.float32(shell.height_mm)) / np.float32(shell.half_height_mm)
    profile = np.clip(1 - arc * arc - height * height, 0, 1)
    return np.asarray(
        np.float32(shell.thickness_mm) * np.sqrt(profile)
        - (canvas.depth - np.float32(skull_mm))
        - np.float32(0.01),
        np.float32,
    )


def break_skull(fracture: Fracture, canvas: Canvas) -> tuple[_Array, _Array, NDArray[np.bool_]]:
    """Inward displacement in mm, coverage of the gaps, and the region of the break."""
    height = canvas.z - np.float32(fracture.height_mm)
    along = canvas.arc_mm(fracture.azimuth) - np.float32(fracture.skew) * height
    tall = canvas.edge(np.float32(fracture.half_height_mm) - np.abs(height))
    half = np.float32(fracture.width_mm / 2)
    if fracture.depressed:
        fragment = canvas.edge(half - np.abs(along))
        to_gap = np.abs(np.abs(along) - half)
    else:
        hinge = np.clip(1 - along / (2 * half), 0, 1)
        fragment = canvas.edge(along) * hinge
        to_gap = np.abs(along)
    gap = canvas.edge(np.float32(fracture.gap_mm / 2) - to_gap) * tall
    inward = np.float32(fracture.depth_mm) * fragment * tall
    near = (canvas.depth > -5) & (canvas.depth < 25) & (canvas.radius > 15)
    return inward * near, gap * near, np.asarray((to_gap < 7) & (tall > 0.5) & near)


def mass_mask(mass: Mass, canvas: Canvas) -> NDArray[np.bool_]:
    """Pixels [rows, columns] of the body of a mass."""
    inside = inside_ellipsoid_mm(canvas, mass.body.centre_mm, mass.body.radii_mm)
    if inside is None:
        return np.zeros(canvas.x.shape, np.bool_)
    return np.asarray(inside > 0)
