"""Choice of one token from one row of logits."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is chosen; the default is greedy, as in all of Google's MedGemma examples."""

    temperature: float = 0.0
    """0 takes the most likely token."""
    top_k: int = 64
    """Gemma 3's published default; 0 keeps all."""
    top_p: float = 0.95
    """Gemma 3's published default."""
    seed: int = 0
    ignore_stop: bool = False
    """Go on after stop ids, for measurements of a fixed length."""

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ValueError(f"temperature is {self.temperature}; expected 0 or more")
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}; expected 0 (all) or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; expected more than 0 and at most 1")


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log-probabilities along the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def choose_token(
    logits: NDArray[np.float32],
    sampling: Sampling,
    generator: np.random.Generator,
    allowed: NDArray[np.bool_] | None = None,
) -> tuple[int, float]:
    """A token and its log-probability among the allowed ones, before temperature and truncation.

    Args:
        logits: [vocabulary]
        sampling: greedy where temperature is 0
        generator: source of randomness, advanced by one draw where temperature is not 0
        allowed: [vocabulary], at least one True; None allows all
    """
    if allowed is not None:
        logits = np.where(allowed, logits, np.float32(-np.inf))
    if sampling.temperature == 0:
        token = int(np.argmax(logits))
        return token, _log_probability(logits, token)
    order = np.arange(len(logits))
    if 0 < sampling.top_k < len(logits):
        order = np.sort(np.argpartition(-logits, sampling.top_k)[: sampling.top_k])
    order = order[np.argsort(-logits[order], kind="stable")]
    scaled = logits[order].astype(np.float64) / sampling.temperature
    weights = np.exp(scaled - scaled[0])
    weights /= weights.sum()
    # The token that crosses top_p is kept, so at least one remains.
    kept = int(np.searchsorted(np.cumsum(weights), sampling.top_p)) + 1
    weights = weights[:kept] / weights[:kept].sum()
    token = int(order[generator.choice(len(weights), p=weights)])
    return token, _log_probability(logits, token)


def _log_probability(logits: NDArray[np.float32], token: int) -> float:
    """One value of `log_softmax`, an order of magnitude sooner."""
    largest = logits.max()
    total = np.exp(logits - largest).sum(dtype=np.float64)
    return float(np.float64(logits[token]) - largest - np.log(total))
