"""A stack of slice headers described as a `Series`, its problems named."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.slicing.dicom.headers import SliceHeader
from edge_medgemma.runtime.slicing.display import AS_STORED, standard_turn, turned_affine
from edge_medgemma.runtime.slicing.geometry import (
    ANISOTROPIC_RATIO,
    MIN_TILT_DEG,
    affine_lps_mm,
    is_uniform,
    missing_slices,
    plane_name,
    stack_normal,
    tilt_deg,
)
from edge_medgemma.runtime.slicing.grouping import Stack
from edge_medgemma.runtime.slicing.volume import BodyPart, Modality, Problem, Series

ASSUMED_SPACING_MM = 1.0
"""Stands in for a spacing that no header gives; a problem says so."""

RADIOGRAPHS = (Modality.CR, Modality.DX)

SIDES_NOT_STATED = Problem("sides_not_stated", "the image does not say which side is the left one")

FOR_PROCESSING = Problem(
    "for_processing",
    "these are raw values of the detector, not made for reading; send the image for presentation",
)


def describe_stack(stack: Stack) -> Series:
    """Geometry and problems of one stack, from headers alone."""
    first = stack.slices[0]
    problems = list(stack.problems)
    pixel_spacing = _pixel_spacing(first, problems)
    if first.modality in RADIOGRAPHS:
        orientation, plane = np.array([1.0, 0, 0, 0, 1, 0]), "projection"
        slices = stack.slices
        corners = np.zeros((len(slices), 3))
        turn, is_hung = first.hanging
        problems += [] if is_hung else [SIDES_NOT_STATED]
    else:
        slices, orientation, corners = _placed(stack, problems)
        plane = plane_name(stack_normal(orientation))
        turn = standard_turn(orientation) if first.orientation else AS_STORED
    positions = corners @ stack_normal(orientation)
    spacing = _slice_spacing(first, positions)
    problems += _spacing_problems(first.modality, orientation, corners, positions)
    if first.modality not in RADIOGRAPHS and not first.frame_of_reference:
        problems.append(
            Problem("no_frame_of_reference", "positions cannot be compared with other series")
        )
    if first.modality is Modality.CT:
        problems += _rescale_problems(slices)
    if first.is_for_processing:
        problems.append(FOR_PROCESSING)
    affine = affine_lps_mm(orientation, corners, pixel_spacing, spacing)
    height_mm, width_mm = turn.sizes(*pixel_spacing)
    parts = _common_body_parts(slices)
    return Series(
        study_uid=first.study_uid,
        series_uid=first.series_uid,
        modality=first.modality,
        body_part=parts[0],
        other_body_parts=parts[1:],
        shape=(len(slices), *turn.sizes(first.rows, first.columns)),
        affine_lps_mm=turned_affine(affine, turn, first.rows, first.columns),
        positions_mm=positions,
        spacing_mm=(spacing, height_mm, width_mm),
        orientation=plane,
        sources=tuple(header.source for header in slices),
        problems=tuple(problems),
        is_original=all(header.is_original for header in slices),
        is_sharp_kernel=first.is_sharp_kernel,
        person=stack.person,
        has_contrast_agent=any(header.has_contrast_agent for header in slices),
        is_for_processing=first.is_for_processing,
        turns=(turn,),
        views=tuple(h.view for h in slices) if first.modality in RADIOGRAPHS else (),
        scanned_at=min((h.scanned_at for h in slices if h.scanned_at), default=""),
    )


def _common_body_parts(slices: tuple[SliceHeader, ...]) -> tuple[BodyPart, ...]:
    """Those of the slice that names the most common ones; UNKNOWN where no slice names any."""
    named = Counter(header.body_parts for header in slices if header.body_parts)
    return named.most_common(1)[0][0] if named else (BodyPart.UNKNOWN,)


def _rescale_problems(slices: tuple[SliceHeader, ...]) -> list[Problem]:
    rescales = {header.rescale for header in slices}
    if None in rescales:
        detail = "no rescale to Hounsfield units is given"
        return [Problem("not_hounsfield", detail)]
    num_files = len({header.source.path for header in slices})
    if len(rescales) > 1 and num_files > 1:  # frames of one object may each have their own
        detail = f"{len(rescales)} different rescales to Hounsfield units in one stack"
        return [Problem("rescale_varies", detail)]
    return []


def _pixel_spacing(first: SliceHeader, problems: list[Problem]) -> tuple[float, float]:
    if first.pixel_spacing_mm is not None:
        height, width = first.pixel_spacing_mm
        if max(height, width) > ANISOTROPIC_RATIO * min(height, width):
            detail = f"pixels are {height:g} × {width:g} mm; the model is shown them as squares"
            problems.append(Problem("anisotropic_pixels", detail))
        return first.pixel_spacing_mm
    problems.append(
        Problem(
            "no_pixel_spacing", f"the pixel size is not given; {ASSUMED_SPACING_MM} mm is assumed"
        )
    )
    return ASSUMED_SPACING_MM, ASSUMED_SPACING_MM


def _placed(
    stack: Stack, problems: list[Problem]
) -> tuple[tuple[SliceHeader, ...], NDArray[np.float64], NDArray[np.float64]]:
    """Slices in order, orientation [6] and corners [N, 3]; made up, and said so, if not given."""
    slices = stack.slices
    first = slices[0]
    if first.orientation is not None and first.position_mm is not None:
        corners = np.array([header.position_mm for header in slices], dtype=np.float64)
        return slices, np.array(first.orientation), corners
    problems.append(
        Problem("no_positions", "positions are not given; slices are in order of instance number")
    )
    orientation = np.array(first.orientation or (1.0, 0, 0, 0, 1, 0))
    step = first.spacing_between_mm or ASSUMED_SPACING_MM
    return slices, orientation, np.outer(np.arange(len(slices)) * step, stack_normal(orientation))


def _slice_spacing(first: SliceHeader, positions_mm: NDArray[np.float64]) -> float:
    if len(positions_mm) > 1:
        return float(np.median(np.diff(positions_mm)))
    return first.spacing_between_mm or ASSUMED_SPACING_MM


def _spacing_problems(
    modality: Modality,
    orientation: NDArray[np.float64],
    corners_mm: NDArray[np.float64],
    positions_mm: NDArray[np.float64],
) -> list[Problem]:
    problems = []
    tilt = tilt_deg(stack_normal(orientation), corners_mm)
    if tilt >= MIN_TILT_DEG:
        name = "gantry_tilt" if modality is Modality.CT else "sheared_stack"
        problems.append(Problem(name, f"slices lean by {tilt:.1f}° from the stack's axis"))
    gaps = missing_slices(positions_mm)
    if gaps:
        count = sum(gap[2] for gap in gaps)
        low, high = gaps[0][0], gaps[-1][1]
        problems.append(
            Problem("missing_slices", f"{count} missing between {low:.1f} and {high:.1f} mm")
        )
    if not is_uniform(positions_mm):
        steps = np.diff(positions_mm)
        problems.append(
            Problem(
                "non_uniform_spacing",
                f"slices are {steps.min():.2f} to {steps.max():.2f} mm apart",
            )
        )
    return problems
