"""Asking an engine about slices it has read."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.errors import EngineError
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.outputs import FinishReason
from edge_medgemma.runtime.generation.prefix import Prefix
from edge_medgemma.runtime.generation.reasoning_split import Reply
from edge_medgemma.runtime.generation.repetition import stop_repetition
from edge_medgemma.runtime.generation.sampling import Sampling

Progress = Callable[[str, int, int], None]
"""Called with the stage, the steps done and the steps in all."""

REASONING_TOKENS = 2000
"""max_new_tokens of Google's CT notebook (high_dimensional_ct_hugging_face.ipynb)."""

REASONING_REQUEST = (
    " Please provide your reasoning and conclude with a 'Final Answer: yes' or 'Final Answer: no'."
)
"""Wording of the same notebook."""

FINAL_ANSWER = "Final Answer:"


def no_progress(stage: str, done: int, total: int) -> None:
    """Report nothing."""


def read_slices(
    engine: Engine,
    instruction: str,
    slices: int,
    features: Iterable[NDArray[np.float32]],
    on_progress: Progress = no_progress,
) -> Prefix:
    """A prefix that holds the instruction and every slice.

    Args:
        engine: reads them.
        instruction: of the protocol, never text of the scan.
        slices: how many.
        features: [tokens_per_image, hidden] of each slice, see `Engine.encode_images`; taken when
            its slice is read.
        on_progress: called with stage `prefill`.

    Raises:
        EngineError: more slices than the engine has positions for.
    """
    chunks = engine.prompt.prefix(instruction, slices)
    tokens = sum(len(chunk.ids) for chunk in chunks)
    limit = engine.manifest.text.max_positions
    if tokens > limit:
        raise EngineError(
            f"{slices} slices need {tokens} tokens, the engine reads {limit}; use fewer --slices"
        )
    prefix = engine.new_prefix(tokens)
    unread = iter(features)
    for done, chunk in enumerate(chunks, start=1):
        images = np.stack(list(islice(unread, chunk.images))) if chunk.images else None
        prefix.extend(chunk, images, wants_logits=False)
        on_progress("prefill", done, len(chunks))
    prefix.compact()
    return prefix


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A question continued by the model's own reasoning, up to its final answer."""

    ids: tuple[int, ...]
    """Question, reasoning and "Final Answer:"; the next token is the answer."""
    ending: FinishReason
    """`STOP` where the model came to its own end, its thought closed."""


def reason(engine: Engine, prefix: Prefix, question: str) -> Reasoning:
    """Let the model reason, greedily, about a question that asks for a yes or no.

    Whatever ended it, the answer is then read as yes against no alone, at "Final Answer:".
    """
    tokens = engine.manifest.tokens
    asked = engine.prompt.question(question + REASONING_REQUEST)
    reply = Reply(tokens)
    said: list[int] = []
    steps = stop_repetition(prefix.generate(asked, Sampling(), REASONING_TOKENS))
    while True:
        try:
            said.append(next(steps).token_id)
        except StopIteration as stop:
            ending: FinishReason = stop.value
            break
        reply.add(said[-1])
    if reply.is_thought and tokens.thought_end is not None:
        said.append(tokens.thought_end)
        ending = FinishReason.LENGTH if ending is FinishReason.STOP else ending
    begin = len(said) - len(reply.answer) + reply.answer_ahead
    return Reasoning((*asked, *_up_to_final_answer(engine, said, begin)), ending)


def _up_to_final_answer(engine: Engine, reply: Sequence[int], begin: int) -> list[int]:
    """`reply` up to its last "Final Answer:" behind the thought, which is added where missing."""
    for end in range(len(reply), begin, -1):
        if engine.tokenizer.decode(reply[begin:end]).endswith(FINAL_ANSWER):
            return list(reply[:end])
    return [*reply, *engine.tokenizer.encode("\n\n" + FINAL_ANSWER)]
