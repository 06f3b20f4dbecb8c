"""The document of an evaluation, from its plan, results and predictions."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from edge_medgemma import __version__
from edge_medgemma.calibration.evaluation.attributes import band_order
from edge_medgemma.calibration.evaluation.cases import EvaluationPlan
from edge_medgemma.calibration.evaluation.document import (
    Comparison,
    EngineProvenance,
    EvaluationDocument,
    FindingEntry,
    Flow,
    NotificationTimes,
    ProtocolProvenance,
    Provenance,
    Subgroup,
    WrongAnswer,
)
from edge_medgemma.calibration.evaluation.evaluated import Evaluated
from edge_medgemma.calibration.evaluation.figures import (
    area,
    curve,
    predictive_values,
    primary_table,
    reliability,
    secondary_table,
    subgroup_figures,
)
from edge_medgemma.calibration.evaluation.records import Outcome, Prediction
from edge_medgemma.calibration.evaluation.requirements import Demand, judge
from edge_medgemma.calibration.evaluation.results import StudyResult
from edge_medgemma.runtime.manifest import Manifest
from edge_medgemma.runtime.reporting.json_report import INTENDED_USE
from edge_medgemma.runtime.triage.report import Effort
from edge_medgemma.runtime.triage.report_builder import engine_record
from edge_medgemma.runtime.triage.scoring.operating_points import (
    OperatingPoints,
    fitting_points,
)

MAX_WRONG_ANSWERS = 10


@dataclass(frozen=True, slots=True)
class SummaryOptions:
    """What the user wants to know, and how the results came about."""

    effort: Effort
    slices: int | None
    reference: str
    attributes: tuple[str, ...]
    """Of which subgroups are made."""
    prevalences: Mapping[str, float]
    """By finding code; `""` is that of all others."""
    demands: tuple[Demand, ...]
    thresholds: OperatingPoints | None = None
    """That were fitted; None where there are none."""


def summarise(
    plan: EvaluationPlan,
    results: Mapping[str, StudyResult],
    predictions: Sequence[Prediction],
    manifest: Manifest,
    options: SummaryOptions,
    comparison: Comparison | None = None,
) -> EvaluationDocument:
    """All that the page shows.

    Args:
        plan: studies and labels.
        results: by key of the case; every case of the plan has one.
        predictions: made of them.
        manifest: of the engine.
        options: the user's.
        comparison: with a second engine.
    """
    studies = [Evaluated.of(study, results) for study in plan.studies]
    by_name = {one.study.name: one for one in studies}
    findings = tuple(
        _finding(code, [one for one in predictions if one.finding == code], by_name, options)
        for code in plan.codes
    )
    read = [one for one in studies if one.study.row is not None and one.is_read]
    misses, false_flags = _wrong_answers(predictions, by_name)
    return EvaluationDocument(
        schema_version=1,
        intended_use=INTENDED_USE,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        provenance=_provenance(plan, results, manifest, options),
        flow=_flow(plan, studies, predictions, _unused_thresholds(plan, manifest, options)),
        findings=findings,
        time_to_result=_times(one.seconds for one in read),
        time_to_flag=_times(one.seconds for one in read if one.is_flagged),
        worst_misses=misses,
        worst_false_flags=false_flags,
        comparison=comparison,
        requirements=judge(options.demands, findings),
    )


def engine_provenance(manifest: Manifest) -> EngineProvenance:
    """An engine as the document names it."""
    record = engine_record(manifest)
    return EngineProvenance(
        record.name,
        record.sha256,
        record.precision,
        record.notice or None,
        record.has_random_weights,
    )


def _finding(
    code: str,
    predictions: Sequence[Prediction],
    studies: Mapping[str, Evaluated],
    options: SummaryOptions,
) -> FindingEntry:
    labelled = [one for one in predictions if one.present is not None]
    withheld = [one for one in labelled if one.outcome is Outcome.NOT_ASSESSABLE]
    answers = {one.study: studies[one.study].answer(one) for one in predictions}
    stated = [
        (answer.probability, bool(one.present))
        for one in labelled
        if (answer := answers[one.study]) and answer.probability is not None
    ]
    primary = primary_table(labelled)
    points, own_point = curve(labelled)
    prevalence = options.prevalences.get(code, options.prevalences.get(""))
    return FindingEntry(
        code=code,
        title=next((one.title for one in answers.values() if one), code),
        protocols=tuple(sorted({one.protocol for one in predictions} - {""})),
        positives=sum(bool(one.present) for one in labelled),
        negatives=sum(not one.present for one in labelled),
        unlabelled=len(predictions) - len(labelled),
        not_assessable_positives=sum(bool(one.present) for one in withheld),
        not_assessable_negatives=sum(not one.present for one in withheld),
        not_assessable=_counted(_reasons(one, studies[one.study]) for one in withheld),
        primary=primary,
        secondary=secondary_table(labelled),
        area=area(labelled),
        roc=points,
        operating_point=own_point,
        reliability=reliability([one for one, _ in stated], [one for _, one in stated]),
        predictive_values=None if prevalence is None else predictive_values(primary, prevalence),
        subgroups=tuple(
            _subgroup(attribute, value, members)
            for attribute in options.attributes
            for value, members in _grouped(labelled, attribute, studies)
        ),
    )


def _grouped(
    predictions: Sequence[Prediction], attribute: str, studies: Mapping[str, Evaluated]
) -> list[tuple[str, list[Prediction]]]:
    groups: dict[str, list[Prediction]] = {}
    for one in predictions:
        groups.setdefault(studies[one.study].attribute(attribute), []).append(one)
    return sorted(groups.items(), key=lambda item: band_order(attribute, item[0]))


def _subgroup(attribute: str, value: str, members: Sequence[Prediction]) -> Subgroup:
    table, separation = subgroup_figures(members)
    positives = sum(bool(one.present) for one in members)
    return Subgroup(
        attribute=attribute,
        value=value,
        positives=positives,
        negatives=len(members) - positives,
        not_assessable=sum(one.outcome is Outcome.NOT_ASSESSABLE for one in members),
        sensitivity=table.sensitivity,
        specificity=table.specificity,
        area=separation,
    )


def _reasons(prediction: Prediction, study: Evaluated) -> list[str]:
    """Why a finding was not assessable, one by one: words of a reason may hold the mark between two."""
    answer = study.answer(prediction)
    words = [*study.limitations, answer.reason if answer else ""]
    return [one for one in words if one] or [prediction.reason]


def _counted(reasons: Iterable[Iterable[str]]) -> dict[str, int]:
    """Reason to scans, the most frequent first."""
    counts = Counter(reason for each in reasons for reason in each if reason)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _times(seconds: Iterable[float]) -> NotificationTimes:
    found = np.array(list(seconds))
    if not len(found):
        return NotificationTimes(0, None, None, None)
    ninety = np.quantile(found, 0.9, method="higher")
    return NotificationTimes(len(found), float(np.median(found)), float(ninety), float(found.max()))


def _wrong_answers(
    predictions: Sequence[Prediction], studies: Mapping[str, Evaluated]
) -> tuple[tuple[WrongAnswer, ...], tuple[WrongAnswer, ...]]:
    """Misses, lowest first, and false flags, highest first; those without a number come last."""
    misses = [
        one for one in predictions if one.present is True and one.outcome is not Outcome.FLAGGED
    ]
    flags = [one for one in predictions if one.present is False and one.outcome is Outcome.FLAGGED]

    def margin(one: Prediction) -> float:
        return float("inf") if one.score is None else one.score - one.threshold

    misses.sort(key=margin)
    flags.sort(key=lambda one: -margin(one))
    wrong = [
        tuple(_wrong_answer(one, studies[one.study]) for one in worst[:MAX_WRONG_ANSWERS])
        for worst in (misses, flags)
    ]
    return wrong[0], wrong[1]


def _wrong_answer(prediction: Prediction, study: Evaluated) -> WrongAnswer:
    answer = study.answer(prediction)
    return WrongAnswer(
        study=prediction.study,
        finding=prediction.finding,
        title=answer.title if answer else prediction.finding,
        outcome=prediction.outcome,
        log_odds=prediction.log_odds,
        score=prediction.score,
        threshold=prediction.threshold,
        reason=prediction.reason,
        pictures=answer.pictures if answer else (),
    )


def _flow(
    plan: EvaluationPlan,
    studies: Sequence[Evaluated],
    predictions: Sequence[Prediction],
    unused_thresholds: tuple[str, ...],
) -> Flow:
    labelled = [one for one in studies if one.study.row is not None]
    read = [one for one in labelled if one.is_read]
    assessed = [one for one in read if one.is_assessed]
    match = plan.match
    named = [f"{one.study.name} {one.study.study_uid}".strip() for one in studies]
    names = {one.study.name for one in labelled}
    return Flow(
        label_rows=len(plan.labels.rows),
        studies_found=len(studies),
        files_skipped=plan.files_skipped,
        studies_labelled=len(labelled),
        studies_read=len(read),
        studies_assessed=len(assessed),
        studies_not_assessable=len(labelled) - len(assessed),
        not_assessable=_counted(one.limitations for one in labelled if not one.is_assessed),
        patients=len({one.patient for one in predictions if one.study in names}),
        labels_without_study=match.rows_without_study,
        studies_without_label=tuple(named[place] for place in match.studies_without_row),
        findings_not_asked=tuple(code for code in plan.labels.codes if code not in plan.codes),
        notes=(*plan.labels.notes, *match.notes, *_patient_note(labelled), *unused_thresholds),
        labels_of_several_studies=match.rows_of_several_studies,
        studies_of_several_labels=tuple(named[place] for place in match.studies_of_several_rows),
    )


def _patient_note(labelled: Sequence[Evaluated]) -> tuple[str, ...]:
    own = sum(not one.study.row.patient for one in labelled if one.study.row)
    if not own:
        return ()
    return (f"{own} of {len(labelled)} studies name no patient: each counts as one of its own",)


def _unused_thresholds(
    plan: EvaluationPlan, manifest: Manifest, options: SummaryOptions
) -> tuple[str, ...]:
    """Why fitted thresholds judge no finding that is evaluated, or not all: a sentence each."""
    points = (
        fitting_points(
            options.thresholds,
            manifest.sha256,
            protocol,
            [one for one in protocol.findings if one.code in plan.codes],
            options.effort,
            options.slices or protocol.slices,
        )
        for protocol in plan.protocols
    )
    return tuple(dict.fromkeys(one.problem.detail for one in points if one.problem))


def _threshold_origin(
    thresholds: OperatingPoints | None, results: Mapping[str, StudyResult]
) -> str:
    """In words; percentages are given where fitted thresholds are used, and nowhere else."""
    answers = (answer for result in results.values() for answer in result.answers)
    if thresholds is None or all(answer.probability is None for answer in answers):
        return "the protocol's own, chosen without these scans"
    labels = thresholds.labels_sha256
    which = f"labels {labels[:12]}" if labels else "drawn by the program"
    return f"fitted on other scans ({thresholds.dataset}, {which})"


def _provenance(
    plan: EvaluationPlan,
    results: Mapping[str, StudyResult],
    manifest: Manifest,
    options: SummaryOptions,
) -> Provenance:
    return Provenance(
        engine=engine_provenance(manifest),
        protocols=tuple(
            ProtocolProvenance(one.name, one.title, one.sha256, options.slices or one.slices)
            for one in plan.protocols
        ),
        effort=options.effort,
        slices=options.slices,
        program_version=__version__,
        dataset=plan.labels.dataset,
        labels_sha256=plan.labels.sha256,
        scans_sha256=plan.scans_sha256,
        reference=options.reference,
        threshold_origin=_threshold_origin(options.thresholds, results),
        split="none",
    )
