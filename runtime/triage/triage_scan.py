"""Triage of a scan: every study of it; pixels of one that cannot be read cost no other."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from edge_medgemma import __version__
from edge_medgemma.runtime.domain import Domain, read_domain
from edge_medgemma.runtime.errors import (
    DependencyError,
    EdgeMedgemmaError,
    EngineError,
    ProtocolError,
    ProviderError,
    ResourceError,
    ScanError,
)
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.manifest import Manifest
from edge_medgemma.runtime.slicing.scan import find_series
from edge_medgemma.runtime.slicing.volume import Problem
from edge_medgemma.runtime.tracing.spans import SpanRecorder
from edge_medgemma.runtime.triage.options import DEFAULT_OPTIONS, TriageOptions
from edge_medgemma.runtime.triage.overview import overview_report
from edge_medgemma.runtime.triage.pipeline import StudyContext
from edge_medgemma.runtime.triage.progress import Progress, StageTracker, no_progress
from edge_medgemma.runtime.triage.refinement.schedule import Schedule
from edge_medgemma.runtime.triage.refinement.study_run import StudyRun
from edge_medgemma.runtime.triage.report import StudyReport, TriageReport
from edge_medgemma.runtime.triage.report_builder import engine_record, study_report
from edge_medgemma.runtime.triage.room import slices_in_memory
from edge_medgemma.runtime.triage.scoring.findings import NOT_IN_SCOPE
from edge_medgemma.runtime.triage.scoring.grounds import (
    RANDOM_WEIGHTS,
    scope_problem,
    unassessed,
)
from edge_medgemma.runtime.triage.scoring.operating_points import read_operating_points
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
        options: the user's choices.
        on_progress: called with `discover`, `decode`, `open vision`, `vision`, `prefill`, `control` (the
            blank baseline), `score` or `evidence`.
        on_report: called with the whole report after every pass, if there is a coarse one first.

    Returns:
        The studies, most urgent first. A study that cannot be triaged is `not_assessable` and says
        why.

    Raises:
        ScanError: nothing in the scan can be read.
        EngineError: the engine is missing a part or was altered.
        ResourceError: the slices need more memory than there is.
        ThresholdError: the file of fitted thresholds is missing or altered.
    """
    schedule = Schedule(options)
    recorder = SpanRecorder()
    with recorder.span("discover"):
        listing = find_series(scan, partial(on_progress, "discover"), options.modality)
        tasks = plan_studies(listing, options.protocol, options.series_uid, engine.manifest.scope)

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

    domain = read_domain(engine.directory, engine.manifest)
    if not options.is_anytime:
        return report([triage_study(engine, task, options, domain, on_progress) for task in tasks])
    tasks = tuple(with_scope(task, engine.manifest) for task in tasks)
    new_run = partial(_new_run, engine, options, on_progress, domain)
    for studies in _triage_in_passes(tasks, new_run, schedule):
        latest = report(studies)
        if on_report is not None:
            on_report(latest)
    return latest


def triage_study(
    engine: Engine,
    task: StudyTask,
    options: TriageOptions = DEFAULT_OPTIONS,
    domain: Domain | None = None,
    on_progress: Progress = no_progress,
) -> StudyReport:
    """Triage one study of a worklist in a single pass over all its slices.

    Args:
        engine: an open engine.
        task: one of `plan_studies`.
        options: the user's choices; a time budget is not kept.
        domain: what the engine was calibrated on, by `read_domain`.
        on_progress: called with the stage, as by `triage_scan`.

    Returns:
        Its report; `not_assessable`, with the reason, where the study cannot be triaged.

    Raises:
        EngineError: the engine is missing a part or was altered.
        ResourceError: the slices need more memory than there is.
    """
    task = with_scope(task, engine.manifest)
    run = _new_run(engine, options, on_progress, domain, task)
    return _unexamined(task) if run is None else _run_pass(run, run.num_slices)


def with_scope(task: StudyTask, manifest: Manifest) -> StudyTask:
    """The task, with what is known ahead of any slice to make the engine's answers worthless."""
    problem = None
    if manifest.has_random_weights:
        problem = RANDOM_WEIGHTS
    elif task.protocol is not None and task.series is not None:
        problem = scope_problem(manifest.scope, task.protocol, task.series)
    return task if problem is None else replace(task, problems=(*task.problems, problem))


def _new_run(
    engine: Engine,
    options: TriageOptions,
    on_progress: Progress,
    domain: Domain | None,
    task: StudyTask,
) -> StudyRun | None:
    """None where the study can only be reported."""
    context = study_context(engine, options, on_progress, domain, task)
    return None if context is None else StudyRun(context, task)


def study_context(
    engine: Engine,
    options: TriageOptions,
    on_progress: Progress,
    domain: Domain | None,
    task: StudyTask,
) -> StudyContext | None:
    """What all stages of a study have in common; None where no protocol, no series or not the engine fits.

    `task` is one that `with_scope` has looked at.
    """
    if task.protocol is None or task.series is None or _is_outside_scope(task):
        return None
    tracker = StageTracker(on_progress)
    points = read_operating_points(engine.directory, options.thresholds)
    held = None if options.slices else slices_in_memory(engine, task.protocol, task.series)
    return StudyContext(engine, task.protocol, task.series, options, tracker, domain, points, held)


def _is_outside_scope(task: StudyTask) -> bool:
    return any(problem.name == "outside_scope" for problem in task.problems)


def _unexamined(task: StudyTask) -> StudyReport:
    """The report of a study that the engine is not shown."""
    findings = task.protocol.findings if task.protocol and _is_outside_scope(task) else ()
    return replace(overview_report(task), findings=unassessed(findings, NOT_IN_SCOPE))


def _triage_in_passes(
    tasks: Sequence[StudyTask],
    new_run: Callable[[StudyTask], StudyRun | None],
    schedule: Schedule,
) -> Iterator[Sequence[StudyReport]]:
    """Reports of all studies, after every pass over one of them."""
    studies: list[StudyReport] = []
    places: dict[StudyRun, int] = {}
    for place, task in enumerate(tasks):
        run = new_run(task)
        if run is not None:
            places[run] = place
        if run is None:
            studies.append(_unexamined(task))
        else:
            studies.append(study_report(task, StageTracker(), (*task.problems, NOT_LOOKED_AT)))
    if not places:
        yield studies
    for run, count in schedule.passes(list(places)):
        studies[places[run]] = _run_pass(run, count)
        if len(places) > 1:
            run.release_pixels()
        yield studies


def _run_pass(run: StudyRun, count: int) -> StudyReport:
    """One pass; if it fails, the report of the pass before stands, or says why there is none."""
    is_first = run.report is None
    try:
        return run.run_pass(count)
    except (
        DependencyError, EngineError, ProtocolError, ProviderError, ResourceError
    ) as error:  # fmt: skip
        if is_first:
            raise  # the next study would meet the same
        reason = f"of an error of the device or the engine ({type(error).__name__})"
    except MemoryError:
        reason = "there was not enough memory; use fewer slices or an int4 engine"
    except ScanError as error:  # its words come from closed lists, never from the file
        reason = str(error)
    except EdgeMedgemmaError as error:
        reason = f"of an error ({type(error).__name__})"
    except Exception as error:
        LOG.debug("triage of a study failed", exc_info=True)
        reason = f"of an internal error ({type(error).__name__})"
    if is_first:
        return run.fail(Problem("triage_failed", f"The study could not be triaged: {reason}."))
    return run.fail(
        Problem("refinement_failed", f"No further slices could be looked at: {reason}.")
    )
