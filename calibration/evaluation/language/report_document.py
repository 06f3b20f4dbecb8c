"""The document `reports.json`: one dataclass for each object of it."""

from dataclasses import dataclass
from typing import Literal

from edge_medgemma.calibration.evaluation.document import EngineProvenance, Proportion, Share
from edge_medgemma.calibration.evaluation.language.report_metrics import TextMetric
from edge_medgemma.calibration.evaluation.language.vqa_document import PromptEntry
from edge_medgemma.runtime.documents import Count, Sha256, Size


@dataclass(frozen=True, slots=True)
class MentionTable:
    """One finding in reports and in references, by the rules of the guide."""

    code: str
    """Of the protocol, or `all findings`."""
    reports: Count
    both: Size
    """Mentioned in the reference and in the report."""
    reference_only: Size
    report_only: Size
    neither: Size
    """Negated or not named in both."""
    reference_negates: Size
    """Of `report_only`, those that the reference says are absent: contradictions."""
    report_negates: Size
    """Of `reference_only`, those that the report says are absent: contradictions."""
    recall: Proportion
    """Of what the references mention, what the reports mention; Wilson."""
    precision: Proportion
    """Of what the reports mention, what the references mention."""
    f1: Share | None
    """null where neither mentions anything."""
    f1_low: Share | None
    """95 % interval over reports resampled; null where no resample moves F1."""
    f1_high: Share | None


@dataclass(frozen=True, slots=True)
class FindingsEntry:
    """Findings mentioned or negated."""

    protocol: str
    protocol_sha256: Sha256
    tables: tuple[MentionTable, ...]
    codes_without_terms: tuple[str, ...]
    """Of the protocol; reports are not searched for them."""


@dataclass(frozen=True, slots=True)
class ReportDocument:
    """Reports against references, counted by 'edge-medgemma evaluate reports'; no text is in it."""

    schema_version: Literal[1]
    intended_use: str
    created_at: str
    """UTC by the device's clock, ISO 8601."""
    program_version: str
    layout: str
    references_sha256: Sha256
    reports: Count
    empty_reports: Size
    """They count as all others."""
    notes: tuple[str, ...]
    engine: EngineProvenance | None
    """That wrote the reports; null where they were given."""
    prompt: PromptEntry | None
    """How they were asked for."""
    metrics: tuple[TextMetric, ...]
    findings: FindingsEntry | None
