"""`report.html`: one file a human checks in half a minute; no network, no scripts, prints on A4."""

import base64
import io
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import jinja2
from PIL import Image

from edge_medgemma.runtime.files import write_atomically
from edge_medgemma.runtime.reporting.json_report import INTENDED_USE
from edge_medgemma.runtime.reporting.labels import (
    FINDING_STATUS_WORDS,
    clock,
    count,
    headline,
    minus,
    sentence,
    signed,
    urgency_words,
)
from edge_medgemma.runtime.triage.report import (
    FindingResult,
    FindingStatus,
    KeyImage,
    SeriesRecord,
    StudyReport,
    TriageReport,
)

TEMPLATE_NAME = "report.html"
NOT_ASSESSED = FindingStatus.NOT_ASSESSED


def write_html_report(report: TriageReport, path: Path) -> None:
    """Write the report; readers see the old file or the whole new one.

    Raises:
        ResourceError: the disk is full or the folder cannot be written.
    """
    write_atomically(path, render_html(report).encode())


def render_html(report: TriageReport) -> str:
    """The report as one HTML document; everything in it is escaped."""
    template = _environment().get_template(TEMPLATE_NAME)
    return template.render(report=report, intended_use=INTENDED_USE)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        clock=clock,
        geometry=_geometry,
        headline=headline,
        millimetres=_millimetres,
        one_based=_one_based,
        png=png_data_uri,
        passes=_passes,
        precision_words=_precision_words,
        probability=probability_words,
        reasons=_reasons,
        sentence=sentence,
        signed=signed,
        skipped_words=_skipped_words,
        slices_seen=slices_seen,
        strange_slices=_strange_slices,
        status_word=FINDING_STATUS_WORDS.__getitem__,
        timings=_timings,
        urgency_words=urgency_words,
    )
    return environment


def png_data_uri(picture: KeyImage) -> str:
    """The picture as a `data:` address of a PNG, which carries no metadata."""
    file = io.BytesIO()
    Image.fromarray(picture.pixels).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def probability_words(finding: FindingResult) -> str:
    """A calibrated probability in per cent; nothing where none is grounded."""
    if finding.probability is None:
        return ""
    return f"{100 * finding.probability:.0f} %"


def _reasons(study: StudyReport) -> str:
    """Why findings were not assessed, and what speaks against flags; each sentence once."""
    words = [
        f"Not assessed: {one.reason}." if one.status is NOT_ASSESSED else sentence(one.reason)
        for one in study.findings
        if one.reason
    ]
    return " ".join(dict.fromkeys(words))


def _strange_slices(study: StudyReport) -> str:
    """`5 of 24 slices`, and which, 1-based: those that are unlike the calibration's."""
    strange = study.strange_slices
    places = ", ".join(str(index + 1) for index in strange)
    return f"{len(strange)} of {count(len(study.slices), 'slice')} shown ({places})"


def slices_seen(study: StudyReport) -> str:
    """How much of the series the model saw."""
    if study.series is None or not study.slices:
        return "nothing"
    first_mm, last_mm = study.slices[0].position_mm, study.slices[-1].position_mm
    total = study.series.shape[0]
    seen = f"{len(study.slices)} of {count(total, 'slice')}, {first_mm:.0f} to {last_mm:.0f} mm"
    gap_mm = study.passes[-1].largest_gap_mm
    return minus(seen) + (f", gaps up to {gap_mm:.0f} mm" if gap_mm > 0 else "")


def _geometry(series: SeriesRecord) -> str:
    spacing = " × ".join(f"{value:.2f}" for value in series.spacing_mm)
    return f"{' × '.join(map(str, series.shape))} at {spacing} mm"


def _millimetres(value: float) -> str:
    return minus(f"{value:.1f} mm") if math.isfinite(value) else "position unknown"


def _one_based(index: int) -> int:
    return index + 1


def _precision_words(precision: Mapping[str, str]) -> str:
    return ", ".join(f"{part} {name}" for part, name in precision.items())


def _skipped_words(skipped: Mapping[str, int]) -> str:
    if not skipped:
        return "no file skipped"
    reasons = "; ".join(f"{number} × {reason}" for reason, number in sorted(skipped.items()))
    return f"{count(sum(skipped.values()), 'file')} skipped ({reasons})"


def _passes(study: StudyReport) -> str:
    return ", then ".join(
        f"{one.slices} in {one.duration_s:.1f} s ({urgency_words(one.urgency, one.flagged)})"
        for one in study.passes
    )


def _timings(study: StudyReport) -> str:
    stages = study.total_s
    if not stages:
        return "nothing was run"
    parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in stages.items())
    return f"{sum(stages.values()):.1f} s ({parts})"
