"""Refusal and over-refusal: counted by the rule, corrected for its errors, and read by people."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from edge_medgemma import __version__
from edge_medgemma.calibration.evaluation.figures import proportion
from edge_medgemma.calibration.evaluation.language.paired_answers import (
    PairedAnswers,
    paired_answers,
)
from edge_medgemma.calibration.evaluation.language.refusal import (
    MEASURED,
    RULE_NAME,
    RULE_SHA256,
    RULE_SOURCE,
)
from edge_medgemma.calibration.evaluation.language.safety_answers import PROMPT, AnsweredRequest
from edge_medgemma.calibration.evaluation.language.safety_document import (
    CorrectedRate,
    HumanRate,
    HumanReading,
    KappaEntry,
    RefusalRow,
    RuleEntry,
    SafetyComparison,
    SafetyDocument,
    SafetyEngineEntry,
)
from edge_medgemma.calibration.evaluation.language.safety_lists import SAFE, UNSAFE, SafetyList
from edge_medgemma.calibration.evaluation.summary import engine_provenance
from edge_medgemma.calibration.statistics.agreement import (
    RuleAccuracy,
    cohen_kappa,
    rogan_gladen,
    rogan_gladen_bound,
)
from edge_medgemma.runtime.manifest import Manifest
from edge_medgemma.runtime.reporting.json_report import INTENDED_USE

Answers = Sequence[AnsweredRequest]
Labels = Mapping[str, bool]

MIN_CATEGORY = 20
"""Categories with fewer requests get no row of their own: a rate of them says nothing."""


def safety_document(
    requests: SafetyList,
    max_tokens: int,
    runs: Sequence[tuple[Manifest, Answers]],
    readers: Sequence[Labels] = (),
) -> SafetyDocument:
    """The document of one engine's answers, of two engines' in pairs, and of what readers say."""
    entries = [
        SafetyEngineEntry(engine_provenance(manifest), _rows(manifest, answers))
        for manifest, answers in runs
    ]
    comparison = None
    if len(runs) > 1:
        first, second = runs[0][1], runs[1][1]
        unsafe, safe = (_paired(first, second, is_safe) for is_safe in (False, True))
        comparison = SafetyComparison(entries[1], unsafe, safe)
    return SafetyDocument(
        schema_version=1,
        intended_use=INTENDED_USE,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        program_version=__version__,
        layout=requests.layout,
        list_sha256=requests.sha256,
        requests=len(requests.requests),
        prompt=PROMPT,
        max_tokens=max_tokens,
        rule=_rule(),
        first=entries[0],
        comparison=comparison,
        human=_reading(runs[0][1], readers) if readers else None,
    )


def _rule() -> RuleEntry:
    labelled = MEASURED.positives + MEASURED.negatives
    return RuleEntry(
        RULE_NAME,
        RULE_SOURCE,
        RULE_SHA256,
        labelled,
        round((MEASURED.found + MEASURED.passed) / labelled, 3),
        round(MEASURED.sensitivity, 3),
        round(1 - MEASURED.specificity, 3),
    )


def _rows(manifest: Manifest, answers: Answers) -> tuple[RefusalRow, ...]:
    rows = []
    for is_safe in (False, True):
        ours = [one for one in answers if one.request.is_safe is is_safe]
        categories = sorted({one.request.category for one in ours if one.request.category})
        groups = {"all": ours} | {
            name: [one for one in ours if one.request.category == name] for name in categories
        }
        rows += [
            _row(manifest, is_safe, name, group)
            for name, group in groups.items()
            if name == "all" or MIN_CATEGORY <= len(group) < len(ours)
        ]
    return tuple(rows)


def _row(manifest: Manifest, is_safe: bool, category: str, answers: Answers) -> RefusalRow:
    asked = [one for one in answers if one.was_asked]
    refused = sum(one.is_refused for one in asked)
    return RefusalRow(
        requests=SAFE if is_safe else UNSAFE,
        category=category,
        engine_sha256=manifest.sha256,
        refused=proportion(refused, len(asked)),
        corrected=corrected_rate(refused, len(asked), MEASURED),
        not_answered=sum(not one.answer for one in asked),
        not_asked=len(answers) - len(asked),
    )


def corrected_rate(counted: int, trials: int, accuracy: RuleAccuracy) -> CorrectedRate:
    """The rate that a rule of this accuracy would have counted so; null where it cannot be said."""
    if not trials:
        return CorrectedRate(None, None, None)
    value = rogan_gladen(counted / trials, accuracy.sensitivity, accuracy.specificity)
    low, high = rogan_gladen_bound(counted, trials, accuracy)
    return CorrectedRate(_number(value), _number(low), _number(high))


def _reading(answers: Answers, readers: Sequence[Labels]) -> HumanReading:
    by_all = [one for one in answers if all(one.request.key in labels for labels in readers)]
    kappa = None
    if len(readers) == 2:
        first, second = ([labels[one.request.key] for one in by_all] for labels in readers)
        found = cohen_kappa(first, second)
        if found.items:
            limits = map(_number, (found.value, found.low, found.high))
            kappa = KappaEntry(found.items, found.agreement, *limits)
    rates = (_human_rate(answers, by_all, readers, is_safe) for is_safe in (False, True))
    return HumanReading(len(readers), kappa, tuple(rate for rate in rates if rate is not None))


def _human_rate(
    answers: Answers, by_all: Answers, readers: Sequence[Labels], is_safe: bool
) -> HumanRate | None:
    """None where no answer to such a request was read."""
    read = [one for one in by_all if one.request.is_safe is is_safe]
    if not read:
        return None
    labels = {one.request.key: {reader[one.request.key] for reader in readers} for one in read}
    agreed = [one for one in read if len(labels[one.request.key]) == 1]
    refused = [one for one in agreed if True in labels[one.request.key]]
    others = [one for one in agreed if False in labels[one.request.key]]
    accuracy = RuleAccuracy(
        sum(one.is_refused for one in refused),
        len(refused),
        sum(not one.is_refused for one in others),
        len(others),
    )
    asked = [one for one in answers if one.was_asked and one.request.is_safe is is_safe]
    return HumanRate(
        requests=SAFE if is_safe else UNSAFE,
        refused=proportion(len(refused), len(agreed)),
        disputed=len(read) - len(agreed),
        rule_found=proportion(accuracy.found, accuracy.positives),
        rule_passed=proportion(accuracy.passed, accuracy.negatives),
        corrected=corrected_rate(sum(one.is_refused for one in asked), len(asked), accuracy),
    )


def _paired(first: Answers, second: Answers, is_safe: bool) -> PairedAnswers:
    pairs = [
        (a.is_refused, b.is_refused)
        for a, b in zip(first, second, strict=True)
        if a.request.is_safe is is_safe and a.was_asked and b.was_asked
    ]
    return paired_answers([a for a, _ in pairs], [b for _, b in pairs])


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
