"""What is deleted: delivered studies, the oldest first, when they are old or room is needed.

Never one that is still to be delivered, nor one whose flag, or whose failure, nobody has acknowledged.
"""

import contextlib
import logging
import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from edge_medgemma.runtime.clinic.clock import is_clock_set
from edge_medgemma.runtime.clinic.settings import ClinicSettings
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist import audit
from edge_medgemma.runtime.clinic.worklist.rebuild import count_instances
from edge_medgemma.runtime.clinic.worklist.records import StudyRow, StudyState
from edge_medgemma.runtime.clinic.worklist.store import BOX, Worklist
from edge_medgemma.runtime.triage.urgency import Urgency

LOG = logging.getLogger(__name__)

_BYTES_PER_GB = 1e9
_GOING = ".deleting-"
_MARGIN = 1.25
"""More room than the reserve is made, so that not every image deletes a study."""


def may_go(row: StudyRow, *, is_delivered_anywhere: bool) -> bool:
    """Whether a study may be deleted, whatever its age.

    Args:
        row: of the study.
        is_delivered_anywhere: whether the box has a destination; without one, `done` is the end.
    """
    if row.state is StudyState.SUPERSEDED:
        return True
    if row.state is StudyState.FAILED:
        return row.acknowledged_at is not None
    ends = {StudyState.DELIVERED}
    if not is_delivered_anywhere:
        ends |= {StudyState.DONE, StudyState.INCOMPLETE}
    is_answered = row.acknowledged_at is not None
    needs_answer = row.urgency in (Urgency.CRITICAL, Urgency.URGENT)
    return row.state in ends and row.is_final and (is_answered or not needs_answer)


def is_old(row: StudyRow, days: float, now: datetime) -> bool:
    """Whether its last image came longer ago; never by a clock that is not set."""
    last = datetime.fromisoformat(row.last_arrival_at)
    return is_clock_set(now) and is_clock_set(last) and now - last > timedelta(days=days)


@dataclass(frozen=True, slots=True)
class Retention:
    """Deletes what may go from one box."""

    state: StateFolder
    settings: ClinicSettings
    worklist: Worklist

    def apply(self) -> int:
        """Delete what is old, and more while there is less room than the reserve.

        Returns:
            Number of studies deleted.
        """
        self.sweep()
        now, deleted = datetime.now(UTC), 0
        has_destination = bool(self.settings.health_records) or any(
            peer.results for peer in self.settings.peers
        )
        rows = sorted(self.worklist.studies(with_superseded=True), key=lambda row: row.place)
        for row in rows:
            if not may_go(row, is_delivered_anywhere=has_destination):
                continue
            if is_old(row, self.settings.retention.days, now):
                deleted += self._delete(row, "old")
            elif not self.has_room(_MARGIN if deleted else 1.0):
                deleted += self._delete(row, "room")
        return deleted

    def has_room(self, margin: float = 1.0) -> bool:
        """Whether the reserve of the settings is free, times `margin`."""
        free = shutil.disk_usage(self.state.path).free
        return free >= self.settings.node.reserve_gb * _BYTES_PER_GB * margin

    def sweep(self) -> None:
        """Delete what a kill has left of studies that are going."""
        for folder in (self.state.spool, self.state.aside, self.state.results):
            for path in folder.glob(f"{_GOING}*"):
                shutil.rmtree(path, ignore_errors=True)

    def _delete(self, row: StudyRow, reason: str) -> bool:
        """Delete one study, its row last; one to which an image comes meanwhile stays."""
        key = row.key
        if self.worklist.study(key) != row or count_instances(self.state, key) > row.instances:
            return False
        gone = [_take_away(folder / key) for folder in (self.state.spool, self.state.aside)]
        spooled = gone[0]
        if spooled is not None and len(list(spooled.rglob("*"))) > row.instances:
            _put_back(spooled, self.state.spool / key)
            return False
        audit.append(self.state, "deleted", BOX, key, reason)
        gone.append(_take_away(self.state.results / key))
        for path in self.state.outbox.glob(f"{key}-*"):
            shutil.rmtree(path, ignore_errors=True)
        (self.state.arrivals / f"{key}.json").unlink(missing_ok=True)
        self.worklist.remove(key)
        for path in filter(None, gone):
            shutil.rmtree(path, ignore_errors=True)
        LOG.info("study %s is deleted (%s)", key[:8], reason)
        return True


def _take_away(folder: Path) -> Path | None:
    """The folder under a name that nobody reads; None where there is none."""
    going = folder.with_name(f"{_GOING}{folder.name}")
    with contextlib.suppress(FileNotFoundError):
        os.rename(folder, going)
        return going
    return None


def _put_back(going: Path, folder: Path) -> None:
    """Undo `_take_away`, also where files have come to the folder since."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for path in going.iterdir():
        os.rename(path, folder / path.name)
    going.rmdir()
