"""Making the records of a report from what the other rooms know."""

from collections.abc import Sequence
from dataclasses import replace

from edge_medgemma.runtime.manifest import Manifest
from edge_medgemma.runtime.slicing.volume import BodyPart, Problem, Series, SliceStack
from edge_medgemma.runtime.tracing.spans import SpanRecorder
from edge_medgemma.runtime.triage.coverage import largest_gap_mm
from edge_medgemma.runtime.triage.key_images import make_pictures
from edge_medgemma.runtime.triage.report import (
    EngineRecord,
    FindingResult,
    FindingStatus,
    Pass,
    SeriesRecord,
    SliceSeen,
    StudyReport,
)
from edge_medgemma.runtime.triage.urgency import Urgency, study_urgency
from edge_medgemma.runtime.triage.worklist import StudyTask


def study_report(
    reading: StudyTask,
    recorder: SpanRecorder,
    problems: Sequence[Problem],
    stack: SliceStack | None = None,
    results: Sequence[FindingResult] = (),
) -> StudyReport:
    """The report of one reading; without a stack, that of a study nothing could be asked about."""
    protocol = reading.protocol
    flagged = [r for r in results if r.status is FindingStatus.FLAGGED]
    urgency, doubts = study_urgency([r.urgency for r in flagged], problems)
    report = StudyReport(
        name=reading.study_name,
        study_uid=reading.study_uid,
        urgency=urgency,
        doubts=doubts,
        protocol_name=protocol.name if protocol else "",
        protocol_title=protocol.title if protocol else "",
        protocol_sha256=protocol.sha256 if protocol else "",
        series=series_record(reading.series) if reading.series else None,
        series_reason=reading.series_reason,
        other_series=tuple(series_record(series) for series in reading.other_series),
        preset=stack.preset if stack else "",
        slices=_slices_seen(stack) if stack else (),
        passes=(),
        findings=tuple(results),
        problems=tuple(dict.fromkeys(problems)),
        pictures=(),
        spans=recorder.spans,
    )
    if stack is None:
        return report
    body_part = protocol.body_parts[0] if protocol else BodyPart.UNKNOWN
    with recorder.span("report"):
        pictures = make_pictures(stack, body_part, report.flagged)
    return replace(report, pictures=pictures, spans=recorder.spans)


def pass_record(
    shown: SliceStack, results: Sequence[FindingResult], urgency: Urgency, duration_s: float
) -> Pass:
    """The record of one pass over the slices shown."""
    return Pass(
        slices=len(shown.slice_indices),
        largest_gap_mm=largest_gap_mm(shown.series, shown.slice_indices),
        duration_s=duration_s,
        urgency=urgency,
        flagged=tuple(r.code for r in results if r.status is FindingStatus.FLAGGED),
    )


def series_record(series: Series) -> SeriesRecord:
    """Identity and geometry of a series."""
    return SeriesRecord(
        series_uid=series.series_uid,
        modality=series.modality,
        body_part=series.body_part,
        shape=series.shape,
        spacing_mm=series.spacing_mm,
        orientation=series.orientation,
    )


def engine_record(manifest: Manifest) -> EngineRecord:
    """Which engine a manifest describes."""
    precision = manifest.precision
    return EngineRecord(
        name=manifest.source.name,
        revision=manifest.source.revision,
        sha256=manifest.sha256,
        precision={
            "vision": precision.vision,
            "decoder": precision.decoder,
            "head": precision.head,
            "embedding": precision.embedding,
        },
        notice=manifest.demonstration.notice if manifest.demonstration else "",
    )


def _slices_seen(stack: SliceStack) -> tuple[SliceSeen, ...]:
    return tuple(
        SliceSeen(int(index), float(position_mm), stack.series.sources[index].sop_instance_uid)
        for index, position_mm in zip(stack.slice_indices, stack.positions_mm, strict=True)
    )
