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
    Head,
    Swelling,
)
from edge_medgemma.calibration.phantoms.shapes import (
    Canvas,
    break_skull,
    deform,
    mass_mask,
    paint_ellipsoid,
    shell_mm,
)

AIR_HOUNSFIELD = -1000.0
SCALP_HOUNSFIELD = 35.0
FAT_HOUNSFIELD = -70.0
SINUS_BLOOD_HOUNSFIELD = 50.0
FALX_HOUNSFIELD = 46.0
VISIBLE_SHIFT_MM = 4.0
"""Midline shift from which a plane counts as showing mass effect."""

_Array = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class PaintedPlane:
    """One plane [rows, columns] and what it shows."""

    hounsfield: NDArray[np.float32]
    masks: dict[str, NDArray[np.bool_]]
    midline_shift_mm: float
    """Largest in the plane; positive towards the patient's left."""


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
    shift, deformed = deform(head.mass, canvas)
    _paint_brain(head, deformed, inside)
    masks = {
        HAEMORRHAGE: _paint_haematoma(head, deformed, inside),
        MASS_EFFECT: np.zeros(x.shape, np.bool_),
    }
    if head.mass is not None:
        masks[MASS_EFFECT] = mass_mask(head.mass, canvas)
    for spot in head.calcifications:
        paint_ellipsoid(deformed, spot, inside)
    masks[FRACTURE] = _paint_skull(head, canvas)
    _paint_base(head, canvas)
    return PaintedPlane(canvas.hounsfield, masks, shift)


def _canvas(head: Head, x: _Array, y: _Array, z: _Array, pixel_mm: float) -> Canvas:
    a, b, c = (np.float32(value) for value in head.skull_semi_axes_mm)
    vertical = np.where(z > 0, c, np.float32(head.base_semi_axis_mm))
    scaled = np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / vertical) ** 2) + np.float32(1e-3)
    distance = np.sqrt(x * x + y * y + z * z)
    return Canvas(
        hounsfield=np.full(x.shape, AIR_HOUNSFIELD, np.float32),
        x=x,
        y=y,
        z=z,
        depth=distance / scaled - distance,
        azimuth=np.arctan2(y / b, x / a),
        radius=np.hypot(x, y),
        pixel_mm=pixel_mm,
    )


def _swelling_mm(canvas: Canvas, swelling: Swelling | None) -> _Array | np.float32:
    if swelling is None:
        return np.float32(0)
    arc = canvas.arc_mm(swelling.azimuth) / np.float32(swelling.half_arc_mm)
    height = (canvas.z - np.float32(swelling.height_mm)) / np.float32(swelling.half_arc_mm)
    bump = np.clip(1 - arc * arc - height * height, 0, 1)
    return np.asarray(np.float32(swelling.thickness_mm) * bump, np.float32)


def _paint_brain(head: Head, canvas: Canvas, inside: _Array) -> None:
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
            paint_ellipsoid(canvas, Ellipsoid(place, radii, head.grey_hounsfield), inside)
    above = canvas.edge(np.maximum(z - 30, np.abs(y + 2) - 38)) * inside
    canvas.paint(canvas.edge(1.8 - np.abs(x)) * above, head.fluid_hounsfield)
    canvas.paint(canvas.edge(0.9 - np.abs(x)) * above, FALX_HOUNSFIELD)
    back = head.skull_semi_axes_mm[1] - head.skull_mm - 4
    sinus = Ellipsoid((0, back, 10), (4, 4, 40), SINUS_BLOOD_HOUNSFIELD)
    paint_ellipsoid(canvas, sinus, inside)
    if head.infarct is not None:
        paint_ellipsoid(canvas, head.infarct, inside)
    if head.mass is not None:
        body = head.mass.body
        oedema = Ellipsoid(body.centre_mm, body.radii_mm, head.mass.oedema_hounsfield)
        within = canvas.edge(cortex - 1)
        paint_ellipsoid(canvas, oedema, within, head.mass.oedema_mm)
        paint_ellipsoid(canvas, body, within)
    _paint_ventricles(head, canvas, inside)


def _paint_ventricles(head: Head, canvas: Canvas, inside: _Array) -> None:
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
            paint_ellipsoid(canvas, chamber, inside)
    third = Ellipsoid((0, -2, 3), (2.5 * head.ventricle_scale, 12, 9), head.fluid_hounsfield)
    fourth = Ellipsoid((0, 32, -26), (6, 5, 8), head.fluid_hounsfield)
    paint_ellipsoid(canvas, third, inside)
    paint_ellipsoid(canvas, fourth, inside)


def _paint_haematoma(head: Head, canvas: Canvas, inside: _Array) -> NDArray[np.bool_]:
    nothing = np.zeros(canvas.x.shape, np.bool_)
    blood = head.haematoma
    if blood is None:
        return nothing
    if isinstance(blood, Ellipsoid):
        oedema = Ellipsoid(blood.centre_mm, blood.radii_mm, 22.0)
        within = canvas.edge(canvas.depth - np.float32(head.skull_mm + 2))
        paint_ellipsoid(canvas, oedema, within, 3.0)
        painted = paint_ellipsoid(canvas, blood, within)
        return nothing if painted is None else painted
    coverage = canvas.edge(shell_mm(canvas, blood, head.skull_mm)) * inside
    canvas.paint(coverage, blood.hounsfield)
    return np.asarray(coverage > 0.5)


def _paint_skull(head: Head, canvas: Canvas) -> NDArray[np.bool_]:
    """Two tables of dense bone with marrow between, sutures, and the fracture's mask."""
    depth = canvas.depth
    broken = np.zeros(depth.shape, np.bool_)
    whole: _Array = np.ones(depth.shape, np.float32)
    for fracture in head.fractures:
        inward, gap, region = break_skull(fracture, canvas)
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


def _paint_base(head: Head, canvas: Canvas) -> None:
    """Petrous bones, mastoid and nasal air, orbits: what low slices show."""
    everywhere: _Array = canvas.edge(canvas.depth)
    bone = head.bone_hounsfield
    for side in (-1.0, 1.0):
        paint_ellipsoid(canvas, Ellipsoid((side * 34, 22, -42), (22, 8, 10), bone), everywhere)
        paint_ellipsoid(
            canvas, Ellipsoid((side * 52, 30, -46), (8, 8, 9), AIR_HOUNSFIELD / 2), everywhere
        )
        paint_ellipsoid(
            canvas, Ellipsoid((side * 30, -66, -44), (17, 18, 16), FAT_HOUNSFIELD), everywhere
        )
        paint_ellipsoid(canvas, Ellipsoid((side * 30, -72, -44), (11, 11, 11), 12.0), everywhere)
    paint_ellipsoid(canvas, Ellipsoid((0, -60, -48), (13, 18, 16), AIR_HOUNSFIELD), everywhere)
    paint_ellipsoid(canvas, Ellipsoid((0, -20, -48), (16, 12, 9), bone * 0.7), everywhere)
