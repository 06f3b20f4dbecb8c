"""Repeated measurements of one thing, and how far two runs of it may differ by chance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BAND_FLOOR = 0.10
"""Two runs of the same build on the same machine differ by up to this, however calm each one was:
clocks, other tenants and page placement change between runs, not within one. So do rows that go
with the pace of memory, at one pace; see `record.agreement`."""

SINGLE_BAND = 0.15
"""Of a row that ran once, whose spread nobody knows."""

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
    band_floor: float = BAND_FLOOR
    """Kept with the figures: other versions may have another."""

    @classmethod
    def of(cls, samples_s: Sequence[float]) -> "Distribution":
        """Of at least one sample."""
        samples = np.asarray(samples_s, np.float64)
        median, p90, p99 = np.percentile(samples, [50, 90, 99])
        return cls(
            n=len(samples),
            median_s=float(median),
            p90_s=float(p90),
            p99_s=float(p99),
            min_s=float(samples.min()),
            max_s=float(samples.max()),
            mad_s=float(np.median(np.abs(samples - median))),
        )

    @property
    def noise_band(self) -> float:
        """Relative change of the median that is no news.

        Three standard errors of the median, 3 * 1.2533 * 1.4826 * MAD / (median * sqrt(n)), but at
        least `band_floor`; SINGLE_BAND where there was one repetition.
        """
        if self.n == 1 or self.median_s <= 0:
            return max(SINGLE_BAND, self.band_floor)
        sigma = _SIGMA_PER_MAD * self.mad_s / self.median_s
        error = _MEDIAN_TO_MEAN_ERROR * sigma / math.sqrt(self.n)
        return max(BAND_SPREADS * error, self.band_floor)
