"""The worklist over its database: order, leases, several processes, a database that is damaged."""

import random
import sqlite3
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
from support.clinic_worklist import acknowledgement, arrive, look, result

from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist import audit
from edge_medgemma.runtime.clinic.worklist.records import (
    Doubt,
    FailureReason,
    StudyRow,
    StudyState,
)
from edge_medgemma.runtime.clinic.worklist.store import Worklist
from edge_medgemma.runtime.errors import WorklistError
from edge_medgemma.runtime.triage.urgency import Urgency


def test_people_read_the_most_urgent_first_and_unknown_above_routine(
    state: StateFolder, worklist: Worklist
) -> None:
    keys = [arrive(state, worklist, number) for number in range(7)]
    urgencies = [Urgency.ROUTINE, Urgency.CRITICAL, Urgency.NOT_ASSESSABLE, None, Urgency.ROUTINE]
    urgencies += [Urgency.URGENT, Urgency.CRITICAL]
    for key, urgency in zip(keys, urgencies, strict=True):
        if urgency is not None:
            worklist.set_waiting(key)
            look(state, worklist, key, result(urgency=urgency))
    worklist.add_doubt(keys[4], Doubt.GAP)
    worklist.acknowledge(acknowledgement(1, keys[1]))
    order = [keys.index(row.key) for row in worklist.studies()]
    assert order == [6, 1, 5, 3, 2, 4, 0]
    worklist.set_superseded(keys[1])
    assert keys[1] not in [row.key for row in worklist.studies()]


def test_the_engine_takes_never_seen_studies_first_then_news_then_closer_looks(
    state: StateFolder, worklist: Worklist
) -> None:
    coarse = result(is_final=False)
    keys = [arrive(state, worklist, number) for number in range(5)]
    for key in keys:
        worklist.set_waiting(key)
    for place, urgency in ((0, Urgency.ROUTINE), (1, Urgency.CRITICAL), (2, Urgency.URGENT)):
        look(state, worklist, keys[place], replace(coarse, urgency=urgency))
    arrive(state, worklist, 2)
    taken = []
    while (lease := worklist.acquire()) is not None:
        assert worklist.acquire() is None, "one engine looks at one study"
        taken.append(keys.index(lease.key))
        look(state, worklist, lease.key, result())
    assert taken == [3, 4, 2, 1, 0]


def test_a_released_study_waits_again(state: StateFolder, worklist: Worklist) -> None:
    key = arrive(state, worklist, 1)
    worklist.set_waiting(key)
    lease = worklist.acquire()
    assert lease is not None
    worklist.release(lease)
    row = worklist.study(key)
    assert row is not None and row.state is StudyState.WAITING
    assert worklist.acquire() is not None
    worklist.release(lease)
    row = worklist.study(key)
    assert row is not None and row.state is StudyState.RUNNING, "an old lease releases nothing"


def _die_looking(folder: Path) -> None:
    assert Worklist.open(StateFolder(folder)).acquire() is not None


def test_a_study_whose_process_ended_is_taken_again_and_fails_after_the_second(
    state: StateFolder, worklist: Worklist
) -> None:
    key = arrive(state, worklist, 1)
    worklist.set_waiting(key)
    for expected in (StudyState.RUNNING, StudyState.FAILED):
        process = get_context("fork").Process(target=_die_looking, args=(state.path,))
        process.start()
        process.join()
        assert process.exitcode == 0
        row = worklist.study(key)
        assert row is not None and row.state is StudyState.RUNNING
        if expected is StudyState.FAILED:
            assert worklist.acquire() is None
        row = worklist.study(key)
        assert row is not None and row.state is expected
    assert row.failure is FailureReason.CRASHED
    assert row.urgency is Urgency.NOT_ASSESSABLE


def test_an_unknown_study_is_refused_in_words(worklist: Worklist) -> None:
    with pytest.raises(WorklistError, match="has no study 00000000; it may have been deleted"):
        worklist.set_waiting("0" * 32)
    assert worklist.study("0" * 32) is None


def _note_many(folder: Path, sender: str) -> None:
    state = StateFolder(folder)
    with Worklist.open(state) as worklist:
        for number in range(20):
            uid = f"1.2.3.{number % 4}"
            worklist.note_arrivals(state.study_key(uid), uid, sender, 1)


def test_processes_at_once_lose_nothing(state: StateFolder) -> None:
    with ProcessPoolExecutor(4, mp_context=get_context("fork")) as pool:
        list(pool.map(_note_many, [state.path] * 4, ["a", "b", "c", "d"]))
    with Worklist.open(state) as worklist:
        rows = worklist.studies()
    assert [row.instances for row in rows] == [20] * 4
    assert all(sorted(row.senders) == ["a", "b", "c", "d"] for row in rows)
    assert [row.place for row in rows] == [1, 2, 3, 4]


def _filled(state: StateFolder) -> tuple[StudyRow, ...]:
    """A list with one study of every kind."""
    with Worklist.open(state) as worklist:
        keys = [arrive(state, worklist, number) for number in range(6)]
        for key in keys[:5]:
            worklist.set_waiting(key)
        critical = result(urgency=Urgency.CRITICAL, flagged=("bleed",))
        look(state, worklist, keys[0], critical)
        worklist.add_doubt(keys[1], Doubt.GAP)
        look(state, worklist, keys[1], replace(critical, doubts=(Doubt.GAP,)))
        worklist.acknowledge(acknowledgement(1, keys[1]))
        look(state, worklist, keys[2], result())
        worklist.delivered(keys[2], 1)
        worklist.fail(keys[3], FailureReason.UNREADABLE)
        return worklist.studies()


def _known(rows: tuple[StudyRow, ...]) -> dict[str, tuple[object, ...]]:
    """What must come back from the folders alone."""
    return {
        row.key: (
            row.study_uid, row.urgency, row.flagged, row.doubts, row.acknowledged_at, row.result_number,
            row.instances, row.failure, row.is_final, row.senders,
        )
        for row in rows
    }  # fmt: skip


def test_a_missing_database_comes_back_from_the_folders(state: StateFolder) -> None:
    rows = _filled(state)
    state.database.unlink()
    with Worklist.open(state) as worklist:
        again = worklist.studies()
    assert _known(again) == _known(rows)
    states = {row.key: row.state for row in again}
    for row in rows:
        is_unseen = row.state is StudyState.ARRIVING
        assert states[row.key] is (StudyState.WAITING if is_unseen else row.state)
    assert [entry.event for entry in audit.read(state)][-1] == "worklist_rebuilt"


def test_a_damaged_database_never_gives_a_wrong_list(state: StateFolder) -> None:
    rows = _filled(state)
    with sqlite3.connect(state.database) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    whole = state.database.read_bytes()
    assert len(whole) >= 4096
    random_ = random.Random(5)
    damaged = [whole[:cut] for cut in (0, 1, 100, 4096, len(whole) // 2, len(whole) - 1)]
    places = [random_.randrange(len(whole)) for _ in range(100)]
    for place in (*places, 18, 18, 19, 56, 60):  # and fields of the header: PRAGMA, file format
        data = bytearray(whole)
        data[place] ^= 1 << random_.randrange(8)
        damaged.append(bytes(data))
    data = bytearray(whole)
    place = whole.index(b"critical")
    data[place : place + 8] = b"routine\0"
    damaged.append(bytes(data))
    for number, content in enumerate(damaged):
        for path in state.path.glob("worklist.sqlite-*"):
            path.unlink()
        state.database.write_bytes(content)
        with Worklist.open(state) as worklist:
            assert _known(worklist.studies()) == _known(rows), number
            worklist.note_arrivals(rows[0].key, rows[0].study_uid, "", 0)


def test_commits_lost_with_the_log_come_back_at_the_next_start(state: StateFolder) -> None:
    worklist = Worklist.open(state)
    key = arrive(state, worklist, 1)
    early = state.database.read_bytes()
    worklist.set_waiting(key)
    look(state, worklist, key, result(urgency=Urgency.CRITICAL, flagged=("bleed",)))
    worklist.acknowledge(acknowledgement(1, key))
    other = arrive(state, worklist, 2)
    expected = _known(worklist.studies())
    log = state.path / "worklist.sqlite-wal"
    content = log.read_bytes()
    worklist.close()
    for cut in range(0, len(content), 4120):
        for path in state.path.glob("worklist.sqlite-*"):
            path.unlink()
        state.database.write_bytes(early)
        log.write_bytes(content[:cut])
        with Worklist.open(state) as again:
            again.reconcile()
            assert _known(again.studies()) == expected, cut
            assert again.study(other) is not None


def test_a_process_goes_on_when_another_has_made_the_database_again(state: StateFolder) -> None:
    first, second = Worklist.open(state), Worklist.open(state)
    key = arrive(state, first, 1)
    state.database.unlink()
    assert second.study(key) is not None
    first.set_waiting(key)
    arrive(state, first, 2)
    assert len(second.studies()) == 2
    first.close()
    second.close()


def test_an_image_that_was_not_noted_is_counted_at_the_start(
    state: StateFolder, worklist: Worklist
) -> None:
    key = arrive(state, worklist, 1)
    (state.spool / key / "late").write_bytes(b"image")
    worklist.recount(key)
    row = worklist.study(key)
    assert row is not None and (row.instances, row.revision) == (4, 2)
    worklist.recount(key)
    assert worklist.study(key) == row
