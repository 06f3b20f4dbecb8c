"""One protocol applied to one series, in one pass or in several over more and more slices."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.errors import ProviderError
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.prefix import Prefix
from edge_medgemma.runtime.slicing.sampling import sample_slices
from edge_medgemma.runtime.slicing.scan import read_volume
from edge_medgemma.runtime.slicing.volume import Problem, Series, SliceStack
from edge_medgemma.runtime.slicing.windows import PRESETS, render_stack
from edge_medgemma.runtime.tracing.spans import SpanRecorder, total_s
from edge_medgemma.runtime.triage.blank_baseline import ControlCache, blank_volume, control_key
from edge_medgemma.runtime.triage.coverage import coverage_problems, sampling_problems
from edge_medgemma.runtime.triage.findings import (
    Answers,
    ask_fast,
    ask_reasoned,
    assessed_findings,
    doubt_problems,
    evaluate,
    with_evidence,
)
from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.pass_cost import Pace
from edge_medgemma.runtime.triage.prefill import SlicePrefiller
from edge_medgemma.runtime.triage.protocol import Finding, Protocol
from edge_medgemma.runtime.triage.questions import Progress, read_slices
from edge_medgemma.runtime.triage.refinement import (
    coarse_rows,
    is_settled,
    keep_flags,
    refined_rows,
)
from edge_medgemma.runtime.triage.report import (
    Effort,
    FindingResult,
    FindingStatus,
    Pass,
    StudyReport,
)
from edge_medgemma.runtime.triage.report_builder import pass_record, study_report
from edge_medgemma.runtime.triage.worklist import StudyTask

DEVICE_FAILED = Problem(
    "device_failed",
    "The GPU failed while this study was read; the CPU read it again from the beginning.",
)


class StudyRun:
    """The stages of one study, in the order of the report's timings.

    The slices that the protocol would show are decoded once; each `look` is a pass over some of
    them, the same as any other triage of just these, and keeps the image features it paid for.
    """

    def __init__(
        self,
        engine: Engine,
        reading: StudyTask,
        protocol: Protocol,
        series: Series,
        options: TriageOptions,
        on_progress: Progress,
    ) -> None:
        """Nothing is read yet."""
        self._engine = engine
        self._reading = reading
        self._protocol = protocol
        self._series = series
        self._options = options
        self._report_progress = on_progress
        self._requested = sample_slices(series.shape[0], options.slices or protocol.slices)
        self._stack: SliceStack | None = None
        self._problems: tuple[Problem, ...] = ()
        self._blank_stack: SliceStack
        self._indices = self._requested
        self._features: dict[int, NDArray[np.float32]] = {}
        self._blank: NDArray[np.float32] | None = None
        self._rows: list[int] = []
        self._results: tuple[FindingResult, ...] = ()
        self._passes: tuple[Pass, ...] = ()
        self.recorder = SpanRecorder()
        self.slices = len(self._requested)
        """All that the protocol would show; fewer once some could not be decoded."""
        self.num_slices_seen = 0
        """Slices of the last pass."""
        self.report: StudyReport | None = None
        """After the last pass that ended."""
        self.pace: Pace | None = None
        """Of the last pass; None before one ended."""
        self.has_failed = False
        """Set where a pass failed: no further one is made."""
        self.is_settled = False
        """Whether the last two passes agreed, and enough slices were seen for that to mean much."""

    @property
    def is_complete(self) -> bool:
        """Whether there is nothing left to look at."""
        return self.has_failed or self.num_slices_seen >= self.slices

    def look(self, count: int) -> StudyReport:
        """One pass over `count` slices: those of the pass before and some between."""
        count = min(count, self.slices)
        self._engine.require_memory(count, self._series.shape[1:])
        first_span = len(self.recorder.spans)
        stack = self._open()
        if stack is None:
            self.num_slices_seen = self.slices
            self.report = study_report(self._reading, self.recorder, self._problems)
            return self.report
        rows = self._choose_rows(min(count, self.slices))
        shown = _part(stack, rows)
        reader = self._reader(shown, rows)
        if len(rows) == self.slices:
            self._features.clear()  # the reader has them, and no pass will follow
        controls = self._read_controls(len(rows))
        if controls is None:
            reader.encode_unless_read()  # ahead of any prefix: the two parts may not fit together
            if self._blank is None:
                self._blank = reader.encode_blank(self._blank_stack)
            controls = self._measure_controls(len(rows))
        prefix = reader.read()
        if len(rows) < self.slices:
            self._features.update((rows[place], one) for place, one in reader.features.items())
        reader.features.clear()
        with self.recorder.span("score"):
            answers = self._ask(prefix)
            results = evaluate(self._protocol, self._engine.manifest, answers, controls or None)
        with self.recorder.span("evidence"):
            results = self._explain(prefix, shown, results)
        del prefix
        seconds = total_s(self.recorder.spans[first_span:])
        self.pace = Pace.of(seconds, reader.encoded, len(rows))
        report = self._conclude(shown, answers, results, sum(seconds.values()))
        self.report = replace(report, recalled=reader.recalled, passes=self._passes)
        self._rows, self.num_slices_seen = rows, len(rows)
        if self.is_complete:
            self.rest()
        return self.report

    def fall_back_to_cpu(self, reason: str) -> bool:
        """Whether the engine could leave its device; what the device encoded is forgotten.

        The results of earlier passes stand: the device gave the CPU's answers when it was tested.
        """
        if not self._engine.fall_back(reason):
            return False
        self._features.clear()
        self._blank = None
        self._problems += (DEVICE_FAILED,)
        # once more for when the pixels are decoded again, which begins from these
        self._reading = replace(self._reading, problems=(*self._reading.problems, DEVICE_FAILED))
        return True

    def _conclude(
        self,
        shown: SliceStack,
        answers: Answers,
        results: tuple[FindingResult, ...],
        duration_s: float,
    ) -> StudyReport:
        """The report after a pass: its own results and the flags of the passes before."""
        sampling = sampling_problems(self._protocol, self._series, shown.slice_indices)
        settled = bool(self._results) and not sampling and is_settled(self._results, results)
        earlier = self.report.findings if self.report else results
        slices = [one.slices for one in self._passes]
        kept, lost_flags = keep_flags(earlier, results, slices, len(shown.slice_indices))
        problems = (
            *self._problems,
            *sampling,
            *answers.problems,
            *doubt_problems(results),
            *lost_flags,
        )
        report = study_report(self._reading, self.recorder, problems, shown, kept)
        self._passes += (pass_record(shown, results, report.urgency, duration_s),)
        self._results, self.is_settled = results, settled
        return report

    def rest(self) -> None:
        """Let go of the pixels; a further look decodes them again."""
        self._stack = None

    @property
    def redecode_s(self) -> float:
        """Seconds to decode the pixels again; 0 while they are there."""
        if self._stack is not None:
            return 0.0
        seconds = total_s(self.recorder.spans)
        return seconds.get("decode", 0.0) + seconds.get("render", 0.0)

    def probe(self) -> float:
        """Encode one slice of the first pass and say how long that took, the loading included."""
        stack = self._open()
        if stack is None:
            return 0.0
        first_span = len(self.recorder.spans)
        rows = coarse_rows(1, self.slices)
        reader = self._reader(_part(stack, rows), rows)
        try:
            reader.encode_unless_read()
        except ProviderError as error:
            if not self.fall_back_to_cpu(str(error)):
                raise
            return self.probe()
        self._features.update((rows[place], one) for place, one in reader.features.items())
        if len(self.recorder.spans) == first_span:
            return 0.0
        return self.recorder.spans[first_span].duration_s

    def needs_control(self, count: int) -> bool:
        """Whether a pass over `count` slices would have to measure its control."""
        return self._read_controls(count) is None

    def new_slices(self, count: int) -> int:
        """Slices that a pass over `count` would have to encode, at most."""
        return max(count - len(self._features), 0)

    def _choose_rows(self, count: int) -> list[int]:
        if not self._rows:
            return coarse_rows(count, self.slices)
        flagged = self.report.flagged if self.report else ()
        row_of = {int(index): row for row, index in enumerate(self._indices)}
        suspected = {row_of[key.slice_index] for one in flagged for key in one.key_slices}
        return refined_rows(self._rows, count, self.slices, suspected)

    def _open(self) -> SliceStack | None:
        """The decoded slices; None where their values would lie."""
        if self._stack is not None:
            return self._stack
        with self.recorder.span("decode"):
            volume = read_volume(self._series, self._requested, self._stage("decode"))
        coverage = coverage_problems(self._protocol, volume, self._requested)
        self._problems = (*self._reading.problems, *volume.problems, *coverage)
        if any(problem.name == "not_hounsfield" for problem in self._problems):
            return None
        with self.recorder.span("render"):
            self._stack = render_stack(volume)
            blank = blank_volume(volume)
            self._blank_stack = render_stack(blank, self._stack.preset)
        self._problems += tuple(p for p in self._stack.problems if p not in self._problems)
        self._indices = self._stack.slice_indices
        self.slices = len(self._indices)
        return self._stack

    def _reader(self, shown: SliceStack, rows: Sequence[int]) -> SlicePrefiller:
        """Of the slices of a pass; those of earlier passes cost nothing."""
        return SlicePrefiller(
            self._engine,
            self._protocol.instruction,
            shown,
            self._options.scan_cache,
            self.recorder,
            self._on_progress,
            {place: self._features[row] for place, row in enumerate(rows) if row in self._features},
            keeps_features=len(rows) < self.slices,
        )

    def _read_controls(self, count: int) -> Mapping[str, float] | None:
        """Control log-odds for so many slices; empty where there is no control, None if not kept.

        After reasoning in words there is none: a model reasons differently about nothing.
        """
        codes = frozenset(finding.code for finding in self._findings())
        if self._options.effort is Effort.REASONED or not codes:
            return {}
        cache = ControlCache(self._options.control_folder)
        return cache.read(self._control_key(count), codes)

    def _measure_controls(self, count: int) -> Mapping[str, float]:
        assert self._blank is not None
        with self.recorder.span("control"):
            progress = self._stage("control")
            prefix = read_slices(
                self._engine,
                self._protocol.instruction,
                count,
                repeat(self._blank, count),
                lambda _, done, total: progress(done, total),
            )
            controls = dict(ask_fast(self._engine, prefix, self._findings()).log_odds)
        ControlCache(self._options.control_folder).write(self._control_key(count), controls)
        return controls

    def _ask(self, prefix: Prefix) -> Answers:
        if self._options.effort is Effort.REASONED:
            return ask_reasoned(self._engine, prefix, self._findings(), self._on_progress)
        return ask_fast(self._engine, prefix, self._findings())

    def _explain(
        self, prefix: Prefix, stack: SliceStack, results: Sequence[FindingResult]
    ) -> tuple[FindingResult, ...]:
        explained = []
        for done, result in enumerate(results, start=1):
            is_flagged = result.status is FindingStatus.FLAGGED
            explained.append(
                with_evidence(self._engine, prefix, stack, result) if is_flagged else result
            )
            self._on_progress("evidence", done, len(results))
        return tuple(explained)

    def _findings(self) -> tuple[Finding, ...]:
        return assessed_findings(self._protocol, self._engine.manifest)

    def _control_key(self, count: int) -> str:
        engine, protocol = self._engine.manifest.sha256, self._protocol.sha256
        preset = PRESETS[self._series.modality]
        return control_key(engine, protocol, preset, count, self._series.shape[1:])

    def _on_progress(self, stage: str, done: int, total: int) -> None:
        self.recorder.step(f"{stage} {done}")
        self._report_progress(stage, done, total)

    def _stage(self, name: str) -> Callable[[int, int], None]:
        return partial(self._on_progress, name)


def _part(stack: SliceStack, rows: Sequence[int]) -> SliceStack:
    if len(rows) == len(stack.pixels):
        return stack
    return replace(
        stack,
        pixels=stack.pixels[rows],
        slice_indices=stack.slice_indices[rows],
        positions_mm=stack.positions_mm[rows],
    )
