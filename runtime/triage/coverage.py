"""Whether enough of the body part was read to call anything absent."""

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.slicing.choose import coverage_mm
from edge_medgemma.runtime.slicing.volume import Problem, Series, Volume
from edge_medgemma.runtime.triage.protocol import Protocol

GAP_FACTOR = 2.0
"""A step of more than this many median steps hides at least one slice."""

MAX_HIDDEN_FRACTION = 0.2
"""Of the stack's extent, in such gaps. A fifth is below the half that must never pass."""

MAX_LOST_FRACTION = 0.1
"""Of the sampled slices, unreadable: 2 of 24 may fail."""


def coverage_problems(
    protocol: Protocol, volume: Volume, requested: NDArray[np.int64]
) -> tuple[Problem, ...]:
    """Problems of a volume as evidence of absence, beyond those its reader names.

    Args:
        protocol: says how much of the body part is enough.
        volume: what was read.
        requested: [N] slice indices that were asked for.
    """
    series = volume.series
    problems = [_extent(protocol, series), _gaps(series)]
    lost = len(requested) - len(volume.slice_indices)
    if lost > MAX_LOST_FRACTION * len(requested):
        problems.append(
            Problem("slices_lost", f"{lost} of {len(requested)} slices could not be read.")
        )
    return tuple(problem for problem in problems if problem is not None)


def has_positions(series: Series) -> bool:
    """False where the reader had to make up the geometry of the series."""
    return all(problem.name != "no_positions" for problem in series.problems)


def _extent(protocol: Protocol, series: Series) -> Problem | None:
    if not protocol.minimum_extent_mm:
        return None
    extent_mm = coverage_mm(series)
    if not has_positions(series):
        return Problem("coverage_unknown", "Slice positions are not given, nor the length covered.")
    if not extent_mm >= protocol.minimum_extent_mm:
        return Problem(
            "insufficient_coverage",
            f"The series covers {extent_mm:.0f} mm; protocol {protocol.name} expects at least "
            f"{protocol.minimum_extent_mm:.0f} mm.",
        )
    return None


def _gaps(series: Series) -> Problem | None:
    steps_mm = np.abs(np.diff(series.positions_mm))
    if len(steps_mm) == 0 or not steps_mm.sum() > 0:
        return None
    median_mm = float(np.median(steps_mm))
    hidden_mm = float((steps_mm - median_mm)[steps_mm > GAP_FACTOR * median_mm].sum())
    extent_mm = float(steps_mm.sum())
    if hidden_mm > MAX_HIDDEN_FRACTION * extent_mm:
        return Problem(
            "insufficient_coverage",
            f"{hidden_mm:.0f} of {extent_mm:.0f} mm lie in gaps between slices.",
        )
    return None
