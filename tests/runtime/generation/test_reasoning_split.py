import pytest

from edge_medgemma.runtime.generation.reasoning_split import read_reply
from edge_medgemma.runtime.model_shape import TokenSpec

TOKENS = TokenSpec(2, 0, (1, 106), 9, 7, 8, thought_begin=100, thought_end=101)


@pytest.mark.parametrize(
    ("ids", "thought", "answer", "answer_ahead", "is_open"),
    [
        ([5, 6], [], [5, 6], 0, False),
        ([100, 5, 101, 6], [5], [6], 0, False),
        ([100, 5, 6], [5, 6], [], 0, True),
        ([4, 100, 5, 101, 6], [5], [4, 6], 1, False),
        ([101, 5], [], [101, 5], 0, False),
        ([100, 5, 101, 100, 6], [5], [100, 6], 0, False),
        ([], [], [], 0, False),
    ],
)
def test_reasoning_is_split_from_the_answer(
    ids: list[int], thought: list[int], answer: list[int], answer_ahead: int, is_open: bool
) -> None:
    reply = read_reply(ids, TOKENS)
    assert (reply.thought, reply.answer) == (thought, answer)
    assert (reply.answer_ahead, reply.is_thought) == (answer_ahead, is_open)
