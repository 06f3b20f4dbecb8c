"""One protocol applied to the slices of one series, stage by stage."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.prefix import Prefix
from edge_medgemma.runtime.profiling.spans import SpanRecorder
from edge_medgemma.runtime.slicing.sampling import sample_slices
from edge_medgemma.runtime.slicing.scan import read_volume
from edge_medgemma.runtime.slicing.volume import Problem, Series, SliceStack, Volume
from edge_medgemma.runtime.slicing.windows import render_stack
from edge_medgemma.runtime.triage.control import ControlCache, blank_volume, control_key
from edge_medgemma.runtime.triage.coverage import coverage_problems
from edge_medgemma.runtime.triage.findings import (
    Answers,
    ask_fast,
    ask_reasoned,
    assessed_findings,
    doubt_problems,
    judge,
    with_evidence,
)
from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.plan import Reading
from edge_medgemma.runtime.triage.protocol import Finding, Protocol
from edge_medgemma.runtime.triage.questions import Progress, read_slices
from edge_medgemma.runtime.triage.records import study_report
from edge_medgemma.runtime.triage.report import (
    Effort,
    FindingResult,
    FindingStatus,
    StudyReport,
)


class Examination:
    """The stages of one study, in the order of the report's timings."""

    def __init__(
        self,
        engine: Engine,
        protocol: Protocol,
        series: Series,
        options: TriageOptions,
        recorder: SpanRecorder,
        on_progress: Progress,
    ) -> None:
        """Nothing is read yet."""
        self._engine = engine
        self._protocol = protocol
        self._series = series
        self._options = options
        self._recorder = recorder
        self._on_progress = on_progress

    def run(self, reading: Reading) -> StudyReport:
        """All stages in order."""
        volume, problems = self._decode()
        problems = (*reading.problems, *problems)
        if any(problem.name == "not_hounsfield" for problem in problems):
            return study_report(reading, self._recorder, problems)  # windows would lie
        with self._recorder.span("render"):
            stack = render_stack(volume)
            blank = render_stack(blank_volume(volume), stack.preset)
        problems = (*problems, *(p for p in stack.problems if p not in problems))
        features, controls = self._features_and_controls(stack, blank)
        with self._recorder.span("prefill"):
            prefix = read_slices(
                self._engine, self._protocol.instruction, features, self._on_progress
            )
        with self._recorder.span("score"):
            answers = self._ask(prefix)
            results = judge(self._protocol, self._engine.manifest, answers, controls)
        with self._recorder.span("evidence"):
            results = self._explain(prefix, stack, results)
        problems = (*problems, *answers.problems, *doubt_problems(results))
        return study_report(reading, self._recorder, problems, stack, results)

    def _decode(self) -> tuple[Volume, tuple[Problem, ...]]:
        """The sampled slices and all that is known to be wrong with them."""
        maximum = self._options.slices or self._protocol.slices
        requested = sample_slices(self._series.shape[0], maximum)
        with self._recorder.span("decode"):
            volume = read_volume(self._series, requested, self._stage("decode"))
        return volume, (*volume.problems, *coverage_problems(self._protocol, volume, requested))

    def _features_and_controls(
        self, stack: SliceStack, blank: SliceStack
    ) -> tuple[NDArray[np.float32], Mapping[str, float] | None]:
        """Image features of the stack [slices, tokens, hidden], and the control's log-odds.

        A control that is not cached has its one image encoded with the stack's, ahead of any
        prefix: vision tower and decoder need not fit into memory together. After reasoning in
        words there is no control: a model reasons differently about nothing.
        """
        count = len(stack.pixels)
        if self._options.effort is Effort.REASONED or not self._findings():
            return self._encode(stack.pixels), None
        cache = ControlCache(self._options.control_folder)
        key = self._control_key(stack)
        controls = cache.read(key, frozenset(finding.code for finding in self._findings()))
        if controls is not None:
            return self._encode(stack.pixels), controls
        features = self._encode(np.concatenate([stack.pixels, blank.pixels]))
        with self._recorder.span("control"):
            progress = self._stage("control")
            prefix = read_slices(
                self._engine,
                self._protocol.instruction,
                np.broadcast_to(features[count], (count, *features.shape[1:])),
                lambda _, done, total: progress(done, total),
            )
            controls = dict(ask_fast(self._engine, prefix, self._findings()).log_odds)
        cache.write(key, controls)
        return features[:count], controls

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

    def _control_key(self, stack: SliceStack) -> str:
        count, rows, columns, _ = stack.pixels.shape
        engine, protocol = self._engine.manifest.sha256, self._protocol.sha256
        return control_key(engine, protocol, stack.preset, count, (rows, columns))

    def _encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with self._recorder.span("vision"):
            return self._engine.encode_images(pixels, self._stage("vision"))

    def _stage(self, name: str) -> Callable[[int, int], None]:
        return partial(self._on_progress, name)
