"""A study that no protocol is chosen for, shown to a person: a few slices, without any engine."""

import contextlib
from dataclasses import replace

import numpy as np

from edge_medgemma.runtime.errors import ScanError
from edge_medgemma.runtime.slicing.choose import choose_series
from edge_medgemma.runtime.slicing.scan import read_volume
from edge_medgemma.runtime.slicing.volume import Series
from edge_medgemma.runtime.slicing.windows import render_stack
from edge_medgemma.runtime.triage.key_images import MIN_KEY_IMAGES, make_key_images
from edge_medgemma.runtime.triage.progress import StageTracker
from edge_medgemma.runtime.triage.report import StudyReport
from edge_medgemma.runtime.triage.report_builder import series_record, study_report
from edge_medgemma.runtime.triage.worklist import StudyTask


def overview_report(task: StudyTask) -> StudyReport:
    """The report of a task that nothing can be asked about, with pictures where they can be read."""
    tracker = StageTracker()
    modalities = sorted({one.modality for one in task.other_series})
    series, reason = choose_series(task.other_series, modalities)
    if series is None or task.protocol is not None:
        return study_report(task, tracker, task.problems)
    stack, found = None, series.problems
    with tracker.stage("decode"), contextlib.suppress(ScanError):
        volume = read_volume(series, _spread(series))
        found = volume.problems
        stack = render_stack(volume)
        found = stack.problems
    report = study_report(task, tracker, (*task.problems, *found))
    return replace(
        report,
        series=series_record(series),
        series_reason=reason,
        other_series=tuple(series_record(one) for one in task.other_series if one is not series),
        key_images=() if stack is None else make_key_images(stack, series.body_part, ()),
        spans=tracker.spans,
    )


def _spread(series: Series) -> list[int]:
    """As many slices as the overview shows, evenly inside the stack and with its ends."""
    count = series.shape[0]
    return sorted({int(i) for i in np.linspace(0, count - 1, MIN_KEY_IMAGES + 2).round()})
