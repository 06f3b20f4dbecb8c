"""Whether enough of the body part is shown to call anything absent."""

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.slicing.choose import coverage_mm
from edge_medgemma.runtime.slicing.sampling import sample_slices
from edge_medgemma.runtime.slicing.volume import Problem, Series, Volume
from edge_medgemma.runtime.triage.protocol import Protocol

GAP_FACTOR = 2.0
"""A step of more than this many median steps hides at least one slice."""

MAX_HIDDEN_FRACTION = 0.2
"""Share of the stack's extent in such gaps. A fifth is below the half that must never pass."""

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
    problems = [_extent(protocol, series), _gaps(series)]
    lost = len(requested) - len(volume.slice_indices)
    if lost > MAX_LOST_FRACTION * len(requested):
        problems.append(
            Problem("slices_lost", f"{lost} of {len(requested)} slices could not be read.")
        )
    return tuple(problem for problem in problems if problem is not None)


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
