"""The closing part of a report, for engineers: figures and hashes, in English."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from edge_medgemma.runtime.reporting.labels import count, minus, sentence, signed, urgency_words
from edge_medgemma.runtime.triage.report import SeriesRecord, StudyReport

MOST_DETAILS = 6
"""Problems that are told in figures; more would push the sheet onto a second page."""

SLOWED_BY_HEAT = "the processor was slowed down for heat meanwhile"


def slices_seen(study: StudyReport) -> str:
    """How much of the series the model saw."""
    if study.series is None or not study.slices:
        return "nothing"
    first_mm, last_mm = study.slices[0].position_mm, study.slices[-1].position_mm
    total = study.series.shape[0]
    seen = f"{len(study.slices)} of {count(total, 'slice')}, {first_mm:.0f} to {last_mm:.0f} mm"
    gap_mm = study.passes[-1].largest_gap_mm
    return minus(seen) + (f", gaps up to {gap_mm:.0f} mm" if gap_mm > 0 else "")


def log_odds(study: StudyReport) -> str:
    """For each finding that was asked: scan, blank slices and threshold."""
    parts = (
        f"{one.title} {signed(one.log_odds)} / {signed(one.baseline_log_odds)} "
        f"(threshold {signed(one.threshold)})"
        for one in study.findings
        if one.log_odds is not None
    )
    return "; ".join(parts)


def details(study: StudyReport) -> str:
    """The sentences of the problems, the first `MOST_DETAILS`."""
    said = [sentence(one.detail) for one in study.problems]
    rest = len(said) - MOST_DETAILS
    return " ".join(said[:MOST_DETAILS]) + (f" And {rest} more in triage.json." if rest > 0 else "")


def strange_slices(study: StudyReport) -> str:
    """`5 of 24 slices`, and which, 1-based: those that are unlike the calibration's."""
    strange = study.strange_slices
    places = ", ".join(str(index + 1) for index in strange)
    return f"{len(strange)} of {count(len(study.slices), 'slice')} shown ({places})"


def geometry(series: SeriesRecord) -> str:
    """Slices, rows, columns, and their spacing."""
    spacing = " × ".join(f"{value:.2f}" for value in series.spacing_mm)
    return f"{' × '.join(map(str, series.shape))} at {spacing} mm"


def precision_words(precision: Mapping[str, str]) -> str:
    """`decoder int4, vision int8`."""
    return ", ".join(f"{part} {name}" for part, name in precision.items())


def skipped_words(skipped: Mapping[str, int]) -> str:
    """How many files were skipped, and why."""
    if not skipped:
        return "no file skipped"
    reasons = "; ".join(f"{number} × {reason}" for reason, number in sorted(skipped.items()))
    return f"{count(sum(skipped.values()), 'file')} skipped ({reasons})"


def passes(study: StudyReport) -> str:
    """Slices, time and urgency of each pass."""
    return ", then ".join(
        f"{one.slices} in {one.duration_s:.1f} s ({urgency_words(one.urgency, one.flagged)})"
        for one in study.passes
    )


def timings(study: StudyReport) -> str:
    """Seconds of each stage."""
    stages = study.total_s
    if not stages:
        return "nothing was run"
    parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in stages.items())
    slowed = f"; {SLOWED_BY_HEAT}" if study.was_slowed_by_heat else ""
    return f"{sum(stages.values()):.1f} s ({parts}){slowed}"


FILTERS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "details": details,
        "geometry": geometry,
        "log_odds": log_odds,
        "passes": passes,
        "precision_words": precision_words,
        "sentence": sentence,
        "skipped_words": skipped_words,
        "slices_seen": slices_seen,
        "strange_slices": strange_slices,
        "timings": timings,
    }
)
