"""Messages as OpenAI's clients send them, as a question to the engine.

Field names are those of OpenAI's API reference, "Create chat completion". What would change an answer
and is not done here is refused, never ignored.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from edge_medgemma.runtime.clinic.questions.question import (
    DEFAULT_ANSWER_TOKENS,
    MAX_ANSWER_TOKENS,
    Message,
    Part,
    Question,
    Role,
)

MOST_PICTURES = 32
MOST_STOPS = 4

_DATA_URI = re.compile(r"data:image/(?:png|jpe?g);base64,(.*)", re.DOTALL | re.IGNORECASE)
_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
_ROLES = {
    "system": Role.SYSTEM, "developer": Role.SYSTEM, "user": Role.USER, "assistant": Role.ASSISTANT,
}  # fmt: skip

ALIAS = "edge-medgemma"
"""Names whatever engine the box has."""


class ChatError(Exception):
    """A request that is refused; says which parameter and why."""

    def __init__(self, param: str, message: str, code: str = "unsupported", status: int = 400):
        """Of a parameter, with words for the caller."""
        super().__init__(message)
        self.param, self.code, self.status = param, code, status


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """See OpenAI's reference."""

    include_usage: bool = False


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message; `content` is a text, or parts of it."""

    role: str
    content: str | list[dict[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """Body of a chat completion; fields that are not named here change no answer."""

    messages: list[ChatMessage]
    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    """Without it 0: the same question gets the same answer."""
    top_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    n: int | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    tool_choice: Any = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    logit_bias: dict[str, Any] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    response_format: dict[str, Any] | None = None
    modalities: list[str] | None = None
    audio: Any = None

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end the answer."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(one for one in given if one)

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return self.stream_options is not None and self.stream_options.include_usage


def parse_request(data: bytes) -> ChatRequest:
    """The request, of which everything is done that it asks for.

    Raises:
        ChatError: says what is not.
    """
    try:
        request = msgspec.json.decode(data, type=ChatRequest)
    except msgspec.ValidationError as error:
        raise ChatError("", f"the body is not what this route takes: {error}", "invalid") from None
    except (ValueError, RecursionError):
        raise ChatError("", "the body is no JSON", "invalid") from None
    refusals = (
        ("n", request.n not in (None, 1), "one answer is given to a request: n must be 1"),
        ("tools", bool(request.tools), "the engine calls no tools"),
        ("functions", bool(request.functions), "the engine calls no functions"),
        ("tool_choice", request.tool_choice not in (None, "none", "auto"), "the engine calls no tools"),
        ("logprobs", bool(request.logprobs or request.top_logprobs), "no logprobs are given"),
        ("logit_bias", bool(request.logit_bias), "no token is preferred by hand"),
        (
            "frequency_penalty",
            bool(request.frequency_penalty or request.presence_penalty),
            "no penalty rewords an answer; one that repeats itself is ended",
        ),
        (
            "response_format",
            (request.response_format or {}).get("type", "text") != "text",
            "answers are text",
        ),
        ("modalities", request.modalities not in (None, ["text"]), "answers are text"),
        ("audio", request.audio is not None, "answers are text"),
        ("stop", len(request.stops) > MOST_STOPS, f"at most {MOST_STOPS} texts end an answer"),
    )  # fmt: skip
    for param, is_refused, words in refusals:
        if is_refused:
            raise ChatError(param, words)
    return request


def to_question(request: ChatRequest) -> tuple[Question, list[bytes]]:
    """The question of a request and its pictures, in the order in which they are shown.

    Raises:
        ChatError: messages that cannot be put to the engine, or numbers out of range.
    """
    pictures: list[bytes] = []
    messages: list[Message] = []
    for number, message in enumerate(request.messages):
        role = _ROLES.get(message.role)
        if role is None:
            raise ChatError(f"messages[{number}].role", "roles are system, user and assistant")
        parts = _parts(message, f"messages[{number}].content", pictures)
        if messages and messages[-1].role is role:
            messages[-1] = Message(role, _joined((*messages[-1].parts, *parts)))
        else:
            messages.append(Message(role, _joined(parts)))
    _check_turns(messages)
    wanted = request.max_completion_tokens or request.max_tokens or DEFAULT_ANSWER_TOKENS
    try:
        question = msgspec.convert(
            {
                "messages": msgspec.to_builtins(messages),
                "max_tokens": min(wanted, MAX_ANSWER_TOKENS),
                "temperature": request.temperature or 0.0,
                "top_p": 0.95 if request.top_p is None else request.top_p,
                "seed": (request.seed or 0) % 2**63,
            },
            Question,
        )
    except msgspec.ValidationError as error:
        raise ChatError(str(error).rpartition("$.")[2].rstrip("`"), str(error), "invalid") from None
    return question, pictures


def _parts(message: ChatMessage, place: str, pictures: list[bytes]) -> tuple[Part, ...]:
    content = message.content
    if not isinstance(content, list):
        return (Part(content or ""),)
    parts = []
    for number, item in enumerate(content):
        kind, here = item.get("type"), f"{place}[{number}]"
        if kind == "text" and isinstance(item.get("text"), str):
            parts.append(Part(item["text"]))
        elif kind == "image_url":
            if message.role != "user":
                raise ChatError(here, "pictures come in messages of the user")
            if len(pictures) >= MOST_PICTURES:
                raise ChatError(here, f"at most {MOST_PICTURES} pictures are shown at once")
            parts.append(Part(picture=len(pictures)))
            pictures.append(_picture(item.get("image_url"), here))
        else:
            raise ChatError(here, "parts of a message are of type text or image_url")
    return tuple(parts)


def _picture(given: object, place: str) -> bytes:
    url = given.get("url") if isinstance(given, dict) else given
    if not isinstance(url, str):
        raise ChatError(place, "image_url must have a url", "invalid")
    if not url[:5].lower() == "data:":
        raise ChatError(
            place,
            "the box opens no address; send the picture itself as a data: URI of a PNG or JPEG",
        )
    found = _DATA_URI.fullmatch(url)
    if found is None:
        raise ChatError(place, "a picture is a data: URI of a PNG or JPEG in base64")
    try:
        picture = base64.b64decode(found[1], validate=True)
    except (binascii.Error, ValueError):
        raise ChatError(place, "the picture's base64 is damaged", "invalid") from None
    if not picture.startswith(_MAGIC):
        raise ChatError(place, "the picture is no PNG or JPEG", "invalid")
    return picture


def _joined(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Texts that follow each other as paragraphs of one; empty ones left out."""
    joined: list[Part] = []
    for part in parts:
        if part.picture is None and not part.text.strip():
            continue
        if joined and part.picture is None and joined[-1].picture is None:
            joined[-1] = Part(f"{joined[-1].text}\n{part.text}")
        else:
            joined.append(part)
    return tuple(joined)


def _check_turns(messages: Sequence[Message]) -> None:
    turns = [one for one in messages if one.role is not Role.SYSTEM]
    if not turns or turns[-1].role is not Role.USER or turns[0].role is not Role.USER:
        raise ChatError("messages", "the first and the last message are the user's")
    if any(one.role is Role.SYSTEM for one in messages[1:]):
        raise ChatError("messages", "a system message stands at the beginning")
    if any(not one.parts for one in messages):
        raise ChatError("messages", "a message is empty", "invalid")
