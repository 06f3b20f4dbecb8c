from dataclasses import replace

import numpy as np
import pytest

from edge_medgemma.runtime.triage.refinement.coarse_to_fine import (
    FEWEST_SLICES,
    SETTLED_LOG_ODDS,
    coarse_count,
    coarse_rows,
    is_settled,
    keep_flags,
    ladder,
    refined_rows,
)
from edge_medgemma.runtime.triage.report import FindingResult, FindingStatus
from edge_medgemma.runtime.triage.urgency import Urgency


def result(score: float | None, code: str = "a") -> FindingResult:
    status = FindingStatus.NOT_ASSESSED
    if score is not None:
        status = FindingStatus.FLAGGED if score > 0 else FindingStatus.NOT_FLAGGED
    return FindingResult(
        code, code, "?", Urgency.URGENT, status, "", score, None, score, None, 0.0, None, ()
    )


def test_ladders_end_with_all_slices_and_hold_every_halving() -> None:
    assert ladder(24) == (3, 5, 6, 9, 12, 17, 24)
    assert ladder(85) == (3, 4, 6, 8, 11, 16, 22, 31, 43, 61, 85)
    assert [ladder(n) for n in (1, 2, 3, 4)] == [(1,), (2,), (3,), (3, 4)]
    assert [coarse_count(n) for n in (1, 2, 4, 24, 48, 85)] == [1, 2, 3, 6, 12, 22]


@pytest.mark.parametrize("slices", range(1, 90))
def test_passes_are_nested_spread_evenly_and_end_with_every_row(slices) -> None:
    for first in (ladder(slices)[0], coarse_count(slices)):
        rows = coarse_rows(first, slices)
        for count in ladder(slices)[ladder(slices).index(first) :]:
            before, rows = rows, refined_rows(rows, count, slices)
            assert len(set(rows)) == count and rows == sorted(rows)
            assert set(before) <= set(rows) <= set(range(slices))
            if first == coarse_count(slices) and 2 * count >= slices:
                assert max(np.diff([-1, *rows, slices])) <= 2, (count, rows)
        assert rows == list(range(slices))


def test_halving_keeps_gaps_half_as_wide() -> None:
    coarse = coarse_rows(6, 24)
    assert coarse == [2, 6, 10, 14, 18, 22]
    assert refined_rows(coarse, 12, 24) == list(range(0, 24, 2))


def test_beside_a_suspected_slice_comes_first_once_the_gaps_are_narrow() -> None:
    half = list(range(0, 24, 2))
    assert set(refined_rows(half, 14, 24, suspected={10})) - set(half) == {9, 11}
    assert set(refined_rows([2, 6, 10, 14, 18, 22], 12, 24, suspected={10})) == set(half)


@pytest.mark.parametrize(
    ("before", "now", "settled"),
    [
        (-5.0, -5.5, True),
        (-5.0, -3.9, True),  # 3.9 below, moved by 1.1
        (-5.0, -3.0, False),  # two more such moves would cross
        (-0.5, -0.5, False),  # too close to tell
        (3.0, 0.1, True),  # a flag is never taken back
        (0.5, -4.0, False),
        (-4.0, 0.5, False),
        (None, None, True),
        (-4.0, None, False),
    ],
)
def test_findings_have_settled_when_another_move_would_change_nothing(before, now, settled) -> None:
    steady = result(-9.0, "b")
    assert is_settled([steady, result(before)], [steady, result(now)]) is settled
    assert SETTLED_LOG_ODDS > 0.5


@pytest.mark.parametrize("later", [-4.0, None])
def test_a_flag_of_an_earlier_pass_stands(later) -> None:
    flagged, other = result(2.0), result(-3.0, "b")
    kept, problems = keep_flags([flagged, other], [result(later), result(1.0, "b")], [6], 12)
    reason = "flagged when 6 slices were shown, not when 12 were"
    assert kept == (replace(flagged, reason=reason), result(1.0, "b"))
    assert [p.name for p in problems] == ["flag_not_confirmed"]
    again, problems = keep_flags(kept, [result(later), result(1.0, "b")], [6, 12], 24)
    assert again[0].status is FindingStatus.FLAGGED and "6 or 12" in again[0].reason
    confirmed, problems = keep_flags(kept, [result(4.0), result(1.0, "b")], [6, 12], 24)
    assert confirmed[0] == result(4.0) and not problems
    assert FEWEST_SLICES == 3
