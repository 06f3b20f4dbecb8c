"""`edge-medgemma evaluate injection`: does text that is burnt into slices move the answers of triage?"""

from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from edge_medgemma.calibration.evaluation.language.figures import share_words
from edge_medgemma.calibration.evaluation.language.injection import TEXTS, InjectionPlan, inject
from edge_medgemma.calibration.evaluation.language.injection_document import InjectionDocument
from edge_medgemma.calibration.evaluation.language.injection_results import (
    injection_document,
    write_injection_csv,
)
from edge_medgemma.runtime.backends.select import Providers
from edge_medgemma.runtime.commands.options import (
    engine_option,
    modality_option,
    protocol_option,
    provider_option,
    slices_option,
    threads_option,
)
from edge_medgemma.runtime.commands.progress import progress_bar
from edge_medgemma.runtime.commands.sanitize import printable
from edge_medgemma.runtime.commands.tables import print_table
from edge_medgemma.runtime.documents import dump_json
from edge_medgemma.runtime.files import write_atomically
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.slicing.scan import find_series
from edge_medgemma.runtime.slicing.volume import Modality
from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.protocol import Protocol
from edge_medgemma.runtime.triage.worklist import plan_studies

MAX_FLIPS_SHOWN = 10


def _texts(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> tuple[str, ...]:
    for text in texts:
        if not text.strip() or not text.isprintable():
            raise click.BadParameter("expected one line of text that can be drawn")
    return texts or TEXTS


@click.command(epilog="Example: edge-medgemma evaluate injection scans/ --require-no-flips")
@click.argument("scans", type=click.Path(path_type=Path))
@engine_option
@protocol_option
@modality_option
@slices_option
@click.option(
    "--text", "texts", multiple=True, callback=_texts,
    help="Burn this in; may be repeated.  [default: six texts that the guide lists]",
)  # fmt: skip
@click.option(
    "--draws", type=click.IntRange(min=1), default=1, show_default=True,
    help="Places and sizes drawn for each text and study, once visible and once not.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--require-no-flips", is_flag=True,
    help="Exit with 1 if a text changed a flag, or if nothing could be compared.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("injection-output"),
    show_default=True,
    help="Folder for injection.json and injection.csv; a run that was stopped goes on there.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print injection.json instead of a table.")
@provider_option
@threads_option
def command(
    scans: Path,
    engine_directory: Path,
    protocol: Protocol | None,
    modality: Modality | None,
    slices: int | None,
    texts: tuple[str, ...],
    draws: int,
    seed: int,
    require_no_flips: bool,
    out: Path,
    as_json: bool,
    providers: Providers,
    threads: int | None,
) -> None:
    """Burn text into the slices of scans and see whether triage obeys it.

    SCANS is what triage takes. Every text has a counterpart of the same ink, scrambled, at the same
    place; a second scramble shows what ink does that nobody can read. No scan is altered on disk.
    """
    options = TriageOptions(protocol, slices=slices, modality=modality)
    plan = InjectionPlan(texts, seed, draws)
    with Engine.open(engine_directory, threads=threads, providers=providers) as engine:
        with progress_bar("reading headers") as update:
            listing = find_series(scans, update, modality)
        tasks = plan_studies(listing, protocol, None, engine.manifest.scope)
        with progress_bar("triaging inked slices") as update:
            studies = inject(engine, tasks, plan, options, out / "injection.jsonl", update)
        document = injection_document(engine.manifest, tasks, plan, studies)
    write_injection_csv(out / "injection.csv", studies)
    write_atomically(out / "injection.json", dump_json(document).encode())
    if document.engine.notice:
        click.echo(f"note: {printable(document.engine.notice)}", err=True)
    for reason, count in document.not_shown.items():
        click.echo(f"note: {count} not shown to the engine: {printable(reason)}", err=True)
    if as_json:
        click.echo(dump_json(document), nl=False)
    else:
        _print(document)
        click.echo(f"all pairs: {out / 'injection.csv'}")
    if require_no_flips and not document.passes:
        click.echo(f"error: {_failure(document)}", err=True)
        raise SystemExit(1)


def _failure(document: InjectionDocument) -> str:
    if document.flips:
        compared = sum(row.comparisons for row in document.rows if row.by == "all")
        return (
            f"text changed {len(document.flips)} of {compared} findings; injection.json lists them"
        )
    return "nothing could be compared: triage assessed no finding under both inks"


def _print(document: InjectionDocument) -> None:
    table = Table(
        "by", "ink", "withheld", "median |change|", "flips", "between two scrambles", "flips"
    )
    table.columns[0].overflow = "fold"
    for row in document.rows:
        if row.by in ("place", "height"):
            continue
        label = Text("all" if row.by == "all" else f"{row.by}: {printable(row.value)}")
        table.add_row(
            label,
            row.ink,
            str(row.withheld),
            _number(row.median_absolute_change),
            share_words(row.flips),
            _number(row.control_median_absolute_change),
            share_words(row.control_flips),
        )
    lines = [
        Text(
            f"{flip.study}, {flip.finding}: {flip.neutral_status} under scrambled ink, "
            f"{flip.text_status} under '{printable(flip.text)}' ({flip.ink}, {flip.place})"
        )
        for flip in document.flips[:MAX_FLIPS_SHOWN]
    ]
    if len(document.flips) > MAX_FLIPS_SHOWN:
        lines.append(
            Text(f"and {len(document.flips) - MAX_FLIPS_SHOWN} more; injection.json has all")
        )
    print_table(
        table,
        *lines,
        f"{document.studies} studies. Change of the log-odds by text against as much scrambled ink at "
        "the same place, and of one scramble against another; in brackets Wilson 95 %. Rows by place and "
        "height are in injection.json.",
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
