"""Asks the archives again and again how many images the latest studies have, in a thread of its own."""

import logging
import math
import threading
from dataclasses import dataclass, field

from edge_medgemma.runtime.clinic.arrivals.count import archive_counts, expected_images
from edge_medgemma.runtime.clinic.settings import ClinicSettings
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist.records import StudyRow, StudyState
from edge_medgemma.runtime.clinic.worklist.store import Worklist
from edge_medgemma.runtime.errors import EdgeMedgemmaError, WorklistError

_LOGGER = logging.getLogger(__name__)

FIRST_PAUSE_S = 3.0
"""After images came: in the middle of a transfer nobody needs the count."""

FACTOR = 2.0
"""Each pause is so much longer than the last one: the archive may be receiving as well."""

_TICK_S = 1.0

_FINISHED = (StudyState.DONE, StudyState.DELIVERED, StudyState.FAILED)


@dataclass(slots=True)
class _Turn:
    """When a study is asked about next."""

    revision: int
    since_s: float
    """When images came last."""
    at_s: float
    pause_s: float


@dataclass(slots=True)
class ArchiveWatch:
    """Schedule of the questions; one thread uses it."""

    state: StateFolder
    settings: ClinicSettings
    worklist: Worklist
    _turns: dict[str, _Turn] = field(default_factory=dict, init=False)
    _is_begun: bool = field(default=False, init=False)
    _problems: dict[str, str] = field(default_factory=dict, init=False)
    """Peer -> what is wrong with it, so that it is said once."""

    def tick(self, now_s: float, stop: threading.Event) -> None:
        """Ask about the studies that are due; `now_s` is a clock that is never set.

        Of what is there at the first call, only about what is not finished: the rest came long ago.
        """
        rows = {row.key: row for row in self.worklist.studies()}
        for key in self._turns.keys() - rows.keys():
            del self._turns[key]
        for row in rows.values():
            if not stop.is_set() and self._is_due(row, now_s):
                self._ask(row)
        self._is_begun = True

    def _is_due(self, row: StudyRow, now_s: float) -> bool:
        turn = self._turns.get(row.key)
        if turn is None or turn.revision != row.revision:
            is_old = not self._is_begun and row.state in _FINISHED
            first_s = math.inf if is_old else now_s + FIRST_PAUSE_S
            turn = _Turn(row.revision, now_s, first_s, FIRST_PAUSE_S)
            self._turns[row.key] = turn
        if now_s < turn.at_s or now_s - turn.since_s > self.settings.node.give_up_s:
            return False
        turn.pause_s *= FACTOR
        turn.at_s = now_s + turn.pause_s
        return True

    def _ask(self, row: StudyRow) -> None:
        counts = archive_counts(self.state, self.settings, row.study_uid)
        for count in counts:
            if count.problem and self._problems.get(count.peer) != count.problem:
                _LOGGER.warning("not counted: %s", count.problem)
            self._problems[count.peer] = count.problem
        expected = expected_images(counts)
        if expected is not None and expected != row.expected_instances:
            try:
                self.worklist.set_expected(row.key, expected)
            except WorklistError:
                return  # deleted meanwhile


def watch_archives(state: StateFolder, settings: ClinicSettings, stop: threading.Event) -> None:
    """Ask until `stop` is set; returns at once where no peer has `query`."""
    import time

    if not any(peer.query for peer in settings.peers):
        return
    with Worklist.open(state) as worklist:
        watch = ArchiveWatch(state, settings, worklist)
        while not stop.wait(_TICK_S):
            try:
                watch.tick(time.monotonic(), stop)
            except EdgeMedgemmaError as error:
                _LOGGER.warning("archives are not asked now: %s", error)
