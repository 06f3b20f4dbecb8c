"""`edge-medgemma triage`: flag findings and say how urgent each study is."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import click
from rich.table import Table
from rich.text import Text

from edge_medgemma.runtime.backends.select import Providers
from edge_medgemma.runtime.commands.options import (
    cache_size_option,
    engine_option,
    modality_option,
    no_cache_option,
    open_scan_cache,
    protocol_option,
    provider_option,
    series_option,
    threads_option,
    thresholds_option,
    trace_option,
)
from edge_medgemma.runtime.commands.progress import stage_progress
from edge_medgemma.runtime.commands.report_files import ReportFiles, study_contexts
from edge_medgemma.runtime.commands.sanitize import printable
from edge_medgemma.runtime.commands.tables import print_table
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.reporting.engineer_words import SLOWED_BY_HEAT, slices_seen
from edge_medgemma.runtime.reporting.json_report import (
    INTENDED_USE,
    dump_report,
)
from edge_medgemma.runtime.reporting.labels import count, sentence, urgency_words
from edge_medgemma.runtime.reporting.options import RenderOptions
from edge_medgemma.runtime.reporting.translation import ENGLISH, languages
from edge_medgemma.runtime.reporting.wording import probability_words
from edge_medgemma.runtime.slicing.volume import Modality
from edge_medgemma.runtime.store.scan_cache import ScanCache
from edge_medgemma.runtime.tracing.spans import SpanRecorder
from edge_medgemma.runtime.tracing.trace_file import write_trace
from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.progress import Progress
from edge_medgemma.runtime.triage.protocol import Protocol
from edge_medgemma.runtime.triage.report import Effort, FindingResult, StudyReport, TriageReport
from edge_medgemma.runtime.triage.scoring.grounds import check_real_engine
from edge_medgemma.runtime.triage.scoring.operating_points import read_operating_points
from edge_medgemma.runtime.triage.triage_scan import triage_scan
from edge_medgemma.runtime.triage.urgency import NO_FLAG_TEXT, Urgency

EXIT_STATUS = {
    Urgency.CRITICAL: 20,
    Urgency.URGENT: 10,
    Urgency.NOT_ASSESSABLE: 3,
    Urgency.ROUTINE: 0,
}
"""Exit status with --exit-code, by the urgency of the most urgent study."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, also where a pass had ended and its result stands."""

_STYLES = {
    Urgency.CRITICAL: "bold white on red",
    Urgency.URGENT: "bold black on yellow",
    Urgency.NOT_ASSESSABLE: "bold reverse",
    Urgency.ROUTINE: "dim",
}


class _SliceCount(click.ParamType[int | Literal["auto"]]):
    """A number of slices, or `auto`."""

    name = "INTEGER|auto"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | Literal["auto"]:
        if value == "auto":
            return "auto"
        return int(click.IntRange(min=1).convert(value, param, ctx))


@click.command(epilog="Example: edge-medgemma triage scan/ --engine engines/medgemma")
@click.argument("scan", type=click.Path(path_type=Path))
@engine_option
@protocol_option
@series_option
@modality_option
@click.option(
    "--slices",
    type=_SliceCount(),
    metavar="INTEGER|auto",
    help="Most slices to show the model; auto looks at more and more until the findings have "
    "settled.  [default: the protocol's number, or fewer that the plans hold]",
)
@click.option(
    "--budget",
    "budget_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Time for the whole scan. Every study is looked at coarsely, whatever that takes; the "
    "rest goes into looking closer. There is a result after the first look.",
)
@thresholds_option
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("triage-output"),
    show_default=True,
    help="Folder for triage.json and report.html; files of an earlier run are replaced.",
)
@click.option(
    "--format", "output_format", type=click.Choice(["table", "json"]), default="table",
    show_default=True, help="What to print.",
)  # fmt: skip
@click.option(
    "--effort", type=click.Choice([e.value for e in Effort]), default=Effort.FAST.value,
    show_default=True, help="reasoned: the model reasons in words first; minutes per finding.",
)  # fmt: skip
@click.option(
    "--require-real-engine", is_flag=True,
    help="Refuse the demo engine and random weights, which know nothing of patients.",
)  # fmt: skip
@click.option("--report/--no-report", "with_report", default=True, help="Write report.html or not.")
@click.option(
    "--pdf", "with_pdf", is_flag=True, help="Write report.pdf too; needs edge-medgemma[pdf]."
)
@click.option(
    "--language", type=click.Choice(languages()), default=ENGLISH, show_default=True,
    help="Of report.html and report.pdf; what is printed and triage.json stay English.",
)  # fmt: skip
@click.option(
    "--accession", "with_accession", is_flag=True,
    help="Put accession numbers on the report. They say whose scan it is.",
)  # fmt: skip
@no_cache_option
@cache_size_option
@provider_option
@threads_option
@trace_option
@click.option(
    "--exit-code", is_flag=True,
    help="Exit with 20 if the worst study is critical, 10 urgent, 3 not assessable.",
)  # fmt: skip
def command(
    scan: Path,
    engine_directory: Path,
    protocol: Protocol | None,
    series_uid: str | None,
    modality: Modality | None,
    slices: int | Literal["auto"] | None,
    budget_s: float | None,
    thresholds: Path | None,
    out: Path,
    output_format: str,
    effort: str,
    require_real_engine: bool,
    with_report: bool,
    with_pdf: bool,
    language: str,
    with_accession: bool,
    no_cache: bool,
    cache_gb: float,
    providers: Providers,
    threads: int | None,
    trace: Path | None,
    exit_code: bool,
) -> None:
    """Flag findings in a CT, MR or X-ray and say how urgent each study is.

    SCAN is a folder of DICOM or NIfTI files of one or many studies, a .zip or .tar.gz of them, or
    one such file. An aid to prioritisation, not a diagnosis; no flag is not a normal report.
    """
    start_s = time.perf_counter()
    scan_cache = open_scan_cache(no_cache, cache_gb)
    options = TriageOptions(
        protocol=protocol,
        series_uid=series_uid,
        modality=modality,
        slices=None if slices == "auto" else slices,
        budget_s=budget_s,
        until_settled=slices == "auto",
        effort=Effort(effort),
        thresholds=thresholds,
        scan_cache=scan_cache,
    )
    render = RenderOptions(language, study_contexts(scan) if with_accession else {})
    files = ReportFiles(out, with_report, with_pdf, render)
    recorder = SpanRecorder()
    with stage_progress() as progress:
        with recorder.span("open"):
            engine = Engine.open(
                engine_directory, threads=threads, providers=providers, recorder=recorder
            )
        read_operating_points(engine.directory, thresholds)  # refused before anything is looked at
        if require_real_engine:
            check_real_engine(engine.manifest)
        if budget_s is not None:
            spent_s = time.perf_counter() - start_s
            options = replace(options, budget_s=max(budget_s - spent_s, 0.0))
        with engine, recorder.span("triage"):
            report, was_interrupted = _triage(engine, scan, options, progress, files)
    _print_notes(report, scan_cache, budget_s, time.perf_counter() - start_s)
    with recorder.span("write"):
        _print_and_write(report, files, output_format)
    if trace is not None:
        write_trace(trace, (*recorder.spans, *report.all_spans))
    if was_interrupted:
        click.echo("interrupted; this is the result of the last finished pass", err=True)
        raise SystemExit(INTERRUPTED)
    if exit_code:
        raise SystemExit(EXIT_STATUS[report.urgency])


def _triage(
    engine: Engine, scan: Path, options: TriageOptions, progress: Progress, files: ReportFiles
) -> tuple[TriageReport, bool]:
    """The report, and whether Ctrl-C ended the run after a pass that stands."""
    try:
        return triage_scan(engine, scan, options, progress, files.keep), False
    except KeyboardInterrupt:
        if files.latest is None:
            raise
        return files.latest, True


def _print_notes(
    report: TriageReport, scan_cache: ScanCache | None, budget_s: float | None, spent_s: float
) -> None:
    if budget_s is not None and spent_s > budget_s:
        click.echo(f"note: the budget of {budget_s:g} s was exceeded: {spent_s:.1f} s", err=True)
    if any(study.was_slowed_by_heat for study in report.studies):
        click.echo(f"note: {SLOWED_BY_HEAT}; with more air around it, this is quicker", err=True)
    unused = [
        problem.detail
        for study in report.studies
        for problem in study.problems
        if problem.name == "thresholds_not_used"
    ]
    cache_error = scan_cache.write_error if scan_cache is not None else None
    for note in filter(None, (cache_error, report.engine.notice, *dict.fromkeys(unused))):
        click.echo(f"note: {printable(note)}", err=True)


def _print_and_write(report: TriageReport, files: ReportFiles, output_format: str) -> None:
    """Print first: a full disk must not cost the result, nor a reader who has gone the files."""
    try:
        if output_format == "json":
            click.echo(dump_report(report), nl=False)
        else:
            _print_report(report)
    finally:
        files.finish(report)
    if output_format == "table":
        click.echo(f"report: {files.shown}")


def _print_report(report: TriageReport) -> None:
    table = Table("study", "urgency", "protocol", "flagged or doubtful", "looked at", "time")
    for study in report.studies:
        table.add_row(
            study.name,
            _urgency_text(report, study),
            printable(study.protocol_name or "none"),
            printable(_reasons(study)),
            slices_seen(study),
            f"{sum(study.total_s.values()):.1f} s",
        )
    lines = [
        Text(f"{study.name}: {printable(sentence(problem.detail))}")
        for study in report.studies
        for problem in study.problems
    ]
    if report.skipped:
        lines.append(Text(f"{count(sum(report.skipped.values()), 'file')} skipped; see inspect"))
    print_table(table, *lines, INTENDED_USE)


def _urgency_text(report: TriageReport, study: StudyReport) -> Text:
    if report.engine.has_random_weights:
        return Text("no result", style="dim")
    return Text(urgency_words(study.urgency, study.flagged), style=_STYLES[study.urgency])


def _flag_words(finding: FindingResult) -> str:
    """Its title, and what is grounded beside it: a percentage, or what speaks against the flag."""
    beside = probability_words(finding) or finding.reason
    return f"{finding.title} ({beside})" if beside else finding.title


def _reasons(study: StudyReport) -> str:
    flags = [_flag_words(finding) for finding in study.flagged]
    no_flag = [NO_FLAG_TEXT] if not flags and study.urgency is Urgency.ROUTINE else []
    reasons = [*flags, *no_flag, *study.limitations]
    if study.not_assessed:
        reasons.append(f"{study.not_assessed} of {len(study.findings)} findings not assessed")
    return "; ".join(reasons)
