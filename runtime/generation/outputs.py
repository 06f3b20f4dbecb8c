"""Tokens that generation yields, why it ends, and the end of an answer that repeats itself.

Repetition stops an answer; it is never reworded by a penalty.
"""

from collections.abc import Generator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

MAXIMUM_PERIOD = 256
"""Tokens of the longest cycle looked for: about a paragraph."""

REPEATS = 4
"""A cycle said so many times, token by token, is a loop: each repetition makes the next more likely
(Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration", figure 4; Xu et al. 2022,
"Learning to Break the Loop"), while a list whose numbers or words change is no cycle at all."""

MINIMUM_TOKENS = 64
"""Short cycles may be meant (the rule of a table, a row of dots): they must fill so many tokens."""


@dataclass(frozen=True, slots=True)
class Step:
    """One generated token."""

    token_id: int
    logprob: float
    """Natural logarithm of its probability among the tokens allowed here; 0 for a forced one."""
    elapsed_s: float
    """Seconds since generation began."""


class FinishReason(StrEnum):
    """Why a reply ended."""

    STOP = "stop"
    """The model ended its turn, or a constraint left nothing to say."""
    LENGTH = "tokens_spent"
    """The answer reached its most tokens."""
    CONTEXT = "context_full"
    """The engine has no position left."""
    REPETITION = "repetition"
    """The same words came again and again."""


class RepetitionWatch:
    """Counts, for every period, how long the text has been repeating itself."""

    def __init__(self) -> None:
        """Start before the first token."""
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
    """The same steps, ended with `FinishReason.REPETITION` where they repeat a cycle."""
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
