"""Lesions of the phantoms in a real head: real background, drawn truth.

The head is turned, mirrored, scaled, bent, blurred or sharpened, and made noisy by a seed, so that
one head is many; what is drawn into it has the sizes and places of `anatomy.py`.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.calibration.phantoms.anatomy import (
    FINDINGS,
    FRACTURE,
    HAEMORRHAGE,
    MASS_EFFECT,
    Ellipsoid,
    Head,
    Shell,
    sample_head,
)
from edge_medgemma.calibration.phantoms.drawing import VISIBLE_AREA_MM2, Phantom, evenly
from edge_medgemma.calibration.phantoms.painting import VISIBLE_SHIFT_MM, PaintedPlane
from edge_medgemma.calibration.phantoms.real_head import RAYS, RealHead, sample_plane
from edge_medgemma.calibration.phantoms.shapes import (
    Canvas,
    break_skull,
    deform,
    mass_mask,
    paint_ellipsoid,
    shell_mm,
)

PREVALENCE = {HAEMORRHAGE: 0.5, MASS_EFFECT: 0.25, FRACTURE: 0.25}
MATRIX_SIZES = (192, 256, 320, 512)
MATRIX_WEIGHTS = (0.2, 0.45, 0.15, 0.2)
FIELD_MM = 250.0
SKULL_MM = 7.0
BONE_HOUNSFIELD = 120.0
"""Above any blood."""
GAP_HOUNSFIELD = 35.0
BLOOD_HOUNSFIELD = (52.0, 76.0)
RIM_HOUNSFIELD = 20.0

_Array = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class _View:
    """How the scanner sees the head this time."""

    side: float
    """-1 mirrors left and right."""
    turn: float
    """About z, radians."""
    zoom: tuple[float, float]
    shift_mm: tuple[float, float]
    bend_mm: tuple[float, float]
    bend_wave_mm: tuple[float, float]
    bend_phase: tuple[float, float]
    rows: int
    pixel_mm: float
    overlap: float
    """Share of the slice above that a slice shows."""
    contrast: float
    offset_hounsfield: float
    sharpness: float
    """Negative blurs."""
    noise_hounsfield: float


@dataclass(frozen=True, slots=True)
class _Lesions:
    """A head's lesions, and the edge of its haematoma."""

    head: Head
    rim_mm: float
    lobes: tuple[tuple[int, float, float], ...]
    """Waves around, amplitude as a share of the radius, phase."""


def insert_lesions(
    head: RealHead,
    seed: int,
    *,
    findings: frozenset[str] | None = None,
    fractures: int = 1,
    count: int | None = None,
) -> Phantom:
    """The head of a seed, with lesions; its spacing is the mean where the real one is uneven.

    Args:
        head: the background.
        seed: any non-negative integer.
        findings: codes to draw; each with a chance of its own where none are given. One that no
            drawn slice shows is not among the phantom's findings.
        fractures: how many breaks a fractured skull has.
        count: at most so many slices, evenly spaced over those that the seed keeps.
    """
    rng = np.random.default_rng((seed, 2))
    drawn = frozenset(code for code in FINDINGS if rng.random() < PREVALENCE[code])
    lesions = _sample_lesions(rng, drawn if findings is None else findings, fractures)
    rng = np.random.default_rng((seed, 3))  # the view is the same whatever is drawn
    view = _sample_view(rng)
    first, last = _sample_range(rng, len(head.hounsfield))
    kept = tuple(first + i for i in evenly(last - first, count))
    planes = [
        _draw_plane(head, lesions, view, i, np.random.default_rng((seed, 4, i))) for i in kept
    ]
    return _phantom(head, seed, view, planes, kept)


def _sample_lesions(rng: np.random.Generator, findings: frozenset[str], fractures: int) -> _Lesions:
    lobes = tuple(
        (int(waves), rng.uniform(0.0, 0.14), rng.uniform(0, 2 * math.pi)) for waves in (2, 3, 5)
    )
    head = sample_head(rng, findings, fractures)
    if head.haematoma is not None:
        density = rng.uniform(*BLOOD_HOUNSFIELD)
        head = replace(head, haematoma=replace(head.haematoma, hounsfield=density))
    return _Lesions(head, rng.uniform(1.5, 6), lobes)


def _sample_view(rng: np.random.Generator) -> _View:
    rows = int(rng.choice(MATRIX_SIZES, p=MATRIX_WEIGHTS))
    zoom = rng.uniform(0.87, 1.13)
    plain = rng.random() < 0.15  # as the scanner made it, now and then
    strength = 0.0 if plain else 1.0
    return _View(
        side=1.0 if rng.random() < 0.5 else -1.0,
        turn=math.radians(rng.normal(0, 7)) * strength,
        zoom=(zoom, zoom * rng.uniform(0.94, 1.06)) if not plain else (1.0, 1.0),
        shift_mm=(rng.normal(0, 7) * strength, rng.normal(0, 9) * strength),
        bend_mm=(rng.uniform(0, 3) * strength, rng.uniform(0, 3) * strength),
        bend_wave_mm=(rng.uniform(90, 180), rng.uniform(90, 180)),
        bend_phase=(rng.uniform(0, 2 * math.pi), rng.uniform(0, 2 * math.pi)),
        rows=512 if plain else rows,
        pixel_mm=FIELD_MM * (1.0 if plain else rng.uniform(0.9, 1.08)) / (512 if plain else rows),
        overlap=rng.uniform(0, 0.5) if rng.random() < 0.3 else 0.0,
        contrast=1.0 if plain else rng.uniform(0.78, 1.28),
        offset_hounsfield=rng.normal(0, 2.5) * strength,
        sharpness=0.0 if plain else rng.uniform(-0.9, 0.9),
        noise_hounsfield=0.0 if plain else rng.uniform(0, 4),
    )


def _sample_range(rng: np.random.Generator, slices: int) -> tuple[int, int]:
    """The whole scan, or one that leaves out some of the neck and the vertex."""
    if rng.random() < 0.4:
        return 0, slices
    return int(rng.integers(0, slices // 2)), slices - int(rng.integers(0, 4))


def _draw_plane(
    head: RealHead, lesions: _Lesions, view: _View, index: int, rng: np.random.Generator
) -> PaintedPlane:
    x, y = _head_points(head, view, index)
    table = head.inner_table_mm[index]
    nothing = np.zeros(x.shape, np.bool_)
    masks, shift = {code: nothing for code in FINDINGS}, 0.0
    if table is None:
        hounsfield = _sampled(head, view, index, x, y)
    else:
        canvas = _canvas(head, view, index, x, y, table)
        hounsfield, shift = _paint(head, lesions, view, index, canvas, masks)
    return PaintedPlane(_scanned(hounsfield, view, rng), masks, shift)


def _head_points(head: RealHead, view: _View, index: int) -> tuple[_Array, _Array]:
    """x and y of every pixel in mm from the middle of the skull, as seen in this view."""
    steps = (np.arange(view.rows, dtype=np.float32) - (view.rows - 1) / 2) * view.pixel_mm
    centre_x, centre_y = head.centres_mm[index]
    x = (steps - view.side * centre_x - view.shift_mm[0])[None, :]
    y = (steps - centre_y - view.shift_mm[1])[:, None]
    cos, sin = math.cos(view.turn), math.sin(view.turn)
    turned_x, turned_y = (cos * x + sin * y) / view.zoom[0], (cos * y - sin * x) / view.zoom[1]
    bent_x = view.bend_mm[0] * np.sin(
        2 * math.pi * turned_y / view.bend_wave_mm[0] + view.bend_phase[0]
    )
    bent_y = view.bend_mm[1] * np.sin(
        2 * math.pi * turned_x / view.bend_wave_mm[1] + view.bend_phase[1]
    )
    return np.asarray(turned_x + bent_x, np.float32), np.asarray(turned_y + bent_y, np.float32)


def _canvas(head: RealHead, view: _View, index: int, x: _Array, y: _Array, table: _Array) -> Canvas:
    """What a phantom's plane would be; the inner table lies at a depth of SKULL_MM."""
    radius = np.hypot(x, y)
    place = (np.arctan2(y, view.side * x) + math.pi) * (RAYS / (2 * math.pi))
    inner = np.interp(place.ravel(), np.arange(RAYS + 1), np.r_[table, table[:1]]).reshape(x.shape)
    return Canvas(
        hounsfield=np.empty(x.shape, np.float32),
        x=x,
        y=y,
        z=np.full(x.shape, head.positions_mm[index], np.float32),
        depth=np.asarray(SKULL_MM + inner - radius, np.float32),
        azimuth=np.asarray(np.arctan2(y, x), np.float32),
        radius=radius,
        pixel_mm=view.pixel_mm,
    )


def _sampled(head: RealHead, view: _View, index: int, x: _Array, y: _Array) -> NDArray[np.float32]:
    """The real head at points of the view, mixed with its next slice by the view's overlap."""
    above = min(index + 1, len(head.hounsfield) - 1)
    plane = np.zeros(x.shape, np.float32)
    for one, share in ((index, 1 - view.overlap), (above, view.overlap)):
        if share:
            middle_x, middle_y = head.centres_mm[one]
            values = sample_plane(
                head.hounsfield[one], head.pixel_mm, view.side * x + middle_x, y + middle_y
            )
            plane += np.float32(share) * values
    return plane


def _paint(
    head: RealHead,
    lesions: _Lesions,
    view: _View,
    index: int,
    canvas: Canvas,
    masks: dict[str, NDArray[np.bool_]],
) -> tuple[NDArray[np.float32], float]:
    """The plane with its lesions and the shift of its midline; fills `masks`."""
    drawn = lesions.head
    inward, gap = np.zeros_like(canvas.depth), np.zeros_like(canvas.depth)
    for fracture in drawn.fractures:
        pushed, opened, region = break_skull(fracture, canvas)
        inward, gap = inward + pushed, np.maximum(gap, opened)
        near = np.abs(canvas.depth - SKULL_MM / 2) < SKULL_MM / 2 + 2
        masks[FRACTURE] = masks[FRACTURE] | (region & near)
    shift, moved = deform(drawn.mass, canvas)
    outwards = inward / np.maximum(canvas.radius, 1)
    canvas.hounsfield[...] = _sampled(
        head, view, index, moved.x + canvas.x * outwards, moved.y + canvas.y * outwards
    )
    brain = canvas.edge(canvas.depth - SKULL_MM - 2)
    if drawn.mass is not None:
        body = drawn.mass.body
        oedema = Ellipsoid(body.centre_mm, body.radii_mm, drawn.mass.oedema_hounsfield)
        paint_ellipsoid(moved, oedema, brain, drawn.mass.oedema_mm)
        paint_ellipsoid(moved, body, brain)
        masks[MASS_EFFECT] = mass_mask(drawn.mass, canvas)
    masks[HAEMORRHAGE] = _paint_blood(lesions, moved)
    canvas.paint(gap * (canvas.hounsfield > BONE_HOUNSFIELD), GAP_HOUNSFIELD)
    return canvas.hounsfield, shift


def _paint_blood(lesions: _Lesions, canvas: Canvas) -> NDArray[np.bool_]:
    blood = lesions.head.haematoma
    nothing = np.zeros(canvas.x.shape, np.bool_)
    if blood is None:
        return nothing
    if isinstance(blood, Shell):
        coverage = canvas.edge(shell_mm(canvas, blood, SKULL_MM))
        coverage = coverage * canvas.edge(canvas.depth - np.float32(SKULL_MM))
        canvas.paint(coverage, blood.hounsfield)
        return np.asarray(coverage > 0.5)
    brain = canvas.edge(canvas.depth - np.float32(SKULL_MM + 1))
    around = np.arctan2(canvas.y - blood.centre_mm[1], canvas.x - blood.centre_mm[0])
    bulge: _Array = np.ones_like(around)
    for waves, amplitude, phase in lesions.lobes:
        bulge = bulge + amplitude * np.sin(waves * around + phase)
    scaled = [
        (at - middle) / radius
        for at, middle, radius in zip(
            (canvas.x, canvas.y, canvas.z), blood.centre_mm, blood.radii_mm, strict=True
        )
    ]
    distance = np.sqrt(sum(np.square(one) for one in scaled))
    inside = np.asarray((bulge - distance) * min(blood.radii_mm), np.float32)
    canvas.paint(canvas.edge(inside + np.float32(lesions.rim_mm)) * brain, RIM_HOUNSFIELD)
    coverage = canvas.edge(inside) * brain
    canvas.paint(coverage, blood.hounsfield)
    return np.asarray(coverage > 0.5)


def _scanned(
    hounsfield: NDArray[np.float32], view: _View, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Kernel, contrast and noise of this view's scanner."""
    smooth: _Array = hounsfield
    for axis in (0, 1):
        smooth = (np.roll(smooth, 1, axis) + 2 * smooth + np.roll(smooth, -1, axis)) / 4
    sharp = hounsfield + np.float32(view.sharpness) * (hounsfield - smooth)
    tissue = np.float32(35) + (sharp - np.float32(35)) * np.float32(view.contrast)
    noise = rng.standard_normal(hounsfield.shape, dtype=np.float32)
    noise = (noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1)) * np.float32(0.58)
    scanned = tissue + np.float32(view.offset_hounsfield) + noise * view.noise_hounsfield
    return np.asarray(np.clip(scanned, -1024, 3071), np.float32)


def _phantom(
    head: RealHead, seed: int, view: _View, planes: list[PaintedPlane], kept: tuple[int, ...]
) -> Phantom:
    shift = np.array([plane.midline_shift_mm for plane in planes], np.float32)
    masks = {code: np.stack([plane.masks[code] for plane in planes]) for code in FINDINGS}
    shown: dict[str, tuple[int, ...]] = {}
    for code, mask in masks.items():
        visible = np.abs(shift) >= VISIBLE_SHIFT_MM
        if code != MASS_EFFECT:
            visible = mask.sum(axis=(1, 2)) * view.pixel_mm**2 >= VISIBLE_AREA_MM2[code]
        shown[code] = tuple(int(i) for i in np.flatnonzero(visible))
    present = frozenset(code for code in FINDINGS if shown[code])
    slice_mm = float(np.ptp(head.positions_mm)) / max(len(head.positions_mm) - 1, 1)
    affine = np.diag([slice_mm, view.pixel_mm, view.pixel_mm, 1.0])[[2, 1, 0, 3]]
    affine[:2, 3] = -(view.rows - 1) / 2 * view.pixel_mm
    return Phantom(
        seed=seed,
        hounsfield=np.stack([plane.hounsfield for plane in planes]),
        spacing_mm=(slice_mm, view.pixel_mm, view.pixel_mm),
        affine_lps_mm=affine,
        findings=present,
        finding_slices={code: shown[code] for code in present},
        finding_masks={code: masks[code] for code in present},
        midline_shift_mm=shift,
        slice_indices=kept,
        background=head.sha256,
    )
