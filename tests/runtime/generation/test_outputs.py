"""Loops are stopped, honest lists are not."""

from collections.abc import Generator, Sequence

import numpy as np
import pytest

from edge_medgemma.runtime.generation.outputs import (
    MAXIMUM_PERIOD,
    MINIMUM_TOKENS,
    REPEATS,
    FinishReason,
    Step,
    stop_repetition,
)


def _said(ids: Sequence[int]) -> tuple[list[int], FinishReason]:
    def steps() -> Generator[Step, None, FinishReason]:
        for token in ids:
            yield Step(token, 0.0, 0.0)
        return FinishReason.STOP

    heard = []
    watched = stop_repetition(steps())
    while True:
        try:
            heard.append(next(watched).token_id)
        except StopIteration as stop:
            return heard, stop.value


def _text(count: int) -> list[int]:
    return np.random.default_rng(3).integers(1000, 9000, count).tolist()


@pytest.mark.parametrize("period", [1, 2, 7, 40, MAXIMUM_PERIOD])
def test_a_loop_is_stopped_and_said(period: int) -> None:
    heard, ending = _said(_text(50) + list(range(period)) * 300)
    assert ending is FinishReason.REPETITION
    assert len(heard) == 50 + max(REPEATS * period, MINIMUM_TOKENS)


def test_honest_lists_are_heard_to_the_end() -> None:
    words = [10, 11, 12, 13]  # "SLICE n: normal", the number in digits of their own
    numbered = [
        token for n in range(1, 86) for token in (*words, *(100 + int(d) for d in str(n)), 14, 15)
    ]
    findings = [t for finding in range(12) for t in (500 + finding, 10, 11, 12, 13, 14, 15, 16)]
    rule = [7] * (MINIMUM_TOKENS - 1)
    thrice = _text(60) * (REPEATS - 1)
    for ids in (numbered, findings, rule, thrice, _text(3000)):
        assert _said(ids) == (ids, FinishReason.STOP)


def test_a_loop_that_the_model_leaves_in_time_is_no_loop() -> None:
    ids = list(range(30)) * 3 + [99] + list(range(30)) * 3 + [98]
    assert _said(ids) == (ids, FinishReason.STOP)
