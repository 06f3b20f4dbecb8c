"""The same questions answered by two engines: who is right where, and whether it is chance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np

from edge_medgemma.calibration.evaluation.document import Share
from edge_medgemma.calibration.evaluation.language.figures import resampled_interval
from edge_medgemma.calibration.statistics.metrics import BOOTSTRAP_SAMPLES
from edge_medgemma.calibration.statistics.paired import mcnemar_exact
from edge_medgemma.runtime.documents import Size

Change = Annotated[float, msgspec.Meta(ge=-1, le=1)]


@dataclass(frozen=True, slots=True)
class PairedAnswers:
    """Items that hold for both engines, one, or none, and how likely such a split is by chance."""

    items: Size
    both: Size
    first_only: Size
    second_only: Size
    neither: Size
    p_value: Share | None
    """Exact McNemar, two-sided; null without items."""


@dataclass(frozen=True, slots=True)
class MeanChange:
    """Mean of the second engine less that of the first, with a 95 % interval over groups resampled."""

    items: Size
    groups: Size
    value: Change | None
    low: Change | None
    high: Change | None


def paired_answers(first: Sequence[bool], second: Sequence[bool]) -> PairedAnswers:
    """Counts of two engines' answers to the same items, in the same order."""
    one, two = np.asarray(first, bool), np.asarray(second, bool)
    first_only, second_only = int((one & ~two).sum()), int((~one & two).sum())
    return PairedAnswers(
        len(one),
        int((one & two).sum()),
        first_only,
        second_only,
        int((~one & ~two).sum()),
        mcnemar_exact(first_only, second_only) if len(one) else None,
    )


def mean_change(
    first: Sequence[float], second: Sequence[float], groups: Sequence[object], seed: int = 0
) -> MeanChange:
    """Change of the mean score, both engines' scores of a group resampled together."""
    if not first:
        return MeanChange(0, 0, None, None, None)
    names = {name: place for place, name in enumerate(dict.fromkeys(groups))}
    places = np.array([names[group] for group in groups])
    change = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    sums = np.bincount(places, change, len(names))
    counts = np.bincount(places, minlength=len(names))
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(len(names), size=len(names)) for _ in range(BOOTSTRAP_SAMPLES))
    means = [float(sums[one].sum() / counts[one].sum()) for one in drawn]
    return MeanChange(len(first), len(names), float(change.mean()), *resampled_interval(means))
