"""reports.json and reports.csv: figures and findings of reports, and nothing of their text."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from edge_medgemma import __version__
from edge_medgemma.calibration.evaluation.language.csv_file import write_csv
from edge_medgemma.calibration.evaluation.language.prompts import REPORT_FORM
from edge_medgemma.calibration.evaluation.language.report_document import (
    FindingsEntry,
    ReportDocument,
)
from edge_medgemma.calibration.evaluation.language.report_metrics import TextMetric
from edge_medgemma.calibration.evaluation.language.report_results import Mentions
from edge_medgemma.calibration.evaluation.language.report_sets import ReportSet
from edge_medgemma.calibration.evaluation.language.vqa_document import PromptEntry
from edge_medgemma.calibration.evaluation.summary import engine_provenance
from edge_medgemma.runtime.manifest import Manifest
from edge_medgemma.runtime.reporting.json_report import INTENDED_USE


@dataclass(frozen=True, slots=True)
class ReportFigures:
    """What was counted of one set of reports."""

    metrics: tuple[TextMetric, ...] = ()
    rouge_l: Sequence[float] = ()
    """Of each report; empty where it was not asked for."""
    findings: FindingsEntry | None = None
    said: Mentions = ()
    """By each report; empty where findings were not looked for."""
    expected: Mentions = ()
    """By each reference."""


def report_document(
    reports: ReportSet,
    texts: Sequence[str],
    figures: ReportFigures,
    manifest: Manifest | None,
    max_tokens: int,
) -> ReportDocument:
    """The document of a set of reports.

    Args:
        reports: the references
        texts: the reports, in their order
        figures: what was counted
        manifest: of the engine that wrote the reports; None where they were given
        max_tokens: longest report of the engine
    """
    form = REPORT_FORM
    prompt = PromptEntry(
        form.name, form.source, form.template, form.sha256, max_tokens, system="none"
    )
    return ReportDocument(
        schema_version=1,
        intended_use=INTENDED_USE,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        program_version=__version__,
        layout=reports.layout,
        references_sha256=reports.sha256,
        reports=len(texts),
        empty_reports=sum(not text.strip() for text in texts),
        notes=reports.notes,
        engine=engine_provenance(manifest) if manifest else None,
        prompt=prompt if manifest else None,
        metrics=figures.metrics,
        findings=figures.findings,
    )


def write_report_csv(path: Path, reports: ReportSet, figures: ReportFigures) -> None:
    """One row a report: its number, its ROUGE-L, and what it and its reference say of each finding.

    Raises:
        ResourceError: the disk is full or the folder cannot be written.
    """
    codes = list(figures.said[0]) if figures.said else []
    columns = ["number", *(["rouge_l"] if figures.rouge_l else [])]
    columns += [f"{side}_{code}" for code in codes for side in ("report", "reference")]
    rows = []
    for place, pair in enumerate(reports.pairs):
        row: list[object] = [pair.number, *figures.rouge_l[place : place + 1]]
        for code in codes:
            row += [figures.said[place][code].value, figures.expected[place][code].value]
        rows.append(row)
    write_csv(path, columns, rows)
