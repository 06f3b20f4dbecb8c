"""`edge-medgemma evaluate safety`: how often an engine refuses what it should, and what it should not."""

from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from edge_medgemma.calibration.evaluation.language.figures import share_words
from edge_medgemma.calibration.evaluation.language.reader_sheets import (
    has_labels,
    read_reader_sheet,
    write_reader_sheet,
)
from edge_medgemma.calibration.evaluation.language.safety_answers import (
    AnsweredRequest,
    answer_requests,
)
from edge_medgemma.calibration.evaluation.language.safety_document import (
    CorrectedRate,
    HumanReading,
    SafetyDocument,
)
from edge_medgemma.calibration.evaluation.language.safety_lists import SafetyList, read_safety_list
from edge_medgemma.calibration.evaluation.language.safety_results import safety_document
from edge_medgemma.runtime.backends.select import Providers
from edge_medgemma.runtime.commands.options import engine_option, provider_option, threads_option
from edge_medgemma.runtime.commands.progress import progress_bar
from edge_medgemma.runtime.commands.sanitize import printable
from edge_medgemma.runtime.commands.tables import print_table
from edge_medgemma.runtime.documents import dump_json
from edge_medgemma.runtime.files import write_atomically
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.manifest import Manifest
from edge_medgemma.runtime.triage.picture_chat import require_free_questions


@click.command(
    epilog="Example: edge-medgemma evaluate safety xstest_prompts.csv --engine engines/medgemma"
)
@click.argument("requests", metavar="LIST", type=click.Path(path_type=Path))
@engine_option
@click.option(
    "--compare", type=click.Path(path_type=Path), metavar="DIR",
    help="A second engine, asked the same and compared in pairs.",
)  # fmt: skip
@click.option(
    "--labels", "sheets", type=click.Path(path_type=Path), multiple=True, metavar="CSV",
    help="A copy of readers.csv that a person has filled in; twice for two people.",
)  # fmt: skip
@click.option(
    "--rows", type=click.IntRange(min=1), default=100, show_default=True,
    help="Answers on the sheet for readers, drawn at random.",
)  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of the drawing.")
@click.option(
    "--max-tokens", type=click.IntRange(min=1), default=300, show_default=True,
    help="Longest reply, reasoning included.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("safety-output"),
    show_default=True,
    help="Folder for safety.json and readers.csv; a run that was stopped goes on there.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print safety.json instead of a table.")
@provider_option
@threads_option
def command(
    requests: Path,
    engine_directory: Path,
    compare: Path | None,
    sheets: tuple[Path, ...],
    rows: int,
    seed: int,
    max_tokens: int,
    out: Path,
    as_json: bool,
    providers: Providers,
    threads: int | None,
) -> None:
    """Put the requests of a list to an engine and count refusals.

    LIST is a CSV of MedSafetyBench, HarmBench or XSTest, or with a column 'prompt', or a folder of such
    files. A published rule of
    key phrases says what a refusal is; its own error stands beside every rate. readers.csv is for two
    people to say it better: hand their copies back with --labels.
    """
    if len(sheets) > 2:
        raise click.UsageError("--labels takes the sheets of one or two people")
    listed = read_safety_list(requests)
    runs: list[tuple[Manifest, tuple[AnsweredRequest, ...]]] = []
    for directory, name in ((engine_directory, "answers"), (compare, "answers-compare")):
        if directory is not None:
            opened = Engine.open(directory, threads=threads, providers=providers)
            runs.append(_run(opened, listed, max_tokens, out / f"{name}.jsonl"))
    answers = runs[0][1]
    readers = [read_reader_sheet(sheet, answers) for sheet in sheets]
    document = safety_document(listed, max_tokens, runs, readers)
    keeps_sheet = bool(sheets) or has_labels(out / "readers.csv")
    if not keeps_sheet:
        write_reader_sheet(out / "readers.csv", answers, rows, seed)
    elif not sheets:
        click.echo("note: readers.csv holds labels and is left as it is", err=True)
    write_atomically(out / "safety.json", dump_json(document).encode())
    if document.first.engine.notice:
        click.echo(f"note: {printable(document.first.engine.notice)}", err=True)
    if as_json:
        click.echo(dump_json(document), nl=False)
        return
    _print(document)
    if not keeps_sheet:
        click.echo(f"for two readers: {out / 'readers.csv'}")


def _run(
    engine: Engine, requests: SafetyList, max_tokens: int, path: Path
) -> tuple[Manifest, tuple[AnsweredRequest, ...]]:
    with engine, progress_bar("asking requests") as update:
        require_free_questions(engine)
        return engine.manifest, answer_requests(engine, requests, max_tokens, path, update)


def _print(document: SafetyDocument) -> None:
    table = Table(
        "engine",
        "requests",
        "category",
        "refused, by the rule",
        "corrected for its error",
        "no answer",
    )
    entries = [("first", document.first)]
    if document.comparison is not None:
        entries.append(("second", document.comparison.second))
    for name, entry in entries:
        for row in entry.rows:
            table.add_row(
                name,
                row.requests,
                Text(printable(row.category)),
                share_words(row.refused),
                _corrected_words(row.corrected),
                str(row.not_answered),
            )
    rule = document.rule
    measured = (
        f"Rule: {rule.name}. On {rule.labelled_answers:,} labelled answers of other models it agrees "
        f"with {rule.agreement:.3f}, finds {rule.sensitivity:.3f} of refusals and takes "
        f"{rule.false_positive_rate:.3f} of the rest for one."
    )
    brackets = (
        "Refusing safe requests is over-refusal. In brackets: Wilson 95 %, and the bound that the "
        "rule's own error leaves."
    )
    lines = [measured, brackets]
    if document.comparison is not None:
        for kind, pairs in (
            ("unsafe", document.comparison.unsafe),
            ("safe", document.comparison.safe),
        ):
            p_value = "-" if pairs.p_value is None else f"{pairs.p_value:.3g}"
            lines.append(
                f"{kind}, {pairs.items} in pairs: refused by the first alone {pairs.first_only}, by "
                f"the second alone {pairs.second_only}, McNemar p {p_value}"
            )
    if document.human is not None:
        lines += _human_lines(document.human)
    print_table(table, *lines)


def _human_lines(human: HumanReading) -> list[str]:
    lines = []
    if human.kappa is not None:
        kappa = human.kappa
        value = (
            "-" if kappa.kappa is None else f"{kappa.kappa:.2f} ({kappa.low:.2f}-{kappa.high:.2f})"
        )
        lines.append(
            f"Two readers of {kappa.answers} answers agree with {kappa.agreement:.3f}, kappa {value}."
        )
    for rate in human.rates:
        lines.append(
            f"{rate.requests}: readers call {share_words(rate.refused)} refusals, {rate.disputed} "
            f"disputed; all answers corrected by their labels {_corrected_words(rate.corrected)}"
        )
    return lines


def _corrected_words(rate: CorrectedRate) -> str:
    if rate.value is None:
        return "not known"
    low, high = (0.0 if rate.low is None else rate.low), (1.0 if rate.high is None else rate.high)
    return f"{rate.value:.3f} ({low:.3f}-{high:.3f})"
