"""Scores and statuses of findings, from the log-odds of the model's answers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edge_medgemma.runtime.slicing.volume import Problem
from edge_medgemma.runtime.triage.protocol import Finding, Protocol
from edge_medgemma.runtime.triage.report import FindingResult, FindingStatus
from edge_medgemma.runtime.triage.scoring.grounds import unassessed
from edge_medgemma.runtime.triage.scoring.operating_points import OperatingPoint
from edge_medgemma.runtime.triage.urgency import Urgency

NOT_IN_SCOPE = "this engine was not made for it"
NOT_SCORED = "the engine gave no usable answer"

SAME_LOG_ODDS = 1e-6
"""Slices that move no answer by more than this have no effect."""


@dataclass(frozen=True, slots=True)
class Answers:
    """The model's answers, one for each finding it was asked about."""

    log_odds: Mapping[str, float]
    """Yes against no, by finding code; NaN where the engine's numbers were not finite."""
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Score:
    """Value and threshold to compare, and the probability where one can be honest."""

    value: float
    threshold: float
    probability: float | None
    is_flagged: bool
    """At or above a fitted threshold; above a protocol's, as 0 is the answer to blank slices. Never
    where the value is not a number."""


def score_finding(
    finding: Finding, log_odds: float, baseline: float | None, point: OperatingPoint | None
) -> Score:
    """Score of a finding from its log-odds.

    Args:
        finding: has the threshold of the protocol.
        log_odds: yes against no, with the slices of the scan.
        baseline: the same with blank slices, subtracted because models tend to answer yes to everything;
            None counts as 0.
        point: threshold and percentage that were fitted on labelled scans. They were fitted on the
            log-odds alone, so the baseline is not subtracted: the threshold corrects the tendency.
    """
    if point is not None:
        chance = point.probability(log_odds)
        return Score(log_odds, point.threshold, chance, log_odds >= point.threshold)
    value = log_odds - (baseline or 0.0)
    return Score(value, finding.threshold, None, value > finding.threshold)


def evaluate(
    protocol: Protocol,
    answers: Answers,
    baseline: Mapping[str, float] | None,
    points: Mapping[str, OperatingPoint],
) -> tuple[FindingResult, ...]:
    """Score and status of every finding of the protocol, in its order.

    Args:
        protocol: its findings.
        answers: the model's, with the slices of the scan.
        baseline: log-odds with blank slices; None where none were measured.
        points: by finding code, those that hold for this pass.
    """
    return tuple(_evaluate_one(f, answers, baseline, points.get(f.code)) for f in protocol.findings)


def _evaluate_one(
    finding: Finding,
    answers: Answers,
    baseline: Mapping[str, float] | None,
    point: OperatingPoint | None,
) -> FindingResult:
    (result,) = unassessed([finding], NOT_IN_SCOPE)
    if finding.code not in answers.log_odds:
        return result
    value = answers.log_odds[finding.code]
    blank = None if baseline is None else baseline.get(finding.code, math.nan)
    score = score_finding(finding, value, blank, point)
    if not math.isfinite(score.value):
        return replace(result, reason=NOT_SCORED)
    return replace(
        result,
        status=FindingStatus.FLAGGED if score.is_flagged else FindingStatus.NOT_FLAGGED,
        reason="",
        log_odds=value,
        baseline_log_odds=blank if blank is not None and math.isfinite(blank) else None,
        score=score.value,
        threshold=score.threshold,
        probability=score.probability,
        fitted_on=None if point is None else (point.fitted_on.positives, point.fitted_on.negatives),
    )


def result_problems(results: Sequence[FindingResult]) -> tuple[Problem, ...]:
    """Problems that the results themselves raise."""
    problems = [
        Problem("finding_not_scored", f"{result.title}: {NOT_SCORED}.")
        for result in results
        if result.reason == NOT_SCORED
    ]
    if all(result.status is FindingStatus.NOT_ASSESSED for result in results):
        problems.append(
            Problem("no_finding_assessed", "No finding of the protocol could be assessed.")
        )
    elif any(
        result.status is FindingStatus.NOT_ASSESSED and result.urgency is Urgency.CRITICAL
        for result in results
    ):
        detail = "A critical finding of the protocol was not assessed."
        problems.append(Problem("critical_finding_not_assessed", detail))
    compared = [
        abs(result.log_odds - result.baseline_log_odds)
        for result in results
        if result.log_odds is not None and result.baseline_log_odds is not None
    ]
    if compared and max(compared) <= SAME_LOG_ODDS:
        detail = "The engine answers as if every slice were blank."
        problems.append(Problem("slices_without_effect", detail))
    return tuple(problems)
