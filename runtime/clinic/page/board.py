"""The worklist and its results as the page reads them, for all its readers at once."""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist.records import Acknowledgement, StudyRow
from edge_medgemma.runtime.clinic.worklist.results import result_folder, result_numbers
from edge_medgemma.runtime.clinic.worklist.store import Worklist
from edge_medgemma.runtime.errors import EdgeMedgemmaError
from edge_medgemma.runtime.reporting.report_folder import read_report_folder
from edge_medgemma.runtime.triage.report import StudyReport, TriageReport
from edge_medgemma.runtime.triage.urgency import Urgency

FRESH_S = 0.4
"""Rows are read again no sooner, however many browsers ask."""

_MAX_REPORTS = 64

Result = TypeVar("Result")


class Board:
    """One connection to the database in a thread of its own, and the reports read last."""

    def __init__(self, state: StateFolder) -> None:
        """Opened when it is first read."""
        self._state = state
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="board")
        self._worklist: Worklist | None = None
        self._rows: tuple[StudyRow, ...] = ()
        self._read_at_s = -FRESH_S
        self._reports: OrderedDict[Path, TriageReport] = OrderedDict()

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def rows(self) -> tuple[StudyRow, ...]:
        """All studies, in the order of the list."""
        return await self.run(self.fresh_rows)

    async def run(self, work: Callable[[], Result]) -> Result:
        """Something done in the board's thread, where the functions below may be called."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def fresh_rows(self) -> tuple[StudyRow, ...]:
        """In the board's thread: all studies, at most `FRESH_S` old."""
        if time.monotonic() - self._read_at_s >= FRESH_S:
            self._rows = self._open().studies()
            self._read_at_s = time.monotonic()
        return self._rows

    def row(self, study_key: str) -> StudyRow | None:
        """In the board's thread: one study."""
        return self._open().study(study_key)

    def acknowledgements(self, study_key: str) -> tuple[Acknowledgement, ...]:
        """In the board's thread: who acknowledged a study, oldest first."""
        return tuple(self._open().acknowledgements(study_key))

    def report(self, study_key: str, number: int | None) -> TriageReport | None:
        """In the board's thread: a result of a study; None where there is none that can be read."""
        if number is None:
            return None
        folder = result_folder(self._state, study_key, number)
        if folder in self._reports:
            self._reports.move_to_end(folder)
            return self._reports[folder]
        if not folder.is_dir():
            return None
        try:
            report = read_report_folder(folder)
        except EdgeMedgemmaError:
            return None
        self._reports[folder] = report
        while len(self._reports) > _MAX_REPORTS:
            self._reports.popitem(last=False)
        return report

    def earlier_numbers(self, row: StudyRow) -> tuple[int, ...]:
        """In the board's thread: numbers of the results before the latest one, newest first."""
        numbers = result_numbers(self._state, row.key)
        return tuple(one for one in reversed(numbers) if one < (row.result_number or 0))

    def _open(self) -> Worklist:
        if self._worklist is None:
            self._worklist = Worklist.open(self._state)
        return self._worklist


def main_study(report: TriageReport) -> StudyReport | None:
    """The study of a report that its urgency comes from; None where it has none."""
    return report.studies[0] if report.studies else None


def rows_digest(rows: tuple[StudyRow, ...], warnings: tuple[str, ...] = ()) -> str:
    """Changes whenever anything of a row does, or what is wrong with the device."""
    return hashlib.sha256(msgspec.json.encode((rows, warnings))).hexdigest()[:16]


def alarms(rows: tuple[StudyRow, ...]) -> tuple[str, ...]:
    """Keys of the critical studies that nobody has acknowledged."""
    return tuple(
        row.key for row in rows if row.urgency is Urgency.CRITICAL and row.acknowledged_at is None
    )
