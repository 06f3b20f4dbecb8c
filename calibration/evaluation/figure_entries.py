"""Figures as the document `evaluation.json` writes them: tables, areas, curves, reliability, subgroups."""

from dataclasses import dataclass
from typing import Annotated

import msgspec

from edge_medgemma.runtime.documents import Count, Size

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]

SUBGROUP_MINIMUM = 20
"""Fewer scans give counts alone: a percentage of them would be read as a finding."""


@dataclass(frozen=True, slots=True)
class Proportion:
    """A share of scans with its 95 % interval (Wilson)."""

    successes: Size
    trials: Size
    rate: Share | None
    """null without trials, or where a subgroup is too small for a percentage."""
    low: Share | None
    high: Share | None


@dataclass(frozen=True, slots=True)
class TwoByTwo:
    """Scans by what the labels say and what triage said."""

    true_positives: Size
    false_negatives: Size
    true_negatives: Size
    false_positives: Size
    sensitivity: Proportion
    specificity: Proportion


@dataclass(frozen=True, slots=True)
class Area:
    """Area under the ROC curve of the log-odds, with a 95 % interval over patients resampled; exact
    where the log-odds separate the classes, which no resampling would change."""

    value: Share | None
    """null where all scans with log-odds are of one class."""
    low: Share | None
    high: Share | None
    positives: Size
    negatives: Size
    patients: Size


@dataclass(frozen=True, slots=True)
class RocPoint:
    """One threshold on the log-odds; scans at or above it count as flagged."""

    threshold: float | None
    """null at the ends of the curve, and for the engine's own point where no one threshold on the
    log-odds makes it."""
    false_positive_rate: Share
    sensitivity: Share


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Scans of similar stated probability, as many in each bin as in the next."""

    scans: Count
    mean_probability: Share
    positives: Size
    observed: Proportion
    """Of the scans, those with the finding by the labels."""


@dataclass(frozen=True, slots=True)
class Reliability:
    """How far stated probabilities agree with what was observed."""

    scans: Count
    positives: Size
    bins: tuple[ReliabilityBin, ...]
    """In order of the stated probability."""
    expected_calibration_error: Share
    brier_score: Share
    slope: float | None
    """Of observed on stated log-odds of probability, 1 where well calibrated; null where it cannot be
    fitted."""
    intercept: float | None
    """0 where well calibrated."""


@dataclass(frozen=True, slots=True)
class PredictiveValues:
    """What a flag, and none, is worth where the finding is so frequent; from the primary table."""

    prevalence: Share
    """Given by the user, not observed."""
    positive: Share | None
    """Flagged scans that have the finding."""
    positive_low: Share | None
    """At the lower ends of the intervals of sensitivity and specificity."""
    positive_high: Share | None
    negative: Share | None
    """Scans not flagged that do not have it."""
    negative_low: Share | None
    negative_high: Share | None


@dataclass(frozen=True, slots=True)
class Subgroup:
    """Scans that share one attribute; figures only where at least 20 scans make them."""

    attribute: str
    """`manufacturer`, `thickness`, `kernel`, `sex`, `age`, `view` or `site`."""
    value: str
    """`not stated` where neither scan nor labels say."""
    positives: Size
    negatives: Size
    not_assessable: Size
    """Positives and negatives that triage could not assess; they count against the engine."""
    sensitivity: Proportion
    specificity: Proportion
    area: Area
