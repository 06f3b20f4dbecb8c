"""Triage of a scan: every study read, asked and judged, the failure of one costing no other."""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.errors import (
    DependencyError,
    EdgeMedgemmaError,
    EngineError,
    ProtocolError,
    ResourceError,
)
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.profiling.spans import SpanRecorder
from edge_medgemma.runtime.slicing.sampling import sample_slices
from edge_medgemma.runtime.slicing.scan import find_series, read_volume
from edge_medgemma.runtime.slicing.volume import Problem, Series, SliceStack
from edge_medgemma.runtime.slicing.windows import render_stack
from edge_medgemma.runtime.triage.control import ControlCache, blank_volume, control_key
from edge_medgemma.runtime.triage.coverage import coverage_problems
from edge_medgemma.runtime.triage.findings import (
    ask_fast,
    ask_reasoned,
    assessed_findings,
    doubt_problems,
    judge,
    with_evidence,
)
from edge_medgemma.runtime.triage.plan import Reading, plan_readings
from edge_medgemma.runtime.triage.protocol import Protocol
from edge_medgemma.runtime.triage.questions import Progress, no_progress, read_slices
from edge_medgemma.runtime.triage.records import engine_record, program_version, study_report
from edge_medgemma.runtime.triage.report import (
    Effort,
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


def triage_scan(
    engine: Engine,
    scan: Path,
    options: TriageOptions = TriageOptions(),  # noqa: B008 (frozen)
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
        listing = find_series(scan, lambda done, total: on_progress("discover", done, total))
        readings = plan_readings(listing, options.protocol, options.series_uid)
    studies = [triage_reading(engine, reading, options, on_progress) for reading in readings]
    return TriageReport(
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        program_version=program_version(),
        effort=options.effort,
        engine=engine_record(engine.manifest),
        studies=tuple(sorted(studies, key=lambda study: study.urgency.rank)),
        skipped=dict(Counter(file.reason for file in listing.skipped)),
        discover_s=recorder.total_s()["discover"],
    )


def triage_reading(
    engine: Engine,
    reading: Reading,
    options: TriageOptions = TriageOptions(),  # noqa: B008 (frozen)
    on_progress: Progress = no_progress,
) -> StudyReport:
    """Apply one protocol to one study; see `triage_scan`."""
    recorder = SpanRecorder()
    if reading.protocol is None or reading.series is None:
        return study_report(reading, recorder, reading.problems)
    work = _StudyWork(engine, reading.protocol, reading.series, options, recorder, on_progress)
    try:
        return work.run(reading)
    except (DependencyError, EngineError, ProtocolError, ResourceError):
        raise  # the next study would meet the same
    except MemoryError:
        reason = "there was not enough memory; use fewer slices or an int4 engine"
    except EdgeMedgemmaError:
        reason = "its pixels could not be read; 'edge-medgemma inspect' says why"
    except Exception as error:  # one study must not take the rest of the queue with it
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
        stack, blank, problems = self._read()
        findings = assessed_findings(self.protocol, self.engine.manifest)
        codes = frozenset(finding.code for finding in findings)
        rows, columns = stack.pixels.shape[1:3]
        key = control_key(
            self.engine.manifest.sha256,
            self.protocol.sha256,
            stack.preset,
            len(stack.pixels),
            (rows, columns),
        )
        # After reasoning in words there is no control: a blank stack is reasoned about differently.
        wants_control = self.options.effort is Effort.FAST and bool(findings)
        cache = ControlCache(self.options.control_folder)
        controls = cache.read(key, codes) if wants_control else None
        needs_control = wants_control and controls is None
        # All images are encoded before any prefix is read: vision and decoder need not both fit.
        features = self._encode(
            np.concatenate([stack.pixels, blank]) if needs_control else stack.pixels
        )
        count = len(stack.pixels)
        if needs_control:
            controls = self._control(np.repeat(features[count:], count, axis=0))
            cache.write(key, controls)
        with self.recorder.span("prefill"):
            prefix = read_slices(
                self.engine, self.protocol.instruction, features[:count], self.on_progress
            )
        with self.recorder.span("score"):
            if self.options.effort is Effort.REASONED:
                answers = ask_reasoned(self.engine, prefix, findings, self.on_progress)
            else:
                answers = ask_fast(self.engine, prefix, findings)
            results = judge(self.protocol, self.engine.manifest, answers, controls)
        flagged = [r for r in results if r.status is FindingStatus.FLAGGED]
        with self.recorder.span("evidence"):
            evidence = {}
            for done, result in enumerate(flagged, start=1):
                evidence[result.code] = with_evidence(self.engine, prefix, stack, result)
                self.on_progress("evidence", done, len(flagged))
        results = tuple(evidence.get(result.code, result) for result in results)
        problems = (*reading.problems, *problems, *answers.problems, *doubt_problems(results))
        return study_report(reading, self.recorder, problems, stack, results)

    def _read(self) -> tuple[SliceStack, NDArray[np.uint8], tuple[Problem, ...]]:
        """The stack, one blank slice [1, rows, columns, 3], and all problems so far."""
        maximum = self.options.slices or self.protocol.slices
        requested = sample_slices(self.series.shape[0], maximum)
        with self.recorder.span("decode"):
            volume = read_volume(
                self.series,
                requested,
                lambda done, total: self.on_progress("decode", done, total),
            )
        with self.recorder.span("render"):
            stack = render_stack(volume)
            blank = render_stack(blank_volume(volume), stack.preset).pixels
        problems = (*stack.problems, *coverage_problems(self.protocol, volume, requested))
        return stack, blank, problems

    def _encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with self.recorder.span("vision"):
            return self.engine.encode_images(
                pixels, lambda done, total: self.on_progress("vision", done, total)
            )

    def _control(self, features: NDArray[np.float32]) -> dict[str, float]:
        with self.recorder.span("control"):
            prefix = read_slices(
                self.engine,
                self.protocol.instruction,
                features,
                lambda stage, done, total: self.on_progress("control", done, total),
            )
            findings = assessed_findings(self.protocol, self.engine.manifest)
            return dict(ask_fast(self.engine, prefix, findings).log_odds)
