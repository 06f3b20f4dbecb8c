"""When a study is looked at and what is doubted, row by row."""

from dataclasses import replace

import pytest

from edge_medgemma.runtime.clinic.arrivals.completeness import (
    ArrivalFacts,
    Decision,
    Patience,
    decide,
    has_gap,
    is_stack,
)
from edge_medgemma.runtime.clinic.arrivals.identity import Plane
from edge_medgemma.runtime.clinic.worklist.records import Doubt

PATIENCE = Patience(released_quiet_s=10, quiet_s=60, give_up_s=600)
"""The defaults of the settings."""

RELEASED = ArrivalFacts(
    is_pending=True,
    first_new_s=100,
    last_new_s=120,
    open_associations=0,
    ended_s=121,
    was_aborted=False,
    has_gap=False,
    is_stack=False,
    images=100,
    expected=None,
)
"""100 images from 100 s to 120 s, the association ended at 121 s."""

OPEN = replace(RELEASED, open_associations=1, ended_s=100)


@pytest.mark.parametrize(
    ("facts", "now_s", "look"),
    [
        (RELEASED, 122, False),
        (RELEASED, 130.9, False),
        (RELEASED, 131, True),
        (replace(RELEASED, last_new_s=128), 131, False),  # another process brings more
        (replace(RELEASED, is_pending=False), 5000, False),
        (OPEN, 131, False),
        (OPEN, 179, False),
        (OPEN, 180, True),  # a frozen sender
        (replace(OPEN, last_new_s=690), 699, False),
        (replace(OPEN, last_new_s=690), 700, True),  # a trickle is not waited for for ever
        (replace(RELEASED, expected=100), 121, True),  # the archive says that this is all
        (replace(RELEASED, expected=101), 121, False),
        (replace(RELEASED, expected=99), 121, False),  # it is still receiving itself
        (replace(RELEASED, expected=101), 131, True),  # never waits for what may not come
        (replace(OPEN, expected=100), 122, False),
        (replace(RELEASED, was_aborted=True), 131, True),
        (replace(RELEASED, has_gap=True), 131, True),
        (replace(RELEASED, is_stack=True), 120.4, False),
        (replace(RELEASED, is_stack=True), 121, True),  # worth a look; more is looked at too
        (replace(RELEASED, is_stack=True, was_aborted=True), 122, False),
        (replace(OPEN, is_stack=True), 131, False),
    ],
)
def test_a_look_begins_early_and_never_waits_for_ever(
    facts: ArrivalFacts, now_s: float, look: bool
) -> None:
    assert decide(facts, PATIENCE, now_s).look is look


@pytest.mark.parametrize("is_pending", [True, False])
@pytest.mark.parametrize(
    ("changes", "doubts"),
    [
        ({}, set()),
        ({"was_aborted": True}, {Doubt.ABORTED}),
        ({"has_gap": True}, {Doubt.GAP}),
        ({"expected": 101}, {Doubt.FEWER_THAN_ARCHIVE}),
        ({"expected": 100}, set()),
        ({"expected": 99}, set()),
        ({"expected": 99, "was_aborted": True}, {Doubt.ABORTED}),
        ({"open_associations": 1}, {Doubt.STILL_ARRIVING}),
        ({"was_aborted": True, "has_gap": True, "expected": 100}, set()),
        ({"was_aborted": True, "expected": 101}, {Doubt.ABORTED, Doubt.FEWER_THAN_ARCHIVE}),
        ({"open_associations": 1, "expected": 100}, {Doubt.STILL_ARRIVING}),
    ],
)
def test_doubts_stand_until_what_they_fear_is_refuted(
    changes: dict[str, bool | int], doubts: set[Doubt], is_pending: bool
) -> None:
    facts = replace(RELEASED, is_pending=is_pending, **changes)
    decision = decide(facts, PATIENCE, 10_000)
    assert decision.add == doubts
    assert not decision.clear & doubts
    assert decision.clear | decision.add == {
        Doubt.ABORTED, Doubt.GAP, Doubt.FEWER_THAN_ARCHIVE, Doubt.STILL_ARRIVING,
    }  # fmt: skip


def test_in_the_middle_of_a_transfer_only_a_break_is_doubted_and_nothing_forgiven() -> None:
    facts = replace(OPEN, has_gap=True, expected=200, was_aborted=True)
    assert decide(facts, PATIENCE, 125) == Decision(look=False, add=frozenset({Doubt.ABORTED}))


def _stack(*positions: float, series: str = "1.2") -> list[Plane]:
    axial = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    return [Plane((series,), axial, (-100.0, -100.0, position)) for position in positions]


@pytest.mark.parametrize(
    ("planes", "is_gap"),
    [
        (_stack(0, 5, 10, 15, 20, 25), False),
        (_stack(25, 0, 15, 5, 10, 20), False),
        (_stack(0, 5, 10, 20, 25, 30), True),
        (_stack(0, 5, 10, 17.4, 22.4, 27.4), False),
        (_stack(0, 5, 10, 17.6, 22.6, 27.6), True),
        (_stack(0, 0, 5, 5, 10, 10, 15, 15, 20, 20), False),  # two phases
        (_stack(0, 5, 20), False),
        (_stack(0, 2, 4, 6, 8, 10, 15, 20, 25, 30), False),  # thin below, thick above
        (_stack(0, 5, 10, 15, 20) + _stack(100, 105, 110, 115, 120, series="1.3"), False),
        (_stack(0, 5, 10, 15, 20) + _stack(0, 5, 10, 20, 25, series="1.3"), True),
        (_stack(0, 5, 10, float("nan"), 20, 25), True),
        (_stack(0, 5, 10, 1e300, 20, 25), True),
        ([Plane(("1",), (0.0,) * 6, (0.0, 0.0, at)) for at in (0.0, 1.0, 2.0, 9.0, 10.0)], False),
        ([], False),
    ],
)
def test_gaps_are_seen_in_positions(planes: list[Plane], is_gap: bool) -> None:
    assert has_gap(planes) is is_gap


def test_ten_slices_at_their_own_places_are_a_stack() -> None:
    assert is_stack(_stack(*range(10)))
    assert not is_stack(_stack(*range(9)) + _stack(*range(9), series="1.3"))
    assert not is_stack(_stack(*range(9), 8))
