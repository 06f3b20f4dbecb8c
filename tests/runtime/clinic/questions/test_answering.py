"""Questions of the mailbox, answered by real engines on real slices."""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.clinic_scans import DEMONSTRATION, phantom

from edge_medgemma.runtime.clinic.questions import answering
from edge_medgemma.runtime.clinic.questions.answering import Answerer, engine_card
from edge_medgemma.runtime.clinic.questions.attendance import Attendance
from edge_medgemma.runtime.clinic.questions.mailbox import Mailbox
from edge_medgemma.runtime.clinic.questions.question import (
    AnswerEvent,
    AnswerKind,
    Message,
    Part,
    Question,
    Role,
    study_question,
)
from edge_medgemma.runtime.clinic.settings import ClinicSettings
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worker.engine_room import DEMO_ENGINE
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.reporting.report_folder import read_report_folder, write_report_folder
from edge_medgemma.runtime.slicing.volume import Problem
from edge_medgemma.runtime.triage.chat_session import open_scan
from edge_medgemma.runtime.triage.scoring.grounds import RANDOM_WEIGHTS
from edge_medgemma.runtime.triage.triage_scan import triage_scan

KEY = "0123456789abcdef" * 2
BLEED = "Is there a haemorrhage?"
MAY_BE_INCOMPLETE = "This study may be incomplete: CANARY slices are missing."


@pytest.fixture(scope="module")
def demo_engine() -> Iterator[Engine]:
    with Engine.open(DEMO_ENGINE, threads=2) as engine:
        yield engine


@pytest.fixture(scope="module")
def study(demo_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> StateFolder:
    """A study that was looked at; its report says that it may be incomplete."""
    state = StateFolder(tmp_path_factory.mktemp("clinic") / "state")
    state.create()
    folder = state.spool / KEY
    folder.mkdir()
    files = phantom(tmp_path_factory.mktemp("phantom"), has_bleed=True)
    for number, path in enumerate(files):
        (folder / f"{number}.dcm").write_bytes(path.read_bytes())
    report = triage_scan(demo_engine, folder)
    one = report.studies[0]
    doubted = replace(one, problems=(*one.problems, Problem("may_be", MAY_BE_INCOMPLETE)))
    write_report_folder(replace(report, studies=(doubted,)), state.results / KEY / "1")
    return state


def _ask(answerer: Answerer, state: StateFolder, question: Question) -> list[AnswerEvent]:
    """Put a question, answer it, and read the answer."""
    mailbox = Mailbox(state)
    name = mailbox.post(question)
    assert answerer.answer_next(mailbox)

    async def read() -> list[AnswerEvent]:
        return [event async for event in mailbox.follow(name)]

    events = asyncio.run(read())
    assert not list(state.questions.iterdir())
    return events


def _text(events: list[AnswerEvent], kind: AnswerKind = AnswerKind.PIECE) -> str:
    return "".join(event.text for event in events if event.kind is kind)


def test_a_study_is_read_once_and_asked_twice(study: StateFolder, demo_engine: Engine) -> None:
    answerer = Answerer(demo_engine, study, DEMONSTRATION)
    first = _ask(answerer, study, study_question(KEY, BLEED))
    second = _ask(answerer, study, study_question(KEY, BLEED))
    assert any(event.kind is AnswerKind.PROGRESS for event in first)
    assert not any(event.kind is AnswerKind.PROGRESS for event in second)
    assert first[-1] == second[-1] and first[-1].kind is AnswerKind.END
    session = open_scan(demo_engine, study.spool / KEY)
    expected = "".join(piece.text for piece in session.ask(BLEED) if not piece.is_thought)
    assert _text(first) == _text(second) == expected
    assert first[-1].prompt_tokens == session.prefix.length + len(
        demo_engine.prompt.question(BLEED)
    )
    notices = [event.text for event in first if event.kind is AnswerKind.NOTICE]
    assert notices[0] == engine_card(demo_engine).notice  # a demo engine says so with every answer
    assert MAY_BE_INCOMPLETE in notices


def test_another_image_makes_it_another_study(study: StateFolder, demo_engine: Engine) -> None:
    answerer = Answerer(demo_engine, study, DEMONSTRATION)
    _ask(answerer, study, study_question(KEY, BLEED))
    extra = study.spool / KEY / "extra.dcm"
    extra.write_bytes((study.spool / KEY / "0.dcm").read_bytes())
    try:
        again = _ask(answerer, study, study_question(KEY, BLEED))
    finally:
        extra.unlink()
    assert any(event.kind is AnswerKind.PROGRESS for event in again)


def test_memory_is_given_back_for_triage(study: StateFolder, demo_engine: Engine) -> None:
    answerer = Answerer(demo_engine, study, DEMONSTRATION)
    _ask(answerer, study, study_question(KEY, BLEED))
    assert answerer._kept is not None
    kept = weakref.ref(answerer._kept.session.prefix)
    answerer.release()
    gc.collect()
    assert kept() is None


PICTURE = Question((Message(Role.USER, (Part("What is this?"),)),))


@pytest.mark.parametrize(
    ("question", "settings", "words"),
    [
        (study_question(KEY, "Is the liver normal?"), DEMONSTRATION, "answers questions about"),
        (PICTURE, DEMONSTRATION, "answers no question about pictures"),
        (study_question(KEY, BLEED), ClinicSettings(), answering.NOT_REAL),
        (PICTURE, ClinicSettings(), answering.NOT_REAL),
        (study_question("f" * 32, BLEED), DEMONSTRATION, answering.NO_STUDY),
        (study_question(KEY, BLEED, part=7), DEMONSTRATION, answering.NOT_LOOKED_AT),
        (study_question(KEY, " "), DEMONSTRATION, "names|answers questions about"),
    ],
)
def test_what_is_not_answered_is_refused_in_plain_words(
    study: StateFolder,
    demo_engine: Engine,
    question: Question,
    settings: ClinicSettings,
    words: str,
) -> None:
    events = _ask(Answerer(demo_engine, study, settings), study, question)
    assert events[-1].kind is AnswerKind.FAILED and not _text(events)
    assert any(word in events[-1].text for word in words.split("|"))
    assert "--" not in events[-1].text and str(study.path) not in events[-1].text


def test_random_weights_say_that_they_mean_nothing(
    tmp_path: Path, tiny_engine_directory: Path
) -> None:
    state = StateFolder(tmp_path)
    state.create()
    with Engine.open(tiny_engine_directory, threads=2) as engine:
        source = replace(engine.manifest.source, kind="synthetic")
        engine.manifest = replace(engine.manifest, source=source)
        assert engine.manifest.has_random_weights
        events = _ask(Answerer(engine, state, DEMONSTRATION), state, PICTURE)
    assert events[0] == AnswerEvent(AnswerKind.NOTICE, RANDOM_WEIGHTS.detail)
    assert events[-1].kind is AnswerKind.END


def test_a_question_that_is_cancelled_stops_the_reading(
    study: StateFolder, demo_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailbox = Mailbox(study)
    name = mailbox.post(study_question(KEY, BLEED))
    answerer = Answerer(demo_engine, study, DEMONSTRATION)
    writer = mailbox.writer(name)
    stages: list[str] = []

    def progress(stage: str, done: int, total: int) -> None:
        stages.append(stage)
        mailbox.cancel(name)

    monkeypatch.setattr(writer, "progress", progress)
    answerer.answer(mailbox_pending(mailbox, name), writer)
    assert len(stages) == 1 and answerer._kept is None
    assert not list(study.questions.iterdir())


def mailbox_pending(mailbox: Mailbox, name: str) -> answering.PendingQuestion:
    return answering.PendingQuestion(name, study_question(KEY, BLEED), ())


def test_a_failure_of_the_engine_is_no_failure_of_the_worker(
    study: StateFolder, demo_engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("CANARY in the message of an error")

    monkeypatch.setattr(answering, "open_scan", fail)
    answerer = Answerer(demo_engine, study, DEMONSTRATION)
    events = _ask(answerer, study, study_question(KEY, BLEED))
    assert events[-1].text == answering.NOT_ANSWERED
    assert "RuntimeError" in caplog.text and "CANARY" not in caplog.text


def test_the_card_says_what_the_engine_takes(
    demo_engine: Engine, tiny_engine: Engine, study: StateFolder
) -> None:
    assert not engine_card(demo_engine).answers_pictures
    assert engine_card(tiny_engine).answers_pictures
    Attendance(study, engine_card(demo_engine)).close()
    assert read_report_folder(study.results / KEY / "1").studies
