"""What is deleted, and what never is."""

import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from support.clinic_kills import run_killed_at
from support.clinic_worklist import acknowledgement, arrive, look, result

from edge_medgemma.runtime.clinic.clock import BUILT_ON
from edge_medgemma.runtime.clinic.settings import (
    ClinicSettings,
    Node,
    Peer,
    ResultKind,
)
from edge_medgemma.runtime.clinic.settings import (
    Retention as RetentionSettings,
)
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist import audit
from edge_medgemma.runtime.clinic.worklist.entry import new_entry
from edge_medgemma.runtime.clinic.worklist.records import FailureReason, StudyRow, StudyState
from edge_medgemma.runtime.clinic.worklist.retention import Retention, is_old, may_go
from edge_medgemma.runtime.clinic.worklist.store import Worklist
from edge_medgemma.runtime.triage.urgency import Urgency

S, U = StudyState, Urgency

PEER = Peer("archive", "PACS", "127.0.0.1", 104, results=(ResultKind.SR,))
AT_ONCE = ClinicSettings(
    node=Node(reserve_gb=0), retention=RetentionSettings(days=1e-9), peers=(PEER,)
)
NO_ROOM = replace(AT_ONCE, node=Node(reserve_gb=1e9), retention=RetentionSettings(days=1000))


@pytest.mark.parametrize(
    ("state", "urgency", "is_acknowledged", "goes", "goes_without_destination"),
    [
        (S.DELIVERED, U.ROUTINE, False, True, True),
        (S.DELIVERED, U.NOT_ASSESSABLE, False, True, True),
        (S.DELIVERED, U.CRITICAL, False, False, False),
        (S.DELIVERED, U.URGENT, False, False, False),
        (S.DELIVERED, U.CRITICAL, True, True, True),
        (S.DONE, U.ROUTINE, False, False, True),
        (S.DONE, U.CRITICAL, True, False, True),
        (S.DONE, U.CRITICAL, False, False, False),
        (S.INCOMPLETE, U.ROUTINE, False, False, True),
        (S.FAILED, U.NOT_ASSESSABLE, False, False, False),
        (S.FAILED, U.NOT_ASSESSABLE, True, True, True),
        (S.ARRIVING, U.ROUTINE, True, False, False),
        (S.WAITING, U.ROUTINE, True, False, False),
        (S.RUNNING, U.ROUTINE, True, False, False),
        (S.SUPERSEDED, None, False, True, True),
    ],
)
def test_only_what_is_delivered_and_answered_may_go(
    state: S, urgency: U | None, is_acknowledged: bool, goes: bool, goes_without_destination: bool
) -> None:
    row = replace(
        new_entry("0" * 32, "1.2.3", 1, "2026-12-01").row,
        state=state, urgency=urgency, is_final=True, result_number=1,
        acknowledged_at="2026-12-02" if is_acknowledged else None,
    )  # fmt: skip
    assert may_go(row, is_delivered_anywhere=True) is goes
    assert may_go(row, is_delivered_anywhere=False) is goes_without_destination
    assert not may_go(replace(row, is_final=False, state=S.DELIVERED), is_delivered_anywhere=True)


def test_no_clock_that_is_not_set_makes_a_study_old() -> None:
    came = BUILT_ON + timedelta(days=10)
    row = new_entry("0" * 32, "1.2.3", 1, came.isoformat()).row
    assert is_old(row, 30, came + timedelta(days=31))
    assert not is_old(row, 30, came + timedelta(days=29))
    assert not is_old(row, 30, datetime(1970, 3, 1, tzinfo=UTC))
    early = replace(row, last_arrival_at=datetime(1970, 1, 2, tzinfo=UTC).isoformat())
    assert not is_old(early, 30, came), (
        "it came while the clock was wrong: nobody knows how old it is"
    )


def deliver(state: StateFolder, worklist: Worklist, number: int, urgency: U = U.ROUTINE) -> str:
    key = arrive(state, worklist, number)
    worklist.set_waiting(key)
    look(state, worklist, key, result(urgency=urgency))
    (state.outbox / f"{key}-1").mkdir()
    (state.aside / key).mkdir()
    worklist.delivered(key, 1)
    return key


def traces(state: StateFolder, key: str) -> list[str]:
    """Whatever is left of a study besides the audit."""
    return [
        os.path.join(folder, name)
        for folder, folders, files in os.walk(state.path)
        for name in (*folders, *files)
        if key in name
    ]


def test_old_studies_go_with_every_trace_and_a_line_in_the_audit(
    state: StateFolder, worklist: Worklist
) -> None:
    gone = deliver(state, worklist, 1)
    waits = deliver(state, worklist, 2, U.CRITICAL)
    assert Retention(state, AT_ONCE, worklist).apply() == 1
    assert [row.key for row in worklist.studies()] == [waits]
    assert traces(state, gone) == []
    assert len(traces(state, waits)) == 5
    assert [e.detail for e in audit.read(state) if e.event == "deleted"] == ["old"]
    worklist.acknowledge(acknowledgement(1, waits))
    assert Retention(state, AT_ONCE, worklist).apply() == 1
    assert worklist.studies() == ()
    worklist.reconcile()
    assert worklist.studies() == (), "nothing comes back"


def test_for_room_the_oldest_go_first_until_there_is_enough(
    state: StateFolder, worklist: Worklist, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [deliver(state, worklist, number) for number in range(4)]
    left = iter([0, 0, *[10**19] * 9])
    usage = shutil.disk_usage(state.path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=next(left)))
    assert Retention(state, NO_ROOM, worklist).apply() == 2
    assert {row.key for row in worklist.studies()} == set(keys[2:])


def test_a_study_to_which_an_image_came_stays(state: StateFolder, worklist: Worklist) -> None:
    key = deliver(state, worklist, 1)
    (state.spool / key / "late").write_bytes(b"not noted yet")
    assert Retention(state, AT_ONCE, worklist).apply() == 0
    assert len(list((state.spool / key).iterdir())) == 4


def delete_all(state: StateFolder) -> None:
    with Worklist.open(state) as worklist:
        Retention(state, AT_ONCE, worklist).apply()


def test_killed_at_any_step_it_is_gone_after_the_next_run(tmp_path) -> None:  # type: ignore[no-untyped-def]
    for step in range(1, 100):
        state = StateFolder(tmp_path / str(step))
        state.create()
        with Worklist.open(state) as worklist:
            key = deliver(state, worklist, 1)
            kept = deliver(state, worklist, 2, U.CRITICAL)
        was_killed = run_killed_at(step, state.path, partial(delete_all, state))
        delete_all(state)
        with Worklist.open(state) as worklist:
            worklist.reconcile()
            rows: tuple[StudyRow, ...] = worklist.studies()
        assert [row.key for row in rows] == [kept], step
        assert traces(state, key) == [], step
        if not was_killed:
            break
    assert step > 5 and not was_killed


def test_a_failed_study_waits_for_a_person(state: StateFolder, worklist: Worklist) -> None:
    key = arrive(state, worklist, 1)
    worklist.set_waiting(key)
    worklist.fail(key, FailureReason.UNREADABLE)
    assert Retention(state, AT_ONCE, worklist).apply() == 0
    worklist.acknowledge(acknowledgement(0, key))
    assert Retention(state, AT_ONCE, worklist).apply() == 1
