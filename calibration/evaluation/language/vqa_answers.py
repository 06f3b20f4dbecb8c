"""A dataset's questions put to an engine, one after the other, each answer kept as it comes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from edge_medgemma import __version__
from edge_medgemma.calibration.evaluation.language.answering import (
    NOT_ASKED,
    FreeAnswer,
    answer_about,
    picture_prefix,
)
from edge_medgemma.calibration.evaluation.language.journal import Journal
from edge_medgemma.calibration.evaluation.language.pictures import read_picture
from edge_medgemma.calibration.evaluation.language.prompts import PromptForm
from edge_medgemma.calibration.evaluation.language.text_scores import (
    NO,
    YES,
    is_exact,
    normalised,
    token_f1,
)
from edge_medgemma.calibration.evaluation.language.vqa_layouts import VqaDataset, VqaQuestion
from edge_medgemma.runtime.errors import DatasetError, ProtocolError
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.prefix import Prefix
from edge_medgemma.runtime.triage.picture_chat import require_free_questions


@dataclass(frozen=True, slots=True)
class VqaAnswer:
    """A line of answers.jsonl."""

    key: str
    reply: str
    """Without the model's reasoning."""
    tokens: int
    ending: str


@dataclass(frozen=True, slots=True)
class ScoredAnswer:
    """An answer beside its question."""

    question: VqaQuestion
    reply: str
    answer: str
    """The part of the reply that counts."""
    ending: str
    is_exact: bool
    token_f1: float

    @property
    def is_neither_yes_nor_no(self) -> bool:
        """Whether a yes or no was wanted and none came."""
        wanted = normalised(self.question.reference) in (YES, NO)
        return wanted and normalised(self.answer) not in (YES, NO)


def require_pictures(dataset: VqaDataset) -> None:
    """Refuse a dataset without all its pictures, before anything is asked.

    Raises:
        DatasetError: some are missing; says how many.
    """
    pictures = dict.fromkeys(question.picture for question in dataset.questions)
    missing = [path for path in pictures if not path.is_file()]
    if missing:
        raise DatasetError(
            f"{len(missing)} of {len(pictures)} pictures are missing, the first '{missing[0]}'; unpack "
            "all of the dataset's pictures beside its questions"
        )


def answer_questions(
    engine: Engine,
    dataset: VqaDataset,
    form: PromptForm,
    max_tokens: int,
    path: Path,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[ScoredAnswer, ...]:
    """Ask every question that `path` does not have an answer to yet.

    Args:
        engine: an open engine without a scope
        dataset: its questions; those of one picture are asked after another
        form: how they are put
        max_tokens: longest reply
        path: of answers.jsonl
        on_progress: called with questions answered and questions in all

    Returns:
        One answer a question, in the dataset's order.

    Raises:
        EngineError: the engine was made for a few findings alone.
        DatasetError: a picture cannot be read.
        ResourceError: answers.jsonl is of another run, or cannot be written.
    """
    require_free_questions(engine)
    depends_on = {
        "engine": engine.manifest.sha256,
        "dataset": f"{dataset.layout} {dataset.split} {dataset.sha256}",
        "prompt": form.sha256,
        "longest answer": max_tokens,
        "program": __version__,
    }
    with Journal(path, depends_on, VqaAnswer) as journal:
        answered = {row.key for row in journal.rows}
        waiting = [one for one in dataset.questions if one.key not in answered]
        for done, row in enumerate(_answers(engine, waiting, form, max_tokens), len(answered) + 1):
            journal.append(row)
            if on_progress is not None:
                on_progress(done, len(dataset.questions))
    by_key = {row.key: row for row in journal.rows}
    return tuple(_scored(one, by_key[one.key], form) for one in dataset.questions)


def _answers(
    engine: Engine, waiting: Iterable[VqaQuestion], form: PromptForm, max_tokens: int
) -> Iterable[VqaAnswer]:
    """Answers, the questions of a picture together: it is encoded and prefilled once."""
    shown: Path | None = None
    prefix: Prefix | None = None
    for question in sorted(waiting, key=lambda one: str(one.picture)):
        if prefix is None or question.picture != shown:
            prefix = picture_prefix(engine, read_picture(question.picture, form.is_square))
            shown = question.picture
        try:
            found = answer_about(engine, prefix, form.text(question.question), max_tokens)
        except ProtocolError:
            yield VqaAnswer(question.key, "", 0, NOT_ASKED)
        else:
            yield _row(question.key, found)


def _row(key: str, found: FreeAnswer) -> VqaAnswer:
    return VqaAnswer(key, found.text, found.tokens, found.ending.value)


def _scored(question: VqaQuestion, row: VqaAnswer, form: PromptForm) -> ScoredAnswer:
    answer = form.answer_of(row.reply)
    return ScoredAnswer(
        question,
        row.reply,
        answer,
        row.ending,
        row.ending != NOT_ASKED and is_exact(answer, question.reference),
        0.0 if row.ending == NOT_ASKED else token_f1(answer, question.reference),
    )
