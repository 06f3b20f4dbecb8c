"""Which slices a finding rests on: those whose absence lowers its score.

A slice is hidden from the question alone. What later slices took over from it stays visible, so a
drop is a lower bound of the slice's part and the slice itself stands out.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

MAX_KEY_SLICES = 6
"""A report shows no more for one finding."""

GROUPING_FROM_SLICES = 17
"""From this many slices on, groups are searched first and only the best are opened."""

OPENED_GROUPS = 2

ScoreWithout = Callable[[Sequence[frozenset[int]]], NDArray[np.float64]]
"""Log-odds [variants] of one finding when each set of slices (0-based, as shown) is hidden."""


def score_drops(slices: int, full_score: float, score_without: ScoreWithout) -> dict[int, float]:
    """Log-odds lost when single slices are hidden, for the slices that were tried.

    All slices of a short stack are tried; of a long one those of the groups that matter most, for
    about 3 * sqrt(slices) questions in all.

    Args:
        slices: number of slices shown.
        full_score: log-odds with all of them visible.
        score_without: asks the engine.
    """
    candidates = list(range(slices))
    if slices >= GROUPING_FROM_SLICES:
        groups = [set(map(int, g)) for g in np.array_split(candidates, round(slices**0.5))]
        drops = full_score - score_without([frozenset(group) for group in groups])
        best = np.argsort(-np.nan_to_num(drops, nan=-np.inf), kind="stable")[:OPENED_GROUPS]
        candidates = sorted(i for group in best for i in groups[group])
    drops = full_score - score_without([frozenset({i}) for i in candidates])
    return {i: float(d) for i, d in zip(candidates, drops, strict=True) if np.isfinite(d)}


def key_slices(drops: dict[int, float]) -> list[int]:
    """At most `MAX_KEY_SLICES` slices with the largest drops above zero, in spatial order."""
    ranked = sorted((i for i in drops if drops[i] > 0), key=lambda i: -drops[i])
    return sorted(ranked[:MAX_KEY_SLICES])
