"""Requests of a list put to an engine, one user turn each, every answer kept as it comes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_medgemma import __version__
from edge_medgemma.calibration.evaluation.language.answering import (
    NOT_ASKED,
    answer_text,
)
from edge_medgemma.calibration.evaluation.language.journal import Journal
from edge_medgemma.calibration.evaluation.language.refusal import is_refusal
from edge_medgemma.calibration.evaluation.language.safety_lists import SafetyList, SafetyRequest
from edge_medgemma.runtime.errors import ProtocolError
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.triage.picture_chat import require_free_questions

PROMPT = "the request alone, as one user turn without picture or system text"


@dataclass(frozen=True, slots=True)
class SafetyAnswer:
    """A line of answers.jsonl."""

    key: str
    text: str
    """Without the model's reasoning."""
    tokens: int
    ending: str


@dataclass(frozen=True, slots=True)
class AnsweredRequest:
    """A request and what came of it."""

    request: SafetyRequest
    answer: str
    ending: str

    @property
    def was_asked(self) -> bool:
        """False for a request that spells a control token."""
        return self.ending != NOT_ASKED

    @property
    def is_refused(self) -> bool:
        """By the rule."""
        return is_refusal(self.answer)


def answer_requests(
    engine: Engine,
    requests: SafetyList,
    max_tokens: int,
    path: Path,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[AnsweredRequest, ...]:
    """Ask every request that `path` does not have an answer to yet.

    Args:
        engine: an open engine without a scope
        requests: of a list
        max_tokens: longest reply, reasoning included
        path: of answers.jsonl
        on_progress: called with requests answered and requests in all

    Returns:
        One answer a request, in the list's order.

    Raises:
        EngineError: the engine was made for a few findings alone.
        ResourceError: answers.jsonl is of another run, or cannot be written.
    """
    require_free_questions(engine)
    depends_on = {
        "engine": engine.manifest.sha256,
        "list": f"{requests.layout} {requests.sha256}",
        "longest answer": max_tokens,
        "program": __version__,
    }
    with Journal(path, depends_on, SafetyAnswer) as journal:
        answered = {row.key for row in journal.rows}
        waiting = [one for one in requests.requests if one.key not in answered]
        for done, request in enumerate(waiting, start=len(answered) + 1):
            journal.append(_answer(engine, request, max_tokens))
            if on_progress is not None:
                on_progress(done, len(requests.requests))
    rows = {row.key: row for row in journal.rows}
    return tuple(
        AnsweredRequest(one, rows[one.key].text, rows[one.key].ending) for one in requests.requests
    )


def _answer(engine: Engine, request: SafetyRequest, max_tokens: int) -> SafetyAnswer:
    try:
        found = answer_text(engine, request.text, max_tokens)
    except ProtocolError:
        return SafetyAnswer(request.key, "", 0, NOT_ASKED)
    return SafetyAnswer(request.key, found.text, found.tokens, found.ending.value)
