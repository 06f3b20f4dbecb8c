"""Studies, results and acknowledgements for tests of the clinic's worklist."""

from dataclasses import replace
from pathlib import Path

from edge_medgemma.runtime.clinic.arrival_record import note_sender
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist.records import Acknowledgement
from edge_medgemma.runtime.clinic.worklist.results import ResultRecord, write_result
from edge_medgemma.runtime.clinic.worklist.store import Worklist
from edge_medgemma.runtime.triage.urgency import Urgency

KEY = "0" * 32


def result(number: int = 1, **changes: object) -> ResultRecord:
    """The record of a last pass that flagged nothing, with `changes`."""
    record = ResultRecord(
        "1.2.3", number, 1, 5, Urgency.ROUTINE, (), (), "CT", "head", True, (), "2026-01-01"
    )
    return replace(record, **changes)  # type: ignore[arg-type]


def acknowledgement(number: int, key: str = KEY) -> Acknowledgement:
    """Of a result of that number."""
    return Acknowledgement(
        key, number, "bleed", "2026-01-01", "nurse", "doctor", "2026-01-03", "telephone"
    )


def write_thin_report(folder: Path) -> None:
    """A result folder that holds next to nothing."""
    folder.mkdir()
    (folder / "triage.json").write_text("{}")


def arrive(state: StateFolder, worklist: Worklist, number: int, images: int = 3) -> str:
    """A study of a few files in spool and list; its key."""
    uid = f"1.2.3.{number}"
    key = state.study_key(uid)
    folder = state.spool / key
    folder.mkdir(exist_ok=True)
    there = len(list(folder.iterdir()))
    for image in range(there, there + images):
        (folder / f"{image:064x}").write_bytes(b"image")
    note_sender(state, key, uid, "CT1")
    worklist.note_arrivals(key, uid, "CT1", images)
    return key


def look(state: StateFolder, worklist: Worklist, key: str, record: ResultRecord) -> None:
    """A result of the study, in its folder and in the list."""
    row = worklist.study(key)
    assert row is not None
    record = replace(
        record,
        study_uid=row.study_uid,
        number=(row.result_number or 0) + 1,
        revision=row.revision,
        instances=row.instances,
    )
    write_result(state, key, record, write_thin_report)
    worklist.publish_record(key, record)
