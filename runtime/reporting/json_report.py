"""`triage.json`: the whole report for programs, as `triage_document` declares it."""

import math
from pathlib import Path

from edge_medgemma.runtime.documents import dump_json
from edge_medgemma.runtime.domain import StudyDistance
from edge_medgemma.runtime.files import write_atomically
from edge_medgemma.runtime.reporting.triage_document import (
    CacheHitsEntry,
    CalibrationDistanceEntry,
    EngineEntry,
    FindingEntry,
    FittedOnEntry,
    KeySliceEntry,
    PassEntry,
    ProblemEntry,
    Program,
    ProtocolEntry,
    SeriesEntry,
    SliceEntry,
    StandardCodeEntry,
    StudyEntry,
    TriageDocument,
)
from edge_medgemma.runtime.triage.report import (
    FindingResult,
    SeriesRecord,
    StudyReport,
    TriageReport,
)

INTENDED_USE = (
    "Aid to prioritisation, not a diagnosis. It does not remove cases from the queue; no flag is "
    "not a normal report."
)

_DECIMALS = 6


def write_json_report(report: TriageReport, path: Path) -> None:
    """Write the report; readers see the old file or the whole new one.

    Raises:
        ResourceError: the disk is full or the folder cannot be written.
    """
    write_atomically(path, dump_report(report).encode())


def dump_report(report: TriageReport) -> str:
    """The report as JSON text, ending in a newline."""
    engine = report.engine
    document = TriageDocument(
        schema_version=2,
        intended_use=INTENDED_USE,
        created_at=report.created_at,
        program=Program("edge-medgemma", report.program_version),
        engine=EngineEntry(
            engine.name,
            engine.revision,
            engine.sha256,
            engine.precision,
            engine.notice or None,
            engine.has_random_weights,
        ),
        effort=report.effort,
        urgency=report.urgency,
        studies=tuple(map(_study, report.studies)),
        skipped_files=report.skipped,
        timings_s=_rounded(report.total_s),
    )
    return dump_json(document)


def _study(study: StudyReport) -> StudyEntry:
    protocol = (study.protocol_name, study.protocol_title, study.protocol_sha256)
    return StudyEntry(
        name=study.name,
        study_instance_uid=study.study_uid,
        urgency=study.urgency,
        limitations=study.limitations,
        protocol=ProtocolEntry(*protocol) if study.protocol_name else None,
        series=_series(study.series) if study.series else None,
        series_reason=study.series_reason,
        other_series=tuple(map(_series, study.other_series)),
        preset=study.preset or None,
        slices=tuple(
            SliceEntry(
                one.slice_index,
                _number(one.position_mm),
                one.sop_instance_uid or None,
                _number(one.calibration_ratio),
                one.view.value or None,
            )
            for one in study.slices
        ),
        calibration_distance=_distance(study.distance) if study.distance else None,
        passes=tuple(
            PassEntry(
                one.slices,
                _number(one.largest_gap_mm),
                _number(one.duration_s),
                one.urgency,
                one.flagged,
            )
            for one in study.passes
        ),
        findings=tuple(map(_finding, study.findings)),
        cache_hits=CacheHitsEntry(study.cache_hits.slices, study.cache_hits.prefix),
        problems=tuple(ProblemEntry(one.name, one.detail) for one in study.problems),
        timings_s=_rounded(study.total_s),
        was_slowed_by_heat=study.was_slowed_by_heat,
    )


def _distance(distance: StudyDistance) -> CalibrationDistanceEntry:
    return CalibrationDistanceEntry(
        _number(distance.ratio), distance.conformal_p, distance.num_studies
    )


def _series(series: SeriesRecord) -> SeriesEntry:
    slice_mm, row_mm, column_mm = map(_number, series.spacing_mm)
    return SeriesEntry(
        series.series_uid,
        series.modality,
        series.body_part,
        series.shape,
        (slice_mm, row_mm, column_mm),
        series.orientation,
        series.scanned_at or None,
    )


def _finding(finding: FindingResult) -> FindingEntry:
    code = finding.standard_code
    return FindingEntry(
        code=finding.code,
        title=finding.title,
        question=finding.question,
        urgency=finding.urgency,
        status=finding.status,
        reason=finding.reason or None,
        log_odds=_number(finding.log_odds),
        baseline_log_odds=_number(finding.baseline_log_odds),
        score=_number(finding.score),
        threshold=finding.threshold,
        probability=_number(finding.probability),
        fitted_on=FittedOnEntry(*finding.fitted_on) if finding.fitted_on else None,
        standard_code=StandardCodeEntry(code.scheme, code.value, code.display) if code else None,
        key_slices=tuple(
            KeySliceEntry(
                key.slice_index,
                _number(key.position_mm),
                key.sop_instance_uid or None,
                _number(key.effect),
            )
            for key in finding.key_slices
        ),
    )


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {name: round(value, _DECIMALS) for name, value in seconds.items()}


def _number(value: float | None) -> float | None:
    """JSON has no NaN: what is not finite is null."""
    return round(value, _DECIMALS) if value is not None and math.isfinite(value) else None
