"""What a result says to others, once, for every form in which it leaves the box."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from edge_medgemma.runtime.clinic.delivery.codes import Code, finding_code
from edge_medgemma.runtime.clinic.worklist.records import Doubt, StudyRow
from edge_medgemma.runtime.errors import ScanError
from edge_medgemma.runtime.reporting.json_report import INTENDED_USE
from edge_medgemma.runtime.reporting.labels import sentence
from edge_medgemma.runtime.reporting.words import (
    DOUBTS,
    HEADLINES,
    INCOMPLETE_DOUBTS,
    ROUTINE_FLAGGED_HEADLINE,
)
from edge_medgemma.runtime.slicing.volume import BodyPart, Modality
from edge_medgemma.runtime.triage.report import (
    FindingResult,
    FindingStatus,
    StudyReport,
    TriageReport,
)
from edge_medgemma.runtime.triage.urgency import BLOCKING_PROBLEMS, Urgency, most_urgent

DEMONSTRATION = "DEMONSTRATION, NOT FOR PATIENTS"

_MISSING = BLOCKING_PROBLEMS["may_be_incomplete"]


@dataclass(frozen=True, slots=True)
class ToldFinding:
    """A finding that a look at the study flagged."""

    code: str
    """Of the protocol."""
    title: str
    public_code: Code
    urgency: Urgency
    is_of_earlier_look: bool
    """Whether the last look did not flag it again; it stands all the same, and is told as present."""
    body_part: BodyPart
    key_slices: tuple[tuple[str, int], ...]
    """SOP Instance UID, and 0-based index of the slice in its series."""
    series_uid: str
    protocol_name: str
    protocol_sha256: str
    threshold: float


@dataclass(frozen=True, slots=True)
class Told:
    """A result as it is told."""

    report: TriageReport
    """What the engine said, of this study alone."""
    study_uid: str
    number: int
    modality: Modality | None
    body_part: BodyPart
    urgency: Urgency
    """The most urgent of all looks."""
    headline: str
    findings: tuple[ToldFinding, ...]
    """Flagged ones, most urgent first."""
    assessed: tuple[str, ...]
    """Titles of the findings that were asked for and not flagged."""
    not_assessed: tuple[str, ...]
    limitations: tuple[str, ...]
    is_demonstration: bool

    @property
    def series_description(self) -> str:
        """Of every series of ours; at most 64 characters (VR LO)."""
        words = "AI triage, not a diagnosis"
        return f"{DEMONSTRATION}: {words}" if self.is_demonstration else words

    @property
    def impression(self) -> str:
        """The result in one paragraph, in English."""
        parts = [sentence(DEMONSTRATION)] if self.is_demonstration else []
        parts.append(sentence(self.headline))
        now = [one.title for one in self.findings if not one.is_of_earlier_look]
        if now:
            parts.append(f"Possible: {', '.join(dict.fromkeys(now))}.")
        parts += [sentence(one) for one in self.limitations]
        if self.assessed:
            parts.append(self.assessed_words)
        if self.not_assessed:
            parts.append(f"Not assessed: {', '.join(self.not_assessed)}.")
        return " ".join([*parts, f"{INTENDED_USE} No person has verified it."])

    @property
    def assessed_words(self) -> str:
        """The one sentence that names what was looked for and not flagged."""
        return (
            f"Looked for without a flag, which is not a normal report: {', '.join(self.assessed)}."
        )


def tell(report: TriageReport, number: int, row: StudyRow | None) -> Told:
    """What is told of a result.

    Args:
        report: of the last look
        number: of the result, from 1
        row: the study in the worklist, with its doubts and what earlier looks flagged

    Raises:
        ScanError: the report holds no study.
    """
    if not report.studies:
        raise ScanError("the result holds no study: nothing was made for delivery")
    study_uid = report.studies[0].study_uid
    studies = [study for study in report.studies if study.study_uid == study_uid]
    findings = [_told(study, one) for study in studies for one in study.flagged]
    findings += _not_flagged_again(studies, {one.code for one in findings}, row)
    findings = sorted(findings, key=lambda one: one.urgency.rank)
    limitations = _limitations(studies, findings, row)
    urgencies = [*(study.urgency for study in studies), *(one.urgency for one in findings)]
    if row is not None and row.urgency is not None:
        urgencies.append(row.urgency)
    if _is_doubted(findings, row):  # never green
        urgencies.append(Urgency.NOT_ASSESSABLE)
    urgency = most_urgent(urgencies)
    is_flagged_routine = urgency is Urgency.ROUTINE and bool(findings)
    series = next((study.series for study in studies if study.series is not None), None)
    flagged = {one.title for one in findings}
    return Told(
        report=dataclasses.replace(report, studies=tuple(studies)),
        study_uid=study_uid,
        number=number,
        modality=series.modality if series else None,
        body_part=series.body_part if series else BodyPart.UNKNOWN,
        urgency=urgency,
        headline=ROUTINE_FLAGGED_HEADLINE if is_flagged_routine else HEADLINES[urgency],
        findings=tuple(findings),
        assessed=_titles(studies, FindingStatus.NOT_FLAGGED, flagged),
        not_assessed=_titles(studies, FindingStatus.NOT_ASSESSED, flagged),
        limitations=limitations,
        is_demonstration=is_demonstration(report),
    )


def is_demonstration(report: TriageReport) -> bool:
    """Whether the engine that spoke knows nothing of patients."""
    return report.engine.is_demonstration or report.engine.has_random_weights


def _told(study: StudyReport, finding: FindingResult) -> ToldFinding:
    return ToldFinding(
        code=finding.code,
        title=finding.title,
        public_code=finding_code(finding.code, finding.title, finding.standard_code),
        urgency=finding.urgency,
        is_of_earlier_look=bool(finding.reason),  # of a flagged one: why it is not sure any more
        body_part=study.series.body_part if study.series else BodyPart.UNKNOWN,
        key_slices=tuple(
            (one.sop_instance_uid, one.slice_index)
            for one in finding.key_slices
            if one.sop_instance_uid
        ),
        series_uid=study.series.series_uid if study.series else "",
        protocol_name=study.protocol_name,
        protocol_sha256=study.protocol_sha256,
        threshold=finding.threshold,
    )


def _not_flagged_again(
    studies: Sequence[StudyReport], flagged_now: set[str], row: StudyRow | None
) -> list[ToldFinding]:
    """Findings that the worklist holds as flagged and the report does not, for want of the earlier one."""
    told = []
    for code in row.flagged if row is not None else ():
        asked = [(s, f) for s in studies for f in s.findings if f.code == code]
        if code in flagged_now:
            continue
        if asked:
            told.append(dataclasses.replace(_told(*asked[0]), is_of_earlier_look=True))
        else:
            told.append(_not_asked(studies[0], code))
    return told


def _not_asked(study: StudyReport, code: str) -> ToldFinding:
    """A finding of an earlier look that the last look did not ask for: its urgency is not known."""
    title = code.replace("_", " ")
    return ToldFinding(
        code, title, finding_code(code, title, None), Urgency.URGENT, True, BodyPart.UNKNOWN, (),
        "", study.protocol_name, study.protocol_sha256, 0.0,
    )  # fmt: skip


def _is_doubted(findings: Sequence[ToldFinding], row: StudyRow | None) -> bool:
    """Whether no flag would mean nothing, for what the report itself may not know."""
    doubts = set(row.doubts) if row is not None else set()
    return bool(doubts - {Doubt.CLOCK_NOT_SET}) or any(one.is_of_earlier_look for one in findings)


def _limitations(
    studies: Sequence[StudyReport], findings: Sequence[ToldFinding], row: StudyRow | None
) -> tuple[str, ...]:
    """In plain words, all that stood in the way; that images may be missing first."""
    doubts = row.doubts if row is not None else ()
    named = [one for study in studies for one in study.limitations]
    missing = [_phrase(DOUBTS[doubt]) for doubt in doubts if doubt in INCOMPLETE_DOUBTS]
    if not missing and _MISSING in named:
        missing = [_MISSING]
    said = [f"the study may be incomplete: {'; '.join(missing)}"] if missing else []
    said += [_phrase(DOUBTS[doubt]) for doubt in doubts if doubt not in INCOMPLETE_DOUBTS]
    said += [
        f"an earlier look flagged {one.title}, the last one did not; the flag stands"
        for one in findings
        if one.is_of_earlier_look
    ]
    return tuple(dict.fromkeys([*said, *(one for one in named if one != _MISSING)]))


def _phrase(words: str) -> str:
    """A sentence as part of another one."""
    return words[:1].lower() + words[1:].removesuffix(".")


def _titles(
    studies: Sequence[StudyReport], status: FindingStatus, flagged: set[str]
) -> tuple[str, ...]:
    titles = [f.title for s in studies for f in s.findings if f.status is status]
    return tuple(dict.fromkeys(title for title in titles if title not in flagged))
