"""The binomial distribution, exactly: its cumulative sum and the interval of Clopper and Pearson."""

import math
from collections.abc import Callable

BISECTIONS = 60
"""Halvings of [0, 1]; more would not change a double."""


def binomial_cdf(successes: int, trials: int, rate: float) -> float:
    """Chance of at most so many successes."""
    if successes < 0:
        return 0.0
    if successes >= trials or rate <= 0:
        return 1.0
    if rate >= 1:
        return 0.0
    log_odds, log_miss = math.log(rate) - math.log1p(-rate), trials * math.log1p(-rate)
    logs = [
        _log_choose(trials, k) + k * log_odds + log_miss for k in range(min(successes, trials) + 1)
    ]
    largest = max(logs)
    return min(1.0, math.exp(largest) * math.fsum(math.exp(one - largest) for one in logs))


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact two-sided interval of a proportion (Clopper and Pearson, Biometrika 1934); NaN without trials."""
    if not trials:
        return math.nan, math.nan
    tail = (1 - confidence) / 2
    low, high = 0.0, 1.0
    if successes > 0:
        low = _where_falls_below(lambda rate: binomial_cdf(successes - 1, trials, rate), 1 - tail)
    if successes < trials:
        high = _where_falls_below(lambda rate: binomial_cdf(successes, trials, rate), tail)
    return low, high


def _log_choose(trials: int, successes: int) -> float:
    return (
        math.lgamma(trials + 1) - math.lgamma(successes + 1) - math.lgamma(trials - successes + 1)
    )


def _where_falls_below(falling: Callable[[float], float], level: float) -> float:
    """The rate at which a falling function of it reaches `level`."""
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > level else (low, middle)
    return (low + high) / 2
