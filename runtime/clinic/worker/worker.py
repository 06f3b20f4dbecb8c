"""The worker: opens the engine, looks at what waits, answers questions, hands results over.

In this order: a study never looked at, or images that came since; one question; the first again; what
follows a last pass; a closer look. So a question waits for one coarse look at most, and no study that may
be critical for more than one answer.
"""

import contextlib
import logging
import os
import time
from collections.abc import Iterator

from edge_medgemma.runtime.clinic.heartbeat import beat
from edge_medgemma.runtime.clinic.questions.answering import Answerer, engine_card
from edge_medgemma.runtime.clinic.questions.attendance import Attendance
from edge_medgemma.runtime.clinic.questions.mailbox import Mailbox
from edge_medgemma.runtime.clinic.settings import ClinicSettings
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worker.engine_room import fingerprint, open_engine
from edge_medgemma.runtime.clinic.worker.finishing import Build, Finisher
from edge_medgemma.runtime.clinic.worker.looking import Looker
from edge_medgemma.runtime.clinic.worker.stopping import Stop, StopAsked
from edge_medgemma.runtime.clinic.worker_status import (
    WORKER,
    WorkerState,
    WorkerStatus,
    write_worker_status,
)
from edge_medgemma.runtime.clinic.worklist.audit import utc_now
from edge_medgemma.runtime.clinic.worklist.lease import Lease
from edge_medgemma.runtime.clinic.worklist.order import needs_coarse_look
from edge_medgemma.runtime.clinic.worklist.records import FailureReason, StudyState
from edge_medgemma.runtime.clinic.worklist.retention import Retention
from edge_medgemma.runtime.clinic.worklist.store import Worklist
from edge_medgemma.runtime.errors import EdgeMedgemmaError, ResourceError
from edge_medgemma.runtime.files import write_errors
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.store.entries import delete_unused
from edge_medgemma.runtime.store.scan_cache import ScanCache
from edge_medgemma.runtime.triage.scoring.grounds import engine_notice, scope_words

LOG = logging.getLogger(__name__)

POLL_S = 0.1
BEAT_S = 5.0
HOUSEKEEPING_S = 60.0
FULL_DISK_S = 5.0
_DAY_S = 86400.0

_PROBLEMS = {
    FailureReason.OUT_OF_MEMORY: "There was too little memory for a study. Set fewer `slices` in the part "
    "`[engine]` of the settings, or use an int4 engine.",
    FailureReason.ENGINE: "The engine or its device failed at a study. Restart the box; if it goes on, copy "
    "the engine again.",
    FailureReason.DISK_FULL: "A result could not be written: the disk is full. Make room; it is tried again.",
}
"""What a failure at one study says of the box."""


def run_worker(state: StateFolder, settings: ClinicSettings, stop: Stop, build: Build) -> None:
    """Work until a signal says to stop.

    Where there is no engine that may be run, the reason stands in the worker's status, and it is tried
    again when another is put in its place.

    Raises:
        ResourceError: the state folder cannot be written, or another worker holds it.
    """
    state.create()
    with _only_worker(state):
        _work(state, settings, stop, build)


def _work(state: StateFolder, settings: ClinicSettings, stop: Stop, build: Build) -> None:
    say = _Speaker(state)
    try:
        with stop.at_once():
            engine = _open(settings, say, stop)
        with engine, Worklist.open(state) as worklist:
            _Worker(state, settings, engine, worklist, say, stop, build).run()
    except StopAsked:
        LOG.info("the worker ends")
    finally:
        say(WorkerState.STOPPED)


@contextlib.contextmanager
def _only_worker(state: StateFolder) -> Iterator[None]:
    """The lock of the worker; the system drops it with the process, whatever ends that."""
    import fcntl

    with write_errors(state.path):
        descriptor = os.open(state.path / "worker.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ResourceError(
                f"a worker already runs on '{state.path}'; stop the clinic first"
            ) from None
        yield
    finally:
        os.close(descriptor)


def _open(settings: ClinicSettings, say: "_Speaker", stop: Stop) -> Engine:
    while True:
        say(WorkerState.OPENING)
        tried = fingerprint(settings)
        try:
            return open_engine(settings)
        except (EdgeMedgemmaError, MemoryError, OSError) as error:
            words = str(error) or "there was too little memory to open the engine"
            LOG.warning("no engine: %s", type(error).__name__)
            say(WorkerState.REFUSED, problem=f"{words[:1].upper()}{words[1:]}")
        while fingerprint(settings) == tried:
            say.beat()
            time.sleep(1.0)


class _Speaker:
    """Says what the worker does, and that it lives."""

    def __init__(self, state: StateFolder) -> None:
        self._state = state
        self._status: WorkerStatus | None = None
        self._beaten_s = 0.0
        self.engine = self.notice = self.scope = ""

    def __call__(self, state: WorkerState, *, problem: str = "", study_key: str = "") -> None:
        """Say it where it is news."""
        self.beat()
        since = self._status.since if self._status is not None else ""
        status = WorkerStatus(
            state, self.engine, self.notice, self.scope, problem, study_key, since
        )
        if status != self._status:
            self._status = WorkerStatus(
                state, self.engine, self.notice, self.scope, problem, study_key, utc_now()
            )
            write_worker_status(self._state, self._status)

    def beat(self) -> None:
        """Say that it lives, every few seconds."""
        if time.monotonic() - self._beaten_s >= BEAT_S:
            self._beaten_s = time.monotonic()
            beat(self._state, WORKER)


class _Worker:
    """The loop, with an open engine."""

    def __init__(
        self,
        state: StateFolder,
        settings: ClinicSettings,
        engine: Engine,
        worklist: Worklist,
        say: _Speaker,
        stop: Stop,
        build: Build,
    ) -> None:
        scope = engine.manifest.scope
        say.engine, say.notice = engine.manifest.source.name, engine_notice(engine.manifest)
        say.scope = scope_words(scope) if scope is not None else ""
        cache = ScanCache(state.cache / "engine")
        self._cache = cache
        self._keep_s = settings.retention.days * _DAY_S
        self._state = state
        self._worklist = worklist
        self._say = say
        self._stop = stop
        self._problem = ""
        self._looker = Looker(
            engine, state, worklist, cache, settings.engine.slices, self._on_progress
        )
        self._finisher = Finisher(state, settings, worklist, build)
        self._retention = Retention(state, settings, worklist)
        self._answerer = Answerer(engine, state, settings, cache)
        self._mailbox = Mailbox(state)
        self._engine = engine
        self._kept_house_s = 0.0
        self._lease: Lease | None = None
        """Of a look that has not ended, where even that could not be written down."""

    def run(self) -> None:
        """Work until asked to stop.

        Raises:
            StopAsked: then.
        """
        self._worklist.reconcile()
        self._try_again(FailureReason.ENGINE)
        attendance = Attendance(self._state, engine_card(self._engine))
        try:
            while True:
                self._stop.check()
                try:
                    is_idle = not self._step()
                except ResourceError as error:  # the disk is full: what was begun is taken up again
                    LOG.warning("the state folder cannot be written")
                    self._say(WorkerState.IDLE, problem=f"The box cannot store results: {error}.")
                    self._stop.wait(FULL_DISK_S)
                    continue
                if is_idle:
                    self._say(WorkerState.IDLE, problem=self._problem or self._finisher.problem)
                    self._stop.wait(POLL_S)
        finally:
            attendance.close()

    def _step(self) -> bool:
        """Do the most important thing; False where there is nothing to do."""
        if self._lease is not None:
            self._worklist.release(self._lease)
            self._lease = None
        row = self._worklist.next_waiting()
        has_looked = row is not None and needs_coarse_look(row) and self._look()
        if self._answer() or has_looked:
            return True
        if self._finisher.finish_one():
            return True
        if row is not None and self._look():
            return True
        self._keep_house()
        return False

    def _look(self) -> bool:
        lease = self._worklist.acquire()
        if lease is None:
            return False
        self._lease = lease
        self._say(WorkerState.LOOKING, study_key=lease.key)
        self._answerer.release()
        reason = self._looker.look(lease)
        self._lease = None
        self._problem = "" if reason is None else _PROBLEMS.get(reason, self._problem)
        self._finisher.finish_one()
        return True

    def _answer(self) -> bool:
        if not self._mailbox.pending():
            return False
        self._say(WorkerState.ANSWERING)
        with self._stop.at_once():
            return self._answerer.answer_next(self._mailbox)

    def _on_progress(self, stage: str, done: int, total: int) -> None:
        self._say.beat()
        self._stop.check()

    def _keep_house(self) -> None:
        """Delete what may go, and try again what found no room."""
        if time.monotonic() - self._kept_house_s < HOUSEKEEPING_S:
            return
        self._kept_house_s = time.monotonic()
        self._retention.apply()
        delete_unused(self._cache.entries(), self._keep_s)
        if self._retention.has_room():
            self._try_again(FailureReason.DISK_FULL)

    def _try_again(self, reason: FailureReason) -> None:
        for row in self._worklist.studies():
            if row.state is StudyState.FAILED and row.failure is reason:
                self._worklist.set_waiting(row.key)
