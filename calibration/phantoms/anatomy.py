"""Contents of a phantom head: every size, density and lesion, sampled from a seed.

Head frame: millimetres, origin in the middle of the skull, x to the patient's left, y to the back,
z to the top (the directions of DICOM LPS). Densities are Hounsfield units of a head CT without
contrast: Rao et al., "CT of the brain", and the usual textbook ranges.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HAEMORRHAGE = "intracranial_haemorrhage"
MASS_EFFECT = "mass_effect"
FRACTURE = "skull_fracture"
FINDINGS = (HAEMORRHAGE, MASS_EFFECT, FRACTURE)
"""Codes as in the head CT protocol."""

PREVALENCE = 0.45
"""Chance of each finding, independent of the others."""

Point = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Ellipsoid:
    """Axis-aligned in the head frame."""

    centre_mm: Point
    radii_mm: Point
    hounsfield: float


@dataclass(frozen=True, slots=True)
class Shell:
    """Blood between skull and brain, thickest at `azimuth`: a crescent or a lens."""

    azimuth: float
    """Angle about z, radians."""
    height_mm: float
    half_arc_mm: float
    half_height_mm: float
    thickness_mm: float
    hounsfield: float


@dataclass(frozen=True, slots=True)
class Mass:
    """A lesion that pushes the midline to the other side."""

    body: Ellipsoid
    oedema_mm: float
    oedema_hounsfield: float
    shift_mm: float
    """Largest displacement of the midline; positive towards the patient's left."""
    ventricle_factor: float
    """Share left of the width of the ventricle on the side of the mass."""


@dataclass(frozen=True, slots=True)
class Fracture:
    """A displaced break of the skull vault: a gap, and bone pushed inwards beside it."""

    azimuth: float
    height_mm: float
    half_height_mm: float
    width_mm: float
    """Arc of the displaced fragment."""
    gap_mm: float
    depth_mm: float
    skew: float
    """Run of the break along the arc per mm of height."""
    depressed: bool
    """Broken on both sides of the fragment; else on one, the fragment hinging on the other."""


@dataclass(frozen=True, slots=True)
class Swelling:
    """Thickened scalp."""

    azimuth: float
    height_mm: float
    half_arc_mm: float
    thickness_mm: float


@dataclass(frozen=True, slots=True)
class Head:
    """One phantom head and its position in the scanner."""

    skull_semi_axes_mm: Point
    """Outer table of the vault."""
    base_semi_axis_mm: float
    """Semi-axis along z below the origin, where the skull tapers slowly."""
    skull_mm: float
    scalp_mm: float
    cerebrospinal_rim_mm: float
    fold_phase: float
    suture_azimuths: tuple[float, ...]
    grey_hounsfield: float
    white_hounsfield: float
    fluid_hounsfield: float
    bone_hounsfield: float
    ventricle_scale: float
    ventricle_asymmetry: float
    rotation: NDArray[np.float64]
    """[3, 3]: head frame to patient LPS."""
    centre_lps_mm: Point
    calcifications: tuple[Ellipsoid, ...]
    infarct: Ellipsoid | None
    swelling: Swelling | None
    haematoma: Ellipsoid | Shell | None
    mass: Mass | None
    fractures: tuple[Fracture, ...]


def sample_head(
    rng: np.random.Generator, findings: frozenset[str] | None = None, fractures: int = 1
) -> Head:
    """A head with `findings`, or with each finding drawn at `PREVALENCE` where none are given.

    A skull that is fractured has so many `fractures`.
    """
    drawn = frozenset(code for code in FINDINGS if rng.random() < PREVALENCE)
    present = drawn if findings is None else findings
    axes = (rng.uniform(68, 77), rng.uniform(86, 97), rng.uniform(74, 86))
    breaks = tuple(_sample_fracture(rng) for _ in range(fractures))
    swelling = None
    if FRACTURE in present and rng.random() < 0.8:
        swelling = Swelling(breaks[0].azimuth, breaks[0].height_mm, 25.0, rng.uniform(4, 8))
    elif rng.random() < 0.2:
        swelling = Swelling(
            rng.uniform(-math.pi, math.pi), rng.uniform(0, 45), 25.0, rng.uniform(3, 8)
        )
    grey = rng.uniform(35, 40)
    return Head(
        skull_semi_axes_mm=axes,
        base_semi_axis_mm=rng.uniform(110, 150),
        skull_mm=rng.uniform(5, 8),
        scalp_mm=rng.uniform(4, 7),
        cerebrospinal_rim_mm=rng.uniform(1, 3.5),
        fold_phase=rng.uniform(0, 2 * math.pi),
        suture_azimuths=tuple(
            base + rng.uniform(-0.1, 0.1) for base in (-0.75, -math.pi + 0.75, 1.05, 2.09)
        ),
        grey_hounsfield=grey,
        white_hounsfield=grey - rng.uniform(7, 11),
        fluid_hounsfield=rng.uniform(3, 9),
        bone_hounsfield=rng.uniform(750, 1400),
        ventricle_scale=rng.uniform(0.75, 1.3),
        ventricle_asymmetry=rng.uniform(0.88, 1.12),
        rotation=_rotation(rng.normal(0, 3), rng.normal(0, 3), rng.normal(0, 7)),
        centre_lps_mm=(rng.normal(0, 6), rng.normal(0, 8), 0.0),
        calcifications=_sample_calcifications(rng),
        infarct=_sample_infarct(rng) if rng.random() < 0.12 else None,
        swelling=swelling,
        haematoma=_sample_haematoma(rng) if HAEMORRHAGE in present else None,
        mass=_sample_mass(rng) if MASS_EFFECT in present else None,
        fractures=breaks if FRACTURE in present else (),
    )


def _rotation(about_x: float, about_y: float, about_z: float) -> NDArray[np.float64]:
    """[3, 3] from three angles in degrees, applied in the order x, y, z."""
    sx, sy, sz = (math.sin(math.radians(v)) for v in (about_x, about_y, about_z))
    cx, cy, cz = (math.cos(math.radians(v)) for v in (about_x, about_y, about_z))
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(z @ y @ x, np.float64)


def _side(rng: np.random.Generator) -> float:
    return 1.0 if rng.random() < 0.5 else -1.0


def _sample_calcifications(rng: np.random.Generator) -> tuple[Ellipsoid, ...]:
    """Pineal gland, choroid plexus and falx: bright, harmless, and often there."""
    found = []
    if rng.random() < 0.6:
        size = rng.uniform(2, 4)
        found.append(Ellipsoid((0, 18, 6), (size, size, size), rng.uniform(100, 250)))
    if rng.random() < 0.6:
        for side in (-1, 1):
            size = rng.uniform(2, 4.5)
            centre = (side * 22.0, 36.0, 8 + rng.uniform(-3, 3))
            found.append(Ellipsoid(centre, (size, size, size), rng.uniform(90, 220)))
    if rng.random() < 0.25:
        centre = (0.0, rng.uniform(-65, -45), rng.uniform(25, 45))
        found.append(Ellipsoid(centre, (1.5, 6, 4), rng.uniform(150, 400)))
    return tuple(found)


def _sample_infarct(rng: np.random.Generator) -> Ellipsoid:
    """An old infarct: dark as a mass can be, without any shift."""
    centre = (_side(rng) * rng.uniform(38, 50), rng.uniform(-35, 40), rng.uniform(5, 40))
    return Ellipsoid(centre, (rng.uniform(7, 12), rng.uniform(10, 18), 12), rng.uniform(14, 22))


def _sample_haematoma(rng: np.random.Generator) -> Ellipsoid | Shell:
    density = rng.uniform(60, 80)
    kind = rng.random()
    if kind < 0.5:
        centre = (_side(rng) * rng.uniform(12, 42), rng.uniform(-45, 45), rng.uniform(0, 38))
        radii = tuple(float(value) for value in rng.uniform(9, 19, 3))
        return Ellipsoid(centre, (radii[0], radii[1], radii[2]), density)
    azimuth = rng.uniform(-0.7, 0.7) + (math.pi if rng.random() < 0.5 else 0.0)
    height = rng.uniform(5, 35)
    if kind < 0.75:  # subdural: a long crescent
        half_arc, thickness = rng.uniform(55, 80), rng.uniform(7, 13)
    else:  # epidural: a short lens
        half_arc, thickness = rng.uniform(28, 40), rng.uniform(11, 20)
    return Shell(azimuth, height, half_arc, rng.uniform(22, 36), thickness, density)


def _sample_mass(rng: np.random.Generator) -> Mass:
    side = _side(rng)
    centre = (side * rng.uniform(26, 40), rng.uniform(-40, 38), rng.uniform(5, 35))
    radii = tuple(float(value) for value in rng.uniform(14, 24, 3))
    density = rng.uniform(16, 28) if rng.random() < 0.6 else rng.uniform(30, 40)
    return Mass(
        body=Ellipsoid(centre, (radii[0], radii[1], radii[2]), density),
        oedema_mm=rng.uniform(4, 9),
        oedema_hounsfield=rng.uniform(17, 23),
        shift_mm=-side * rng.uniform(8, 15),
        ventricle_factor=rng.uniform(0.3, 0.6),
    )


def _sample_fracture(rng: np.random.Generator) -> Fracture:
    depressed = bool(rng.random() < 0.6)
    return Fracture(
        azimuth=rng.uniform(-math.pi, math.pi),
        height_mm=rng.uniform(5, 40),
        half_height_mm=rng.uniform(14, 26),
        width_mm=rng.uniform(18, 34) if depressed else rng.uniform(25, 40),
        gap_mm=rng.uniform(4, 7),
        depth_mm=rng.uniform(6, 11),
        skew=rng.uniform(-0.4, 0.4),
        depressed=depressed,
    )
