"""A question to the engine and the events of its answer, as they lie in the mailbox."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec

MAX_ANSWER_TOKENS = 2048
"""Longest answer that may be asked for: it holds up all others."""

DEFAULT_ANSWER_TOKENS = 512


class Role(StrEnum):
    """Whose turn of a conversation it is."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class Part:
    """A text or a picture of a message."""

    text: str = ""
    picture: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """Number of the picture, from 0 in the order of the question's pictures; then there is no text."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation, its parts in order."""

    role: Role
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """What a person asks: of a study, or of pictures that come with the question, or of neither."""

    messages: tuple[Message, ...]
    """Of a study: one message of one text, to be answered from the study's slices alone."""
    study_key: str | None = None
    part: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Which report of the study's latest result the question is about, from 0."""
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=MAX_ANSWER_TOKENS)] = DEFAULT_ANSWER_TOKENS
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] = 0.0
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.95
    seed: int = 0


def study_question(study_key: str, text: str, part: int = 0) -> Question:
    """A question about a study, answered greedily."""
    return Question((Message(Role.USER, (Part(text),)),), study_key, part)


@dataclass(frozen=True, slots=True)
class PendingQuestion:
    """A question that waits for the engine."""

    id: str
    question: Question
    pictures: tuple[Path, ...]
    """PNG or JPEG, gone as soon as the asker is."""


class AnswerKind(StrEnum):
    """What an event of an answer is."""

    NOTICE = "notice"
    """What the engine says about itself, or a problem of the scan: to be shown with the answer."""
    PROGRESS = "progress"
    """`done` of `total` steps of the stage named by `text`, before the first word."""
    THOUGHT = "thought"
    """Words of the reasoning that precedes the answer."""
    PIECE = "piece"
    """Words of the answer."""
    END = "end"
    """The last event; `reason` is a `FinishReason`."""
    FAILED = "failed"
    """The last event; `text` says in plain words why there is no answer, or no more of it."""


ENDINGS = frozenset({AnswerKind.END, AnswerKind.FAILED})


@dataclass(frozen=True, slots=True)
class AnswerEvent:
    """One line of an answer."""

    kind: AnswerKind
    text: str = ""
    """The model's own words may hold anything: escape them for wherever they are shown."""
    done: int = 0
    total: int = 0
    reason: str = ""
    prompt_tokens: int = 0
    answer_tokens: int = 0
    """Generated, reasoning included."""
    thought_tokens: int = 0
