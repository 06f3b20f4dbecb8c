"""Which slices a finding rests on.

A slice is worth the mean of two changes of the score: what is lost when the question may not see
it, and what is won when the question may see nothing else. (These are the last and the first term
of its Shapley value.) The loss alone would miss a lesion that is also on the slice next to it. Only
the question is blinded: what later slices took over from a hidden one stays visible to it.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

MAX_KEY_SLICES = 6
"""A report shows no more for one finding."""

GROUPING_FROM_SLICES = 17
"""From this many slices on, groups are searched first and only the best are opened."""

OPENED_GROUPS = 2

ScoreHiding = Callable[[Sequence[frozenset[int]]], NDArray[np.float64]]
"""Log-odds [variants] of one finding when each set of slices (0-based, as shown) is hidden."""


def slice_effects(slices: int, score_hiding: ScoreHiding) -> dict[int, float]:
    """Log-odds that single slices are worth, for the slices that were tried.

    All slices of a short stack are tried; of a long one those of the groups that are worth most,
    for about 6 * sqrt(slices) questions in all.

    Args:
        slices: number of slices shown.
        score_hiding: asks the engine.
    """
    everything = frozenset(range(slices))
    full, none = score_hiding([frozenset(), everything])

    def effects(sets: Sequence[frozenset[int]]) -> NDArray[np.float64]:
        without = score_hiding(sets)
        alone = score_hiding([everything - one for one in sets])
        worth: NDArray[np.float64] = ((full - without) + (alone - none)) / 2
        return worth

    tried = sorted(everything)
    if slices >= GROUPING_FROM_SLICES:
        parts = np.array_split(tried, round(slices**0.5))
        groups = [frozenset(map(int, part)) for part in parts]
        group_worth = np.nan_to_num(effects(groups), nan=-np.inf)
        best = np.argsort(-group_worth, kind="stable")[:OPENED_GROUPS]
        tried = sorted(i for group in best for i in groups[group])
    values = effects([frozenset({i}) for i in tried])
    return {i: float(v) for i, v in zip(tried, values, strict=True) if np.isfinite(v)}


def key_slices(effects: dict[int, float]) -> list[int]:
    """At most `MAX_KEY_SLICES` slices with the largest effects above zero, in spatial order."""
    ranked = sorted((i for i in effects if effects[i] > 0), key=lambda i: -effects[i])
    return sorted(ranked[:MAX_KEY_SLICES])
