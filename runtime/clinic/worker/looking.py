"""One look at a study: coarsely, so that there is a result at once, or closely, over all slices."""

import logging
from pathlib import Path

from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worker.publishing import publish, read_latest
from edge_medgemma.runtime.clinic.worker.statements import with_problem
from edge_medgemma.runtime.clinic.worklist.lease import Lease
from edge_medgemma.runtime.clinic.worklist.order import needs_coarse_look
from edge_medgemma.runtime.clinic.worklist.records import FailureReason
from edge_medgemma.runtime.clinic.worklist.store import Worklist
from edge_medgemma.runtime.errors import (
    DependencyError,
    DeviceMemoryError,
    EngineError,
    ProtocolError,
    ProviderError,
    ResourceError,
    ScanError,
    ThresholdError,
)
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.slicing.volume import Problem
from edge_medgemma.runtime.store.scan_cache import ScanCache
from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.progress import Progress
from edge_medgemma.runtime.triage.report import StudyReport, TriageReport
from edge_medgemma.runtime.triage.triage_scan import NOT_LOOKED_AT, triage_scan

LOG = logging.getLogger(__name__)

_REASONS: dict[FailureReason, str] = {
    FailureReason.OUT_OF_MEMORY: "there was not enough memory",
    FailureReason.UNREADABLE: "its files could not be read any more",
    FailureReason.ENGINE: "of an error of the device or the engine",
    FailureReason.INTERNAL: "of an internal error",
}


class _CoarseEndedError(Exception):
    """Every part of the study was looked at once."""


class _DiskFullError(Exception):
    """A result could not be written."""


class Looker:
    """Looks at studies with one engine."""

    def __init__(
        self,
        engine: Engine,
        state: StateFolder,
        worklist: Worklist,
        scan_cache: ScanCache,
        slices: int | None,
        on_progress: Progress,
    ) -> None:
        """Compute nothing yet; `slices` is the most that a pass shows, None the protocol's number."""
        self._engine = engine
        self._state = state
        self._worklist = worklist
        self._scan_cache = scan_cache
        self._slices = slices
        self._on_progress = on_progress

    def look(self, lease: Lease) -> FailureReason | None:
        """Make one pass over a study and publish it; the study waits again if a closer look follows.

        Returns:
            Why it has failed; None where there is a result.
        """
        row = self._worklist.study(lease.key)
        if row is None:
            return None
        is_coarse = needs_coarse_look(row)
        try:
            if is_coarse:
                self._look_coarsely(lease)
            else:
                report = triage_scan(
                    self._engine, self._scan(lease), self._options(), self._on_progress
                )
                self._publish(lease, report, is_final=True)
        except Exception as error:
            reason = _reason(error)
            LOG.warning("study %s: %s (%s)", lease.key[:8], reason, type(error).__name__)
            LOG.debug("the look failed", exc_info=True)
            return self._end_without(lease, reason, is_coarse=is_coarse)
        finally:
            self._worklist.release(lease)
        return None

    def _look_coarsely(self, lease: Lease) -> None:
        """Publish after each part; the closer look is a job of its own, behind studies never seen."""

        def on_report(report: TriageReport) -> None:
            has_more = any(NOT_LOOKED_AT in study.problems for study in report.studies)
            is_final = not has_more and all(map(_is_whole, report.studies))
            self._publish(lease, report, is_final=is_final)
            if not has_more:
                raise _CoarseEndedError

        options = self._options(until_settled=True)
        try:
            triage_scan(self._engine, self._scan(lease), options, self._on_progress, on_report)
        except _CoarseEndedError:
            return

    def _publish(self, lease: Lease, report: TriageReport, *, is_final: bool) -> None:
        row = self._worklist.study(lease.key)
        if row is None:
            return
        try:
            publish(
                self._state, self._worklist, row, report,
                revision=lease.revision, instances=lease.instances, is_final=is_final,
            )  # fmt: skip
        except ResourceError as error:
            raise _DiskFullError from error

    def _end_without(
        self, lease: Lease, reason: FailureReason, *, is_coarse: bool
    ) -> FailureReason | None:
        """The coarse result is the last one, and says why; without one the study has failed."""
        earlier = None if is_coarse else read_latest(self._state, lease.key)
        if earlier is not None and reason in _REASONS:
            detail = f"No further slices could be looked at: {_REASONS[reason]}."
            report = with_problem(earlier, Problem("refinement_failed", detail))
            try:
                self._publish(lease, report, is_final=True)
            except _DiskFullError:
                reason = FailureReason.DISK_FULL
            else:
                return None
        self._worklist.fail(lease.key, reason)
        return reason

    def _scan(self, lease: Lease) -> Path:
        return self._state.spool / lease.key

    def _options(self, *, until_settled: bool = False) -> TriageOptions:
        return TriageOptions(
            slices=self._slices, until_settled=until_settled, scan_cache=self._scan_cache
        )


def _is_whole(study: StudyReport) -> bool:
    """Whether no closer look at a study could show more."""
    if not study.passes or study.series is None:
        return True
    return study.passes[-1].slices >= study.series.shape[0]


def _reason(error: Exception) -> FailureReason:
    if isinstance(error, _DiskFullError):
        return FailureReason.DISK_FULL
    if isinstance(error, MemoryError | DeviceMemoryError | ResourceError):
        return FailureReason.OUT_OF_MEMORY
    if isinstance(error, ScanError):
        return FailureReason.UNREADABLE
    if isinstance(
        error, DependencyError | EngineError | ProtocolError | ProviderError | ThresholdError
    ):
        return FailureReason.ENGINE
    return FailureReason.INTERNAL
