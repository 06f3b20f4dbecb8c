"""Questions and answers between two processes: private, ordered, and gone when they were read."""

import asyncio
import multiprocessing
import os
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_medgemma.runtime.clinic.questions import mailbox as mailbox_module
from edge_medgemma.runtime.clinic.questions.attendance import (
    Attendance,
    EngineCard,
    engine_card,
)
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
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.errors import QuestionError

KEY = "0123456789abcdef" * 2
ASKED = study_question(KEY, "Is there a bleed?")
CARD = EngineCard("engine", "0" * 64, "", True, 1000, 16)


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    folder = StateFolder(tmp_path / "state")
    folder.create()
    return folder


@pytest.fixture
def attended(state: StateFolder) -> Iterator[None]:
    attendance = Attendance(state, CARD)
    yield
    attendance.close()


def _read(mailbox: Mailbox, question_id: str, after: int = 0) -> list[AnswerEvent]:
    async def read() -> list[AnswerEvent]:
        return [event async for event in mailbox.follow(question_id, after)]

    return asyncio.run(asyncio.wait_for(read(), 10))


def _left(state: StateFolder) -> list[str]:
    return [path.name for path in state.questions.iterdir() if path.name != "engine.json"]


def test_an_answer_arrives_in_order_and_leaves_nothing(state: StateFolder) -> None:
    page, worker = Mailbox(state), Mailbox(state)
    picture = Question((Message(Role.USER, (Part(picture=0), Part("What is it?"))),))
    name = page.post(picture, [b"\x89PNG pixels"])
    (pending,) = worker.pending()
    assert (pending.id, pending.question) == (name, picture)
    assert [path.read_bytes() for path in pending.pictures] == [b"\x89PNG pixels"]
    writer = worker.writer(name)
    assert worker.pending() == ()
    writer.notice("Beware.")
    writer.progress("vision", 1, 2)
    writer.piece("think", is_thought=True)
    writer.piece("line\nbreak \u2028")
    writer.finish("stop", 5, 3, 1)
    assert _read(page, name) == [
        AnswerEvent(AnswerKind.NOTICE, "Beware."),
        AnswerEvent(AnswerKind.PROGRESS, "vision", 1, 2),
        AnswerEvent(AnswerKind.THOUGHT, "think"),
        AnswerEvent(AnswerKind.PIECE, "line\nbreak \u2028"),
        AnswerEvent(
            AnswerKind.END, reason="stop", prompt_tokens=5, answer_tokens=3, thought_tokens=1
        ),
    ]
    assert not _left(state)
    with pytest.raises(QuestionError, match="known no more"):
        _read(page, name)


def test_questions_are_answered_oldest_first_and_a_full_box_says_so(state: StateFolder) -> None:
    page = Mailbox(state)
    names = [page.post(ASKED) for _ in range(mailbox_module.MAX_WAITING)]
    assert [one.id for one in Mailbox(state).pending()] == names
    with pytest.raises(QuestionError, match="too many questions"):
        page.post(ASKED)
    page.cancel(names[3])
    page.post(ASKED)


def test_files_are_for_their_owner_alone(state: StateFolder) -> None:
    previous = os.umask(0)
    try:
        page = Mailbox(state)
        name = page.post(ASKED, [b"picture"])
        writer = page.writer(name)
    finally:
        os.umask(previous)
    folder = state.questions / name
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"question.json": 0o600, "answer.jsonl": 0o600, "0": 0o600}
    writer.close()


def test_a_reader_that_goes_away_stops_the_writer(state: StateFolder, attended: None) -> None:
    page = Mailbox(state)
    name = page.post(ASKED)
    writer = Mailbox(state).writer(name)
    writer.piece("one")

    async def read_one() -> None:
        events = page.follow(name)
        assert (await anext(events)).text == "one"
        assert not writer.is_cancelled
        await events.aclose()

    asyncio.run(read_one())
    assert writer.is_cancelled and not _left(state)
    writer.piece("two")  # to nowhere
    writer.finish("stop")
    assert not _left(state)


def test_a_writer_that_thinks_is_not_taken_for_dead(state: StateFolder) -> None:
    page = Mailbox(state)
    name = page.post(ASKED)
    writer = page.writer(name)
    writer.piece("one")

    async def wait_for_more() -> None:
        events = page.follow(name)
        assert (await anext(events)).text == "one"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 10 * mailbox_module.POLL_S)

    asyncio.run(wait_for_more())


def test_a_reader_may_come_back_for_the_rest(state: StateFolder) -> None:
    page = Mailbox(state)
    name = page.post(ASKED)
    writer = page.writer(name)
    writer.piece("one")

    async def read_one() -> None:
        events = page.follow(name, cancels=False)
        await anext(events)
        await events.aclose()

    asyncio.run(read_one())
    writer.piece("two")
    writer.finish("stop")
    assert [event.text for event in _read(page, name, after=1)] == ["two", ""]


def _ask_and_wait(path: Path) -> None:
    Mailbox(StateFolder(path)).post(ASKED, [b"picture"])
    time.sleep(60)


def _begin_and_wait(path: Path, name: str) -> None:
    writer = Mailbox(StateFolder(path)).writer(name)
    writer.piece("half")
    time.sleep(60)


def _kill(process: multiprocessing.Process, is_ready) -> None:
    process.start()
    deadline = time.monotonic() + 20
    while not is_ready() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert is_ready() and process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def test_the_question_of_a_killed_page_is_deleted(state: StateFolder) -> None:
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=_ask_and_wait, args=(state.path,))
    worker = Mailbox(state)
    _kill(process, lambda: bool(worker.pending()))
    assert worker.pending() == () and not _left(state)


def test_a_killed_worker_is_said_and_leaves_nothing(state: StateFolder) -> None:
    spawn = multiprocessing.get_context("spawn")
    page = Mailbox(state)
    name = page.post(ASKED)
    answer = state.questions / name / "answer.jsonl"
    process = spawn.Process(target=_begin_and_wait, args=(state.path, name))
    _kill(process, lambda: answer.exists() and answer.read_bytes().endswith(b"\n"))
    assert Mailbox(state).pending() == ()  # not answered twice
    half, failed = _read(page, name)
    assert half.text == "half"
    assert failed == AnswerEvent(AnswerKind.FAILED, mailbox_module.STOPPED)
    assert not _left(state)


def test_without_a_worker_the_asker_is_told(
    state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailbox_module, "ATTENDANCE_S", 0.05)
    page = Mailbox(state)
    assert _read(page, page.post(ASKED)) == [AnswerEvent(AnswerKind.FAILED, mailbox_module.AWAY)]
    assert not _left(state)


def test_an_old_question_goes(state: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Mailbox(state)
    page.post(ASKED)
    page.sweep()
    assert len(_left(state)) == 1
    monkeypatch.setattr(mailbox_module, "MAX_AGE_S", 0.0)
    page.sweep()
    assert not _left(state)


def test_the_card_is_there_as_long_as_its_worker(state: StateFolder) -> None:
    assert engine_card(state) is None
    attendance = Attendance(state, CARD)
    assert engine_card(state) == CARD
    Mailbox(state).sweep()
    assert engine_card(state) == CARD
    os.close(attendance._file)  # as by a kill
    assert engine_card(state) is None
