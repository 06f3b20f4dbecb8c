"""Asking the archives about studies that came, in a thread of its own: an archive may be slow or away."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from edge_medgemma.runtime.clinic.arrivals.count import archive_counts, expected_images
from edge_medgemma.runtime.clinic.settings import ClinicSettings
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist.records import StudyRow, StudyState
from edge_medgemma.runtime.clinic.worklist.store import Worklist
from edge_medgemma.runtime.errors import EdgeMedgemmaError

_LOGGER = logging.getLogger(__name__)

ASK_AGAIN_S = 60.0
"""An archive may itself be receiving, so its answer is no answer for ever."""

_LOOK_S = 1.0

_UNFINISHED = (
    StudyState.ARRIVING, StudyState.WAITING, StudyState.RUNNING, StudyState.INCOMPLETE,
)  # fmt: skip


@dataclass(slots=True)
class _Asked:
    """When a study changed and was asked about; monotonic."""

    revision: int
    changed_s: float
    asked_s: float | None = None


@dataclass(slots=True)
class Agenda:
    """Which study is asked about next."""

    quiet_s: float
    """Not before it has been quiet for so long."""
    give_up_s: float
    """Not any more after so long."""
    _asked: dict[str, _Asked] = field(default_factory=dict, init=False)
    _is_begun: bool = field(default=False, init=False)

    def due(self, rows: tuple[StudyRow, ...], now_s: float) -> StudyRow | None:
        """The study to ask about now, counted as asked; those never asked about first.

        Of what is there at the first call, only what is not finished: the rest came long ago.
        """
        for row in rows:
            asked = self._asked.get(row.key)
            if asked is None or asked.revision != row.revision:
                is_old = not self._is_begun and row.state not in _UNFINISHED
                changed_s = now_s - self.give_up_s - 2 * ASK_AGAIN_S if is_old else now_s
                self._asked[row.key] = _Asked(row.revision, changed_s)
        self._is_begun = True
        for key in self._asked.keys() - {row.key for row in rows}:
            del self._asked[key]
        due = [row for row in rows if self._is_due(self._asked[row.key], now_s)]
        if not due:
            return None
        row = min(due, key=lambda one: self._asked[one.key].asked_s or 0.0)
        self._asked[row.key].asked_s = now_s
        return row

    def _is_due(self, asked: _Asked, now_s: float) -> bool:
        since_change_s = now_s - asked.changed_s
        if not self.quiet_s <= since_change_s <= self.give_up_s + ASK_AGAIN_S:
            return False
        return asked.asked_s is None or now_s - asked.asked_s >= ASK_AGAIN_S


def count_in_thread(
    state: StateFolder,
    settings: ClinicSettings,
    stop: threading.Event,
    monotonic_s: Callable[[], float],
) -> threading.Thread | None:
    """Keep the expected numbers of the worklist current until `stop`; None where no peer is asked."""
    if not any(peer.query for peer in settings.peers):
        return None
    thread = threading.Thread(
        target=_run, args=(state, settings, stop, monotonic_s), name="counting", daemon=True
    )
    thread.start()
    return thread


def _run(
    state: StateFolder,
    settings: ClinicSettings,
    stop: threading.Event,
    monotonic_s: Callable[[], float],
) -> None:
    agenda = Agenda(settings.node.released_quiet_s / 2, settings.node.give_up_s)
    with Worklist.open(state) as worklist:
        while not stop.wait(_LOOK_S):
            try:
                row = agenda.due(worklist.studies(), monotonic_s())
                if row is not None:
                    _ask(state, settings, worklist, row)
            except EdgeMedgemmaError as error:
                _LOGGER.warning("archives were not asked: %s", error)


def _ask(state: StateFolder, settings: ClinicSettings, worklist: Worklist, row: StudyRow) -> None:
    """Note what the archives have of a study; what was known stands where none of them answers."""
    counts = archive_counts(state, settings, row.study_uid)
    for count in counts:
        if count.problem:
            _LOGGER.info("%s: %s", row.key[:8], count.problem)
    expected = expected_images(counts)
    if expected is not None and expected != row.expected_instances:
        worklist.set_expected(row.key, expected)
