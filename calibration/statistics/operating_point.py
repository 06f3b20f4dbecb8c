"""The threshold that keeps a sensitivity, without an assumption on how scores are distributed.

Let a threshold be the (k + 1)-th smallest score of n positives. Its true sensitivity falls short of s
with a chance of at most BinomCDF(k; n, 1 - s), whatever the distribution (Wilks, Ann. Math. Statist.
1941). So k is the largest number of misses for which that is no more than 1 - confidence.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def binomial_cdf(successes: int, trials: int, chance: float) -> float:
    """Chance of at most so many successes.

    Args:
        successes: 0 to `trials`.
        trials: number of trials.
        chance: of a success, above 0 and below 1.
    """
    logs = math.log(chance), math.log1p(-chance)
    choices = math.lgamma(trials + 1)
    terms = (
        math.exp(
            choices
            - math.lgamma(i + 1)
            - math.lgamma(trials - i + 1)
            + i * logs[0]
            + (trials - i) * logs[1]
        )
        for i in range(successes + 1)
    )
    return min(math.fsum(terms), 1.0)


def allowed_misses(positives: int, sensitivity: float, confidence: float) -> int | None:
    """Most positives below a threshold whose sensitivity is still sure enough.

    Args:
        positives: scores that the threshold is chosen from.
        sensitivity: wanted at least, above 0 and below 1.
        confidence: of having it, above 0 and below 1.

    Returns:
        None where not even a threshold below all of them is sure enough.
    """
    misses = -1
    while (
        misses + 1 < positives
        and binomial_cdf(misses + 1, positives, 1 - sensitivity) <= 1 - confidence
    ):
        misses += 1
    return None if misses < 0 else misses


def positives_needed(sensitivity: float, confidence: float, misses: int = 0) -> int:
    """Fewest positives from which a threshold may miss so many; arguments as `allowed_misses`.

    >>> positives_needed(0.9, 0.95)
    29
    """
    positives = misses + 1
    while binomial_cdf(misses, positives, 1 - sensitivity) > 1 - confidence:
        positives += 1
    return positives


def largest_threshold(scores: ArrayLike, sensitivity: float, confidence: float) -> float | None:
    """The largest score of a positive at or above which enough positives lie; None where too few.

    Args:
        scores: [positives], one each of independent patients, finite; ties only make misses fewer.
        sensitivity: wanted at least, above 0 and below 1.
        confidence: of having it, above 0 and below 1.
    """
    ascending: Sequence[float] = np.sort(np.asarray(scores, np.float64)).tolist()
    misses = allowed_misses(len(ascending), sensitivity, confidence)
    return None if misses is None else ascending[misses]
