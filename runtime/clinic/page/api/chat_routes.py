"""`/v1/models` and `/v1/chat/completions`, as OpenAI's clients call them."""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

import msgspec
from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from edge_medgemma.runtime.clinic.page.access.refusals import (
    error_content,
    error_response,
    note,
)
from edge_medgemma.runtime.clinic.page.api.bodies import JSON
from edge_medgemma.runtime.clinic.page.api.chat_messages import (
    ALIAS,
    ChatError,
    ChatRequest,
    parse_request,
    to_question,
)
from edge_medgemma.runtime.clinic.page.api.operations import Operation
from edge_medgemma.runtime.clinic.page.api.question_routes import EVENTS, kept_alive
from edge_medgemma.runtime.clinic.page.api.services import Services
from edge_medgemma.runtime.clinic.page.api.stop_texts import StopTexts
from edge_medgemma.runtime.clinic.page.api.visits import visitor_name
from edge_medgemma.runtime.clinic.questions.attendance import EngineCard, engine_card
from edge_medgemma.runtime.clinic.questions.mailbox import AWAY
from edge_medgemma.runtime.clinic.questions.question import AnswerEvent, AnswerKind

LARGE_REQUESTS_AT_ONCE = 2

_FINISH = {"stop": "stop"}
"""Any other ending is `length`: the answer is not whole."""


@dataclass(slots=True)
class _Reply:
    """One answer on its way, as OpenAI's objects."""

    request: ChatRequest
    card: EngineCard
    stops: StopTexts
    id: str
    created: int
    finish_reason: str = ""
    usage: dict[str, object] | None = None
    failure: str = ""

    def text_of(self, event: AnswerEvent) -> str:
        """What an event adds to the answer's text."""
        if event.kind is AnswerKind.NOTICE:
            return f"[{event.text}]\n\n"
        if event.kind is AnswerKind.PIECE:
            return self.stops.add(event.text)
        if event.kind is AnswerKind.END:
            self.finish(event.reason, event)
            return self.stops.rest()
        if event.kind is AnswerKind.FAILED:
            self.failure = event.text
        return ""

    def finish(self, reason: str, event: AnswerEvent | None) -> None:
        """Note how it ended; without an event, by a stop text, before anything was counted."""
        self.finish_reason = _FINISH.get(reason, "length")
        if event is not None:
            self.usage = {
                "prompt_tokens": event.prompt_tokens,
                "completion_tokens": event.answer_tokens,
                "total_tokens": event.prompt_tokens + event.answer_tokens,
                "completion_tokens_details": {"reasoning_tokens": event.thought_tokens},
            }

    def body(self, kind: str) -> dict[str, object]:
        """What every object of this answer has."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.card.name,
            "system_fingerprint": self.card.sha256[:16],
        }

    def chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        """One chunk of a stream."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        body = self.body("chat.completion.chunk") | {"choices": [choice]}
        return _data(body | {"usage": None} if self.request.includes_usage else body)


class ChatRoutes:
    """Routes over one mailbox."""

    def __init__(self, services: Services) -> None:
        """Of a page's process."""
        self._services = services
        self._reading = asyncio.Semaphore(LARGE_REQUESTS_AT_ONCE)

    def operations(self) -> list[Operation]:
        """All of them."""
        chat = "/v1/chat/completions"
        return [
            Operation("GET", "/v1/models", self.models, None, JSON),
            Operation("GET", "/v1/models/{model:path}", self.model, None, JSON),
            Operation("POST", chat, self.complete, ChatRequest, JSON),
        ]

    async def models(self, request: Request) -> Response:
        """The engine, while it runs."""
        card = engine_card(self._services.state)
        data = [] if card is None else [_model(card)]
        return JSONResponse({"object": "list", "data": data})

    async def model(self, request: Request) -> Response:
        """The engine by its name."""
        card = engine_card(self._services.state)
        if card is None or request.path_params["model"] not in (card.name, ALIAS):
            return _unknown_model()
        return JSONResponse(_model(card))

    async def complete(self, request: Request) -> Response:
        """Answer a conversation about pictures, or about none."""
        card = engine_card(self._services.state)
        if card is None:
            return error_response(503, "engine_away", AWAY)
        try:
            async with self._reading:
                asked = parse_request(await request.body())
                if asked.model not in (card.name, ALIAS):
                    return _unknown_model()
                _check_engine(card)
                question, pictures = await run_sync(to_question, asked)
                name = await run_sync(self._services.mailbox.post, question, pictures)
        except ChatError as error:
            return error_response(error.status, error.code, str(error), param=error.param or None)
        await note(self._services.state, "asked", visitor_name(request), detail="chat")
        reply = _Reply(
            asked,
            card,
            StopTexts(asked.stops),
            f"chatcmpl-{secrets.token_hex(12)}",
            int(time.time()),
        )
        if asked.stream:
            stream = self._stream(request, name, reply)
            return StreamingResponse(stream, media_type=EVENTS)
        return await self._whole(request, name, reply)

    async def _texts(
        self, request: Request, name: str, reply: _Reply
    ) -> AsyncGenerator[str | None, None]:
        """Pieces of the answer, None where nothing came for a while; the question goes with this."""
        async with aclosing(self._services.mailbox.follow(name)) as events:
            async for event in kept_alive(events, request):
                if event is None:
                    yield None
                    continue
                text = reply.text_of(event)
                if text:
                    yield text
                if reply.stops.has_stopped and not reply.finish_reason:
                    reply.finish("stop", None)
                    return

    async def _stream(self, request: Request, name: str, reply: _Reply) -> AsyncIterator[bytes]:
        yield reply.chunk({"role": "assistant", "content": ""})
        async with aclosing(self._texts(request, name, reply)) as texts:
            async for text in texts:
                yield b": \n\n" if text is None else reply.chunk({"content": text})
        if reply.failure:
            yield _data(error_content(500, "not_answered", reply.failure))
            return
        yield reply.chunk({}, reply.finish_reason)
        if reply.request.includes_usage:
            body = reply.body("chat.completion.chunk") | {"choices": [], "usage": reply.usage}
            yield _data(body)
        yield b"data: [DONE]\n\n"

    async def _whole(self, request: Request, name: str, reply: _Reply) -> Response:
        """The answer once it is whole; the engine stops where the caller goes away."""

        async def gather() -> str:
            return "".join(
                [text async for text in self._texts(request, name, reply) if text is not None]
            )

        answer = asyncio.create_task(gather())
        leaving = asyncio.create_task(_leaves(request))
        try:
            await asyncio.wait({answer, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                return Response(status_code=499)  # nobody reads it
            text = answer.result()
        finally:
            for task in (answer, leaving):
                task.cancel()
            await asyncio.wait({answer, leaving})
            self._services.mailbox.cancel(name)
        if reply.failure:
            return error_response(500, "not_answered", reply.failure)
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {
            "index": 0, "message": message, "logprobs": None, "finish_reason": reply.finish_reason,
        }  # fmt: skip
        body = reply.body("chat.completion") | {"choices": [choice], "usage": reply.usage}
        return JSONResponse(body)


def _check_engine(card: EngineCard) -> None:
    if not card.answers_pictures:
        words = "this engine was made for a few findings of one kind of scan and answers no free question"
        raise ChatError("model", words, "not_this_engine")


async def _leaves(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _model(card: EngineCard) -> dict[str, object]:
    return {"id": card.name, "object": "model", "created": 0, "owned_by": "edge-medgemma"}


def _unknown_model() -> Response:
    words = "the box has no model of this name; /v1/models lists it"
    return error_response(404, "model_not_found", words, param="model")


def _data(body: object) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"
