"""Painting one plane of a head: Hounsfield units and, beside them, where each finding is.

Every structure is a coverage in 0..1 whose edge is one pixel wide, so that a boundary carries the
partial volume that a scanner would show.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.calibration.phantoms.anatomy import (
    FRACTURE,
    HAEMORRHAGE,
    MASS_EFFECT,
    Ellipsoid,
    Fracture,
    Head,
    Mass,
    Point,
    Shell,
    Swelling,
)

AIR_HOUNSFIELD = -1000.0
SCALP_HOUNSFIELD = 35.0
FAT_HOUNSFIELD = -70.0
SINUS_BLOOD_HOUNSFIELD = 50.0
FALX_HOUNSFIELD = 46.0
VISIBLE_SHIFT_MM = 4.0
"""Midline shift from which a plane counts as showing mass effect."""

_Array = NDArray[np.floating]
_PULL_Y_MM, _PULL_Z_MM = 45.0, 32.0  # reach of a mass along the midline


@dataclass(frozen=True, slots=True)
class PaintedPlane:
    """One plane [rows, columns] and what it shows."""

    hounsfield: NDArray[np.float32]
    masks: dict[str, NDArray[np.bool_]]
    midline_shift_mm: float
    """Largest in the plane; positive towards the patient's left."""


@dataclass(frozen=True, slots=True)
class _Canvas:
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


def paint_plane(
    head: Head, points_mm: NDArray[np.float32], pixel_mm: float, slice_mm: float
) -> PaintedPlane:
    """Paint the plane whose pixels lie at `points_mm` [3, rows, columns] of the head frame."""
    x, y, z = points_mm
    canvas = _canvas(head, x, y, z, pixel_mm)
    thickness = np.float32(head.skull_mm)
    scalp = np.float32(head.scalp_mm) + _swelling_mm(canvas, head.swelling)
    canvas.paint(canvas.edge(canvas.depth + scalp), SCALP_HOUNSFIELD)
    canvas.paint(
        canvas.edge(canvas.depth + scalp - 1.5) * canvas.edge(-canvas.depth - scalp / 2),
        FAT_HOUNSFIELD,
    )
    inside = canvas.edge(canvas.depth - thickness)
    canvas.paint(inside, head.fluid_hounsfield)
    shift, deformed = _deformed(head.mass, canvas)
    _paint_brain(head, deformed, inside)
    masks = {
        HAEMORRHAGE: _paint_haematoma(head, deformed, inside),
        MASS_EFFECT: np.zeros(x.shape, np.bool_),
    }
    if head.mass is not None:
        masks[MASS_EFFECT] = _mass_mask(head.mass, canvas)
    for spot in head.calcifications:
        _paint_ellipsoid(deformed, spot, inside)
    masks[FRACTURE] = _paint_skull(head, canvas)
    _paint_base(head, canvas)
    return PaintedPlane(canvas.hounsfield, masks, shift)


def _canvas(head: Head, x: _Array, y: _Array, z: _Array, pixel_mm: float) -> _Canvas:
    a, b, c = (np.float32(value) for value in head.skull_semi_axes_mm)
    vertical = np.where(z > 0, c, np.float32(head.base_semi_axis_mm))
    scaled = np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / vertical) ** 2) + np.float32(1e-3)
    distance = np.sqrt(x * x + y * y + z * z)
    return _Canvas(
        hounsfield=np.full(x.shape, AIR_HOUNSFIELD, np.float32),
        x=x,
        y=y,
        z=z,
        depth=distance / scaled - distance,
        azimuth=np.arctan2(y / b, x / a),
        radius=np.hypot(x, y),
        pixel_mm=pixel_mm,
    )


def _swelling_mm(canvas: _Canvas, swelling: Swelling | None) -> _Array | np.float32:
    if swelling is None:
        return np.float32(0)
    arc = canvas.arc_mm(swelling.azimuth) / np.float32(swelling.half_arc_mm)
    height = (canvas.z - np.float32(swelling.height_mm)) / np.float32(swelling.half_arc_mm)
    bump = np.clip(1 - arc * arc - height * height, 0, 1)
    return np.asarray(np.float32(swelling.thickness_mm) * bump, np.float32)


def _deformed(mass: Mass | None, canvas: _Canvas) -> tuple[float, _Canvas]:
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
    return math.copysign(most, mass.shift_mm), _Canvas(
        canvas.hounsfield,
        canvas.x - moved,
        canvas.y,
        canvas.z,
        canvas.depth,
        canvas.azimuth,
        canvas.radius,
        canvas.pixel_mm,
    )


def _inside_ellipsoid_mm(canvas: _Canvas, centre: Point, radii: Point) -> _Array | None:
    """Millimetres inside an ellipsoid along the ray from its centre; None where the plane misses
    it."""
    cx, cy, cz = (np.float32(value) for value in centre)
    rx, ry, rz = (np.float32(max(value, 1e-3)) for value in radii)
    height = (canvas.z - cz) / rz
    if float(np.abs(height).min()) > 1.2:
        return None
    scaled = np.sqrt(((canvas.x - cx) / rx) ** 2 + ((canvas.y - cy) / ry) ** 2 + height**2)
    return np.asarray((1 - scaled) * min(rx, ry, rz), np.float32)


def _paint_ellipsoid(
    canvas: _Canvas, body: Ellipsoid, within: _Array, grow_mm: float = 0.0
) -> NDArray[np.bool_] | None:
    rx, ry, rz = body.radii_mm
    radii = (rx + grow_mm, ry + grow_mm, rz + grow_mm)
    inside = _inside_ellipsoid_mm(canvas, body.centre_mm, radii)
    if inside is None:
        return None
    coverage = canvas.edge(inside) * within
    canvas.paint(coverage, body.hounsfield)
    return np.asarray(coverage > 0.5)


def _paint_brain(head: Head, canvas: _Canvas, inside: _Array) -> None:
    """Cortex with folds, white matter, deep grey nuclei, falx, ventricles, infarct and mass."""
    x, y, z = canvas.x, canvas.y, canvas.z
    folds = np.sin(canvas.azimuth * 23 + np.float32(head.fold_phase) + z / 6) * np.sin(
        canvas.azimuth * 11 - z / 4
    )
    cortex = canvas.depth - np.float32(head.skull_mm + head.cerebrospinal_rim_mm)
    canvas.paint(canvas.edge(cortex - 1.2 * (1 + folds)), head.grey_hounsfield)
    white = np.minimum(cortex - 5 - 3 * folds, np.abs(x) - 5)
    canvas.paint(canvas.edge(white), head.white_hounsfield)
    for side in (-1, 1):
        for centre, radii in (((11, 2, 6), (8, 13, 9)), ((25, -8, 6), (7, 17, 9))):
            place = (side * centre[0], centre[1], centre[2])
            _paint_ellipsoid(canvas, Ellipsoid(place, radii, head.grey_hounsfield), inside)
    above = canvas.edge(np.maximum(z - 30, np.abs(y + 2) - 38)) * inside
    canvas.paint(canvas.edge(1.8 - np.abs(x)) * above, head.fluid_hounsfield)
    canvas.paint(canvas.edge(0.9 - np.abs(x)) * above, FALX_HOUNSFIELD)
    back = head.skull_semi_axes_mm[1] - head.skull_mm - 4
    sinus = Ellipsoid((0, back, 10), (4, 4, 40), SINUS_BLOOD_HOUNSFIELD)
    _paint_ellipsoid(canvas, sinus, inside)
    if head.infarct is not None:
        _paint_ellipsoid(canvas, head.infarct, inside)
    if head.mass is not None:
        body = head.mass.body
        oedema = Ellipsoid(body.centre_mm, body.radii_mm, head.mass.oedema_hounsfield)
        within = canvas.edge(cortex - 1)
        _paint_ellipsoid(canvas, oedema, within, head.mass.oedema_mm)
        _paint_ellipsoid(canvas, body, within)
    _paint_ventricles(head, canvas, inside)


def _paint_ventricles(head: Head, canvas: _Canvas, inside: _Array) -> None:
    chambers = (
        ((9.0, -26.0, 13.0), (5.5, 14.0, 10.0)),
        ((12.0, 4.0, 21.0), (6.0, 30.0, 8.0)),
        ((21.0, 34.0, 9.0), (7.0, 15.0, 9.0)),
    )
    for side in (-1, 1):
        scale = head.ventricle_scale * head.ventricle_asymmetry**side
        narrow = 1.0
        if head.mass is not None and side * head.mass.shift_mm < 0:
            narrow = head.mass.ventricle_factor
        for (cx, cy, cz), (rx, ry, rz) in chambers:
            radii = (rx * scale * narrow, ry * scale * math.sqrt(narrow), rz * scale)
            chamber = Ellipsoid((side * cx, cy, cz), radii, head.fluid_hounsfield)
            _paint_ellipsoid(canvas, chamber, inside)
    third = Ellipsoid((0, -2, 3), (2.5 * head.ventricle_scale, 12, 9), head.fluid_hounsfield)
    fourth = Ellipsoid((0, 32, -26), (6, 5, 8), head.fluid_hounsfield)
    _paint_ellipsoid(canvas, third, inside)
    _paint_ellipsoid(canvas, fourth, inside)


def _paint_haematoma(head: Head, canvas: _Canvas, inside: _Array) -> NDArray[np.bool_]:
    nothing = np.zeros(canvas.x.shape, np.bool_)
    blood = head.haematoma
    if blood is None:
        return nothing
    if isinstance(blood, Ellipsoid):
        oedema = Ellipsoid(blood.centre_mm, blood.radii_mm, 22.0)
        within = canvas.edge(canvas.depth - np.float32(head.skull_mm + 2))
        _paint_ellipsoid(canvas, oedema, within, 3.0)
        painted = _paint_ellipsoid(canvas, blood, within)
        return nothing if painted is None else painted
    coverage = canvas.edge(_shell_mm(canvas, blood, head.skull_mm)) * inside
    canvas.paint(coverage, blood.hounsfield)
    return np.asarray(coverage > 0.5)


def _shell_mm(canvas: _Canvas, shell: Shell, skull_mm: float) -> _Array:
    arc = canvas.arc_mm(shell.azimuth) / np.float32(shell.half_arc_mm)
    height = (canvas.z - np.float32(shell.height_mm)) / np.float32(shell.half_height_mm)
    profile = np.clip(1 - arc * arc - height * height, 0, 1)
    return np.asarray(
        np.float32(shell.thickness_mm) * np.sqrt(profile)
        - (canvas.depth - np.float32(skull_mm))
        - np.float32(0.01),
        np.float32,
    )


def _mass_mask(mass: Mass, canvas: _Canvas) -> NDArray[np.bool_]:
    inside = _inside_ellipsoid_mm(canvas, mass.body.centre_mm, mass.body.radii_mm)
    if inside is None:
        return np.zeros(canvas.x.shape, np.bool_)
    return np.asarray(inside > 0)


def _paint_skull(head: Head, canvas: _Canvas) -> NDArray[np.bool_]:
    """Two tables of dense bone with marrow between, sutures, and the fracture's mask."""
    depth = canvas.depth
    broken = np.zeros(depth.shape, np.bool_)
    whole: _Array = np.ones(depth.shape, np.float32)
    for fracture in head.fractures:
        inward, gap, region = _fracture(fracture, canvas)
        depth = depth - inward
        whole = whole * (1 - gap)
        broken |= region
    for azimuth in head.suture_azimuths:  # narrow, and through half the bone only
        shallow = canvas.edge(np.float32(head.skull_mm / 2) - depth)
        whole = whole * (1 - 0.7 * canvas.edge(0.6 - np.abs(canvas.arc_mm(azimuth))) * shallow)
    bone = canvas.edge(depth) * canvas.edge(np.float32(head.skull_mm) - depth)
    canvas.paint(bone * whole, head.bone_hounsfield)
    third = np.float32(head.skull_mm / 3)
    marrow = canvas.edge(depth - third) * canvas.edge(2 * third - depth)
    canvas.paint(marrow * whole, head.bone_hounsfield * 0.55)
    near = np.abs(depth - head.skull_mm / 2) < head.skull_mm / 2 + 2
    return np.asarray(broken & near)


def _fracture(fracture: Fracture, canvas: _Canvas) -> tuple[_Array, _Array, NDArray[np.bool_]]:
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


def _paint_base(head: Head, canvas: _Canvas) -> None:
    """Petrous bones, mastoid and nasal air, orbits: what low slices show."""
    everywhere: _Array = canvas.edge(canvas.depth)
    bone = head.bone_hounsfield
    for side in (-1.0, 1.0):
        _paint_ellipsoid(canvas, Ellipsoid((side * 34, 22, -42), (22, 8, 10), bone), everywhere)
        _paint_ellipsoid(
            canvas, Ellipsoid((side * 52, 30, -46), (8, 8, 9), AIR_HOUNSFIELD / 2), everywhere
        )
        _paint_ellipsoid(
            canvas, Ellipsoid((side * 30, -66, -44), (17, 18, 16), FAT_HOUNSFIELD), everywhere
        )
        _paint_ellipsoid(canvas, Ellipsoid((side * 30, -72, -44), (11, 11, 11), 12.0), everywhere)
    _paint_ellipsoid(canvas, Ellipsoid((0, -60, -48), (13, 18, 16), AIR_HOUNSFIELD), everywhere)
    _paint_ellipsoid(canvas, Ellipsoid((0, -20, -48), (16, 12, 9), bone * 0.7), everywhere)
