"""When a model repeats itself: the answer is stopped, never reworded by a penalty."""

from collections.abc import Generator

import numpy as np

from edge_medgemma.runtime.generation.outputs import FinishReason, Step

MAXIMUM_PERIOD = 256
"""Tokens of the longest cycle looked for: about a paragraph."""

REPEATS = 4
"""A cycle said so many times, token by token, is a loop: each repetition makes the next more likely
(Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration", figure 4; Xu et al. 2022,
"Learning to Break the Loop"), while a list whose numbers or words change is no cycle at all."""

MINIMUM_TOKENS = 64
"""Short cycles may be meant (the rule of a table, a row of dots): they must fill so many tokens."""


class RepetitionWatch:
    """Counts, for every period, how long the text has been repeating itself."""

    def __init__(self) -> None:
        """Nothing said yet."""
        self._recent = np.full(MAXIMUM_PERIOD, -1, np.int64)  # the latest token first
        self._matches = np.zeros(MAXIMUM_PERIOD, np.int64)
        periods = np.arange(1, MAXIMUM_PERIOD + 1)
        self._limits = np.maximum((REPEATS - 1) * periods, MINIMUM_TOKENS - periods)

    def is_loop(self, token_id: int) -> bool:
        """Add a token; True where the text now ends in REPEATS times the same cycle."""
        self._matches = np.where(self._recent == token_id, self._matches + 1, 0)
        self._recent[1:] = self._recent[:-1].copy()
        self._recent[0] = token_id
        return bool((self._matches >= self._limits).any())


def stop_repetition(
    steps: Generator[Step, None, FinishReason],
) -> Generator[Step, None, FinishReason]:
    """The same steps, ended with `FinishReason.REPETITION` where they run in a circle."""
    watch = RepetitionWatch()
    while True:
        try:
            step = next(steps)
        except StopIteration as stop:
            ending: FinishReason = stop.value
            return ending
        yield step
        if watch.is_loop(step.token_id):
            steps.close()
            return FinishReason.REPETITION
