"""Results of the worker: folders that appear whole, numbered from 1, each with its record.

`STATE/results/KEY/NUMBER/` is what `reporting/report_folder.py` writes and `result.json`, from which
the row of the worklist can be made again.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_medgemma.runtime.clinic.state_folder import StateFolder, sync_folder
from edge_medgemma.runtime.clinic.worklist.records import Doubt
from edge_medgemma.runtime.documents import Count, Size, dump_sealed, parse_sealed
from edge_medgemma.runtime.files import write_atomically, write_errors
from edge_medgemma.runtime.triage.urgency import Urgency

RECORD_FILE = "result.json"
_BEING_WRITTEN = ".new"


@dataclass(frozen=True, slots=True)
class ResultRecord:
    """What one pass over a study gave the worklist."""

    study_uid: str
    number: Count
    revision: Size
    """Of the study when the look began."""
    instances: Size
    """Images in the spool then."""
    urgency: Urgency
    flagged: tuple[str, ...]
    limitations: tuple[str, ...]
    """Names of problems, as in `StudyRow`."""
    modality: str
    body_part: str
    is_final: bool
    doubts: tuple[Doubt, ...]
    """Which the report says."""
    created_at: str


def result_folder(state: StateFolder, study_key: str, number: int) -> Path:
    """Where a result is, or will be."""
    return state.results / study_key / str(number)


def result_numbers(state: StateFolder, study_key: str) -> tuple[int, ...]:
    """Numbers of the results of a study, ascending."""
    try:
        names = os.listdir(state.results / study_key)
    except OSError:
        return ()
    return tuple(sorted(int(name) for name in names if name.isascii() and name.isdigit()))


def next_number(state: StateFolder, study_key: str, known: int | None) -> int:
    """The number of a new result; `known` is that of the latest in the worklist."""
    return max(known or 0, *result_numbers(state, study_key), 0) + 1


def latest_result(state: StateFolder, study_key: str) -> Path | None:
    """Folder of the latest result of a study, whole; None before there is one."""
    numbers = result_numbers(state, study_key)
    return result_folder(state, study_key, numbers[-1]) if numbers else None


def write_result(
    state: StateFolder, study_key: str, record: ResultRecord, write: Callable[[Path], None]
) -> Path:
    """Make a result folder; it appears whole or not at all, on the disk when this returns.

    Args:
        state: of the box.
        study_key: of the study.
        record: its number must be new.
        write: makes the folder that it is given, and the report in it.

    Raises:
        ResourceError: the disk is full, or there is such a result already.
    """
    folder = result_folder(state, study_key, record.number)
    temporary = folder.parent / _BEING_WRITTEN
    with write_errors(folder):
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)  # of a worker that was killed; there is one
        write(temporary)
        write_atomically(temporary / RECORD_FILE, dump_sealed(record).encode())
        _sync_tree(temporary)
        os.rename(temporary, folder)
        sync_folder(folder.parent)
        sync_folder(state.results)
    return folder


def read_records(state: StateFolder, study_key: str) -> tuple[ResultRecord, ...]:
    """Records of all results of a study, ascending; one that is damaged is left out."""
    found = []
    for number in result_numbers(state, study_key):
        try:
            data = (result_folder(state, study_key, number) / RECORD_FILE).read_bytes()
            record = parse_sealed(data, ResultRecord)
        except (OSError, ValueError):
            continue
        if record.number == number:
            found.append(record)
    return tuple(found)


def _sync_tree(folder: Path) -> None:
    """Put files and names below a folder onto the disk."""
    for parent, _, names in os.walk(folder):
        for name in names:
            descriptor = os.open(Path(parent) / name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(Path(parent))
