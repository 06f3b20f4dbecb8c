"""Log-odds of yes against no at the next token."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.errors import EngineError
from edge_medgemma.runtime.generation.sampling import log_softmax
from edge_medgemma.runtime.generation.tokenizer import Tokenizer

YES_SPELLINGS = ("yes", "Yes", "YES", " yes", " Yes", " YES")
NO_SPELLINGS = ("no", "No", "NO", " no", " No", " NO")


@dataclass(frozen=True, slots=True)
class AnswerTokens:
    """First tokens of an answer that mean yes, and those that mean no."""

    yes: tuple[int, ...]
    no: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "AnswerTokens":
        """All spellings that the tokenizer writes as one token.

        A spelling in several tokens is left out: its first piece begins other words too.

        Raises:
            EngineError: yes or no has no such spelling.
        """
        yes, no = (_single_tokens(tokenizer, words) for words in (YES_SPELLINGS, NO_SPELLINGS))
        if not yes or not no:
            raise EngineError(
                "the engine's tokenizer has no single token for yes or for no; export the engine "
                "again from a complete checkpoint"
            )
        return cls(yes, no)


def _single_tokens(tokenizer: Tokenizer, words: Sequence[str]) -> tuple[int, ...]:
    encoded = [tokenizer.encode(word) for word in words]
    return tuple(dict.fromkeys(ids[0] for ids in encoded if len(ids) == 1))


def log_odds(logits: NDArray[np.float32], tokens: AnswerTokens) -> NDArray[np.float64]:
    """Log-odds of yes against no, all spellings of each side added up.

    Args:
        logits: [questions, vocabulary]
        tokens: ids of both sides.

    Returns:
        [questions], float64; NaN where the logits of a question are not all finite.
    """
    finite: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(logits), axis=-1, keepdims=True)
    log_probability = log_softmax(np.where(finite, logits, np.float32(0)))
    odds = _log_sum(log_probability[:, tokens.yes]) - _log_sum(log_probability[:, tokens.no])
    return np.where(finite[:, 0], odds, np.nan)


def _log_sum(values: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = np.logaddexp.reduce(values, axis=-1)
    return result
