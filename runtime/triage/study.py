"""Triage of a scan: every study read, asked and judged, the failure of one costing no other."""

import logging
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from edge_medgemma.runtime.errors import (
    DependencyError,
    EdgeMedgemmaError,
    EngineError,
    ProtocolError,
    ResourceError,
)
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.profiling.spans import SpanRecorder
from edge_medgemma.runtime.slicing.scan import find_series
from edge_medgemma.runtime.slicing.volume import Problem
from edge_medgemma.runtime.triage.examination import Examination
from edge_medgemma.runtime.triage.options import DEFAULT_OPTIONS, TriageOptions
from edge_medgemma.runtime.triage.plan import Reading, plan_readings
from edge_medgemma.runtime.triage.questions import Progress, no_progress
from edge_medgemma.runtime.triage.records import engine_record, program_version, study_report
from edge_medgemma.runtime.triage.report import StudyReport, TriageReport

LOG = logging.getLogger(__name__)


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
        discover_s=recorder.spans[0].duration_s,
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
    examination = Examination(
        engine, reading.protocol, reading.series, options, recorder, on_progress
    )
    try:
        return examination.run(reading)
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
