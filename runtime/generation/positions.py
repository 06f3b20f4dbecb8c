"""Tokens of a prompt and its answer, against the positions that an engine was made for.

Beyond `max_positions` the rotary embedding turns to angles that no training has seen: what a model says
there means nothing, and nothing in its numbers would tell.
"""

from bisect import bisect_right

from edge_medgemma.runtime.errors import EngineError
from edge_medgemma.runtime.generation.outputs import FinishReason
from edge_medgemma.runtime.generation.prompt import PromptBuilder
from edge_medgemma.runtime.model_shape import TextSpec


def require_positions(text: TextSpec, tokens: int) -> None:
    """Refuse more tokens than there are positions.

    Raises:
        EngineError: there are more; the message says how many of how many.
    """
    if tokens > text.max_positions:
        raise EngineError(
            f"slices and question are {tokens:,} tokens, the engine reads {text.max_positions:,}; use "
            "fewer --slices or a shorter question"
        )


def answer_limit(text: TextSpec, read: int, max_tokens: int) -> tuple[int, FinishReason]:
    """Most tokens of an answer after `read` others, and why it ends there.

    Raises:
        EngineError: the others do not fit.
    """
    require_positions(text, read)
    room = text.max_positions - read
    if max_tokens <= room:
        return max_tokens, FinishReason.LENGTH
    return room, FinishReason.CONTEXT


def require_prompt(
    prompt: PromptBuilder, text: TextSpec, instruction: str, slices: int, further_tokens: int = 0
) -> int:
    """Refuse a prompt that does not fit, before any of it is computed.

    Args:
        prompt: of the engine
        text: shape of its language model
        instruction: of the protocol
        slices: to be shown
        further_tokens: question and answer

    Returns:
        Tokens of instruction and slices.

    Raises:
        EngineError: too many tokens; the message says how many slices would fit.
    """

    def tokens(count: int) -> int:
        return sum(len(chunk.ids) for chunk in prompt.prefix(instruction, count))

    read = tokens(slices)
    limit = text.max_positions - further_tokens
    if read <= limit:
        return read
    fitting = bisect_right(range(1, slices), limit, key=tokens)
    advice = f"use --slices {fitting}" if fitting else "not even one slice fits; ask for less"
    around = ", question and answer" if further_tokens else ""
    raise EngineError(
        f"{slices} slices{around} are {read + further_tokens:,} tokens, the engine reads "
        f"{text.max_positions:,}; {advice}"
    )
