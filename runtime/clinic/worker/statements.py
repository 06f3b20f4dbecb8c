"""What must stand in a report besides what this look saw: earlier flags, and doubts about the study."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from edge_medgemma.runtime.clinic.worklist.records import Doubt, StudyRow
from edge_medgemma.runtime.slicing.volume import Problem
from edge_medgemma.runtime.triage.report import (
    FindingResult,
    FindingStatus,
    KeyImage,
    KeySlice,
    StudyReport,
    TriageReport,
)
from edge_medgemma.runtime.triage.urgency import study_urgency

DOUBTS = {
    Doubt.ABORTED: Problem(
        "may_be_incomplete",
        "This study may be incomplete: the sender broke off before it was done. Send it again.",
    ),
    Doubt.FEWER_THAN_ARCHIVE: Problem(
        "may_be_incomplete",
        "This study may be incomplete: the archive has more images of it. Send the rest.",
    ),
    Doubt.GAP: Problem(
        "may_be_incomplete",
        "This study may be incomplete: slices are missing in the middle. Send it again.",
    ),
    Doubt.STILL_ARRIVING: Problem(
        "may_be_incomplete",
        "This study may be incomplete: its sender had not ended when it was looked at.",
    ),
    Doubt.CONFLICTING_COPIES: Problem(
        "conflicting_copies",
        "An image came twice with different content; it is not known which is right. Look at the "
        "original images.",
    ),
    Doubt.CLOCK_NOT_SET: Problem(
        "clock_not_set",
        "The clock of this device was wrong when the study came: mistrust its times.",
    ),
}
"""What a report says of each doubt."""

_NAMES = {problem.name for problem in DOUBTS.values()}


def with_doubts(report: TriageReport, doubts: Iterable[Doubt]) -> TriageReport:
    """The report with these doubts about its studies, and none that it named before."""
    named = tuple(dict.fromkeys(DOUBTS[doubt] for doubt in doubts))
    return _sorted(
        report,
        [
            with_problems(study, [*(p for p in study.problems if p.name not in _NAMES), *named])
            for study in report.studies
        ],
    )


def with_problem(report: TriageReport, problem: Problem) -> TriageReport:
    """The report with one problem more in every study."""
    studies = [with_problems(study, [*study.problems, problem]) for study in report.studies]
    return _sorted(report, studies)


def with_earlier_flags(report: TriageReport, earlier: TriageReport) -> TriageReport:
    """The report, in which whatever the earlier one flagged is flagged, with the reason."""
    kept = []
    before = {_place(study): study for study in earlier.studies}
    for study in report.studies:
        old = before.pop(_place(study), None)
        kept.append(study if old is None else _keep_flags(study, old))
    for old in before.values():  # its series or protocol is not chosen any more
        if old.flagged:
            kept.append(_keep_flags(replace(old, findings=_unflagged(old.findings)), old))
    return _sorted(report, kept)


def with_problems(study: StudyReport, problems: Sequence[Problem]) -> StudyReport:
    """The study with other problems, and the urgency and limitations that follow from them."""
    distinct = tuple(dict.fromkeys(problems))
    urgency, limitations = study_urgency([one.urgency for one in study.flagged], distinct)
    return replace(study, problems=distinct, urgency=urgency, limitations=limitations)


def listed_flags(report: TriageReport) -> tuple[str, ...]:
    """Codes of all flagged findings, the most urgent study's first."""
    return tuple(dict.fromkeys(one.code for study in report.studies for one in study.flagged))


def missing_flags(report: TriageReport, row: StudyRow) -> tuple[str, ...]:
    """Codes that the worklist says are flagged and that the report does not flag."""
    return tuple(code for code in row.flagged if code not in listed_flags(report))


def _keep_flags(study: StudyReport, old: StudyReport) -> StudyReport:
    """The study with the flags of `old` that it has not."""
    flagged = {finding.code for finding in study.flagged}
    lost = {finding.code: finding for finding in old.flagged if finding.code not in flagged}
    if not lost:
        return study
    reason = (
        f"flagged at an earlier look at {len(old.slices)} slices, not at the latest at "
        f"{len(study.slices)}"
    )
    kept = {
        code: replace(finding, reason=reason, key_slices=_moved(finding.key_slices, study, old))
        for code, finding in lost.items()
    }
    findings = [kept.pop(finding.code, finding) for finding in study.findings]
    problems = [
        Problem("flag_not_confirmed", f"{finding.title} was {reason}; the flag stands.")
        for finding in lost.values()
    ]
    study = replace(
        study,
        findings=(*findings, *kept.values()),
        key_images=_with_images(study, old, {finding.title for finding in lost.values()}),
    )
    return with_problems(study, [*study.problems, *problems])


def _unflagged(findings: Iterable[FindingResult]) -> tuple[FindingResult, ...]:
    return tuple(
        replace(one, status=FindingStatus.NOT_ASSESSED, reason="not asked at the latest look")
        for one in findings
    )


def _moved(keys: Iterable[KeySlice], study: StudyReport, old: StudyReport) -> tuple[KeySlice, ...]:
    """Key slices by their place in the series as it is now; those that were not shown again are left
    out where more slices have come since."""
    places = _places(study, old)
    if places is None:
        return tuple(keys)
    moved = [
        replace(key, slice_index=places[key.sop_instance_uid])
        for key in keys
        if key.sop_instance_uid in places
    ]
    return tuple(sorted(moved, key=lambda key: key.slice_index))


def _with_images(study: StudyReport, old: StudyReport, titles: set[str]) -> tuple[KeyImage, ...]:
    """Key images of both, those of `titles` alone of the old ones, each slice once."""
    places = _places(study, old)
    uids = {one.slice_index: one.sop_instance_uid for one in old.slices}
    images = {image.slice_index: image for image in study.key_images}
    for image in old.key_images:
        index = image.slice_index
        if places is not None:
            index = places.get(uids.get(index, ""), -1)
        of = tuple(title for title in image.findings if title in titles)
        if index < 0 or not of:
            continue
        there = images.get(index)
        if there is None:
            images[index] = replace(image, slice_index=index, findings=of)
        else:
            images[index] = replace(there, findings=tuple(dict.fromkeys((*there.findings, *of))))
    return tuple(images[index] for index in sorted(images))


def _places(study: StudyReport, old: StudyReport) -> dict[str, int] | None:
    """SOP instance UID -> index now; None where the series is as it was and all indices hold."""
    if study.series == old.series:
        return None
    return {one.sop_instance_uid: one.slice_index for one in study.slices if one.sop_instance_uid}


def _place(study: StudyReport) -> tuple[str, str, str]:
    return (study.study_uid, study.name, study.protocol_name)


def _sorted(report: TriageReport, studies: Iterable[StudyReport]) -> TriageReport:
    return replace(report, studies=tuple(sorted(studies, key=lambda one: one.urgency.rank)))
