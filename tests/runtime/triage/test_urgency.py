from hypothesis import given
from hypothesis import strategies as st

from edge_medgemma.runtime.slicing.volume import Problem
from edge_medgemma.runtime.triage.urgency import (
    BLOCKING_PROBLEMS,
    Urgency,
    most_urgent,
    study_urgency,
)

FLAGGED = st.lists(st.sampled_from([Urgency.CRITICAL, Urgency.URGENT, Urgency.ROUTINE]))
PROBLEMS = st.lists(
    st.sampled_from([*BLOCKING_PROBLEMS, "gantry_tilt", "time_series"]).map(
        lambda name: Problem(name, "Detail.")
    )
)


def test_the_order_of_the_queue() -> None:
    order = [Urgency.CRITICAL, Urgency.URGENT, Urgency.NOT_ASSESSABLE, Urgency.ROUTINE]
    assert sorted(Urgency, key=lambda u: u.rank) == order
    assert most_urgent([]) is Urgency.ROUTINE


@given(FLAGGED, PROBLEMS, PROBLEMS)
def test_one_more_problem_never_lowers_the_urgency(flagged, problems, more) -> None:
    before, _ = study_urgency(flagged, problems)
    after, _ = study_urgency(flagged, [*problems, *more])
    assert after.rank <= before.rank


@given(FLAGGED, FLAGGED, PROBLEMS)
def test_one_more_flag_never_lowers_the_urgency(flagged, more, problems) -> None:
    before, _ = study_urgency(flagged, problems)
    after, _ = study_urgency([*flagged, *more], problems)
    assert after.rank <= before.rank


@given(FLAGGED, PROBLEMS)
def test_a_blocking_problem_is_never_routine_and_is_said_once(flagged, problems) -> None:
    urgency, doubts = study_urgency(flagged, problems)
    blocking = {p.name for p in problems} & BLOCKING_PROBLEMS.keys()
    assert len(doubts) == len(set(doubts)) == len(blocking)
    assert not (blocking and urgency is Urgency.ROUTINE)
