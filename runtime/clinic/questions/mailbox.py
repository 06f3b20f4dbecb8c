"""Questions from the page to the worker and answers back, as files of one folder each.

    questions/<id>/question.json   what is asked; the folder is locked while its asker lives
    questions/<id>/0, 1, ...       pictures
    questions/<id>/answer.jsonl    one event a line; locked while its writer lives

A folder goes when its answer was read to the end, when the question is cancelled, when its asker's
process has ended, and after an hour. Whoever writes to a folder that is gone writes to nowhere.
"""

import asyncio
import math
import os
import re
import secrets
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path

import msgspec

from edge_medgemma.runtime.clinic.questions.attendance import engine_card
from edge_medgemma.runtime.clinic.questions.locks import hold, is_held
from edge_medgemma.runtime.clinic.questions.question import (
    ENDINGS,
    AnswerEvent,
    AnswerKind,
    PendingQuestion,
    Question,
)
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.documents import dump_json, parse_json
from edge_medgemma.runtime.errors import QuestionError
from edge_medgemma.runtime.files import write_errors

QUESTION_ID = re.compile("[0-9a-f]{40}")

MAX_WAITING = 16
"""Questions that wait for the engine at once; a further one is told so."""

MAX_AGE_S = 3600.0
WRITING_S = 60.0
"""For a question to be written."""

POLL_S = 0.03
ATTENDANCE_S = 30.0
"""So long a question waits for a worker that is starting."""

BUSY = "The engine has too many questions to answer. Ask again in a few minutes."
AWAY = "The engine is not running, so nobody answers. Look at the setup page, or restart the box."
STOPPED = "The engine stopped while it was answering. Ask again."
FORGOTTEN = "This question is known no more: it was answered, cancelled or is too old. Ask again."

_QUESTION, _ANSWER, _UNFINISHED = "question.json", "answer.jsonl", ".new-"


class AnswerWriter:
    """Appends the events of one answer; the worker's end."""

    def __init__(self, folder: Path) -> None:
        """Begin the answer of the question in `folder`.

        Raises:
            QuestionError: the question is gone.
        """
        self._folder = folder
        temporary = folder / ".answer"
        try:
            self._file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError:
            raise QuestionError(FORGOTTEN) from None
        hold(self._file)  # before the reader sees it
        try:
            os.rename(temporary, folder / _ANSWER)
        except OSError:
            os.close(self._file)
            raise QuestionError(FORGOTTEN) from None
        self._is_open = True

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits for the answer any more; then stop."""
        return os.fstat(self._file).st_nlink == 0 or not is_held(self._folder)

    def notice(self, text: str) -> None:
        """Add a sentence that must be shown with the answer."""
        self._append(AnswerEvent(AnswerKind.NOTICE, text))

    def progress(self, stage: str, done: int, total: int) -> None:
        """Say how far the preparation is."""
        self._append(AnswerEvent(AnswerKind.PROGRESS, stage, done, total))

    def piece(self, text: str, is_thought: bool = False) -> None:
        """Add words of the answer, or of the reasoning that precedes it."""
        self._append(AnswerEvent(AnswerKind.THOUGHT if is_thought else AnswerKind.PIECE, text))

    def finish(
        self, reason: str, prompt_tokens: int = 0, answer_tokens: int = 0, thought_tokens: int = 0
    ) -> None:
        """End the answer; `reason` is a `FinishReason`."""
        self._end(
            AnswerEvent(
                AnswerKind.END,
                reason=reason,
                prompt_tokens=prompt_tokens,
                answer_tokens=answer_tokens,
                thought_tokens=thought_tokens,
            )
        )

    def fail(self, message: str) -> None:
        """End without an answer, or without the rest of it; `message` is shown to people."""
        self._end(AnswerEvent(AnswerKind.FAILED, message))

    def close(self) -> None:
        """Let go of an answer; one without an end counts as broken off."""
        if self._is_open:
            self._is_open = False
            os.close(self._file)
            if not is_held(self._folder):
                shutil.rmtree(self._folder, ignore_errors=True)

    def _end(self, event: AnswerEvent) -> None:
        self._append(event)
        self.close()

    def _append(self, event: AnswerEvent) -> None:
        if not self._is_open:
            raise RuntimeError("the answer has ended")
        with write_errors(self._folder):
            rest = memoryview(msgspec.json.encode(event) + b"\n")
            while rest:
                rest = rest[os.write(self._file, rest) :]


class Mailbox:
    """The questions of one state folder; one instance in each process."""

    def __init__(self, state: StateFolder) -> None:
        """Of a state folder that was made."""
        self._state = state
        self._folder = state.questions
        self._asked: dict[str, int] = {}
        """Locks of the questions that this process asked."""

    def sweep(self) -> None:
        """Delete what nobody asks any more: at the start, and with every look into the box."""
        for folder in self._folders(with_unfinished=True):
            age_s = _age_s(folder.name.removeprefix(_UNFINISHED))
            if folder.name.startswith(_UNFINISHED) and age_s < WRITING_S:
                continue  # not locked yet, and not to be touched while it is
            if not is_held(folder) or age_s > MAX_AGE_S:
                shutil.rmtree(folder, ignore_errors=True)

    def post(self, question: Question, pictures: Sequence[bytes] = ()) -> str:
        """Ask; the question lives as long as this process and this mailbox.

        Args:
            question: its messages name the pictures by number
            pictures: PNG or JPEG

        Returns:
            Its id, for `follow` and `cancel`.

        Raises:
            QuestionError: too many questions wait.
            ResourceError: the disk is full.
        """
        self.sweep()
        if self.waiting() >= MAX_WAITING:
            raise QuestionError(BUSY)
        name = f"{time.monotonic_ns():016x}{secrets.token_hex(12)}"
        folder = self._folder / f"{_UNFINISHED}{name}"
        with write_errors(self._folder):
            folder.mkdir(mode=0o700)
            lock = os.open(folder, os.O_RDONLY)
            try:
                hold(lock)
                for number, picture in enumerate(pictures):
                    _write(folder / str(number), picture)
                _write(folder / _QUESTION, dump_json(question).encode())
                os.rename(folder, self._folder / name)
            except BaseException:
                os.close(lock)
                shutil.rmtree(folder, ignore_errors=True)
                raise
        self._asked[name] = lock
        return name

    def waiting(self) -> int:
        """Questions that no answer was begun to."""
        return sum(not (folder / _ANSWER).exists() for folder in self._folders())

    def pending(self) -> tuple[PendingQuestion, ...]:
        """Questions without an answer, the oldest first; what nobody asks any more is deleted."""
        self.sweep()
        found = []
        for folder in self._folders():
            if not (folder / _ANSWER).exists():
                try:
                    question = parse_json((folder / _QUESTION).read_bytes(), Question)
                except (OSError, ValueError):  # cancelled just now
                    continue
                pictures = sorted((p for p in folder.iterdir() if p.name.isdecimal()), key=_number)
                found.append(PendingQuestion(folder.name, question, tuple(pictures)))
        return tuple(found)

    def writer(self, question_id: str) -> AnswerWriter:
        """Begin an answer.

        Raises:
            QuestionError: the question is gone.
        """
        return AnswerWriter(self._folder / question_id)

    def cancel(self, question_id: str) -> None:
        """Forget a question of this process, and its answer; nothing happens where it is gone."""
        lock = self._asked.pop(question_id, None)
        if lock is not None:
            os.close(lock)
            shutil.rmtree(self._folder / question_id, ignore_errors=True)

    def is_asked(self, question_id: str) -> bool:
        """Whether this process asked the question and its answer was not yet read to the end."""
        return question_id in self._asked

    async def follow(
        self, question_id: str, after: int = 0, *, cancels: bool = True
    ) -> AsyncGenerator[AnswerEvent, None]:
        """The events of an answer as they come, up to its end; then the question is deleted.

        Args:
            question_id: of `post`, in this process
            after: events that the reader has already
            cancels: whether a reader that goes away cancels the question

        Raises:
            QuestionError: the question is known no more.
        """
        if question_id not in self._asked:
            raise QuestionError(FORGOTTEN)
        has_ended = False
        try:
            async for number, event in _numbered(self._events(question_id)):
                has_ended = event.kind in ENDINGS
                if number > after or has_ended:
                    yield event
        finally:
            if has_ended or cancels:
                self.cancel(question_id)

    async def _events(self, question_id: str) -> AsyncIterator[AnswerEvent]:
        path = self._folder / question_id / _ANSWER
        unattended_since: float | None = None
        while not path.exists():
            now = time.monotonic()
            if question_id not in self._asked or not path.parent.exists():
                yield AnswerEvent(AnswerKind.FAILED, FORGOTTEN)
                return
            attended = engine_card(self._state) is not None
            unattended_since = None if attended else unattended_since or now
            if unattended_since and now - unattended_since > ATTENDANCE_S:
                yield AnswerEvent(AnswerKind.FAILED, AWAY)
                return
            await asyncio.sleep(POLL_S)
        rest, offset = b"", 0
        while True:
            lives = is_held(path)  # before reading: what it wrote last is then in the file
            try:
                with path.open("rb") as file:
                    file.seek(offset)
                    new = file.read()
            except OSError:
                yield AnswerEvent(AnswerKind.FAILED, FORGOTTEN)
                return
            offset += len(new)
            *lines, rest = (rest + new).split(b"\n")
            for line in lines:
                event = parse_json(line, AnswerEvent)
                yield event
                if event.kind in ENDINGS:
                    return
            if not lives and not new:
                yield AnswerEvent(AnswerKind.FAILED, STOPPED)
                return
            await asyncio.sleep(POLL_S)

    def _folders(self, *, with_unfinished: bool = False) -> list[Path]:
        """Folders of questions by age: an id begins with the monotonic time it was made at."""
        begin = (_UNFINISHED, "") if with_unfinished else ("",)
        return sorted(
            path
            for path in self._folder.iterdir()
            if any(QUESTION_ID.fullmatch(path.name.removeprefix(b)) for b in begin)
        )


async def _numbered(
    events: AsyncIterator[AnswerEvent],
) -> AsyncIterator[tuple[int, AnswerEvent]]:
    number = 0
    async for event in events:
        number += 1
        yield number, event


def _write(path: Path, data: bytes) -> None:
    """A new file that its owner alone may read; it need not outlive a power cut."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _number(path: Path) -> int:
    return int(path.name)


def _age_s(question_id: str) -> float:
    """Seconds since a question was asked; without end for one from before the machine was started."""
    age_s = (time.monotonic_ns() - int(question_id[:16], 16)) / 1e9
    return age_s if age_s >= 0 else math.inf
