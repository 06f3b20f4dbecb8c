"""Triage of a scan: every study read, asked and judged, the failure of one costing no other."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

from edge_medgemma.runtime.errors import (
    DependencyError,
    EdgeMedgemmaError,
    EngineError,
    ProtocolError,
    ResourceError,
)
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.prefix import Prefix
from edge_medgemma.runtime.generation.scan_cache import ScanCache
from edge_medgemma.runtime.profiling.spans import SpanRecorder
from edge_medgemma.runtime.slicing.sampling import sample_slices
from edge_medgemma.runtime.slicing.scan import find_series, read_volume
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
from edge_medgemma.runtime.triage.plan import Reading, plan_readings
from edge_medgemma.runtime.triage.protocol import Finding, Protocol
from edge_medgemma.runtime.triage.questions import Progress, no_progress, read_slices
from edge_medgemma.runtime.triage.reading import StackReader
from edge_medgemma.runtime.triage.records import engine_record, program_version, study_report
from edge_medgemma.runtime.triage.report import (
    Effort,
    FindingResult,
    FindingStatus,
    StudyReport,
    TriageReport,
)


@dataclass(frozen=True, slots=True)
class TriageOptions:
    """What the user may choose; the default suits a device without anyone watching it."""

    protocol: Protocol | None = None
    """None takes the built-in protocols that fit each study."""
    series_uid: str | None = None
    slices: int | None = None
    """Most slices shown to the model; None takes the protocol's number."""
    effort: Effort = Effort.FAST
    control_folder: Path | None = None
    """Where control log-odds are kept; None is the user's cache folder."""
    scan_cache: ScanCache | None = None
    """Of slices and prefixes; None keeps nothing that is derived from the scan."""


LOG = logging.getLogger(__name__)

DEFAULT_OPTIONS = TriageOptions()


def triage_scan(
    engine: Engine,
    scan: Path,
    options: TriageOptions = DEFAULT_OPTIONS,
    on_progress: Progress = no_progress,
) -> TriageReport:
    """Triage every study of a scan.

    Args:
        engine: an open engine.
        scan: a folder, or one file.
        options: what the user chose.
        on_progress: called with `discover`, `decode`, `vision`, `prefill`, `control`, `score` or
            `evidence`.

    Returns:
        The studies, most urgent first. A study that cannot be triaged is `not_assessable` and says
        why.

    Raises:
        ScanError: nothing in the scan can be read.
        EngineError: the engine is missing a part or was altered.
    """
    recorder = SpanRecorder()
    with recorder.span("discover"):
        listing = find_series(scan, partial(on_progress, "discover"))
        readings = plan_readings(listing, options.protocol, options.series_uid)
    studies = [triage_reading(engine, reading, options, on_progress) for reading in readings]
    return TriageReport(
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        program_version=program_version(),
        effort=options.effort,
        engine=engine_record(engine.manifest),
        studies=tuple(sorted(studies, key=lambda study: study.urgency.rank)),
        skipped=dict(Counter(file.reason for file in listing.skipped)),
        spans=recorder.spans,
    )


def triage_reading(
    engine: Engine,
    reading: Reading,
    options: TriageOptions = DEFAULT_OPTIONS,
    on_progress: Progress = no_progress,
) -> StudyReport:
    """Apply one protocol to one study; see `triage_scan`."""
    recorder = SpanRecorder()
    if reading.protocol is None or reading.series is None:
        return study_report(reading, recorder, reading.problems)

    def on_step(stage: str, done: int, total: int) -> None:
        recorder.step(f"{stage} {done}")
        on_progress(stage, done, total)

    work = _StudyWork(engine, reading.protocol, reading.series, options, recorder, on_step)
    try:
        return work.run(reading)
    except (DependencyError, EngineError, ProtocolError, ResourceError):
        raise  # the next study would meet the same
    except MemoryError:
        reason = "there was not enough memory; use fewer slices or an int4 engine"
    except EdgeMedgemmaError:
        reason = "its pixels could not be read; 'edge-medgemma inspect' says why"
    except Exception as error:
        LOG.debug("triage of a study failed", exc_info=True)
        reason = f"of an internal error ({type(error).__name__})"
    problem = Problem("triage_failed", f"The study could not be triaged: {reason}.")
    return study_report(reading, recorder, (*reading.problems, problem))


@dataclass(frozen=True, slots=True)
class _StudyWork:
    """The stages of one study, in the order of the report's timings."""

    engine: Engine
    protocol: Protocol
    series: Series
    options: TriageOptions
    recorder: SpanRecorder
    on_progress: Progress

    def run(self, reading: Reading) -> StudyReport:
        """All stages in order."""
        volume, problems = self._decode()
        problems = (*reading.problems, *problems)
        if any(problem.name == "not_hounsfield" for problem in problems):
            return study_report(reading, self.recorder, problems)  # windows would lie
        with self.recorder.span("render"):
            stack = render_stack(volume)
            blank = render_stack(blank_volume(volume), stack.preset)
        problems = (*problems, *(p for p in stack.problems if p not in problems))
        reader = StackReader(
            self.engine,
            self.protocol.instruction,
            stack,
            self.options.scan_cache,
            self.recorder,
            self.on_progress,
        )
        controls = self._controls(reader, stack, blank)
        prefix = reader.read()
        with self.recorder.span("score"):
            answers = self._ask(prefix)
            results = judge(self.protocol, self.engine.manifest, answers, controls)
        with self.recorder.span("evidence"):
            results = self._explain(prefix, stack, results)
        problems = (*problems, *answers.problems, *doubt_problems(results))
        report = study_report(reading, self.recorder, problems, stack, results)
        return replace(report, recalled=reader.recalled)

    def _decode(self) -> tuple[Volume, tuple[Problem, ...]]:
        """The sampled slices and all that is known to be wrong with them."""
        maximum = self.options.slices or self.protocol.slices
        requested = sample_slices(self.series.shape[0], maximum)
        with self.recorder.span("decode"):
            volume = read_volume(self.series, requested, self._stage("decode"))
        return volume, (*volume.problems, *coverage_problems(self.protocol, volume, requested))

    def _controls(
        self, reader: StackReader, stack: SliceStack, blank: SliceStack
    ) -> Mapping[str, float] | None:
        """Log-odds of the control.

        Where they are not cached, their one image and the stack's are encoded ahead of any prefix:
        vision tower and decoder need not fit into memory together. After reasoning in words there
        is no control: a model reasons differently about nothing.
        """
        if self.options.effort is Effort.REASONED or not self._findings():
            return None
        cache = ControlCache(self.options.control_folder)
        key = self._control_key(stack)
        controls = cache.read(key, frozenset(finding.code for finding in self._findings()))
        if controls is not None:
            return controls
        reader.encode_unless_read()
        features = reader.encode_blank(blank)
        with self.recorder.span("control"):
            progress = self._stage("control")
            prefix = read_slices(
                self.engine,
                self.protocol.instruction,
                np.broadcast_to(features, (len(stack.pixels), *features.shape[1:])),
                lambda _, done, total: progress(done, total),
            )
            controls = dict(ask_fast(self.engine, prefix, self._findings()).log_odds)
        cache.write(key, controls)
        return controls

    def _ask(self, prefix: Prefix) -> Answers:
        if self.options.effort is Effort.REASONED:
            return ask_reasoned(self.engine, prefix, self._findings(), self.on_progress)
        return ask_fast(self.engine, prefix, self._findings())

    def _explain(
        self, prefix: Prefix, stack: SliceStack, results: Sequence[FindingResult]
    ) -> tuple[FindingResult, ...]:
        explained = []
        for done, result in enumerate(results, start=1):
            is_flagged = result.status is FindingStatus.FLAGGED
            explained.append(
                with_evidence(self.engine, prefix, stack, result) if is_flagged else result
            )
            self.on_progress("evidence", done, len(results))
        return tuple(explained)

    def _findings(self) -> tuple[Finding, ...]:
        return assessed_findings(self.protocol, self.engine.manifest)

    def _control_key(self, stack: SliceStack) -> str:
        count, rows, columns, _ = stack.pixels.shape
        engine, protocol = self.engine.manifest.sha256, self.protocol.sha256
        return control_key(engine, protocol, stack.preset, count, (rows, columns))

    def _stage(self, name: str) -> Callable[[int, int], None]:
        return partial(self.on_progress, name)
