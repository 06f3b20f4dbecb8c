"""From a prefix and a protocol to the result of every finding."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.outputs import FinishReason
from edge_medgemma.runtime.generation.prefix import Prefix
from edge_medgemma.runtime.manifest import Manifest
from edge_medgemma.runtime.slicing.volume import Problem, SliceStack
from edge_medgemma.runtime.triage.evidence import key_slices, slice_effects
from edge_medgemma.runtime.triage.protocol import Finding, Protocol
from edge_medgemma.runtime.triage.questions import Progress, no_progress, reason
from edge_medgemma.runtime.triage.report import FindingResult, FindingStatus, KeySlice
from edge_medgemma.runtime.triage.scoring import AnswerTokens, log_odds, score_finding

CHUNKS_BEFORE_SLICES = 1
"""The opening with the instruction; slice i is chunk i + 1 of the prefix."""

NOT_TRAINED = "this demonstration engine was not trained on it"
NOT_SCORED = "the engine gave no usable answer"

UNFINISHED = {
    FinishReason.LENGTH: "was cut at its token budget",
    FinishReason.REPETITION: "was stopped because the model repeats itself",
}

SAME_LOG_ODDS = 1e-6
"""Slices that move no answer by more than this were not looked at."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Log-odds of the findings that were asked."""

    log_odds: Mapping[str, float]
    """By finding code; NaN where the engine's numbers were not finite."""
    problems: tuple[Problem, ...] = ()


def assessed_findings(protocol: Protocol, manifest: Manifest) -> tuple[Finding, ...]:
    """The findings that this engine may be asked about."""
    if manifest.demonstration is None:
        return protocol.findings
    return tuple(f for f in protocol.findings if f.code in manifest.demonstration.findings)


def ask_fast(engine: Engine, prefix: Prefix, findings: Sequence[Finding]) -> Answers:
    """All findings in one pass, scored at the first token of the answer."""
    if not findings:
        return Answers({})
    questions = [engine.prompt.question(f.question) for f in findings]
    odds = log_odds(prefix.score(questions), AnswerTokens.of(engine.tokenizer))
    return Answers({f.code: float(value) for f, value in zip(findings, odds, strict=True)})


def ask_reasoned(
    engine: Engine,
    prefix: Prefix,
    findings: Sequence[Finding],
    on_progress: Progress = no_progress,
) -> Answers:
    """One finding after the other, scored behind the model's own "Final Answer:"."""
    tokens = AnswerTokens.of(engine.tokenizer)
    values: dict[str, float] = {}
    problems = []
    for done, finding in enumerate(findings, start=1):
        reasoning = reason(engine, prefix, finding.question)
        values[finding.code] = float(log_odds(prefix.score([reasoning.ids]), tokens)[0])
        if reasoning.ending in UNFINISHED:
            detail = f"Reasoning about {finding.code} {UNFINISHED[reasoning.ending]}."
            problems.append(Problem("reasoning_not_finished", detail))
        on_progress("score", done, len(findings))
    return Answers(values, tuple(problems))


def evaluate(
    protocol: Protocol, manifest: Manifest, answers: Answers, controls: Mapping[str, float] | None
) -> tuple[FindingResult, ...]:
    """Score and status of every finding of the protocol, in its order.

    Args:
        protocol: what was to be asked.
        manifest: which findings the engine knows, and their calibration.
        answers: of the scan.
        controls: of blank slices; None where no control was run.
    """
    return tuple(_judge_one(f, manifest, answers, controls) for f in protocol.findings)


def _judge_one(
    finding: Finding, manifest: Manifest, answers: Answers, controls: Mapping[str, float] | None
) -> FindingResult:
    result = FindingResult(
        code=finding.code,
        title=finding.title,
        question=finding.question,
        urgency=finding.urgency,
        status=FindingStatus.NOT_ASSESSED,
        reason=NOT_TRAINED,
        log_odds=None,
        control_log_odds=None,
        score=None,
        probability=None,
        threshold=finding.threshold,
        standard_code=finding.standard_code,
        key_slices=(),
    )
    if finding.code not in answers.log_odds:
        return result
    value = answers.log_odds[finding.code]
    control = None if controls is None else controls.get(finding.code, math.nan)
    platt = manifest.demonstration.platt.get(finding.code) if manifest.demonstration else None
    score = score_finding(value, control, platt)
    if not math.isfinite(score.value):
        return replace(result, reason=NOT_SCORED)
    flagged = score.value > finding.threshold
    return replace(
        result,
        status=FindingStatus.FLAGGED if flagged else FindingStatus.NOT_FLAGGED,
        reason="",
        log_odds=value,
        control_log_odds=control if control is not None and math.isfinite(control) else None,
        score=score.value,
        probability=score.probability,
    )


def doubt_problems(results: Sequence[FindingResult]) -> tuple[Problem, ...]:
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
    compared = [
        abs(result.log_odds - result.control_log_odds)
        for result in results
        if result.log_odds is not None and result.control_log_odds is not None
    ]
    if compared and max(compared) <= SAME_LOG_ODDS:
        detail = "The engine answers as if every slice were blank."
        problems.append(Problem("slices_without_effect", detail))
    return tuple(problems)


def with_evidence(
    engine: Engine, prefix: Prefix, stack: SliceStack, result: FindingResult
) -> FindingResult:
    """A flagged finding with the slices it rests on.

    Always asks the plain question: reasoning in words would repeat what hidden slices showed.
    """
    question = engine.prompt.question(result.question)
    tokens = AnswerTokens.of(engine.tokenizer)

    def score_hiding(variants: Sequence[frozenset[int]]) -> NDArray[np.float64]:
        hidden = [[i + CHUNKS_BEFORE_SLICES for i in sorted(variant)] for variant in variants]
        return log_odds(prefix.score([question] * len(hidden), hidden), tokens)

    effects = slice_effects(len(stack.slice_indices), score_hiding)
    keys = []
    for row in key_slices(effects):
        index = int(stack.slice_indices[row])
        uid = stack.series.sources[index].sop_instance_uid
        keys.append(KeySlice(index, float(stack.positions_mm[row]), uid, effects[row]))
    return replace(result, key_slices=tuple(keys))
