"""One study from pass to pass: each shows more slices than the one before and keeps its flags."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from edge_medgemma.runtime.slicing.volume import Problem, SliceStack
from edge_medgemma.runtime.tracing.spans import total_s
from edge_medgemma.runtime.triage.cpu_fallback import DEVICE_FAILED, with_cpu_fallback
from edge_medgemma.runtime.triage.pipeline import (
    PassResult,
    RenderedStudy,
    StudyContext,
    cached_baseline,
    choose_slices,
    conclude,
    open_study,
    render,
    run_pass,
    slice_prefiller,
)
from edge_medgemma.runtime.triage.prefill import FeatureStore
from edge_medgemma.runtime.triage.refinement.coarse_to_fine import (
    coarse_rows,
    is_settled,
    keep_flags,
    refined_rows,
)
from edge_medgemma.runtime.triage.refinement.pass_cost import PassCost
from edge_medgemma.runtime.triage.report import FindingResult, Pass, StudyReport
from edge_medgemma.runtime.triage.report_builder import pass_record, study_report
from edge_medgemma.runtime.triage.room import require_room
from edge_medgemma.runtime.triage.worklist import StudyTask


@dataclass(frozen=True, slots=True)
class FinishedPass:
    """A pass that ended."""

    rows: tuple[int, ...]
    """Rows of the stack that it showed."""
    findings: tuple[FindingResult, ...]
    """Its own results, without flags of earlier passes."""
    record: Pass
    is_settled: bool
    """Whether it agreed with the pass before, and showed enough slices for that to mean much."""


class StudyRun:
    """The passes over one study.

    Its slices are decoded once. A pass gives what a triage of just its slices would give; image
    features are kept for the next.
    """

    def __init__(self, context: StudyContext, task: StudyTask) -> None:
        """Compute nothing yet."""
        self._context = context
        self._task = task
        self._study: RenderedStudy | None = None
        self._features = FeatureStore()
        self._passes: list[FinishedPass] = []
        self.num_slices = len(context.requested_indices)
        """All that the protocol would show; fewer once some could not be decoded."""
        self.report: StudyReport | None = None
        """Report after the last pass that ended."""
        self.cost: PassCost | None = None
        """Measured in the last pass; None before one ended."""
        self.has_failed = False
        """Whether no further pass can be made."""

    @property
    def num_slices_seen(self) -> int:
        """Slices of the last pass; 0 before one ended."""
        return len(self._passes[-1].rows) if self._passes else 0

    @property
    def is_complete(self) -> bool:
        """Whether no further pass could show more."""
        return self.has_failed or self.num_slices_seen >= self.num_slices

    @property
    def is_settled(self) -> bool:
        """Whether another pass is not expected to change any status."""
        return bool(self._passes) and self._passes[-1].is_settled

    @property
    def redecode_s(self) -> float:
        """Seconds to decode the pixels again; 0 while they are there."""
        if self._study is not None:
            return 0.0
        seconds = total_s(self._context.tracker.spans)
        return seconds.get("decode", 0.0) + seconds.get("render", 0.0)

    def needs_baseline(self, count: int) -> bool:
        """Whether a pass over `count` slices would have to measure its blank baseline."""
        return cached_baseline(self._context, count) is None

    def num_new_slices(self, count: int) -> int:
        """Slices that a pass over `count` would have to encode, at most."""
        return max(count - len(self._features.slices), 0)

    def run_pass(self, count: int) -> StudyReport:
        """Report after a pass over `count` slices: those of the pass before and some between."""
        attempt = partial(self._run_pass, min(count, self.num_slices))
        self.report = with_cpu_fallback(self._context.engine, attempt, self._leave_device)
        return self.report

    def measure_vision_s(self) -> float:
        """Seconds to encode one slice of the stack, the loading of the vision tower included."""
        attempt = self._encode_one
        return with_cpu_fallback(self._context.engine, attempt, self._leave_device)

    def fail(self, problem: Problem) -> StudyReport:
        """The report of the pass before, or an empty one, with the reason why none follows."""
        self.has_failed = True
        if self.report is None:
            problems = (*self._task.problems, problem)
            self.report = study_report(self._task, self._context.tracker, problems)
        else:
            self.report = replace(self.report, problems=(*self.report.problems, problem))
        return self.report

    def release_pixels(self) -> None:
        """Drop the pixels; a further pass decodes them again."""
        self._study = None

    def _run_pass(self, count: int) -> StudyReport:
        context = self._context
        require_room(context, count)
        first_span = len(context.tracker.spans)
        study = self._open()
        if isinstance(study, StudyReport):
            return study
        rows = self._choose_rows(study.stack, min(count, self.num_slices))
        result = run_pass(context, study, rows, self._features)
        seconds = total_s(context.tracker.spans[first_span:])
        self.cost = PassCost.of(seconds, result.num_encoded, len(rows))
        report = self._conclude(study, rows, result, sum(seconds.values()))
        if self.is_complete:
            self.release_pixels()
        return report

    def _open(self) -> RenderedStudy | StudyReport:
        """The study, or the final report where its values cannot be shown."""
        if self._study is None:
            decoded = open_study(self._context, self._task.problems)
            if not decoded.is_renderable:
                self.has_failed = True
                return study_report(self._task, self._context.tracker, decoded.problems)
            self._study = render(self._context, decoded)
            self.num_slices = len(self._study.stack.slice_indices)
        return self._study

    def _choose_rows(self, stack: SliceStack, count: int) -> list[int]:
        if not self._passes:
            return coarse_rows(count, self.num_slices)
        flagged = self.report.flagged if self.report else ()
        row_of = {int(index): row for row, index in enumerate(stack.slice_indices)}
        suspected = {row_of[key.slice_index] for one in flagged for key in one.key_slices}
        return refined_rows(self._passes[-1].rows, count, self.num_slices, suspected)

    def _conclude(
        self, study: RenderedStudy, rows: Sequence[int], result: PassResult, duration_s: float
    ) -> StudyReport:
        """The report after a pass: its own results and the flags of the passes before."""
        before = self._passes[-1].findings if self._passes else ()
        settled = bool(before) and result.is_dense and is_settled(before, result.findings)
        earlier = self.report.findings if self.report else result.findings
        slices = [one.record.slices for one in self._passes]
        kept = result.findings
        lost_flags: tuple[Problem, ...] = ()
        if result.grounds.allows_findings:
            kept, lost_flags = keep_flags(earlier, result.findings, slices, len(rows))
        problems = (*study.problems, *result.problems, *lost_flags)
        report = conclude(self._context, self._task, problems, replace(result, findings=kept))
        record = pass_record(result.shown, result.findings, report.urgency, duration_s)
        self._passes.append(FinishedPass(tuple(rows), result.findings, record, settled))
        return replace(report, passes=tuple(one.record for one in self._passes))

    def _encode_one(self) -> float:
        study = self._open()
        if isinstance(study, StudyReport):
            return 0.0
        tracker = self._context.tracker
        first_span = len(tracker.spans)
        shown = choose_slices(study, coarse_rows(1, self.num_slices))
        slice_prefiller(self._context, shown).encode(self._features)
        return total_s(tracker.spans[first_span:]).get("vision", 0.0)

    def _leave_device(self) -> None:
        """Drop what the device encoded; results of earlier passes stand.

        They do because a device gave the CPU's answers when it was tested.
        """
        self._features.clear()
        self._task = replace(self._task, problems=(*self._task.problems, DEVICE_FAILED))
        if self._study is not None:
            problems = (*self._study.problems, DEVICE_FAILED)
            self._study = replace(self._study, problems=problems)
