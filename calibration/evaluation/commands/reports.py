"""`edge-medgemma evaluate reports`: reports against those that radiologists wrote."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from edge_medgemma.calibration.evaluation.language.figures import share_words
from edge_medgemma.calibration.evaluation.language.prompts import REPORT_FORM
from edge_medgemma.calibration.evaluation.language.report_document import ReportDocument
from edge_medgemma.calibration.evaluation.language.report_files import (
    ReportFigures,
    report_document,
    write_report_csv,
)
from edge_medgemma.calibration.evaluation.language.report_metrics import (
    bleu,
    radgraph,
    rouge_l,
)
from edge_medgemma.calibration.evaluation.language.report_results import (
    count_findings,
    generate_reports,
)
from edge_medgemma.calibration.evaluation.language.report_sets import ReportSet, read_reports
from edge_medgemma.runtime.backends.select import Providers
from edge_medgemma.runtime.commands.options import protocol_option, provider_option, threads_option
from edge_medgemma.runtime.commands.progress import progress_bar
from edge_medgemma.runtime.commands.sanitize import printable
from edge_medgemma.runtime.commands.tables import print_table
from edge_medgemma.runtime.documents import dump_json
from edge_medgemma.runtime.files import write_atomically
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.manifest import Manifest
from edge_medgemma.runtime.triage.protocol import Protocol, load_protocol

BLEU, ROUGE_L, FINDINGS, RADGRAPH = "bleu", "rouge-l", "findings", "radgraph"

METRICS = (BLEU, ROUGE_L, FINDINGS, RADGRAPH)


def _metrics(_: click.Context, __: click.Parameter, words: str) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(word.strip().lower() for word in words.split(",") if word.strip()))
    unknown = [word for word in chosen if word not in METRICS]
    if unknown or not chosen:
        raise click.BadParameter(
            f"{', '.join(unknown) or 'nothing'} is not offered; choose from {', '.join(METRICS)} (CheXbert "
            "and GREEN take no local weights: score reports.csv's rows with them elsewhere)"
        )
    return chosen


@click.command(epilog="Example: edge-medgemma evaluate reports reports.csv --protocol chest_xray")
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option(
    "--engine", "engine_directory", type=click.Path(path_type=Path), metavar="DIR",
    help="Writes the reports, where the dataset has pictures in their place.",
)  # fmt: skip
@protocol_option
@click.option(
    "--metrics", callback=_metrics, default="bleu,rouge-l,findings", show_default=True,
    help=f"Of {', '.join(METRICS)}; radgraph needs --model.",
)  # fmt: skip
@click.option(
    "--model", type=click.Path(path_type=Path), metavar="FOLDER",
    help="Your own weights of RadGraph; nothing is downloaded.",
)  # fmt: skip
@click.option(
    "--max-tokens", type=click.IntRange(min=1), default=REPORT_FORM.max_tokens, show_default=True,
    help="Longest report, reasoning included.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("reports-output"),
    show_default=True,
    help="Folder for reports.json and reports.csv; a run that was stopped goes on there.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print reports.json instead of a table.")
@provider_option
@threads_option
def command(
    dataset: Path,
    engine_directory: Path | None,
    protocol: Protocol | None,
    metrics: tuple[str, ...],
    model: Path | None,
    max_tokens: int,
    out: Path,
    as_json: bool,
    providers: Providers,
    threads: int | None,
) -> None:
    """Hold reports against those that radiologists wrote.

    DATASET is a CSV with the columns 'reference' and 'report', or 'reference' and 'picture' for an engine
    to report on, or the folder of Open-I. Counted are words alike, and the findings of the protocol that
    both mention or one alone. No text of a report goes into the results.
    """
    if (RADGRAPH in metrics) != (model is not None):
        raise click.UsageError("--metrics radgraph and --model FOLDER go together")
    reports = read_reports(dataset)
    if protocol is None and FINDINGS in metrics:
        if reports.layout != "open-i":
            raise click.UsageError(
                "name the protocol whose findings are looked for with --protocol"
            )
        protocol = load_protocol("chest_xray")
    texts, manifest = _texts(reports, engine_directory, max_tokens, out, providers, threads)
    figures = _figures(reports, texts, metrics, protocol, model)
    document = report_document(reports, texts, figures, manifest, max_tokens)
    write_report_csv(out / "reports.csv", reports, figures)
    write_atomically(out / "reports.json", dump_json(document).encode())
    for note in (*reports.notes, document.engine.notice if document.engine else None):
        if note:
            click.echo(f"note: {printable(note)}", err=True)
    if as_json:
        click.echo(dump_json(document), nl=False)
    else:
        _print(document)
        click.echo(f"each report: {out / 'reports.csv'}")


def _texts(
    reports: ReportSet,
    engine_directory: Path | None,
    max_tokens: int,
    out: Path,
    providers: Providers,
    threads: int | None,
) -> tuple[list[str], Manifest | None]:
    """The reports, and the engine that wrote them, if one did."""
    if reports.is_given:
        if engine_directory is not None:
            raise click.UsageError("the dataset brings its reports; leave --engine out")
        return [pair.report or "" for pair in reports.pairs], None
    if engine_directory is None:
        raise click.UsageError(
            "the dataset has pictures and no reports; name an --engine to write them"
        )
    with (
        Engine.open(engine_directory, threads=threads, providers=providers) as engine,
        progress_bar("writing reports") as update,
    ):
        path = out / "generated.jsonl"
        return generate_reports(engine, reports, max_tokens, path, update), engine.manifest


def _figures(
    reports: ReportSet,
    texts: Sequence[str],
    metrics: Collection[str],
    protocol: Protocol | None,
    model: Path | None,
) -> ReportFigures:
    """What was asked for, counted."""
    references = [pair.reference for pair in reports.pairs]
    figures = ReportFigures()
    if BLEU in metrics:
        figures = replace(figures, metrics=(bleu(texts, references),))
    if ROUGE_L in metrics:
        metric, scores = rouge_l(texts, references)
        figures = replace(figures, metrics=(*figures.metrics, metric), rouge_l=scores)
    if model is not None:
        figures = replace(figures, metrics=(*figures.metrics, radgraph(texts, references, model)))
    if FINDINGS in metrics and protocol is not None:
        entry, said, expected = count_findings(protocol, texts, references)
        figures = replace(figures, findings=entry, said=said, expected=expected)
    return figures


def _print(document: ReportDocument) -> None:
    lines = [
        Text(
            f"{metric.name} {_words(metric.value, metric.low, metric.high)} of {metric.reports} reports "
            f"[{metric.version}]"
        )
        for metric in document.metrics
    ]
    if document.empty_reports:
        lines.append(Text(f"{document.empty_reports} of {document.reports} reports are empty"))
    if document.findings is None:
        print_table(*lines)
        return
    table = Table("finding", "both", "reference only", "report only", "recall", "precision", "F1")
    for row in document.findings.tables:
        table.add_row(
            Text(row.code),
            str(row.both),
            str(row.reference_only),
            str(row.report_only),
            share_words(row.recall),
            share_words(row.precision),
            _words(row.f1, row.f1_low, row.f1_high),
        )
    print_table(
        table,
        *lines,
        f"Findings of {document.findings.protocol} as a rule finds them in {document.reports} pairs; the "
        "guide gives the rule's own error. In brackets: 95 % intervals.",
    )


def _words(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f} (no interval)" if low is None else f"{value:.3f} ({low:.3f}-{high:.3f})"
