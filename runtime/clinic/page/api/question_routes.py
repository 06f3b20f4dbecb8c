"""Questions of people about a study, and the answers as server-sent events."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated

import msgspec
from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from edge_medgemma.runtime.clinic.page.access.refusals import error_response, note
from edge_medgemma.runtime.clinic.page.api.bodies import json_response, read_body
from edge_medgemma.runtime.clinic.page.api.operations import Operation
from edge_medgemma.runtime.clinic.page.api.services import Services
from edge_medgemma.runtime.clinic.page.api.visits import visitor_name
from edge_medgemma.runtime.clinic.questions.mailbox import FORGOTTEN
from edge_medgemma.runtime.clinic.questions.question import (
    DEFAULT_ANSWER_TOKENS,
    ENDINGS,
    MAX_ANSWER_TOKENS,
    AnswerEvent,
    AnswerKind,
    Message,
    Part,
    Question,
    Role,
)

GRACE_S = 10.0
"""For a reader whose connection was lost to come back; then the question is cancelled."""

KEEP_ALIVE_S = 15.0
_LOOK_S = 0.25
STOPPING = "The page is being stopped. Ask again in a minute."
MOST_OF_ONE_VISITOR = 4

LONGEST_QUESTION = 4000

EVENTS = "text/event-stream"


@dataclass(frozen=True, slots=True)
class QuestionRequest:
    """Body of a question."""

    text: Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_QUESTION)]
    part: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Which report of the study's latest result it is about, from 0."""
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=MAX_ANSWER_TOKENS)] = DEFAULT_ANSWER_TOKENS
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] = 0.0


@dataclass(frozen=True, slots=True)
class QuestionAsked:
    """A question that waits for its answer."""

    id: str
    events: str
    """Path for an EventSource."""


class QuestionRoutes:
    """Routes over one mailbox."""

    def __init__(self, services: Services) -> None:
        """Of a page's process."""
        self._services = services
        self._mailbox = services.mailbox
        self._askers: dict[str, str] = {}
        self._readers: Counter[str] = Counter()
        self._ending: set[asyncio.Task[None]] = set()

    def operations(self) -> list[Operation]:
        """All of them."""
        ask, asked = "/api/studies/{key}/questions", "/api/questions/{id}"
        return [
            Operation("POST", ask, self.ask, QuestionRequest, QuestionAsked, 202),
            Operation("GET", f"{asked}/events", self.events, None, EVENTS),
            Operation("DELETE", asked, self.cancel, status=204),
        ]

    async def ask(self, request: Request) -> Response:
        """Ask the engine about a study; the answer is at `events`."""
        body = await read_body(request, QuestionRequest)
        key, who = request.path_params["key"], visitor_name(request)
        await run_sync(self._services.study, key)
        self._askers = {one: by for one, by in self._askers.items() if self._mailbox.is_asked(one)}
        if list(self._askers.values()).count(who) >= MOST_OF_ONE_VISITOR:
            words = (
                "You have asked several questions that are not answered yet. Wait for an answer."
            )
            return error_response(429, "too_many_questions", words, {"Retry-After": "10"})
        question = Question(
            (Message(Role.USER, (Part(body.text),)),),
            key,
            body.part,
            body.max_tokens,
            body.temperature,
        )
        name = await run_sync(self._mailbox.post, question)
        self._askers[name] = who
        self._cancel_unread(name)
        await note(self._services.state, "asked", who, key)
        return json_response(QuestionAsked(name, f"/api/questions/{name}/events"), 202)

    async def events(self, request: Request) -> Response:
        """The answer, as it comes; `Last-Event-ID` says where a reader goes on."""
        name = request.path_params["id"]
        if self._askers.get(name) != visitor_name(request) or not self._mailbox.is_asked(name):
            return error_response(404, "unknown_question", FORGOTTEN)
        last = request.headers.get("last-event-id", "0")
        after = int(last) if last.isascii() and last.isdigit() and len(last) < 10 else 0
        return StreamingResponse(
            self._stream(request, name, after),
            media_type=EVENTS,
            headers={"X-Accel-Buffering": "no"},
        )

    async def cancel(self, request: Request) -> Response:
        """Forget a question; the engine stops."""
        name = request.path_params["id"]
        if self._askers.get(name) != visitor_name(request):
            return error_response(404, "unknown_question", FORGOTTEN)
        self._mailbox.cancel(name)
        self._askers.pop(name, None)
        return Response(status_code=204)

    async def _stream(self, request: Request, name: str, after: int) -> AsyncIterator[bytes]:
        self._readers[name] += 1
        number = after
        try:
            async with aclosing(self._mailbox.follow(name, after, cancels=False)) as events:
                async for event in kept_alive(events, request):
                    number += event is not None
                    yield b": \n\n" if event is None else server_sent(number, event)
        finally:
            self._readers[name] -= 1
            if not self._readers[name]:
                del self._readers[name]
                self._cancel_unread(name)

    def _cancel_unread(self, name: str) -> None:
        """Cancel a question that nobody reads when `GRACE_S` are over."""
        if not self._mailbox.is_asked(name):
            self._askers.pop(name, None)
            return

        async def later() -> None:
            await asyncio.sleep(GRACE_S)
            if not self._readers[name]:
                self._mailbox.cancel(name)
                self._askers.pop(name, None)

        task = asyncio.create_task(later())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


async def kept_alive(
    events: AsyncGenerator[AnswerEvent, None], request: Request
) -> AsyncGenerator[AnswerEvent | None, None]:
    """The events, and None whenever nothing came for a while: what tells that a reader has gone.

    They end with a failure when the page is told to stop.
    """
    stopping: asyncio.Event | None = getattr(request.app.state, "stopping", None)
    coming: asyncio.Future[AnswerEvent] | None = None
    quiet_s = 0.0
    try:
        while stopping is None or not stopping.is_set():
            coming = coming or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait({coming}, timeout=_LOOK_S)
            if not done:
                quiet_s += _LOOK_S
                if quiet_s >= KEEP_ALIVE_S:
                    quiet_s = 0.0
                    yield None
                continue
            try:
                event = coming.result()
            except StopAsyncIteration:
                return
            coming, quiet_s = None, 0.0
            yield event
        yield AnswerEvent(AnswerKind.FAILED, STOPPING)
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.wait({coming})


def server_sent(number: int, event: AnswerEvent) -> bytes:
    """One event of an answer as a browser's EventSource reads it."""
    data: dict[str, object] = {"text": event.text}
    if event.kind is AnswerKind.PROGRESS:
        data |= {"done": event.done, "total": event.total}
    elif event.kind in ENDINGS:
        data |= {"reason": event.reason, "answer_tokens": event.answer_tokens}
    head = f"id: {number}\nevent: {event.kind}\ndata: ".encode()
    return head + msgspec.json.encode(data) + b"\n\n"
