"""The one thread that writes what arrived into the worklist and says when the engine looks."""

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from edge_medgemma.runtime.clinic.arrival_record import note_doubts, note_sent, read_arrival_record
from edge_medgemma.runtime.clinic.arrivals.arrival_log import ArrivalLog, Batch, Ended, Placed
from edge_medgemma.runtime.clinic.arrivals.completeness import (
    STACK_QUIET_S,
    ArrivalFacts,
    Patience,
    decide,
    has_gap,
    is_stack,
)
from edge_medgemma.runtime.clinic.arrivals.identity import read_identity
from edge_medgemma.runtime.clinic.arrivals.recent import (
    Outcome,
    RecentAssociation,
    RecentAssociations,
)
from edge_medgemma.runtime.clinic.arrivals.spool import Spool
from edge_medgemma.runtime.clinic.clock import is_clock_set
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist import audit
from edge_medgemma.runtime.clinic.worklist.records import Doubt, StudyRow, StudyState
from edge_medgemma.runtime.clinic.worklist.store import Worklist
from edge_medgemma.runtime.errors import EdgeMedgemmaError, ScanError, WorklistError

_LOGGER = logging.getLogger(__name__)

_PLACES_KEPT_S = 900.0
"""Of a study to which nothing was added; they are read again if something comes."""

_ANYBODY = ""
"""Whoever broke off before this process began."""

_KEPT = (Doubt.ABORTED, Doubt.CONFLICTING_COPIES, Doubt.CLOCK_NOT_SET)
"""Doubts that no file of the spool could tell again."""


@dataclass(slots=True)
class _Course:
    """What this process saw of a study's arrival; times are monotonic."""

    revision: int
    looked_at_revision: int | None
    first_new_s: float
    last_new_s: float
    ended_s: float
    broken: dict[str, frozenset[str] | None] = field(default_factory=dict)
    """Sender whose association broke off -> series that it was sending; None where unknown."""
    placed: dict[str, Placed] = field(default_factory=dict)
    """File name -> series, and where its slice lies."""
    has_gap: bool = False
    is_stack: bool = False
    """Of `stack_revision`: there is one that is worth a look, without a gap."""
    stack_revision: int | None = None
    """As the last look found it."""
    secondary_captures: int | None = None
    """None where they have not been counted since something came."""


class ArrivalClock:
    """Call `start` once, then `tick` every half second, from one thread."""

    def __init__(
        self,
        state: StateFolder,
        worklist: Worklist,
        log: ArrivalLog,
        patience: Patience,
        monotonic_s: Callable[[], float],
    ) -> None:
        """Nothing is read before `start`."""
        self._state, self._worklist, self._log = state, worklist, log
        self._spool = Spool(state)
        self._patience, self._monotonic_s = patience, monotonic_s
        self._courses: dict[str, _Course] = {}
        self._untold: list[Batch] = []
        self._unended: list[Ended] = []
        self._recent = RecentAssociations(state)

    def start(self) -> None:
        """Note what the spool has and the worklist lacks, and which associations a kill broke off.

        Raises:
            ResourceError: the state folder cannot be written.
        """
        self._spool.sweep()
        self._worklist.reconcile()
        known = {row.key: row for row in self._worklist.studies()}
        for key in self._spool.study_keys():
            if key in known:
                self._worklist.recount(key)
            record = read_arrival_record(self._state, key)
            if record is not None and record.sending and key in known:
                self._course(known[key]).broken[_ANYBODY] = None
                self._worklist.add_doubt(key, Doubt.ABORTED)
                self._keep_doubts(key)
                for sender in record.sending:
                    note_sent(self._state, key, sender)

    def tick(self) -> None:
        """Write what arrived, end what ended, decide what is due; a full disk leaves it for the next."""
        try:
            self._take()
            rows = self._worklist.studies()
            for row in rows:
                with _alone(row.key):
                    self._rule(row)
            for key in self._courses.keys() - {row.key for row in rows}:
                del self._courses[key]
            self._recent.write(self._log.shown_open())
        except EdgeMedgemmaError as error:
            _LOGGER.warning("arrivals are not noted yet: %s", error)

    def _take(self) -> None:
        batches, ended, refused = self._log.take()
        self._untold += batches
        self._unended += ended
        for request in refused:
            self._recent.add(request)
            audit.append(self._state, "refused", request.calling_ae_title, "", request.outcome)
        while self._untold:
            with _alone(self._untold[0].study_key):
                self._tell(self._untold[0])
            self._untold.pop(0)
        while self._unended:
            for key in self._unended[0].association.series:
                with _alone(key):
                    self._end(self._unended[0], key)
            over = self._unended.pop(0)
            if not over.association.is_report:
                self._recent.add(_shown(over))

    def _tell(self, batch: Batch) -> None:
        """One commit for all that one sender brought of a study since the last tick."""
        doubts = []
        if batch.conflicts:
            doubts.append(Doubt.CONFLICTING_COPIES)
            audit.append(
                self._state, "conflict", batch.sender, batch.study_key, str(batch.conflicts)
            )
        if not is_clock_set():
            doubts.append(Doubt.CLOCK_NOT_SET)
        key = batch.study_key
        self._worklist.note_spooled(key, batch.study_uid, batch.sender, batch.new_images, doubts)
        row = self._worklist.study(key)
        if row is not None:
            self._course(row).placed |= batch.placed
        if doubts:
            self._keep_doubts(key)

    def _end(self, ended: Ended, key: str) -> None:
        """An association is over that brought images of a study."""
        one = ended.association
        row = self._worklist.study(key)
        if row is None:
            return
        course = self._course(row)
        course.ended_s = self._monotonic_s()
        if not ended.is_released or one.refused:  # what was refused may have been of this study
            course.broken[one.calling_ae_title] = frozenset({one.last[key]})
            self._worklist.add_doubt(key, Doubt.ABORTED)
        elif self._make_good(key, course, one.calling_ae_title, one.series[key]):
            self._worklist.clear_doubt(key, Doubt.ABORTED)
        self._keep_doubts(key)
        if one.calling_ae_title not in self._log.open_senders(key):
            note_sent(self._state, key, one.calling_ae_title)
        new = one.new_images[key]
        event = "received" if new else "sent_again"
        audit.append(self._state, event, one.calling_ae_title, key, str(new) if new else "")

    def _make_good(self, key: str, course: _Course, sender: str, series: set[str]) -> bool:
        """Forgive breaks after which their sender sent again what it had been sending; True if all are."""
        was_broken = bool(course.broken)
        for name in {sender, _ANYBODY} & course.broken.keys():
            wanted = course.broken[name]
            if wanted is None:
                self._read_places(key, course)
                wanted = frozenset(one.series_uid for one in course.placed.values())
            if wanted <= series:
                del course.broken[name]
        return was_broken and not course.broken

    def _rule(self, row: StudyRow) -> None:
        """Decide for one study, and do it."""
        course, now = self._course(row), self._monotonic_s()
        self._hear_others(row, course)
        if now - course.last_new_s >= STACK_QUIET_S and not self._log.open_with_new(row.key):
            self._see_stack(row, course)
        decision = decide(self._facts(row, course), self._patience, now)
        if decision.look:  # during a transfer, a gap means nothing
            self._read_places(row.key, course)
            planes = [one.plane for one in course.placed.values() if one.plane]
            course.has_gap = has_gap(planes)
            decision = decide(self._facts(row, course), self._patience, now)
        self._change_doubts(row, decision.add, decision.clear)
        if decision.look:
            course.looked_at_revision = course.revision
            self._worklist.set_waiting(row.key)
        elif now - course.last_new_s > _PLACES_KEPT_S:
            course.placed.clear()

    def _hear_others(self, row: StudyRow, course: _Course) -> None:
        """What another process broke off or made good: a folder, a pull, an upload."""
        if Doubt.ABORTED not in row.doubts:
            course.broken.pop(_ANYBODY, None)
        elif not course.broken:
            course.broken[_ANYBODY] = None
            self._keep_doubts(row.key)

    def _see_stack(self, row: StudyRow, course: _Course) -> None:
        """Once for all that came: is it worth a look already?"""
        is_pending = course.revision != course.looked_at_revision
        if not is_pending or course.stack_revision == course.revision:
            return
        self._read_places(row.key, course)
        planes = [one.plane for one in course.placed.values() if one.plane]
        course.is_stack = is_stack(planes) and not has_gap(planes)
        course.stack_revision = course.revision

    def _facts(self, row: StudyRow, course: _Course) -> ArrivalFacts:
        return ArrivalFacts(
            is_pending=course.revision != course.looked_at_revision,
            first_new_s=course.first_new_s,
            last_new_s=course.last_new_s,
            open_associations=self._log.open_with_new(row.key),
            ended_s=course.ended_s,
            was_aborted=bool(course.broken),
            has_gap=course.has_gap,
            is_stack=course.is_stack and course.stack_revision == course.revision,
            images=row.instances - self._secondary_captures(row, course),
            expected=row.expected_instances,
        )

    def _secondary_captures(self, row: StudyRow, course: _Course) -> int:
        """How many there are, counted once where an archive's count is compared."""
        if row.expected_instances is None:
            return 0
        if course.secondary_captures is None:
            self._read_places(row.key, course)
            course.secondary_captures = sum(one.is_secondary for one in course.placed.values())
        return course.secondary_captures

    def _change_doubts(self, row: StudyRow, add: Iterable[Doubt], clear: Iterable[Doubt]) -> None:
        added = [doubt for doubt in add if doubt not in row.doubts]
        cleared = [doubt for doubt in clear if doubt in row.doubts]
        for doubt in added:
            self._worklist.add_doubt(row.key, doubt)
        for doubt in cleared:
            self._worklist.clear_doubt(row.key, doubt)
        if {*added, *cleared}.intersection(_KEPT):
            self._keep_doubts(row.key)

    def _course(self, row: StudyRow) -> _Course:
        """What is known of a study, its clock started anew where images came since the last call."""
        now = self._monotonic_s()
        course = self._courses.get(row.key)
        if course is None:
            is_new = row.state is StudyState.ARRIVING
            looked_at = None if is_new else row.revision
            course = _Course(row.revision, looked_at, now, now, now)
            course.has_gap = Doubt.GAP in row.doubts
            if Doubt.ABORTED in row.doubts:
                course.broken = {_ANYBODY: None}
            self._courses[row.key] = course
        elif row.revision != course.revision:
            if course.revision == course.looked_at_revision:
                course.first_new_s = now
            course.revision, course.last_new_s = row.revision, now
            course.secondary_captures = None
        return course

    def _read_places(self, key: str, course: _Course) -> None:
        """Read where images belong that other processes brought, each once."""
        for path in self._spool.files(key):
            if path.name not in course.placed:
                try:
                    identity = read_identity(path)
                    course.placed[path.name] = Placed(
                        identity.series_uid, identity.plane, identity.is_secondary
                    )
                except ScanError:
                    course.placed[path.name] = Placed("", None)

    def _keep_doubts(self, key: str) -> None:
        """Write down what a restart could not find out again."""
        row = self._worklist.study(key)
        doubts = tuple(doubt for doubt in (row.doubts if row else ()) if doubt in _KEPT)
        note_doubts(self._state, key, doubts)


def _shown(ended: Ended) -> RecentAssociation:
    outcome = Outcome.ABORTED
    if ended.is_released:
        outcome = ended.association.problem or Outcome.RELEASED
    return ended.association.shown(outcome)


@contextlib.contextmanager
def _alone(study_key: str) -> Iterator[None]:
    """What is wrong with one study stops no other; a full disk stops all, until the next tick."""
    try:
        yield
    except WorklistError as error:
        _LOGGER.warning("%s is not noted: %s", study_key[:8], error)
