"""One case triaged, as `triage` does it, and what is kept of it.

Everything here can be sent to another process and back: a case goes, an assessment comes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from edge_medgemma.calibration.evaluation.attributes import scan_attributes
from edge_medgemma.calibration.evaluation.cases import Case
from edge_medgemma.calibration.evaluation.document import Picture, ProtocolProvenance
from edge_medgemma.calibration.evaluation.pictures import key_pictures
from edge_medgemma.calibration.evaluation.radiographs import as_dicom
from edge_medgemma.calibration.evaluation.records import Outcome
from edge_medgemma.calibration.evaluation.results import Answer, StudyResult
from edge_medgemma.runtime.domain import Domain
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.progress import Progress, no_progress
from edge_medgemma.runtime.triage.report import FindingResult, FindingStatus, StudyReport
from edge_medgemma.runtime.triage.triage_scan import triage_study
from edge_medgemma.runtime.triage.urgency import BLOCKING_PROBLEMS


@dataclass(frozen=True, slots=True)
class Assessment:
    """A result, and the pictures that go with it."""

    result: StudyResult
    pictures: Mapping[str, bytes]
    """Path relative to the results -> content of a JPEG file."""


def assess(
    engine: Engine,
    case: Case,
    options: TriageOptions,
    domain: Domain | None,
    on_progress: Progress = no_progress,
) -> Assessment:
    """Triage one case; findings that triage misses get key slices too.

    Raises:
        EngineError, ResourceError: as `triage_study`.
    """
    explained = replace(options, explained=case.present)
    with as_dicom(case.task) as task:
        report = triage_study(engine, task, explained, domain, on_progress)
    limitations = _limitations(report)
    answers: list[Answer] = []
    pictures: dict[str, bytes] = {}
    for finding in report.findings:
        outcome = _outcome(finding, limitations)
        shown: tuple[Picture, ...] = ()
        if _is_wrong(outcome, finding.code, case) and report.key_images:
            shown, files = key_pictures(case.key, finding, report.key_images)
            pictures |= files
        answers.append(_answer(finding, outcome, shown))
    protocol = case.task.protocol
    series = case.task.series or case.task.other_series[0]
    result = StudyResult(
        key=case.key,
        study_uid=str(case.task.study_uid),
        series_uid=str(series.series_uid),
        protocol=None
        if protocol is None
        else ProtocolProvenance(
            protocol.name, protocol.title, protocol.sha256, options.slices or protocol.slices
        ),
        answers=tuple(answers),
        limitations=limitations,
        slices=len(report.slices),
        seconds=round(sum(report.total_s.values()), 6),
        attributes=scan_attributes(series),
    )
    return Assessment(result, pictures)


def _limitations(report: StudyReport) -> tuple[str, ...]:
    """Why the absence of a flag would mean nothing, each reason once."""
    words = (BLOCKING_PROBLEMS.get(problem.name) for problem in report.problems)
    return tuple(dict.fromkeys(word for word in words if word))


def _outcome(finding: FindingResult, limitations: tuple[str, ...]) -> Outcome:
    if finding.status is FindingStatus.FLAGGED:
        return Outcome.FLAGGED
    if finding.status is FindingStatus.NOT_FLAGGED and not limitations:
        return Outcome.NOT_FLAGGED
    return Outcome.NOT_ASSESSABLE


def _is_wrong(outcome: Outcome, code: str, case: Case) -> bool:
    if outcome is Outcome.FLAGGED:
        return code in case.absent
    return code in case.present


def _answer(finding: FindingResult, outcome: Outcome, pictures: tuple[Picture, ...]) -> Answer:
    return Answer(
        code=finding.code,
        title=finding.title,
        outcome=outcome,
        reason=finding.reason,
        log_odds=_finite(finding.log_odds),
        baseline_log_odds=_finite(finding.baseline_log_odds),
        score=_finite(finding.score),
        probability=_finite(finding.probability),
        threshold=finding.threshold,
        pictures=pictures,
    )


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
