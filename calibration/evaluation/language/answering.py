"""An engine's greedy answers to free questions: about one picture, or about none."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.outputs import FinishReason, stop_repetition
from edge_medgemma.runtime.generation.prefix import Prefix
from edge_medgemma.runtime.generation.reasoning_split import Reply
from edge_medgemma.runtime.generation.sampling import Sampling
from edge_medgemma.runtime.triage.picture_chat import prefill_pictures

GREEDY = Sampling()

NOT_ASKED = "not_asked"
"""Ending of a question that spells a control token: no engine may be asked it."""


@dataclass(frozen=True, slots=True)
class FreeAnswer:
    """What the engine said."""

    text: str
    """Without its reasoning."""
    tokens: int
    """Generated, reasoning included."""
    ending: FinishReason


def picture_prefix(engine: Engine, picture: NDArray[np.uint8]) -> Prefix:
    """A prefix that shows one picture [rows, columns, 3], to be asked about.

    Raises:
        ResourceError: too little memory.
    """
    return prefill_pictures(engine, engine.prompt.picture_prefix(), [picture])


def answer_about(engine: Engine, prefix: Prefix, question: str, max_tokens: int) -> FreeAnswer:
    """The greedy answer about what `prefix` shows.

    Raises:
        ProtocolError: the question spells a control token.
    """
    return _answer(engine, prefix, engine.prompt.question(question), max_tokens)


def answer_text(engine: Engine, request: str, max_tokens: int) -> FreeAnswer:
    """The greedy answer to a request without a picture: one user turn.

    Raises:
        ProtocolError: the request spells a control token.
    """
    return _answer(engine, engine.new_prefix(), engine.prompt.text(request), max_tokens)


def _answer(engine: Engine, prefix: Prefix, ids: Sequence[int], max_tokens: int) -> FreeAnswer:
    reply = Reply(engine.manifest.tokens)
    steps = stop_repetition(prefix.generate(ids, GREEDY, max_tokens))
    tokens = 0
    while True:
        try:
            step = next(steps)
        except StopIteration as stop:
            text = engine.tokenizer.decode(reply.answer)
            return FreeAnswer(text.strip(), tokens, stop.value)
        reply.add(step.token_id)
        tokens += 1
