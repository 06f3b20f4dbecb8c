import pytest

from edge_medgemma.runtime.generation.answer import split_thinking
from edge_medgemma.runtime.manifest import TokenSpec

TOKENS = TokenSpec(2, 0, (1, 106), 9, 7, 8, thought_begin=100, thought_end=101)


@pytest.mark.parametrize(
    ("ids", "thought", "answer"),
    [
        ([5, 6], [], [5, 6]),
        ([100, 5, 101, 6], [5], [6]),
        ([100, 5, 6], [5, 6], []),
        ([4, 100, 5, 101, 6], [5], [4, 6]),
        ([101, 5], [], [101, 5]),
        ([], [], []),
    ],
)
def test_reasoning_is_split_from_the_answer(
    ids: list[int], thought: list[int], answer: list[int]
) -> None:
    assert split_thinking(ids, TOKENS) == (thought, answer)
