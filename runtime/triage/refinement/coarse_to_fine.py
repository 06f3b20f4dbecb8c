"""Slices of each pass: coarsely over the whole stack first, then between and around.

Slices are numbered as rows of the stack that the protocol would show, 0-based. Every pass keeps the
rows of the passes before it, whose image features are already there.
"""

import math
from bisect import insort
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import pairwise

from edge_medgemma.runtime.slicing.volume import Problem
from edge_medgemma.runtime.triage.coverage import GAP_FACTOR
from edge_medgemma.runtime.triage.report import FindingResult, FindingStatus

FEWEST_SLICES = 3
"""No pass shows fewer, unless the stack has fewer: both ends and the middle."""

RUNGS_PER_HALVING = 2
"""Numbers of slices are taken from a fixed ladder, so that few blank baselines are ever needed."""

COARSE_SHARE = 4
"""The first pass shows one slice in so many."""

SETTLED_LOG_ODDS = 1.0
"""A score this far below its threshold or farther is not near it."""


def ladder(slices: int) -> tuple[int, ...]:
    """Numbers of slices that a pass may have, ascending, the last one all of them.

    >>> ladder(24)
    (3, 5, 6, 9, 12, 17, 24)
    """
    steps = range(math.ceil(RUNGS_PER_HALVING * math.log2(max(slices, 1))) + 1)
    rungs = {math.ceil(slices / 2 ** (step / RUNGS_PER_HALVING)) for step in steps}
    return tuple(sorted(rung for rung in rungs if rung >= FEWEST_SLICES)) or (slices,)


def coarse_count(slices: int) -> int:
    """Slices of the first pass without a budget."""
    return next(rung for rung in ladder(slices) if rung * COARSE_SHARE >= slices)


def coarse_rows(count: int, slices: int) -> list[int]:
    """`count` rows, each in the middle of its share of the stack."""
    return [(2 * i + 1) * slices // (2 * count) for i in range(count)]


def refined_rows(
    seen: Collection[int], count: int, slices: int, suspected: Collection[int] = ()
) -> list[int]:
    """`seen` and further rows, `count` in all, ascending; each new one halves a gap.

    Gaps that are too wide to call anything absent come first, the widest ahead; then those beside a
    `suspected` row. (On phantoms, refining beside suspects first found no more than even halving.)
    """
    rows = sorted(seen)
    while len(rows) < count:
        gaps = [gap for gap in pairwise([-1, *rows, slices]) if gap[1] - gap[0] > 1]

        def priority(gap: tuple[int, int]) -> tuple[int, bool, int]:
            steps = gap[1] - gap[0]
            is_suspected = gap[0] in suspected or gap[1] in suspected
            return (steps if steps > GAP_FACTOR else 0, is_suspected, steps)

        low, high = max(gaps, key=priority)
        insort(rows, (low + high) // 2)
    return rows


def keep_flags(
    earlier: Sequence[FindingResult],
    now: Sequence[FindingResult],
    slices_before: Sequence[int],
    slices_now: int,
) -> tuple[tuple[FindingResult, ...], tuple[Problem, ...]]:
    """The results of a pass, but every finding flagged before stays flagged, as it was then.

    Args:
        earlier: findings of the last report.
        now: findings of this pass.
        slices_before: number of slices of each pass before.
        slices_now: findings of this pass.

    Returns:
        The results to report, and for each flag that this pass did not confirm a problem.
    """
    kept, problems = [], []
    for old, new in zip(earlier, now, strict=True):
        was_flagged = old.status is FindingStatus.FLAGGED
        if was_flagged and new.status is not FindingStatus.FLAGGED:
            shown = " or ".join(map(str, slices_before))
            reason = f"flagged when {shown} slices were shown, not when {slices_now} were"
            kept.append(replace(old, reason=reason))
            detail = f"{old.title} was {reason}; the flag stands."
            problems.append(Problem("flag_not_confirmed", detail))
        else:
            kept.append(new)
    return tuple(kept), tuple(problems)


def is_settled(before: Sequence[FindingResult], now: Sequence[FindingResult]) -> bool:
    """Whether another pass is not expected to change any status.

    No status changed, and every score that is not flagged stands farther below its threshold than
    `SETTLED_LOG_ODDS` and than twice what it moved between the two passes.
    """
    return all(_is_settled(old, new) for old, new in zip(before, now, strict=True))


def _is_settled(before: FindingResult, now: FindingResult) -> bool:
    if before.status is not now.status:
        return False
    if now.status is not FindingStatus.NOT_FLAGGED or now.score is None or before.score is None:
        return True
    distance = now.threshold - now.score
    return distance > max(SETTLED_LOG_ODDS, 2 * abs(now.score - before.score))
