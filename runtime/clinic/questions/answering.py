"""Questions of the mailbox answered by the engine: about a study's slices, or about pictures."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_medgemma.runtime.clinic.questions.attendance import EngineCard
from edge_medgemma.runtime.clinic.questions.mailbox import AnswerWriter, Mailbox
from edge_medgemma.runtime.clinic.questions.question import PendingQuestion, Question
from edge_medgemma.runtime.clinic.settings import ClinicSettings
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist.results import latest_result
from edge_medgemma.runtime.errors import (
    EdgeMedgemmaError,
    ProtocolError,
    QuestionError,
    ResourceError,
    ScanError,
)
from edge_medgemma.runtime.generation.answer_pieces import AnswerPiece
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.prompt import Turn
from edge_medgemma.runtime.generation.sampling import Sampling
from edge_medgemma.runtime.reporting.labels import sentence
from edge_medgemma.runtime.reporting.report_folder import read_report_folder
from edge_medgemma.runtime.slicing.pictures import read_picture
from edge_medgemma.runtime.store.scan_cache import ScanCache
from edge_medgemma.runtime.triage.chat_session import ChatSession, RefusedScanError, open_scan
from edge_medgemma.runtime.triage.cpu_fallback import with_cpu_fallback
from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.picture_chat import open_chat
from edge_medgemma.runtime.triage.protocol import load_protocol
from edge_medgemma.runtime.triage.report import StudyReport
from edge_medgemma.runtime.triage.scoring.grounds import (
    check_real_engine,
    engine_notice,
    scope_words,
)
from edge_medgemma.runtime.triage.scoring.question_scope import require_question_in_scope

LOG = logging.getLogger(__name__)

NOT_LOOKED_AT = "This study has no result yet. Ask again once it was looked at."
NO_STUDY = "This study is not on the box any more, so nothing can be asked about it."
NO_SLICES = (
    "The images of this study cannot be shown to the engine, so it answers no question about it."
)
NO_MEMORY = "The box has too little memory for this now. Ask again later, or about fewer pictures."
NOT_ANSWERED = "The engine could not answer this. The box's log has the kind of error."
NOT_REAL = (
    "This box runs an engine that knows nothing of patients, so it answers no question. Name an engine "
    "that was exported from a MedGemma checkpoint in the settings."
)


class _CancelledError(Exception):
    """Nobody waits for the answer any more."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """The study that was asked about last, prefilled."""

    study_key: str
    part: int
    files: tuple[tuple[str, int], ...]
    """Names and sizes: another image makes it another study."""
    result: Path | None
    """The report that `said` is of."""
    session: ChatSession
    said: tuple[str, ...]
    """What the report says against the study: that it may be incomplete, for one."""

    def is_of(
        self, study_key: str, part: int, files: tuple[tuple[str, int], ...], result: Path | None
    ) -> bool:
        """Whether nothing has changed since it was read."""
        now = (study_key, part, files, result)
        return (self.study_key, self.part, self.files, self.result) == now


def engine_card(engine: Engine) -> EngineCard:
    """What page and API may say of an open engine."""
    manifest = engine.manifest
    return EngineCard(
        name=manifest.source.name,
        sha256=manifest.sha256,
        notice=engine_notice(manifest),
        answers_pictures=manifest.scope is None,
        max_positions=manifest.text.max_positions,
        tokens_per_image=manifest.vision.tokens_per_image,
    )


class Answerer:
    """Answers questions with one engine, on the thread that holds it."""

    def __init__(
        self,
        engine: Engine,
        state: StateFolder,
        settings: ClinicSettings,
        scan_cache: ScanCache | None = None,
    ) -> None:
        """Prepare, computing nothing; the scan cache should be that of the triage."""
        self._engine = engine
        self._state = state
        self._settings = settings
        self._scan_cache = scan_cache
        self._kept: _Kept | None = None

    def answer_next(self, mailbox: Mailbox) -> bool:
        """Answer the question that waits longest; False where none waits."""
        for pending in mailbox.pending()[:1]:
            try:
                writer = mailbox.writer(pending.id)
            except QuestionError:
                return True
            self.answer(pending, writer)
            return True
        return False

    def release(self) -> None:
        """Forget the study that was asked about last; the memory is needed for triage."""
        self._kept = None

    def answer(self, pending: PendingQuestion, writer: AnswerWriter) -> None:
        """Answer one question; whatever goes wrong is said to the asker in plain words."""
        try:
            self._answer(pending, writer)
        except _CancelledError:
            LOG.info("a question was cancelled")
        except Exception as error:  # noqa: BLE001 a question never ends the worker
            LOG.warning("a question was not answered: %s", type(error).__name__)
            self._kept = None
            _fail(writer, _plain(error))
        finally:
            writer.close()

    def _answer(self, pending: PendingQuestion, writer: AnswerWriter) -> None:
        question, manifest = pending.question, self._engine.manifest
        if not self._settings.site.demonstration:
            try:
                check_real_engine(manifest)
            except EdgeMedgemmaError:
                writer.fail(NOT_REAL)
                return
        if question.study_key is None and manifest.scope is not None:
            writer.fail(
                f"The engine of this box was made for {scope_words(manifest.scope)} and a few findings "
                "alone. It answers no question about pictures."
            )
            return
        notice = engine_notice(manifest)
        if notice:
            writer.notice(notice)
        if question.study_key is None:
            self._answer_pictures(pending, writer)
        else:
            self._answer_study(question, question.study_key, writer)

    def _answer_study(self, question: Question, study_key: str, writer: AnswerWriter) -> None:
        text = question.messages[-1].parts[0].text
        require_question_in_scope(text, self._engine.manifest.scope)
        ids = self._engine.prompt.question(text)  # one that may not be asked costs no prefill
        kept = self._open(study_key, question.part, len(ids), writer)
        session = kept.session
        for detail in dict.fromkeys((*kept.said, *(one.detail for one in session.problems))):
            writer.notice(sentence(detail))
        pieces = session.ask(text, _sampling(question), question.max_tokens)
        _stream(pieces, session.prefix.length + len(ids), writer)

    def _open(self, study_key: str, part: int, question_tokens: int, writer: AnswerWriter) -> _Kept:
        """The study's slices, read; those that were asked about last are there already."""
        folder = self._state.spool / study_key
        files, result = _files(folder), latest_result(self._state, study_key)
        kept = self._kept
        if kept is not None and kept.is_of(study_key, part, files, result):
            return kept
        self._kept = kept = None  # its memory goes before the next is read
        study = None if result is None else _study_of(result, part)
        if study is None:
            raise QuestionError(NOT_LOOKED_AT)
        options = TriageOptions(
            protocol=load_protocol(study.protocol_name) if study.protocol_name else None,
            series_uid=None if study.series is None else study.series.series_uid,
            slices=self._settings.engine.slices,
            scan_cache=self._scan_cache,
        )
        session = open_scan(self._engine, folder, options, _progress(writer), question_tokens)
        said = tuple(problem.detail for problem in study.problems)
        self._kept = _Kept(study_key, part, files, result, session, said)
        return self._kept

    def _answer_pictures(self, pending: PendingQuestion, writer: AnswerWriter) -> None:
        self.release()
        question, engine = pending.question, self._engine
        try:
            pictures = [
                read_picture(path, f"picture {number}")
                for number, path in enumerate(pending.pictures, start=1)
            ]
        except ScanError as error:
            if writer.is_cancelled:
                raise _CancelledError from None
            raise QuestionError(str(error)) from None
        order = [part.picture for message in question.messages for part in message.parts]
        shown = [pictures[number] for number in order if number is not None]
        turns = [
            Turn(
                message.role.value,
                tuple(None if part.picture is not None else part.text for part in message.parts),
            )
            for message in question.messages
        ]
        chat = with_cpu_fallback(
            engine, lambda: open_chat(engine, turns, shown, _progress(writer)), lambda: None
        )
        pieces = chat.answer(_sampling(question), question.max_tokens)
        _stream(pieces, chat.conversation.num_tokens, writer)


def _stream(pieces: Iterator[AnswerPiece], prompt_tokens: int, writer: AnswerWriter) -> None:
    """Pass an answer on, until nobody waits for it."""
    thought_tokens = last = 0
    for piece in pieces:
        if writer.is_cancelled:
            raise _CancelledError
        if piece.is_thought:
            thought_tokens += piece.tokens - last
        last = piece.tokens
        if piece.text:
            writer.piece(piece.text, piece.is_thought)
        if piece.ending is not None:
            writer.finish(piece.ending.value, prompt_tokens, piece.tokens, thought_tokens)


def _progress(writer: AnswerWriter) -> Callable[[str, int, int], None]:
    def on_progress(stage: str, done: int, total: int) -> None:
        if writer.is_cancelled:
            raise _CancelledError
        writer.progress(stage, done, total)

    return on_progress


def _sampling(question: Question) -> Sampling:
    return Sampling(question.temperature, top_p=question.top_p, seed=question.seed)


def _study_of(result: Path, part: int) -> StudyReport | None:
    """The report's study of that number; None where there is none or the result is damaged."""
    try:
        studies = read_report_folder(result).studies
    except EdgeMedgemmaError:
        return None
    return studies[part] if part < len(studies) else None


def _files(folder: Path) -> tuple[tuple[str, int], ...]:
    if not folder.is_dir():
        raise QuestionError(NO_STUDY)
    return tuple(sorted((one.name, one.stat().st_size) for one in folder.iterdir()))


def _fail(writer: AnswerWriter, message: str) -> None:
    # On a full disk the reader sees an answer that was broken off.
    with contextlib.suppress(ResourceError, RuntimeError):
        writer.fail(message)


def _plain(error: Exception) -> str:
    """What the asker is told; paths and options of the command line say nothing to them."""
    if isinstance(error, QuestionError | ProtocolError):
        return sentence(str(error).replace(", or name another engine with --engine", ""))
    if isinstance(error, ResourceError | MemoryError):
        return NO_MEMORY
    if isinstance(error, RefusedScanError):
        return f"{error.problem.detail} No question about this study is answered."
    if isinstance(error, ScanError):
        return NO_SLICES
    return NOT_ANSWERED
