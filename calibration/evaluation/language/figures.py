"""Figures of the language evaluations: each with its interval and the number it was counted over."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from edge_medgemma.calibration.evaluation.document import Proportion, Share
from edge_medgemma.calibration.statistics.metrics import BOOTSTRAP_SAMPLES
from edge_medgemma.runtime.documents import Size

NO_SPREAD = 1e-12
"""Less than this between resamples is rounding."""


@dataclass(frozen=True, slots=True)
class MeanScore:
    """A mean of scores between 0 and 1, with a 95 % interval over groups resampled."""

    items: Size
    groups: Size
    """Resampled as a whole: the questions of one picture are not independent."""
    value: Share | None
    """null without items."""
    low: Share | None
    """null where no resample moves the mean."""
    high: Share | None


def mean_score(scores: Sequence[float], groups: Sequence[object], seed: int = 0) -> MeanScore:
    """The mean of scores, its interval by resampling groups (percentile bootstrap)."""
    if not scores:
        return MeanScore(0, 0, None, None, None)
    names = {name: place for place, name in enumerate(dict.fromkeys(groups))}
    sums, counts = np.zeros(len(names)), np.zeros(len(names))
    for score, group in zip(scores, groups, strict=True):
        sums[names[group]] += score
        counts[names[group]] += 1
    rng = np.random.default_rng(seed)
    means = np.empty(BOOTSTRAP_SAMPLES)
    for place in range(BOOTSTRAP_SAMPLES):
        drawn = rng.integers(len(names), size=len(names))
        means[place] = sums[drawn].sum() / counts[drawn].sum()
    value = math.fsum(scores) / len(scores)
    return MeanScore(len(scores), len(names), value, *resampled_interval(means))


def resampled_interval(figures: ArrayLike) -> tuple[float | None, float | None]:
    """95 % percentile interval of a figure over resamples [samples]; None where no resample moves it,
    which says that the sample is small or all alike, not that the figure is certain."""
    found = np.asarray(figures, np.float64)
    if np.ptp(found) < NO_SPREAD:
        return None, None
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def share_words(share: Proportion) -> str:
    """`0.750 of 4 (0.301-0.954)`; a dash without trials."""
    if share.rate is None:
        return f"- of {share.trials}"
    return f"{share.rate:.3f} of {share.trials} ({share.low:.3f}-{share.high:.3f})"


def mean_words(mean: MeanScore) -> str:
    """The same of a mean."""
    if mean.value is None:
        return "- of 0"
    if mean.low is None or mean.high is None:
        return f"{mean.value:.3f} of {mean.items} (no interval)"
    return f"{mean.value:.3f} of {mean.items} ({mean.low:.3f}-{mean.high:.3f})"
