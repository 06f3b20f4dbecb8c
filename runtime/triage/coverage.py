"""Whether enough of the body part is shown to call anything absent."""

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.slicing.choose import coverage_mm
from edge_medgemma.runtime.slicing.hounsfield import (
    BODY_ABOVE_HU,
    MIN_BODY_FRACTION,
    inconsistent_slices,
    tissue_problems,
)
from edge_medgemma.runtime.slicing.sampling import sample_slices
from edge_medgemma.runtime.slicing.volume import Modality, Problem, Series, Volume
from edge_medgemma.runtime.triage.protocol import Protocol

GAP_FACTOR = 2.0
"""A step of more than this many median steps hides at least one slice."""

MAX_HIDDEN_FRACTION = 0.2
"""Share of the stack's extent in such gaps. A fifth is below the half that must never pass."""

FIELD_OF_VIEW_MM = (60.0, 700.0)
"""Longer side of a slice or radiograph: a newborn's head to a bed-wide reconstruction of 650 mm."""

MAX_LENGTH_MM = 2200.0
"""A stack from head to feet of a very tall person."""

MAX_LOST_FRACTION = 0.1
"""Share of the sampled slices that may be unreadable: 2 of 24."""


def coverage_problems(
    protocol: Protocol, volume: Volume, requested: NDArray[np.int64]
) -> tuple[Problem, ...]:
    """Problems of a volume as evidence of absence, beyond those its reader names.

    Args:
        protocol: says how much of the body part is enough.
        volume: the decoded slices.
        requested: [N] slice indices that were requested.
    """
    series = volume.series
    problems = [
        *_extent(protocol, volume),
        *_gaps(protocol, series),
        *_size(series),
        *_contrast(protocol, series),
        *_values(protocol, volume),
    ]
    lost = len(requested) - len(volume.slice_indices)
    if lost > MAX_LOST_FRACTION * len(requested):
        problems.append(
            Problem("slices_lost", f"{lost} of {len(requested)} slices could not be read.")
        )
    return tuple(problems)


def sampling_problems(
    protocol: Protocol, series: Series, shown_indices: NDArray[np.int64]
) -> tuple[Problem, ...]:
    """The problem of too wide steps between the slices that were shown.

    Steps between them may be `GAP_FACTOR` times as wide as those of all the protocol's slices.

    Args:
        protocol: says how many slices are expected.
        series: the series they are of.
        shown_indices: [N] slice indices, ascending.
    """
    count = series.shape[0]
    expected = _widest_step(sample_slices(count, protocol.slices), count)
    if _widest_step(shown_indices, count) <= GAP_FACTOR * expected:
        return ()
    gap_mm = largest_gap_mm(series, shown_indices)
    apart = f", up to {gap_mm:.0f} mm apart" if np.isfinite(gap_mm) else ""
    return (
        Problem(
            "insufficient_sampling",
            f"{len(shown_indices)} of {count} slices were looked at{apart}; protocol {protocol.name} "
            f"expects {min(count, protocol.slices)}, or half of them evenly spread.",
        ),
    )


def largest_gap_mm(series: Series, shown_indices: NDArray[np.int64]) -> float:
    """Longest stretch of the series without a slice that was shown; NaN without positions."""
    if not has_positions(series):
        return float("nan")
    positions_mm = series.positions_mm[[0, *shown_indices, -1]]
    return float(np.abs(np.diff(positions_mm)).max())


def _widest_step(shown_indices: NDArray[np.int64], count: int) -> int:
    """Largest difference of successive indices, the ends of the series included."""
    return int(np.diff([0, *shown_indices, count - 1]).max())


def has_positions(series: Series) -> bool:
    """False where the reader had to make up the geometry of the series."""
    return all(problem.name != "no_positions" for problem in series.problems)


def _extent(protocol: Protocol, volume: Volume) -> list[Problem]:
    series = volume.series
    if not protocol.minimum_extent_mm:
        return []
    if not has_positions(series):
        detail = "Slice positions are not given, nor the length covered."
        return [Problem("coverage_unknown", detail)]
    filled = volume.slice_indices[has_body(volume)]
    if not len(filled):
        return []
    between = (volume.slice_indices >= filled[0]) & (volume.slice_indices <= filled[-1])
    empty = int(between.sum()) - len(filled)
    if empty > MAX_HIDDEN_FRACTION * between.sum():
        detail = f"{empty} of {between.sum()} slices between the ends of the body are empty."
        return [Problem("insufficient_coverage", detail)]
    seen_mm = _seen_mm(series, int(filled[0]), int(filled[-1]), protocol.maximum_gap_mm)
    if seen_mm >= protocol.minimum_extent_mm:
        return []
    return [
        Problem(
            "insufficient_coverage",
            f"The series shows {seen_mm:.0f} mm of the body; protocol {protocol.name} expects at "
            f"least {protocol.minimum_extent_mm:.0f} mm.",
        )
    ]


def _seen_mm(series: Series, first: int, last: int, maximum_gap_mm: float | None) -> float:
    """Length from one slice to another without what lies in too wide steps, ends included."""
    steps_mm = np.abs(np.diff(series.positions_mm[first : last + 1]))
    limit_mm = maximum_gap_mm or np.inf
    return float(steps_mm[steps_mm <= limit_mm].sum()) + min(series.spacing_mm[0], limit_mm)


def has_body(volume: Volume) -> NDArray[np.bool_]:
    """[N]: whether each slice shows more than air, or more than one value."""
    if volume.series.modality is Modality.CT:
        fractions = (volume.array > BODY_ABOVE_HU).mean(axis=(1, 2))
        return np.asarray(fractions >= MIN_BODY_FRACTION)
    flat = volume.array.reshape(len(volume.array), -1)
    return np.asarray(flat.max(axis=1) > flat.min(axis=1))


def _gaps(protocol: Protocol, series: Series) -> list[Problem]:
    steps_mm = np.abs(np.diff(series.positions_mm))
    if len(steps_mm) == 0 or not steps_mm.sum() > 0 or not has_positions(series):
        return []
    widest_mm = float(steps_mm.max())
    shown = sample_slices(series.shape[0], protocol.slices)
    shown_mm = float(np.median(np.diff(series.positions_mm[shown]))) if len(shown) > 1 else 0.0
    if protocol.maximum_gap_mm and widest_mm <= protocol.maximum_gap_mm < shown_mm:
        length_mm = coverage_mm(series)
        detail = (
            f"The series is {length_mm:.0f} mm long, so that {len(shown)} slices of it are "
            f"{shown_mm:.0f} mm apart; protocol {protocol.name} allows {protocol.maximum_gap_mm:g} mm."
        )
        return [Problem("slices_too_far_apart", detail)]
    if protocol.maximum_gap_mm and widest_mm > protocol.maximum_gap_mm:
        return [
            Problem(
                "slices_too_far_apart",
                f"Slices are up to {widest_mm:.0f} mm apart; protocol {protocol.name} allows "
                f"{protocol.maximum_gap_mm:g} mm, and what lies between was not seen.",
            )
        ]
    median_mm = float(np.median(steps_mm))
    hidden_mm = float((steps_mm - median_mm)[steps_mm > GAP_FACTOR * median_mm].sum())
    extent_mm = float(steps_mm.sum())
    if hidden_mm > MAX_HIDDEN_FRACTION * extent_mm:
        detail = f"{hidden_mm:.0f} of {extent_mm:.0f} mm lie in gaps between slices."
        return [Problem("insufficient_coverage", detail)]
    return []


def _size(series: Series) -> list[Problem]:
    """Whether the picture can be one of a body at the size that the header gives."""
    if any(problem.name == "no_pixel_spacing" for problem in series.problems):
        return []
    height_mm = series.shape[1] * series.spacing_mm[1]
    width_mm = series.shape[2] * series.spacing_mm[2]
    low_mm, high_mm = FIELD_OF_VIEW_MM
    length_mm = coverage_mm(series)
    if low_mm <= max(height_mm, width_mm) <= high_mm and length_mm <= MAX_LENGTH_MM:
        return []
    detail = (
        f"The slices are {height_mm:.3g} × {width_mm:.3g} mm over a length of {length_mm:.3g} mm, "
        "which no body part measures; the sizes in the header are wrong."
    )
    return [Problem("implausible_size", detail)]


def _contrast(protocol: Protocol, series: Series) -> list[Problem]:
    if protocol.contrast_agent is not False or not series.has_contrast_agent:
        return []
    detail = "A contrast agent was given, which looks like blood; there is no series without."
    return [Problem("contrast_agent", detail)]


def _values(protocol: Protocol, volume: Volume) -> list[Problem]:
    is_known = all(problem.name != "not_hounsfield" for problem in volume.problems)
    if volume.series.modality is not Modality.CT or not is_known:
        return []
    if any(problem.name == "rescale_varies" for problem in volume.problems):
        bad = inconsistent_slices(volume.array)
        if bad > MAX_LOST_FRACTION * len(volume.array):
            detail = f"{bad} of {len(volume.array)} slices are not in the units of the others."
            return [Problem("implausible_hounsfield", detail)]
    return tissue_problems(volume.array, protocol.body_parts[0])
