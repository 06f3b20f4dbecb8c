"""The model's reply, its reasoning apart from its words."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from edge_medgemma.runtime.model_shape import TokenSpec


@dataclass(slots=True)
class Reply:
    """Token ids of a reply as they come, split at the two markers before anything is decoded.

    Decoding drops the markers and would glue reasoning and answer together. Only the first thought
    is one; a missing end marker (budget spent) means that all after its begin was reasoning.
    """

    tokens: TokenSpec
    thought: list[int] = field(default_factory=list)
    answer: list[int] = field(default_factory=list)
    is_thought: bool = False
    """The thought is open."""
    answer_ahead: int = 0
    """Tokens of the answer that came ahead of the thought."""
    _had_thought: bool = False

    def add(self, token_id: int) -> bool:
        """Sort in one token; False for a marker, which belongs to neither part."""
        begin, end = self.tokens.thought_begin, self.tokens.thought_end
        if begin is not None and token_id == begin and not self._had_thought:
            self.is_thought = self._had_thought = True
            self.answer_ahead = len(self.answer)
            return False
        if self.is_thought and end is not None and token_id == end:
            self.is_thought = False
            return False
        (self.thought if self.is_thought else self.answer).append(token_id)
        return True


def read_reply(ids: Sequence[int], tokens: TokenSpec) -> Reply:
    """A whole reply, sorted."""
    reply = Reply(tokens)
    for token_id in ids:
        reply.add(token_id)
    return reply
