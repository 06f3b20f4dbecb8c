"""`edge-medgemma evaluate vqa`: questions of a dataset about its pictures."""

from functools import partial
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from edge_medgemma.calibration.evaluation.language.figures import mean_words, share_words
from edge_medgemma.calibration.evaluation.language.prompts import PROMPT_FORMS, PromptForm
from edge_medgemma.calibration.evaluation.language.vqa_answers import (
    ScoredAnswer,
    answer_questions,
    require_pictures,
)
from edge_medgemma.calibration.evaluation.language.vqa_document import VqaDocument, VqaRow
from edge_medgemma.calibration.evaluation.language.vqa_layouts import (
    READERS,
    SPLITS,
    VqaDataset,
    read_slake,
)
from edge_medgemma.calibration.evaluation.language.vqa_results import vqa_document, write_vqa_csv
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

LANGUAGES = ("en", "zh", "all")


@click.command(
    epilog="Example: edge-medgemma evaluate vqa slake/ --layout slake --engine engines/medgemma"
)
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option(
    "--layout",
    type=click.Choice(list(READERS)),
    required=True,
    help="How the dataset lies on disk.",
)
@engine_option
@click.option(
    "--compare", type=click.Path(path_type=Path), metavar="DIR",
    help="A second engine, asked the same and compared in pairs.",
)  # fmt: skip
@click.option("--split", type=click.Choice(SPLITS), default="test", show_default=True)
@click.option(
    "--language", type=click.Choice(LANGUAGES), default="en", show_default=True,
    help="Of the questions of SLAKE, which has two.",
)  # fmt: skip
@click.option(
    "--prompt", "form", type=click.Choice(list(PROMPT_FORMS)), default="short", show_default=True,
    help="How questions are put; the guide says where each wording comes from.",
)  # fmt: skip
@click.option(
    "--max-tokens", type=click.IntRange(min=1),
    help="Longest reply, reasoning included.  [default: that of the wording's source]",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("vqa-output"),
    show_default=True, help="Folder for vqa.json and vqa.csv; a run that was stopped goes on there.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print vqa.json instead of a table.")
@provider_option
@threads_option
def command(
    dataset: Path,
    layout: str,
    engine_directory: Path,
    compare: Path | None,
    split: str,
    language: str,
    form: str,
    max_tokens: int | None,
    out: Path,
    as_json: bool,
    providers: Providers,
    threads: int | None,
) -> None:
    """Ask the questions of a VQA dataset and score the answers.

    DATASET is the folder of VQA-RAD, SLAKE or PathVQA as its authors lay it out. Closed questions count
    if they are answered exactly, open ones by token F1 and exactly.
    """
    reader = partial(read_slake, language=language) if layout == "slake" else READERS[layout]
    questions = reader(dataset, split)
    require_pictures(questions)
    prompt = PROMPT_FORMS[form]
    longest = max_tokens or prompt.max_tokens
    runs: list[tuple[Manifest, tuple[ScoredAnswer, ...]]] = []
    for directory, name in ((engine_directory, "answers"), (compare, "answers-compare")):
        if directory is not None:
            opened = Engine.open(directory, threads=threads, providers=providers)
            runs.append(_run(opened, questions, prompt, longest, out / f"{name}.jsonl"))
    spoken = language if layout == "slake" else "en"
    document = vqa_document(questions, spoken, prompt, longest, runs)
    write_vqa_csv(out / "vqa.csv", questions, prompt, runs)
    write_atomically(out / "vqa.json", dump_json(document).encode())
    for note in dict.fromkeys(_notes(document)):
        click.echo(f"note: {printable(note)}", err=True)
    if as_json:
        click.echo(dump_json(document), nl=False)
    else:
        _print(document)
        click.echo(f"answers: {out / 'vqa.csv'}")


def _run(
    engine: Engine, questions: VqaDataset, prompt: PromptForm, max_tokens: int, path: Path
) -> tuple[Manifest, tuple[ScoredAnswer, ...]]:
    with engine, progress_bar("asking questions") as update:
        require_free_questions(engine)
        answers = answer_questions(engine, questions, prompt, max_tokens, path, update)
        return engine.manifest, answers


def _notes(document: VqaDocument) -> list[str]:
    entries = [document.first, *([document.comparison.second] if document.comparison else [])]
    notes = [*document.dataset.notes]
    for entry in entries:
        notes += [entry.engine.notice] if entry.engine.notice else []
        if entry.not_yes_or_no:
            notes.append(
                f"{entry.not_yes_or_no} of {entry.rows[0].closed.trials} closed questions were "
                "answered neither yes nor no where the reference is one; they count as wrong"
            )
    return notes


def _print(document: VqaDocument) -> None:
    table = Table("engine", "by", "closed exact", "open exact", "open token F1")
    for row in document.first.rows:
        table.add_row(*_cells("first", row))
    lines = []
    comparison = document.comparison
    if comparison is not None:
        for row in comparison.second.rows:
            table.add_row(*_cells("second", row))
        for name, pairs in (("closed", comparison.closed), ("open", comparison.open)):
            p_value = "-" if pairs.p_value is None else f"{pairs.p_value:.3g}"
            lines.append(
                f"{name}, {pairs.items} in pairs: right by the first alone {pairs.first_only}, by the "
                f"second alone {pairs.second_only}, McNemar p {p_value}"
            )
        lines.append(f"answers that differ: {comparison.changed_answers}")
    prompt = document.prompt
    print_table(
        table,
        *lines,
        f"Prompt '{prompt.name}' ({prompt.sha256[:12]}), {document.dataset.layout} "
        f"{document.dataset.split} ({document.dataset.sha256[:12]}), engine "
        f"{document.first.engine.manifest_sha256[:12]}.",
        "In brackets: 95 % intervals (Wilson; token F1 over pictures resampled).",
    )


def _cells(name: str, row: VqaRow) -> tuple[str | Text, ...]:
    label = "all" if row.by == "all" else Text(f"{row.by}: {printable(row.value)}")
    scores = share_words(row.closed), share_words(row.open_exact), mean_words(row.open_token_f1)
    return (name, label, *scores)
