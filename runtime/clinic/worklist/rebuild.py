"""The worklist from the folders: spool, arrivals, results and the audit are the truth, it is an index.

What only the database knew is lost with it: how often a process ended on a study, and the order of
arrivals within a second. Everything for the engine is looked at once more if in doubt.
"""

import contextlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from edge_medgemma.runtime.clinic.arrival_record import read_arrival_record
from edge_medgemma.runtime.clinic.state_folder import STUDY_KEY, StateFolder
from edge_medgemma.runtime.clinic.worklist import audit, states
from edge_medgemma.runtime.clinic.worklist.entry import Entry, new_entry
from edge_medgemma.runtime.clinic.worklist.records import (
    Acknowledgement,
    AuditEntry,
    Doubt,
    FailureReason,
    StudyState,
)
from edge_medgemma.runtime.clinic.worklist.results import ResultRecord, read_records

ACKNOWLEDGED, DELIVERED, FAILED, SUPERSEDED = "acknowledged", "delivered", "failed", "superseded"
"""Events of the audit from which a row is made again."""


@dataclass(slots=True)
class Told:
    """What the audit says of one study."""

    acknowledgements: list[Acknowledgement] = field(default_factory=list)
    delivered: set[int] = field(default_factory=set)
    failure: FailureReason | None = None
    """Of the latest event, unless a result came after it."""
    is_superseded: bool = False


def rebuild(state: StateFolder) -> list[Entry]:
    """An entry for every study of which there is an image or a result."""
    told = read_told(state)
    found = {key: entry for key in _keys(state) if (entry := _from_folders(state, key)) is not None}
    by_arrival = sorted(
        found.values(), key=lambda entry: (entry.row.first_arrival_at, entry.row.key)
    )
    return [
        _as_looked_at(
            replay(
                replace(entry, row=replace(entry.row, place=place)),
                read_records(state, entry.row.key),
                told.get(entry.row.key, Told()),
            ),
            told.get(entry.row.key, Told()),
        )
        for place, entry in enumerate(by_arrival, start=1)
    ]


def read_told(state: StateFolder) -> dict[str, Told]:
    """Study key -> what the unbroken part of the audit says of it."""
    told: dict[str, Told] = defaultdict(Told)
    for entry in audit.read(state):
        with contextlib.suppress(ValueError):  # of a later version of the program
            _note(told[entry.study_key], entry)
    return told


def replay(entry: Entry, records: Iterable[ResultRecord], told: Told) -> Entry:
    """The entry with those results and acknowledgements that it lacks, in the order of results."""
    numbers = []
    for record in records:
        numbers.append(record.number)
        entry = states.publish(entry, record)
        for one in told.acknowledgements:
            if one.result_number == record.number:
                entry = states.acknowledge(entry, one)
    for one in told.acknowledgements:
        if one.result_number not in numbers:
            entry = states.acknowledge(entry, one)
    return entry


def count_instances(state: StateFolder, study_key: str) -> int:
    """Files in the spool of a study."""
    folder = state.spool / study_key
    return sum(1 for path in folder.rglob("*") if path.is_file() and path.name[:1] != ".")


def _note(told: Told, entry: AuditEntry) -> None:
    if entry.event == ACKNOWLEDGED:
        told.acknowledgements.append(
            msgspec.json.decode(entry.detail.encode(), type=Acknowledgement)
        )
    elif entry.event == DELIVERED:
        told.delivered.add(int(entry.detail))
    elif entry.event == FAILED:
        told.failure = FailureReason(entry.detail)
    elif entry.event == SUPERSEDED:
        told.is_superseded = True
    elif entry.event == "looked_at":
        told.failure = None
    elif entry.event == "received":
        told.is_superseded, told.failure = False, None


def _keys(state: StateFolder) -> set[str]:
    keys = set()
    for folder in (state.spool, state.results):
        with contextlib.suppress(OSError):
            keys |= {path.name for path in folder.iterdir() if STUDY_KEY.fullmatch(path.name)}
    return keys


def _from_folders(state: StateFolder, key: str) -> Entry | None:
    """The study as it arrived; None where not a file tells which it is."""
    records = read_records(state, key)
    arrival = read_arrival_record(state, key)
    if arrival is not None:
        uid: str | None = arrival.study_uid
    else:
        uid = records[-1].study_uid if records else _uid_of_files(state, key)
    if not uid:
        return None
    first, last = _times(state, key)
    if arrival is not None:
        first = arrival.first_arrival_at
    entry = new_entry(key, uid, 0, first)
    instances = count_instances(state, key)
    revision = max((record.revision for record in records), default=0)
    if not records or instances > records[-1].instances:
        revision += 1
    row = replace(
        entry.row,
        instances=instances,
        revision=revision,
        last_arrival_at=last,
        senders=arrival.senders if arrival is not None else (),
    )
    entry = replace(entry, row=row)
    doubts = arrival.doubts if arrival is not None else ()
    for doubt in (*doubts, *(records[-1].doubts if records else ())):
        with contextlib.suppress(ValueError):  # of a later version of the program
            entry = states.with_doubt(entry, Doubt(doubt))
    return entry


def _as_looked_at(entry: Entry, told: Told) -> Entry:
    """With the state that its results allow; what is not surely finished waits for the engine."""
    row = entry.row
    is_finished = row.is_final and row.result_revision == row.revision
    if not is_finished:
        row = states.not_whole(row)
    if told.is_superseded:
        return replace(entry, row=replace(row, state=StudyState.SUPERSEDED))
    if not is_finished and told.failure is not None:
        return states.fail(replace(entry, row=replace(row, state=StudyState.WAITING)), told.failure)
    if not is_finished:
        return replace(entry, row=replace(row, state=StudyState.WAITING))
    state = StudyState.INCOMPLETE if row.doubts else StudyState.DONE
    entry = replace(entry, row=replace(row, state=state))
    return (
        states.delivered(entry, row.result_number or 0)
        if row.result_number in told.delivered
        else entry
    )


def _times(state: StateFolder, key: str) -> tuple[str, str]:
    """Of the first and the last file, by the times that the file system keeps."""
    folders = (state.spool / key, state.results / key)
    paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    spooled = [path for path in paths if folders[0] in path.parents] or paths
    seconds = [path.stat().st_mtime for path in spooled] or [0.0]
    first, last = (
        datetime.fromtimestamp(one, UTC).isoformat(timespec="milliseconds")
        for one in (min(seconds), max(seconds))
    )
    return first, last


def _uid_of_files(state: StateFolder, key: str) -> str | None:
    """The UID that the files of a study state; only one of which the key is right is believed."""
    for path in sorted((state.spool / key).rglob("*")):
        uid = _uid_of(path) if path.is_file() else None
        if uid is not None and state.study_key(uid) == key:
            return uid
    return None


def _uid_of(path: Path) -> str | None:
    from pydicom import dcmread

    with contextlib.suppress(Exception):  # pydicom raises anything on a damaged file
        dataset = dcmread(path, stop_before_pixels=True, specific_tags=["StudyInstanceUID"])
        return str(dataset.StudyInstanceUID)
    return None
