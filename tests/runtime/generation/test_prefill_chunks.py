import numpy as np
import pytest

from edge_medgemma.runtime.generation.masks import NO_BRANCH, additive_mask
from edge_medgemma.runtime.generation.prefill_chunks import QuestionTree

QUESTIONS = [(5, 6, 7, 8), (5, 6, 9), (5, 6, 7)]


def test_what_all_questions_begin_with_is_read_once() -> None:
    tree = QuestionTree(QUESTIONS, [()] * 3)
    assert tree.ids == [5, 6, 7, 8, 9, 7]
    assert [tree.ids[row] for row in tree.last_rows] == [8, 9, 7]
    rows = tree.rows(100)
    assert rows.positions.tolist() == [100, 101, 102, 103, 102, 102]
    assert rows.branches.tolist() == [NO_BRANCH, NO_BRANCH, 0, 0, 1, 2]


def test_a_question_sees_the_trunk_and_itself_alone() -> None:
    rows = QuestionTree(QUESTIONS, [()] * 3).rows(0)
    seen = additive_mask(rows, rows, None)[0, 0] == 0
    assert seen.astype(int).tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [1, 1, 0, 0, 0, 1],
    ]


def test_questions_that_may_not_see_the_same_share_nothing() -> None:
    tree = QuestionTree(QUESTIONS, [(), {3}, ()])
    assert tree.ids == [5, 6, 7, 8, 5, 6, 9, 5, 6, 7]
    assert tree.hidden_chunks == {1: {3}}
    assert tree.rows(0).branches.tolist() == [0] * 4 + [1] * 3 + [2] * 3


@pytest.mark.parametrize("questions", [[(5,)], [(5,), (5,)], [(5, 6), (5,)], [(5, 6), (5, 6)]])
def test_every_question_ends_in_a_row_of_its_own(questions) -> None:
    tree = QuestionTree(questions, [()] * len(questions))
    assert [tree.ids[row] for row in tree.last_rows] == [question[-1] for question in questions]
    assert len(np.unique(tree.last_rows)) == len(questions)
