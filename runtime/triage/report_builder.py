"""Records of a report, made of what the stages found."""

from collections.abc import Sequence
from dataclasses import replace

from edge_medgemma.runtime.domain import StudyDistance
from edge_medgemma.runtime.manifest import Manifest
from edge_medgemma.runtime.slicing.volume import BodyPart, Problem, Series, SliceStack, View
from edge_medgemma.runtime.triage.coverage import largest_gap_mm
from edge_medgemma.runtime.triage.key_images import make_key_images
from edge_medgemma.runtime.triage.progress import StageTracker
from edge_medgemma.runtime.triage.report import (
    EngineRecord,
    FindingResult,
    FindingStatus,
    Pass,
    SeriesRecord,
    SliceSeen,
    StudyReport,
)
from edge_medgemma.runtime.triage.scoring.grounds import engine_notice
from edge_medgemma.runtime.triage.urgency import Urgency, study_urgency
from edge_medgemma.runtime.triage.worklist import StudyTask


def study_report(
    task: StudyTask,
    tracker: StageTracker,
    problems: Sequence[Problem],
    stack: SliceStack | None = None,
    results: Sequence[FindingResult] = (),
    distance: StudyDistance | None = None,
) -> StudyReport:
    """The report of one study; without a stack, of one that could not be shown to the model."""
    protocol = task.protocol
    flagged = [r for r in results if r.status is FindingStatus.FLAGGED]
    urgency, limitations = study_urgency([r.urgency for r in flagged], problems)
    report = StudyReport(
        name=task.study_name,
        study_uid=task.study_uid,
        urgency=urgency,
        limitations=limitations,
        protocol_name=protocol.name if protocol else "",
        protocol_title=protocol.title if protocol else "",
        protocol_sha256=protocol.sha256 if protocol else "",
        series=series_record(task.series) if task.series else None,
        series_reason=task.series_reason,
        other_series=tuple(series_record(series) for series in task.other_series),
        preset=stack.preset if stack else "",
        slices=_slices_seen(stack, distance) if stack else (),
        passes=(),
        findings=tuple(results),
        problems=tuple(dict.fromkeys(problems)),
        key_images=(),
        spans=tracker.spans,
        distance=distance,
        was_slowed_by_heat=stack is not None and tracker.was_slowed,
    )
    if stack is None:
        return report
    body_part = protocol.body_parts[0] if protocol else BodyPart.UNKNOWN
    with tracker.stage("report"):
        key_images = make_key_images(stack, body_part, report.explained)
    return replace(report, key_images=key_images, spans=tracker.spans)


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
        scanned_at=series.scanned_at,
    )


def engine_record(manifest: Manifest) -> EngineRecord:
    """Identity of the engine that a manifest describes."""
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
        notice=engine_notice(manifest),
        has_random_weights=manifest.has_random_weights,
        is_demonstration=manifest.scope is not None and manifest.scope.is_demonstration,
    )


def _slices_seen(stack: SliceStack, distance: StudyDistance | None) -> tuple[SliceSeen, ...]:
    indices, sources = stack.slice_indices.tolist(), stack.series.sources
    ratios = [None] * len(indices) if distance is None else distance.slice_ratios
    return tuple(
        SliceSeen(
            index,
            float(position_mm),
            sources[index].sop_instance_uid,
            ratio,
            stack.series.views[index] if stack.series.views else View.UNKNOWN,
        )
        for index, position_mm, ratio in zip(indices, stack.positions_mm, ratios, strict=True)
    )
