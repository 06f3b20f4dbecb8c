"""From the report of a pass to a result: its folder first, whole, then its row."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worker.statements import (
    listed_flags,
    missing_flags,
    with_doubts,
    with_earlier_flags,
    with_problems,
)
from edge_medgemma.runtime.clinic.worklist.audit import utc_now
from edge_medgemma.runtime.clinic.worklist.records import StudyRow
from edge_medgemma.runtime.clinic.worklist.results import (
    ResultRecord,
    latest_result,
    next_number,
    write_result,
)
from edge_medgemma.runtime.clinic.worklist.store import Worklist
from edge_medgemma.runtime.errors import EvaluationError
from edge_medgemma.runtime.reporting.report_folder import read_report_folder, write_report_folder
from edge_medgemma.runtime.slicing.volume import Problem
from edge_medgemma.runtime.triage.report import StudyReport, TriageReport
from edge_medgemma.runtime.triage.urgency import BLOCKING_PROBLEMS, WARNINGS, most_urgent

LOG = logging.getLogger(__name__)


def publish(
    state: StateFolder,
    worklist: Worklist,
    row: StudyRow,
    report: TriageReport,
    *,
    revision: int,
    instances: int,
    is_final: bool,
) -> TriageReport:
    """Make a result of a report, with what was flagged before and what is doubted now.

    Args:
        state: of the box.
        worklist: takes the row.
        row: of the study, as it is now.
        report: of one pass.
        revision: of the study when the pass began.
        instances: images in the spool then.
        is_final: whether no closer look follows.

    Returns:
        The report as it was published.

    Raises:
        ResourceError: the disk is full; nothing is published.
    """
    report = with_doubts(_with_standing_flags(state, row, report, is_final=is_final), row.doubts)
    modality, body_part = _kind(report.studies)
    record = ResultRecord(
        study_uid=row.study_uid,
        number=next_number(state, row.key, row.result_number),
        revision=revision,
        instances=instances,
        urgency=report.urgency,
        flagged=listed_flags(report),
        limitations=_limitations(report.studies),
        modality=modality,
        body_part=body_part,
        is_final=is_final,
        doubts=row.doubts,
        created_at=utc_now(),
    )
    write_result(state, row.key, record, partial(write_report_folder, report))
    worklist.publish_record(row.key, record)
    return report


def read_latest(state: StateFolder, study_key: str) -> TriageReport | None:
    """The report of the latest result; None where there is none that can be read."""
    folder = latest_result(state, study_key)
    if folder is None:
        return None
    try:
        return read_report_folder(folder)
    except EvaluationError:
        LOG.warning("study %s: its latest result is damaged", study_key[:8])
        return None


def _with_standing_flags(
    state: StateFolder, row: StudyRow, report: TriageReport, *, is_final: bool
) -> TriageReport:
    """A flag goes only where a person has acknowledged it and the last pass does not find it again."""
    if not row.flagged or (row.acknowledged_at is not None and is_final):
        return report
    earlier = read_latest(state, row.key)
    if earlier is not None:
        report = with_earlier_flags(report, earlier)
    lost = missing_flags(report, row)
    if not lost or not report.studies:
        return report
    problems = [
        Problem("flag_not_confirmed", f"An earlier look flagged {code}; the flag stands.")
        for code in lost
    ]
    first = with_problems(report.studies[0], [*report.studies[0].problems, *problems])
    if row.urgency is not None:
        first = replace(first, urgency=most_urgent([first.urgency, row.urgency]))
    return replace(report, studies=(first, *report.studies[1:]))


def _limitations(studies: Sequence[StudyReport]) -> tuple[str, ...]:
    names = (problem.name for study in studies for problem in study.problems)
    return tuple(dict.fromkeys(n for n in names if n in BLOCKING_PROBLEMS or n in WARNINGS))


def _kind(studies: Sequence[StudyReport]) -> tuple[str, str]:
    """Modality and body part of the most urgent study of which a series is known."""
    series = [s.series for s in studies if s.series is not None]
    series += [other for study in studies for other in study.other_series]
    return (str(series[0].modality), str(series[0].body_part)) if series else ("", "")
