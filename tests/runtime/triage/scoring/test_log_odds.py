import math

import numpy as np
import pytest
from support.fake_engine import FakeEngine, FakeTokenizer

from edge_medgemma.runtime.errors import EngineError
from edge_medgemma.runtime.triage.scoring.log_odds import AnswerTokens, log_odds


def test_all_spellings_of_both_sides_are_added_up() -> None:
    tokens = AnswerTokens((1, 2), (3,))
    logits = np.array([[9.0, 1.0, 1.0, 1.0], [0.0, 3.0, -100.0, 0.0]], np.float32)
    expected = [math.log(2), 3.0]
    assert log_odds(logits, tokens) == pytest.approx(expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_with_a_value_that_is_not_finite_has_no_score(bad) -> None:
    logits = np.zeros((2, 5), np.float32)
    logits[0, 4] = bad
    odds = log_odds(logits, AnswerTokens((1,), (2,)))
    assert np.isnan(odds[0]) and odds[1] == 0


def test_large_logits_do_not_overflow() -> None:
    logits = np.array([[3e38, -3e38, 0.0]], np.float32)
    odds = log_odds(logits, AnswerTokens((0,), (2,)))
    assert odds[0] == pytest.approx(3e38, rel=1e-6)


def test_only_spellings_of_one_token_count() -> None:
    tokens = AnswerTokens.of(FakeEngine().tokenizer)
    assert tokens == AnswerTokens((6, 7, 8), (9, 10, 11))

    class Letters(FakeTokenizer):
        def encode(self, text: str) -> list[int]:
            return [ord(letter) for letter in text]

    with pytest.raises(EngineError, match="no single token"):
        AnswerTokens.of(Letters())
