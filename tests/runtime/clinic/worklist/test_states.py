"""Steps of a study: which may follow which, and what never falls."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clinic_worklist import KEY, acknowledgement, result

from edge_medgemma.runtime.clinic.worklist import states
from edge_medgemma.runtime.clinic.worklist.entry import Entry, new_entry
from edge_medgemma.runtime.clinic.worklist.lease import Lease, this_process
from edge_medgemma.runtime.clinic.worklist.records import (
    Doubt,
    FailureReason,
    StudyState,
)
from edge_medgemma.runtime.clinic.worklist.results import ResultRecord
from edge_medgemma.runtime.errors import WorklistError
from edge_medgemma.runtime.triage.urgency import Urgency

S = StudyState

TABLE = """
            arrive     look       begin    back     final  failed  delivered  doubted    sure  superseded
arriving    arriving   waiting    -        arriving arriving -      arriving   arriving   arriving superseded
waiting     waiting    waiting    running  waiting  done   failed  waiting    waiting    waiting superseded
running     running    running    running  waiting  done   failed  running    running    running superseded
incomplete  arriving   incomplete -        incomplete incomplete - delivered  incomplete done superseded
done        arriving   done       -        done     done   -       delivered  incomplete done superseded
delivered   arriving   delivered  -        delivered done  -       delivered  incomplete delivered superseded
failed      arriving   waiting    -        failed   failed failed  failed     failed     failed superseded
superseded  arriving   superseded -        superseded superseded - superseded superseded superseded superseded
"""
"""State and step -> state; `-` is refused."""


def lease(revision: int = 1) -> Lease:
    return Lease(KEY, revision, 5, this_process(), 0.0)


def entry_in(state: StudyState) -> Entry:
    entry = new_entry(KEY, "1.2.3", 1, "2026-01-01")
    doubts = (Doubt.GAP,) if state is S.INCOMPLETE else ()
    row = replace(entry.row, state=state, revision=1, doubts=doubts)
    if state in (S.INCOMPLETE, S.DONE, S.DELIVERED):
        row = replace(row, result_number=1, result_revision=1, is_final=True)
    return replace(entry, row=row, lease=lease() if state is S.RUNNING else None)


STEPS = {
    "arrive": lambda entry: states.arrive(entry, "CT1", 2, (), "2026-01-02"),
    "look": states.want_look,
    "begin": lambda entry: states.begin(entry, lease()),
    "back": states.give_back,
    "final": lambda entry: states.publish(entry, result(2)),
    "failed": lambda entry: states.fail(entry, FailureReason.INTERNAL),
    "delivered": lambda entry: states.delivered(entry, 1),
    "doubted": lambda entry: states.with_doubt(entry, Doubt.GAP),
    "sure": lambda entry: states.without_doubt(entry, Doubt.GAP),
    "superseded": states.supersede,
}

ROWS = [line.split() for line in TABLE.strip().splitlines()]
CASES = [
    (row[0], step, outcome) for row in ROWS[1:] for step, outcome in zip(ROWS[0], row[1:], strict=True)
]  # fmt: skip


def test_the_table_has_every_state_and_step() -> None:
    assert {case[0] for case in CASES} == set(S)
    assert {case[1] for case in CASES} == set(STEPS)


@pytest.mark.parametrize(("state", "step", "outcome"), CASES)
def test_a_step_leads_where_the_table_says(state: str, step: str, outcome: str) -> None:
    entry = entry_in(StudyState(state))
    if outcome == "-":
        with pytest.raises(WorklistError, match="look at the worklist again"):
            STEPS[step](entry)
        return
    after = STEPS[step](entry)
    assert after.row.state == outcome
    assert (after.lease is not None) == (outcome == "running")


def test_what_came_during_a_look_is_looked_at_next() -> None:
    entry = STEPS["arrive"](entry_in(S.RUNNING))
    assert states.publish(entry, result(1, revision=1)).row.state is S.ARRIVING
    assert states.publish(states.want_look(entry), result(1, revision=1)).row.state is S.WAITING
    assert states.fail(entry, FailureReason.UNREADABLE).row.state is S.ARRIVING


def test_an_incomplete_study_goes_on_being_called_so() -> None:
    entry = states.with_doubt(entry_in(S.RUNNING), Doubt.ABORTED)
    assert states.publish(entry, result()).row.state is S.INCOMPLETE


def test_two_crashes_fail_a_study_and_a_power_cut_does_not() -> None:
    entry = entry_in(S.RUNNING)
    for _ in range(5):
        entry = states.begin(states.crash(entry, is_at_fault=False), lease())
    entry = states.crash(entry, is_at_fault=True)
    assert entry.row.state is S.WAITING
    after_pass = states.publish(states.begin(entry, lease()), result(1, is_final=False))
    assert states.crash(after_pass, is_at_fault=True).row.state is S.WAITING
    failed = states.crash(states.begin(entry, lease()), is_at_fault=True)
    assert failed.row.state is S.FAILED
    assert failed.row.failure is FailureReason.CRASHED
    assert failed.row.urgency is Urgency.NOT_ASSESSABLE


def test_a_flag_stands_until_it_is_acknowledged_and_a_rise_asks_again() -> None:
    entry = entry_in(S.WAITING)
    bleed = result(1, urgency=Urgency.CRITICAL, flagged=("bleed",))
    entry = states.publish(entry, bleed)
    entry = states.publish(entry, result(2))
    assert entry.row.urgency is Urgency.CRITICAL
    assert entry.row.flagged == ("bleed",)
    entry = states.acknowledge(entry, acknowledgement(2))
    assert entry.row.acknowledged_at == "2026-01-03"
    assert states.publish(entry, result(3, revision=2, is_final=False)).row.flagged == ("bleed",)
    lowered = states.publish(entry, result(3, revision=2))
    assert lowered.row.urgency is Urgency.ROUTINE
    assert lowered.row.flagged == ()
    assert lowered.row.acknowledged_at == "2026-01-03"
    risen = states.publish(lowered, replace(bleed, number=4))
    assert risen.row.acknowledged_at is None
    late = states.acknowledge(risen, acknowledgement(3))
    assert late.row.acknowledged_at is None, "who acknowledged had not seen the rise"
    another = replace(bleed, number=3, flagged=("bleed", "fracture"))
    assert states.publish(entry, another).row.acknowledged_at is None


def test_not_assessable_stands_until_the_last_pass() -> None:
    entry = states.publish(
        entry_in(S.RUNNING),
        result(1, urgency=Urgency.NOT_ASSESSABLE, limitations=("not_looked_at",), is_final=False),
    )
    coarse = states.publish(entry, result(2, is_final=False))
    assert coarse.row.urgency is Urgency.NOT_ASSESSABLE
    assert coarse.row.limitations == ("not_looked_at",)
    last = states.publish(coarse, result(3))
    assert last.row.urgency is Urgency.ROUTINE
    assert last.row.limitations == ()


RESULTS = st.builds(
    result,
    number=st.integers(1, 9),
    revision=st.integers(1, 3),
    urgency=st.sampled_from(Urgency),
    flagged=st.lists(st.sampled_from(["a", "b", "c"]), unique=True).map(tuple),
    is_final=st.booleans(),
)


@given(st.lists(RESULTS, max_size=8))
def test_without_acknowledgement_no_flag_ever_falls(results: list[ResultRecord]) -> None:
    entry = entry_in(S.WAITING)
    for one in results:
        before, entry = entry.row, states.publish(entry, one)
        assert set(before.flagged) <= set(entry.row.flagged)
        if before.urgency in states.FLAGS:
            assert entry.row.urgency is not None
            assert entry.row.urgency.rank <= before.urgency.rank
        assert states.publish(entry, one) is entry, "the same result twice"


def test_no_flag_is_said_of_no_study_with_images_that_were_not_looked_at() -> None:
    entry = states.publish(entry_in(S.RUNNING), result(1, revision=1, urgency=Urgency.ROUTINE))
    assert entry.row.urgency is Urgency.ROUTINE
    more = states.arrive(entry, "CT1", 1, (), "2026-01-02")
    assert more.row.urgency is Urgency.NOT_ASSESSABLE
    coarse = result(2, revision=2, urgency=Urgency.ROUTINE, is_final=False)
    assert states.publish(more, coarse).row.urgency is Urgency.NOT_ASSESSABLE
    whole = result(2, revision=2, urgency=Urgency.ROUTINE)
    assert states.publish(more, whole).row.urgency is Urgency.ROUTINE


def test_images_that_come_during_a_look_are_not_covered_by_its_result() -> None:
    entry = states.arrive(entry_in(S.RUNNING), "CT1", 1, (), "2026-01-02")
    entry = states.publish(entry, result(1, revision=1, urgency=Urgency.ROUTINE))
    assert entry.row.urgency is Urgency.NOT_ASSESSABLE
