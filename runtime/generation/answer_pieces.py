"""A free answer, a few characters at a time, its reasoning apart."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edge_medgemma.runtime.generation.grammar import Constraint
from edge_medgemma.runtime.generation.outputs import FinishReason, stop_repetition
from edge_medgemma.runtime.generation.prefix import Prefix
from edge_medgemma.runtime.generation.reasoning_split import Reply
from edge_medgemma.runtime.generation.sampling import Sampling
from edge_medgemma.runtime.generation.tokenizer import Tokenizer
from edge_medgemma.runtime.model_shape import TokenSpec

_UNFINISHED_CHARACTER = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True)
class AnswerPiece:
    """A few characters of an answer, as they come."""

    text: str
    """The model's own: escape it for wherever it is shown. Empty where a character is unfinished."""
    is_thought: bool
    """Part of the reasoning that precedes the answer."""
    tokens: int
    """Generated up to here."""
    elapsed_s: float
    """Time since generation began."""
    ending: FinishReason | None = None
    """Why it ended; the last piece has one, and no text."""


def answer_pieces(
    prefix: Prefix,
    ids: Sequence[int],
    tokenizer: Tokenizer,
    tokens: TokenSpec,
    sampling: Sampling,
    max_tokens: int,
    constraint: Constraint | None = None,
) -> Iterator[AnswerPiece]:
    """What the model says after `prefix` and `ids`; it ends where it repeats itself.

    Closing the iterator rewinds the prefix.

    Raises:
        EngineError: more tokens than the engine has positions for.
    """
    reply = Reply(tokens)
    was_thought, shown, count, elapsed_s = False, "", 0, 0.0
    steps = prefix.generate(ids, sampling, max_tokens, constraint)
    if constraint is None:  # equal entries of an array are no loop; the schema bounds them
        steps = stop_repetition(steps)
    while True:
        try:
            step = next(steps)
        except StopIteration as stop:
            yield AnswerPiece("", reply.is_thought, count, elapsed_s, stop.value)
            return
        count, elapsed_s = count + 1, step.elapsed_s
        if not reply.add(step.token_id):
            continue
        if reply.is_thought != was_thought:
            was_thought, shown = reply.is_thought, ""
        part = reply.thought if reply.is_thought else reply.answer[reply.answer_ahead :]
        text = tokenizer.decode(part)
        new = ""
        if len(text) > len(shown) and not text.endswith(_UNFINISHED_CHARACTER):
            new, shown = text[len(shown) :], text
        yield AnswerPiece(new, reply.is_thought, count, elapsed_s)
