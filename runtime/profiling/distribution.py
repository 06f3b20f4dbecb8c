"""Repeated measurements of one thing, and how far two runs of it may differ by chance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BAND_FLOOR = 0.10
"""Two runs of the same build on the same machine differ by up to this, however calm each one was:
clocks, other tenants and page placement change between runs, not within one."""

SINGLE_BAND = 0.15
"""Noise band of a row that ran once, whose spread nobody knows."""

BAND_SPREADS = 3.0
"""Standard errors of the median that the band covers."""

_SIGMA_PER_MAD = 1.4826
_MEDIAN_TO_MEAN_ERROR = 1.2533
"""Standard error of a median is sqrt(pi / 2) times that of a mean, for normal samples."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """Seconds of the repetitions of one row, warm-up apart."""

    n: int
    median_s: float
    p90_s: float
    p99_s: float
    """Linear between samples, so close to the maximum where there are few."""
    min_s: float
    max_s: float
    mad_s: float
    """Median absolute deviation from the median."""
    noise_band: float
    """Relative change of the median that is no news."""

    @classmethod
    def of(cls, samples_s: Sequence[float], band_floor: float = BAND_FLOOR) -> "Distribution":
        """Distribution of at least one sample, its noise band at least `band_floor`."""
        samples = np.asarray(samples_s, np.float64)
        median, p90, p99 = np.percentile(samples, [50, 90, 99])
        mad = float(np.median(np.abs(samples - median)))
        return cls(
            n=len(samples),
            median_s=float(median),
            p90_s=float(p90),
            p99_s=float(p99),
            min_s=float(samples.min()),
            max_s=float(samples.max()),
            mad_s=mad,
            noise_band=max(_noise_band(len(samples), float(median), mad), band_floor),
        )


def _noise_band(n: int, median_s: float, mad_s: float) -> float:
    """3 standard errors of the median, 3 * 1.2533 * 1.4826 * MAD / (median * sqrt(n)); SINGLE_BAND for one sample."""
    if n == 1 or median_s <= 0:
        return SINGLE_BAND
    return BAND_SPREADS * _MEDIAN_TO_MEAN_ERROR * _SIGMA_PER_MAD * mad_s / median_s / math.sqrt(n)
