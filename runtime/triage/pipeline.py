"""Triage of a scan: every study read, asked and judged, the failure of one costing no other."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from edge_medgemma import __version__
from edge_medgemma.runtime.errors import (
    DependencyError,
    EdgeMedgemmaError,
    EngineError,
    ProtocolError,
    ProviderError,
    ResourceError,
)
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.slicing.scan import find_series
from edge_medgemma.runtime.slicing.volume import Problem
from edge_medgemma.runtime.tracing.spans import SpanRecorder
from edge_medgemma.runtime.triage.options import DEFAULT_OPTIONS, TriageOptions
from edge_medgemma.runtime.triage.questions import Progress, no_progress
from edge_medgemma.runtime.triage.report import StudyReport, TriageReport
from edge_medgemma.runtime.triage.report_builder import engine_record, study_report
from edge_medgemma.runtime.triage.schedule import Schedule
from edge_medgemma.runtime.triage.study_run import StudyRun
from edge_medgemma.runtime.triage.worklist import StudyTask, plan_studies

LOG = logging.getLogger(__name__)

NOT_LOOKED_AT = Problem("not_looked_at", "Other studies of the scan come first.")


def triage_scan(
    engine: Engine,
    scan: Path,
    options: TriageOptions = DEFAULT_OPTIONS,
    on_progress: Progress = no_progress,
    on_report: Callable[[TriageReport], None] | None = None,
) -> TriageReport:
    """Triage every study of a scan.

    Args:
        engine: an open engine.
        scan: a folder, or one file.
        options: what the user chose.
        on_progress: called with `discover`, `decode`, `vision`, `prefill`, `control`, `score` or
            `evidence`.
        on_report: called with the whole report after every pass, if there is a coarse one first.

    Returns:
        The studies, most urgent first. A study that cannot be triaged is `not_assessable` and says
        why.

    Raises:
        ScanError: nothing in the scan can be read.
        EngineError: the engine is missing a part or was altered.
        ResourceError: the slices need more memory than there is.
    """
    schedule = Schedule(options)
    recorder = SpanRecorder()
    with recorder.span("discover"):
        listing = find_series(scan, partial(on_progress, "discover"))
        readings = plan_studies(listing, options.protocol, options.series_uid)

    def report(studies: Sequence[StudyReport]) -> TriageReport:
        return TriageReport(
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            program_version=__version__,
            effort=options.effort,
            engine=engine_record(engine.manifest),
            studies=tuple(sorted(studies, key=lambda study: study.urgency.rank)),
            skipped=dict(Counter(file.reason for file in listing.skipped)),
            spans=recorder.spans,
        )

    if not options.is_anytime:
        return report([_triage_once(engine, one, options, on_progress) for one in readings])
    for studies in _triage_in_passes(engine, readings, options, schedule, on_progress):
        latest = report(studies)
        if on_report is not None:
            on_report(latest)
    return latest


def _triage_once(
    engine: Engine, reading: StudyTask, options: TriageOptions, on_progress: Progress
) -> StudyReport:
    """Apply one protocol to one study, looking at all its slices at once."""
    examination = _examination(engine, reading, options, on_progress)
    if examination is None:
        return study_report(reading, SpanRecorder(), reading.problems)
    return _look(examination, reading, examination.slices)


def _triage_in_passes(
    engine: Engine,
    readings: Sequence[StudyTask],
    options: TriageOptions,
    schedule: Schedule,
    on_progress: Progress,
) -> Iterator[Sequence[StudyReport]]:
    """Reports of all studies, after every pass over one of them."""
    studies: list[StudyReport] = []
    places: dict[StudyRun, int] = {}
    for place, reading in enumerate(readings):
        examination = _examination(engine, reading, options, on_progress)
        if examination is not None:
            places[examination] = place
        waiting = (NOT_LOOKED_AT,) if examination is not None else ()
        studies.append(study_report(reading, SpanRecorder(), (*reading.problems, *waiting)))
    if not places:
        yield studies
    for examination, count in schedule.passes(list(places)):
        place = places[examination]
        studies[place] = _look(examination, readings[place], count)
        if len(places) > 1:
            examination.rest()
        yield studies


def _examination(
    engine: Engine, reading: StudyTask, options: TriageOptions, on_progress: Progress
) -> StudyRun | None:
    """None where no protocol or no series fits: the study can only be reported."""
    if reading.protocol is None or reading.series is None:
        return None
    return StudyRun(engine, reading, reading.protocol, reading.series, options, on_progress)


def _look(examination: StudyRun, reading: StudyTask, count: int) -> StudyReport:
    """One pass; if it fails, the report of the pass before stands, or says why there is none.

    A device that fails is left for the CPU, once: the pass begins again there.
    """
    before = examination.report
    try:
        try:
            return examination.look(count)
        except ProviderError as error:
            if not examination.fall_back_to_cpu(str(error)):
                raise
        return examination.look(count)
    except (
        DependencyError, EngineError, ProtocolError, ProviderError, ResourceError
    ) as error:  # fmt: skip
        if before is None:
            raise  # the next study would meet the same
        reason = f"of an error of the device or the engine ({type(error).__name__})"
    except MemoryError:
        reason = "there was not enough memory; use fewer slices or an int4 engine"
    except EdgeMedgemmaError:
        reason = "its pixels could not be read; 'edge-medgemma inspect' says why"
    except Exception as error:
        LOG.debug("triage of a study failed", exc_info=True)
        reason = f"of an internal error ({type(error).__name__})"
    examination.has_failed = True
    if before is None:
        problem = Problem("triage_failed", f"The study could not be triaged: {reason}.")
        return study_report(reading, examination.recorder, (*reading.problems, problem))
    problem = Problem("refinement_failed", f"No further slices could be looked at: {reason}.")
    examination.report = replace(before, problems=(*before.problems, problem))
    return examination.report
