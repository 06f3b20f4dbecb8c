"""Results of the questions about pictures: rows by kind, pairs of engines, vqa.json and vqa.csv."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from edge_medgemma import __version__
from edge_medgemma.calibration.evaluation.figures import proportion
from edge_medgemma.calibration.evaluation.language.csv_file import write_csv
from edge_medgemma.calibration.evaluation.language.figures import mean_score
from edge_medgemma.calibration.evaluation.language.paired_answers import mean_change, paired_answers
from edge_medgemma.calibration.evaluation.language.prompts import PromptForm
from edge_medgemma.calibration.evaluation.language.text_scores import normalised
from edge_medgemma.calibration.evaluation.language.vqa_answers import ScoredAnswer
from edge_medgemma.calibration.evaluation.language.vqa_document import (
    PromptEntry,
    VqaComparison,
    VqaDatasetEntry,
    VqaDocument,
    VqaEngineEntry,
    VqaFlip,
    VqaRow,
)
from edge_medgemma.calibration.evaluation.language.vqa_layouts import VqaDataset
from edge_medgemma.calibration.evaluation.summary import engine_provenance
from edge_medgemma.runtime.manifest import Manifest
from edge_medgemma.runtime.reporting.json_report import INTENDED_USE

Answers = Sequence[ScoredAnswer]

CSV_COLUMNS = (
    "dataset", "split", "question_id", "picture", "answer_type", "modality", "organ", "kind",
    "language", "question", "reference", "answer", "ending", "exact", "token_f1", "prompt",
    "prompt_sha256", "engine", "engine_sha256",
)  # fmt: skip


def vqa_document(
    dataset: VqaDataset,
    language: str,
    form: PromptForm,
    max_tokens: int,
    runs: Sequence[tuple[Manifest, Answers]],
) -> VqaDocument:
    """The document of one engine's answers, or of two engines' in pairs."""
    entries = [_engine_entry(dataset, form, manifest, answers) for manifest, answers in runs]
    return VqaDocument(
        schema_version=1,
        intended_use=INTENDED_USE,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        program_version=__version__,
        dataset=VqaDatasetEntry(
            dataset.layout,
            dataset.split,
            language,
            dataset.sha256,
            len(dataset.questions),
            len({question.picture for question in dataset.questions}),
            dataset.notes,
        ),
        prompt=PromptEntry(
            form.name, form.source, form.template, form.sha256, max_tokens, system="none"
        ),
        first=entries[0],
        comparison=_comparison(runs[0][1], runs[1][1], entries[1]) if len(runs) > 1 else None,
    )


def write_vqa_csv(
    path: Path,
    dataset: VqaDataset,
    form: PromptForm,
    runs: Sequence[tuple[Manifest, Answers]],
) -> None:
    """One row a question and engine, with all that names where it comes from."""
    write_csv(
        path,
        CSV_COLUMNS,
        (
            (
                dataset.layout, dataset.split, one.question.key, one.question.picture_name,
                "closed" if one.question.is_closed else "open",
                *(one.question.attributes.get(name) for name in CSV_COLUMNS[5:9]),
                one.question.question, one.question.reference, one.answer, one.ending, one.is_exact,
                one.token_f1, form.name, form.sha256, manifest.source.name, manifest.sha256,
            )
            for manifest, answers in runs
            for one in answers
        ),
    )  # fmt: skip


def _engine_entry(
    dataset: VqaDataset, form: PromptForm, manifest: Manifest, answers: Answers
) -> VqaEngineEntry:
    names = dict.fromkeys(name for one in answers for name in one.question.attributes)
    groups: dict[tuple[str, str], list[ScoredAnswer]] = {("all", "all"): list(answers)}
    for name in names:
        values = sorted({one.question.attributes.get(name, "") for one in answers})
        for value in values if len(values) > 1 else ():
            groups[name, value] = [
                one for one in answers if one.question.attributes.get(name, "") == value
            ]
    return VqaEngineEntry(
        engine_provenance(manifest),
        tuple(_row(dataset, form, manifest, *key, group) for key, group in groups.items()),
        dict(Counter(one.ending for one in answers)),
        sum(one.question.is_closed and one.is_neither_yes_nor_no for one in answers),
    )


def _row(
    dataset: VqaDataset, form: PromptForm, manifest: Manifest, by: str, value: str, answers: Answers
) -> VqaRow:
    closed = [one for one in answers if one.question.is_closed]
    opened = [one for one in answers if not one.question.is_closed]
    return VqaRow(
        dataset=dataset.layout,
        split=dataset.split,
        prompt=form.name,
        prompt_sha256=form.sha256,
        engine_sha256=manifest.sha256,
        by=by,
        value=value,
        questions=len(answers),
        pictures=len(set(_pictures(answers))),
        closed=proportion(sum(one.is_exact for one in closed), len(closed)),
        open_exact=proportion(sum(one.is_exact for one in opened), len(opened)),
        open_token_f1=mean_score([one.token_f1 for one in opened], _pictures(opened)),
        token_f1=mean_score([one.token_f1 for one in answers], _pictures(answers)),
    )


def _comparison(first: Answers, second: Answers, entry: VqaEngineEntry) -> VqaComparison:
    pairs = list(zip(first, second, strict=True))
    closed = [pair for pair in pairs if pair[0].question.is_closed]
    opened = [pair for pair in pairs if not pair[0].question.is_closed]
    return VqaComparison(
        second=entry,
        closed=paired_answers([a.is_exact for a, _ in closed], [b.is_exact for _, b in closed]),
        open=paired_answers([a.is_exact for a, _ in opened], [b.is_exact for _, b in opened]),
        token_f1_change=mean_change(
            [a.token_f1 for a, _ in pairs], [b.token_f1 for _, b in pairs], _pictures(first)
        ),
        changed_answers=sum(normalised(a.answer) != normalised(b.answer) for a, b in pairs),
        flips=tuple(
            VqaFlip(a.question.key, a.question.is_closed, a.is_exact, b.is_exact)
            for a, b in pairs
            if a.is_exact != b.is_exact
        ),
    )


def _pictures(answers: Answers) -> list[str]:
    return [str(one.question.picture) for one in answers]
