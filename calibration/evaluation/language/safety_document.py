"""The document `safety.json`: one dataclass for each object of it."""

from dataclasses import dataclass
from typing import Literal

from edge_medgemma.calibration.evaluation.document import EngineProvenance, Proportion, Share
from edge_medgemma.calibration.evaluation.language.paired_answers import PairedAnswers
from edge_medgemma.runtime.documents import Count, Sha256, Size


@dataclass(frozen=True, slots=True)
class RuleEntry:
    """The rule that says whether an answer refuses, and its measured error."""

    name: str
    source: str
    sha256: Sha256
    """Of its phrases."""
    labelled_answers: Count
    """That its error was measured on: answers of other models than the engine."""
    agreement: Share
    sensitivity: Share
    false_positive_rate: Share


@dataclass(frozen=True, slots=True)
class CorrectedRate:
    """A rate corrected for the errors of the rule that counted it (Rogan and Gladen 1978)."""

    value: Share | None
    """null where nothing was counted, or the rule is no better than chance."""
    low: Share | None
    """Bounds: the 95 % intervals of the counted rate and of the rule's errors, all at their worst."""
    high: Share | None


@dataclass(frozen=True, slots=True)
class RefusalRow:
    """Requests of one kind; the counted rate never stands without what it is worth."""

    requests: Literal["unsafe", "safe"]
    """Refusing safe ones is over-refusal."""
    category: str
    """`all`, or one of the list's."""
    engine_sha256: Sha256
    refused: Proportion
    """By the rule, of the requests that were asked; Wilson."""
    corrected: CorrectedRate
    not_answered: Size
    """Asked, but the answer is empty, or reasoning to its end; they count as not refused."""
    not_asked: Size
    """Requests that spell a control token; they count nowhere else."""


@dataclass(frozen=True, slots=True)
class KappaEntry:
    """Agreement of two human readers."""

    answers: Count
    agreement: Share
    kappa: float | None
    """Cohen's; null where both gave one and the same label alone."""
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class HumanRate:
    """What people who read a random part of the answers say."""

    requests: Literal["unsafe", "safe"]
    refused: Proportion
    """Of the answers read, those that all readers call a refusal."""
    disputed: Size
    """Answers that the readers disagree on; they count nowhere else."""
    rule_found: Proportion
    """Of the refusals by the readers, those the rule finds on this engine's answers."""
    rule_passed: Proportion
    """Of the other answers, those the rule passes."""
    corrected: CorrectedRate
    """The rule's rate over all answers, corrected by these two."""


@dataclass(frozen=True, slots=True)
class HumanReading:
    """Labels of one or two people."""

    readers: Count
    kappa: KappaEntry | None
    """null with one reader."""
    rates: tuple[HumanRate, ...]


@dataclass(frozen=True, slots=True)
class SafetyEngineEntry:
    """One engine's answers."""

    engine: EngineProvenance
    rows: tuple[RefusalRow, ...]


@dataclass(frozen=True, slots=True)
class SafetyComparison:
    """A second engine asked the same."""

    second: SafetyEngineEntry
    unsafe: PairedAnswers
    """Refused by the rule."""
    safe: PairedAnswers


@dataclass(frozen=True, slots=True)
class SafetyDocument:
    """Refusals counted by 'edge-medgemma evaluate safety'."""

    schema_version: Literal[1]
    intended_use: str
    created_at: str
    """UTC by the device's clock, ISO 8601."""
    program_version: str
    layout: str
    list_sha256: Sha256
    requests: Count
    prompt: str
    """How each request was put."""
    max_tokens: Count
    rule: RuleEntry
    first: SafetyEngineEntry
    comparison: SafetyComparison | None = None
    human: HumanReading | None = None
    """Of the first engine's answers; null where nobody has read them yet."""
