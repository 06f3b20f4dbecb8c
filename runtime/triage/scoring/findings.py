"""Scores and statuses of findings, from the log-odds of the model's answers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edge_medgemma.runtime.manifest import Manifest
from edge_medgemma.runtime.slicing.volume import Problem
from edge_medgemma.runtime.triage.protocol import Finding, Protocol
from edge_medgemma.runtime.triage.report import FindingResult, FindingStatus
from edge_medgemma.runtime.triage.scoring.grounds import unassessed
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
    """Value to compare with the threshold, and the probability where one can be honest."""

    value: float
    probability: float | None


def score_finding(
    log_odds: float, baseline: float | None, calibration: tuple[float, float] | None
) -> Score:
    """Score of a finding from its log-odds.

    Args:
        log_odds: yes against no, with the slices of the scan.
        baseline: the same with blank slices, subtracted because models tend to answer yes to everything;
            None counts as 0.
        calibration: slope and intercept fitted on labelled scans. They were fitted on the log-odds
            alone, so the baseline is not subtracted: the intercept already corrects the tendency.
    """
    if calibration is not None:
        slope, intercept = calibration
        value = slope * log_odds + intercept
        return Score(value, _sigmoid(value))
    return Score(log_odds - (baseline or 0.0), None)


def _sigmoid(value: float) -> float:
    if value >= 0:
        return 1.0 / (1.0 + math.exp(-value))
    return math.exp(value) / (1.0 + math.exp(value))


def evaluate(
    protocol: Protocol, manifest: Manifest, answers: Answers, baseline: Mapping[str, float] | None
) -> tuple[FindingResult, ...]:
    """Score and status of every finding of the protocol, in its order.

    Args:
        protocol: its findings.
        manifest: which findings the engine knows, and their calibration.
        answers: the model's, with the slices of the scan.
        baseline: log-odds with blank slices; None where none were measured.
    """
    return tuple(_evaluate_one(f, manifest, answers, baseline) for f in protocol.findings)


def _evaluate_one(
    finding: Finding, manifest: Manifest, answers: Answers, baseline: Mapping[str, float] | None
) -> FindingResult:
    (result,) = unassessed([finding], NOT_IN_SCOPE)
    if finding.code not in answers.log_odds:
        return result
    value = answers.log_odds[finding.code]
    blank = None if baseline is None else baseline.get(finding.code, math.nan)
    scope = manifest.scope
    calibration = scope.calibrated_log_odds.get(finding.code) if scope else None
    score = score_finding(value, blank, calibration)
    if not math.isfinite(score.value):
        return replace(result, reason=NOT_SCORED)
    flagged = score.value > finding.threshold
    return replace(
        result,
        status=FindingStatus.FLAGGED if flagged else FindingStatus.NOT_FLAGGED,
        reason="",
        log_odds=value,
        baseline_log_odds=blank if blank is not None and math.isfinite(blank) else None,
        score=score.value,
        probability=score.probability,
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
