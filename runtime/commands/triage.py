"""`edge-medgemma triage`: flag findings and say how urgent each study is."""

from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from edge_medgemma.runtime.backends.providers import Providers
from edge_medgemma.runtime.commands.options import (
    cache_size_option,
    engine_option,
    no_cache_option,
    open_scan_cache,
    provider_option,
    slices_option,
    threads_option,
    trace_option,
)
from edge_medgemma.runtime.commands.progress import stage_progress
from edge_medgemma.runtime.commands.tables import print_table
from edge_medgemma.runtime.commands.terminal import printable
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.profiling.spans import SpanRecorder
from edge_medgemma.runtime.profiling.trace import write_trace
from edge_medgemma.runtime.reporting.html_report import score_words, slices_seen, write_html_report
from edge_medgemma.runtime.reporting.json_report import (
    INTENDED_USE,
    dump_report,
    write_json_report,
)
from edge_medgemma.runtime.reporting.words import URGENCY_WORDS, count, sentence
from edge_medgemma.runtime.triage.protocol import load_protocol
from edge_medgemma.runtime.triage.report import Effort, StudyReport, TriageReport
from edge_medgemma.runtime.triage.study import TriageOptions, triage_scan
from edge_medgemma.runtime.triage.urgency import NO_FLAG_TEXT, Urgency

EXIT_STATUS = {
    Urgency.CRITICAL: 20,
    Urgency.URGENT: 10,
    Urgency.NOT_ASSESSABLE: 3,
    Urgency.ROUTINE: 0,
}
"""With --exit-code, of the most urgent study."""

_STYLES = {
    Urgency.CRITICAL: "bold white on red",
    Urgency.URGENT: "bold black on yellow",
    Urgency.NOT_ASSESSABLE: "bold reverse",
    Urgency.ROUTINE: "dim",
}


@click.command(epilog="Example: edge-medgemma triage scan/ --engine engines/medgemma")
@click.argument("scan", type=click.Path(path_type=Path))
@engine_option
@click.option(
    "--protocol",
    "protocol_name",
    default="auto",
    show_default=True,
    metavar="auto|NAME|FILE",
    help="What to ask; auto goes by modality and body part.",
)
@click.option(
    "--series",
    "series_uid",
    metavar="KEY",
    help="Look at this series only; 'inspect' prints the keys.",
)
@slices_option
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
@click.option("--report/--no-report", "with_report", default=True, help="Write report.html or not.")
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
    protocol_name: str,
    series_uid: str | None,
    slices: int | None,
    out: Path,
    output_format: str,
    effort: str,
    with_report: bool,
    no_cache: bool,
    cache_gb: float,
    providers: Providers,
    threads: int | None,
    trace: Path | None,
    exit_code: bool,
) -> None:
    """Flag findings in a CT, MR or X-ray and say how urgent each study is.

    SCAN is a folder of DICOM or NIfTI files of one or many studies, a .zip or .tar.gz of them, or
    one such file. An aid to
    prioritisation, not a diagnosis; no flag is not a normal report.
    """
    protocol = None if protocol_name == "auto" else load_protocol(protocol_name)
    scan_cache = open_scan_cache(no_cache, cache_gb)
    options = TriageOptions(protocol, series_uid, slices, Effort(effort), scan_cache=scan_cache)
    recorder = SpanRecorder()
    with stage_progress() as progress:
        with recorder.span("open"):
            engine = Engine.open(
                engine_directory, threads=threads, providers=providers, recorder=recorder
            )
        with engine, recorder.span("triage"):
            report = triage_scan(engine, scan, options, progress)
    if scan_cache is not None and scan_cache.trouble:
        click.echo(f"note: {printable(scan_cache.trouble)}", err=True)
    if report.engine.notice:
        click.echo(f"note: {printable(report.engine.notice)}", err=True)
    with recorder.span("write"):
        if output_format == "json":
            click.echo(dump_report(report), nl=False)
        else:
            _print_report(report)  # first: a full disk must not cost the result
        write_json_report(report, out / "triage.json")
        if with_report:
            write_html_report(report, out / "report.html")
        if output_format == "table":
            click.echo(f"report: {out / ('report.html' if with_report else 'triage.json')}")
    if trace is not None:
        write_trace(trace, (*recorder.spans, *report.all_spans))
    if exit_code:
        raise SystemExit(EXIT_STATUS[report.urgency])


def _print_report(report: TriageReport) -> None:
    table = Table("study", "urgency", "protocol", "flagged or doubtful", "looked at", "time")
    for study in report.studies:
        table.add_row(
            study.name,
            Text(URGENCY_WORDS[study.urgency], style=_STYLES[study.urgency]),
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


def _reasons(study: StudyReport) -> str:
    flags = [f"{finding.title} ({score_words(finding)})" for finding in study.flagged]
    reasons = [*flags, *study.doubts] or [NO_FLAG_TEXT]
    if study.not_assessed:
        reasons.append(f"{study.not_assessed} of {len(study.findings)} findings not assessed")
    return "; ".join(reasons)
