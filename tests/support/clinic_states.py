"""A clinic's state folder with studies in many states, their results made by the demo engine."""

import shutil
from dataclasses import replace
from pathlib import Path

import pydicom
from pydicom.uid import generate_uid

from edge_medgemma.runtime.clinic.arrivals.spool import Spool
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist.records import Doubt, FailureReason
from edge_medgemma.runtime.clinic.worklist.results import ResultRecord, write_result
from edge_medgemma.runtime.clinic.worklist.store import Worklist
from edge_medgemma.runtime.reporting.report_folder import write_report_folder
from edge_medgemma.runtime.triage.report import FindingStatus, TriageReport
from edge_medgemma.runtime.triage.urgency import Urgency

NAME, NUMBER, ACCESSION = "Mbeki^Thandi", "PLANTED-4711", "PLANTEDACC9"


def add_scan(state: StateFolder, source: Path, sender: str, files: int | None = None) -> str:
    """Put copies of a DICOM folder into the spool as a study of its own; its key.

    Series and images keep their UIDs, by which a report of the folder finds them again.
    """
    study = generate_uid()
    arrivals = []
    for path in sorted(source.iterdir())[:files]:
        dataset = pydicom.dcmread(path)
        dataset.StudyInstanceUID = study
        dataset.PatientName, dataset.PatientID, dataset.AccessionNumber = NAME, NUMBER, ACCESSION
        dataset.PatientBirthDate = "19810203"
        with Spool(state).receive() as temporary:
            dataset.save_as(temporary)
            arrivals.append(Spool(state).accept(temporary, sender))
    key = arrivals[0].study_key
    with Worklist.open(state) as worklist:
        worklist.note_arrivals(key, str(study), sender, len(arrivals))
    return key


def publish(state: StateFolder, key: str, report: TriageReport, *, is_final: bool = True) -> None:
    """A result of a study, as the worker publishes it."""
    with Worklist.open(state) as worklist:
        row = worklist.study(key)
        assert row is not None
        found = replace(report.studies[0], study_uid=row.study_uid)
        report = replace(report, studies=(found, *report.studies[1:]))
        series = found.series
        record = ResultRecord(
            study_uid=row.study_uid,
            number=(row.result_number or 0) + 1,
            revision=row.revision,
            instances=row.instances,
            urgency=found.urgency,
            flagged=tuple(one.code for one in found.flagged),
            limitations=tuple(one.name for one in found.problems if found.limitations),
            modality=series.modality.value if series else "",
            body_part=series.body_part.value if series else "",
            is_final=is_final,
            doubts=row.doubts,
            created_at=report.created_at,
        )
        write_result(state, key, record, lambda folder: write_report_folder(report, folder))
        worklist.set_waiting(key)
        worklist.publish_record(key, record)


def as_urgency(report: TriageReport, urgency: Urgency) -> TriageReport:
    """The report as if its findings had been of another urgency; none is flagged of a routine one."""
    found = report.studies[0]
    flags = urgency in (Urgency.CRITICAL, Urgency.URGENT)
    findings = tuple(
        replace(
            one,
            urgency=urgency if one.status is FindingStatus.FLAGGED and flags else one.urgency,
            status=one.status if flags else FindingStatus.NOT_FLAGGED,
        )
        for one in found.findings
    )
    return replace(report, studies=(replace(found, urgency=urgency, findings=findings),))


def fill(state: StateFolder, scan: Path, report: TriageReport) -> dict[str, str]:
    """Studies in every state, most of few slices; what they are to their keys."""
    state.create()
    Worklist.open(state).close()  # one that is opened later counts what is in the spool already
    keys = {"critical": add_scan(state, scan, "CT1")}
    publish(state, keys["critical"], as_urgency(report, Urgency.ROUTINE), is_final=False)
    publish(state, keys["critical"], report)
    for name, urgency in [("urgent", Urgency.URGENT), ("routine", Urgency.ROUTINE)]:
        keys[name] = add_scan(state, scan, "upload" if name == "routine" else "CT1", 4)
        publish(state, keys[name], as_urgency(report, urgency))
    with Worklist.open(state) as worklist:
        keys["incomplete"] = add_scan(state, scan, "MR_GATE", 5)
        worklist.set_expected(keys["incomplete"], 24)
        worklist.add_doubt(keys["incomplete"], Doubt.ABORTED)
    publish(state, keys["incomplete"], as_urgency(report, Urgency.NOT_ASSESSABLE))
    keys["failed"] = add_scan(state, scan, "CT1", 2)
    keys["waiting"] = add_scan(state, scan, "CT2", 3)
    keys["arriving"] = add_scan(state, scan, "CT2", 3)
    with Worklist.open(state) as worklist:
        worklist.set_waiting(keys["failed"])
        assert worklist.acquire() is not None
        worklist.fail(keys["failed"], FailureReason.UNREADABLE)
        worklist.set_waiting(keys["waiting"])
    return keys


def copy_state(source: StateFolder, target: Path) -> StateFolder:
    """A copy that a test may change."""
    return StateFolder(Path(shutil.copytree(source.path, target)))
