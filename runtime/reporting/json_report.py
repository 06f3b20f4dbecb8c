"""`triage.json`: the whole report for programs; `triage.schema.json` says what stands in it."""

import json
import math
from pathlib import Path
from typing import Any

from edge_medgemma.runtime.files import write_atomically
from edge_medgemma.runtime.triage.report import (
    EngineRecord,
    FindingResult,
    SeriesRecord,
    StudyReport,
    TriageReport,
)

SCHEMA_VERSION = 1
"""Raised when a field is removed or changes its meaning; new fields do not raise it."""

SCHEMA_PATH = Path(__file__).with_name("triage.schema.json")

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
    """The report as JSON text that follows `triage.schema.json`, ending in a newline."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "intended_use": INTENDED_USE,
        "created_at": report.created_at,
        "program": {"name": "edge-medgemma", "version": report.program_version},
        "engine": _engine(report.engine),
        "effort": report.effort,
        "urgency": report.urgency,
        "studies": [_study(study) for study in report.studies],
        "skipped_files": dict(report.skipped),
        "timings_s": {name: _number(seconds) for name, seconds in report.total_s.items()},
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _engine(engine: EngineRecord) -> dict[str, Any]:
    return {
        "name": engine.name,
        "revision": engine.revision,
        "manifest_sha256": engine.sha256,
        "precision": dict(engine.precision),
        "demonstration_notice": engine.notice or None,
    }


def _study(study: StudyReport) -> dict[str, Any]:
    protocol = {
        "name": study.protocol_name,
        "title": study.protocol_title,
        "sha256": study.protocol_sha256,
    }
    return {
        "name": study.name,
        "study_instance_uid": study.study_uid,
        "urgency": study.urgency,
        "doubts": list(study.doubts),
        "protocol": protocol if study.protocol_name else None,
        "series": _series(study.series) if study.series else None,
        "series_reason": study.series_reason,
        "other_series": [_series(series) for series in study.other_series],
        "preset": study.preset or None,
        "slices": [
            {
                "slice_index": one.slice_index,
                "position_mm": _number(one.position_mm),
                "sop_instance_uid": one.sop_instance_uid or None,
            }
            for one in study.slices
        ],
        "passes": [
            {
                "slices": one.slices,
                "largest_gap_mm": _number(one.largest_gap_mm),
                "duration_s": _number(one.duration_s),
                "urgency": one.urgency,
                "flagged": list(one.flagged),
            }
            for one in study.passes
        ],
        "findings": [_finding(finding) for finding in study.findings],
        "recalled": {"slices": study.recalled.slices, "prefix": study.recalled.prefix},
        "problems": [{"name": p.name, "detail": p.detail} for p in study.problems],
        "timings_s": {name: _number(seconds) for name, seconds in study.total_s.items()},
    }


def _series(series: SeriesRecord) -> dict[str, Any]:
    return {
        "series_instance_uid": series.series_uid,
        "modality": series.modality,
        "body_part": series.body_part,
        "shape": list(series.shape),
        "spacing_mm": [_number(value) for value in series.spacing_mm],
        "orientation": series.orientation,
    }


def _finding(finding: FindingResult) -> dict[str, Any]:
    code = finding.standard_code
    return {
        "code": finding.code,
        "title": finding.title,
        "question": finding.question,
        "urgency": finding.urgency,
        "status": finding.status,
        "reason": finding.reason or None,
        "log_odds": _number(finding.log_odds),
        "control_log_odds": _number(finding.control_log_odds),
        "score": _number(finding.score),
        "threshold": _number(finding.threshold),
        "probability": _number(finding.probability),
        "standard_code": (
            {"scheme": code.scheme, "value": code.value, "display": code.display} if code else None
        ),
        "key_slices": [
            {
                "slice_index": key.slice_index,
                "position_mm": _number(key.position_mm),
                "sop_instance_uid": key.sop_instance_uid or None,
                "effect": _number(key.effect),
            }
            for key in finding.key_slices
        ],
    }


def _number(value: float | None) -> float | None:
    """JSON has no NaN: what is not finite is null."""
    return round(value, _DECIMALS) if value is not None and math.isfinite(value) else None
