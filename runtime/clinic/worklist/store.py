"""The worklist: what has come, what the engine made of it, who knows."""

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Self

import msgspec

from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist import audit, states
from edge_medgemma.runtime.clinic.worklist.database import Database, Transaction
from edge_medgemma.runtime.clinic.worklist.entry import Entry, new_entry
from edge_medgemma.runtime.clinic.worklist.lease import (
    Lease,
    ended_with_machine,
    is_alive,
    this_process,
)
from edge_medgemma.runtime.clinic.worklist.order import looking_order, reading_order
from edge_medgemma.runtime.clinic.worklist.rebuild import (
    ACKNOWLEDGED,
    DELIVERED,
    FAILED,
    SUPERSEDED,
    Told,
    count_instances,
    read_told,
    rebuild,
    replay,
)
from edge_medgemma.runtime.clinic.worklist.records import (
    Acknowledgement,
    Doubt,
    FailureReason,
    StudyRow,
    StudyState,
)
from edge_medgemma.runtime.clinic.worklist.results import ResultRecord, read_records
from edge_medgemma.runtime.errors import WorklistError

BOX = "box"
"""Who did it, in the audit, where no person and no other device did."""


class Worklist:
    """All studies of a box; processes and threads may use it at once, each with one of its own.

    Every call is one transaction, on the disk when it returns. All may raise a ResourceError (the disk
    is full or cannot be written), and those that name a study a WorklistError (there is none of that
    key, or it is in no state for that).
    """

    def __init__(self, state: StateFolder, database: Database) -> None:
        """By `open`."""
        self._state = state
        self._database = database

    @classmethod
    def open(cls, state: StateFolder) -> Self:
        """The worklist of a state folder; one that is missing, cut short or damaged is made again."""
        return cls(state, Database(state.database, partial(_rebuilt, state)))

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def studies(self, *, with_superseded: bool = False) -> tuple[StudyRow, ...]:
        """All but superseded ones, in the order in which people should read them."""
        with self._database.transaction(writes=False) as transaction:
            rows = [entry.row for entry in transaction.entries.values()]
        if not with_superseded:
            rows = [row for row in rows if row.state is not StudyState.SUPERSEDED]
        return tuple(sorted(rows, key=reading_order))

    def study(self, key: str) -> StudyRow | None:
        """One study, a superseded one too; None where there is none of that key."""
        with self._database.transaction(writes=False) as transaction:
            entry = transaction.entries.get(key)
        return None if entry is None else entry.row

    def acknowledgements(self, key: str) -> tuple[Acknowledgement, ...]:
        """Of one study, in order."""
        with self._database.transaction(writes=False) as transaction:
            return _entry(transaction, key).acknowledgements

    def result_doubts(self, key: str) -> tuple[Doubt, ...]:
        """Doubts that the report of the latest result says."""
        with self._database.transaction(writes=False) as transaction:
            return _entry(transaction, key).result_doubts

    def note_arrivals(
        self,
        key: str,
        study_uid: str,
        sender: str,
        new_instances: int,
        doubts: Iterable[Doubt] = (),
    ) -> None:
        """Images of a study are in the spool, `new_instances` of them for the first time.

        A study that is done is `arriving` again; one that waits for the engine goes on waiting, and is
        looked at with them; one that is being looked at is looked at again.
        """
        with self._database.transaction() as transaction:
            now = audit.utc_now()
            entry = transaction.entries.get(key)
            if entry is None:
                places = (one.row.place for one in transaction.entries.values())
                entry = new_entry(key, study_uid, max(places, default=0) + 1, now)
            transaction.put(states.arrive(entry, sender, new_instances, doubts, now))

    def note_spooled(
        self,
        key: str,
        study_uid: str,
        sender: str,
        new_instances: int,
        doubts: Iterable[Doubt] = (),
    ) -> None:
        """`note_arrivals` of files in the spool: never more than are there.

        A process that starts counts what it finds, also what another one is about to note.
        """
        row = self.study(key)
        known = 0 if row is None else row.instances
        uncounted = max(0, count_instances(self._state, key) - known)
        self.note_arrivals(key, study_uid, sender, min(new_instances, uncounted), doubts)

    def recount(self, key: str) -> None:
        """Count the spool of a study, after a node that was killed between a file and its note.

        For the node's start alone: what it is about to note would be counted twice.
        """
        with self._change(key) as change:
            missed = count_instances(self._state, key) - change.entry.row.instances
            if missed > 0:
                change.entry = states.arrive(change.entry, "", missed, (), audit.utc_now())

    def set_expected(self, key: str, count: int | None) -> None:
        """Images that the archive says the study has; None where it does not say."""
        with self._change(key) as change:
            row = replace(change.entry.row, expected_instances=count)
            change.entry = replace(change.entry, row=row)

    def add_doubt(self, key: str, doubt: Doubt) -> None:
        """Doubt a study; one that is done becomes incomplete."""
        with self._change(key) as change:
            change.entry = states.with_doubt(change.entry, doubt)

    def clear_doubt(self, key: str, doubt: Doubt) -> None:
        """Take a doubt back; an incomplete study without any other is done."""
        with self._change(key) as change:
            change.entry = states.without_doubt(change.entry, doubt)

    def set_waiting(self, key: str) -> None:
        """Let the engine look now; nothing changes where it has seen all there is.

        A study that has failed is tried once more.
        """
        with self._change(key) as change:
            change.entry = states.want_look(change.entry)

    def acquire(self) -> Lease | None:
        """The right to look at the study that needs it most; None where none waits or one is looked at.

        A study whose process has ended is waiting again first, or has failed after the second time.
        """
        self._end_dead_leases()
        with self._database.transaction() as transaction:
            entries = transaction.entries.values()
            if any(entry.lease is not None for entry in entries):
                return None  # there is one engine
            waiting = [entry for entry in entries if entry.row.state is StudyState.WAITING]
            if not waiting:
                return None
            entry = min(waiting, key=lambda one: looking_order(one.row))
            row = entry.row
            lease = Lease(row.key, row.revision, row.instances, this_process(), time.monotonic())
            transaction.put(states.begin(entry, lease))
            return lease

    def next_waiting(self) -> StudyRow | None:
        """The study that `acquire` would give if nothing were looked at."""
        with self._database.transaction(writes=False) as transaction:
            rows = [entry.row for entry in transaction.entries.values()]
        waiting = [row for row in rows if row.state is StudyState.WAITING]
        return min(waiting, key=looking_order, default=None)

    def release(self, lease: Lease) -> None:
        """Put a look off; it waits again, or arrives where images came meanwhile."""
        with self._change(lease.key) as change:
            if change.entry.lease == lease:
                change.entry = states.give_back(change.entry)

    def publish_record(self, key: str, record: ResultRecord) -> None:
        """A pass has ended, and its result folder is there; one that is known changes nothing.

        Neither urgency nor flags are lowered by a look that saw less, nor flags by any before a person
        has acknowledged them. A rise takes an acknowledgement back.
        """
        with self._change(key) as change:
            self._publish(change, record)

    def fail(self, key: str, reason_code: FailureReason) -> None:
        """The engine cannot look at a study: a person must."""
        with self._change(key) as change:
            self._fail(change, states.fail(change.entry, reason_code))

    def delivered(self, key: str, number: int) -> None:
        """Every destination has this result."""
        with self._change(key) as change:
            after = states.delivered(change.entry, number)
            if after is not change.entry:
                audit.append(self._state, DELIVERED, BOX, key, str(number))
            change.entry = after

    def acknowledge(self, acknowledgement: Acknowledgement) -> None:
        """A person has told another of a result; in the audit before it is in the database."""
        key = acknowledgement.study_key
        with self._change(key) as change:
            after = states.acknowledge(change.entry, acknowledgement)
            if after is not change.entry:
                detail = msgspec.json.encode(acknowledgement).decode()
                audit.append(
                    self._state, ACKNOWLEDGED, acknowledgement.communicated_by, key, detail
                )
            change.entry = after

    def set_superseded(self, key: str) -> None:
        """The images of a study are part of another one."""
        with self._change(key) as change:
            change.entry = states.supersede(change.entry)
            audit.append(self._state, SUPERSEDED, BOX, key)

    def remove(self, key: str) -> None:
        """Forget a study whose folders are gone."""
        with self._database.transaction() as transaction:
            transaction.delete(key)

    def reconcile(self) -> None:
        """Take from the folders what the database lacks, as after a kill between the two.

        For the start of a process: results that were written and not noted, acknowledgements, studies.
        """
        told = read_told(self._state)
        with self._database.transaction() as transaction:
            known = dict(transaction.entries)
            last = max((entry.row.place for entry in known.values()), default=0)
            for entry in known.values():
                after = self._caught_up(entry, told.get(entry.row.key, Told()))
                if after != entry:
                    transaction.put(after)
            missing = [one for one in rebuild(self._state) if one.row.key not in known]
            for place, entry in enumerate(missing, start=last + 1):
                transaction.put(replace(entry, row=replace(entry.row, place=place)))

    def _caught_up(self, entry: Entry, told: Told) -> Entry:
        """The entry with the results and acknowledgements that its folders have and it has not."""
        key, known = entry.row.key, entry.row.result_number or 0
        records = [one for one in read_records(self._state, key) if one.number > known]
        for record in records:
            self._audit_look(key, record)
        return replay(entry, records, told)

    def _audit_look(self, key: str, record: ResultRecord) -> None:
        words = f"{record.number} {'final' if record.is_final else 'coarse'} {record.urgency}"
        audit.append(self._state, "looked_at", BOX, key, words)

    def _end_dead_leases(self) -> None:
        with self._database.transaction(writes=False) as transaction:
            held = [entry for entry in transaction.entries.values() if entry.lease is not None]
        dead = [entry for entry in held if entry.lease and not is_alive(entry.lease)]
        for seen in dead:
            with self._change(seen.row.key) as change:
                if change.entry.lease == seen.lease and seen.lease is not None:
                    is_at_fault = not ended_with_machine(seen.lease)
                    self._fail(change, states.crash(change.entry, is_at_fault))

    def _publish(self, change: "_Change", record: ResultRecord) -> None:
        after = states.publish(change.entry, record)
        if after is not change.entry:
            self._audit_look(change.entry.row.key, record)
        change.entry = after

    def _fail(self, change: "_Change", after: Entry) -> None:
        reason = after.row.failure
        if after.row.state is StudyState.FAILED and reason is not None:
            audit.append(self._state, FAILED, BOX, after.row.key, reason)
        change.entry = after

    @contextlib.contextmanager
    def _change(self, key: str) -> Iterator["_Change"]:
        """One study in one transaction; what the block leaves in `entry` is written."""
        with self._database.transaction() as transaction:
            change = _Change(_entry(transaction, key))
            before = change.entry
            yield change
            if change.entry is not before:
                transaction.put(change.entry)


class _Change:
    """The entry that a block changes."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry


def _entry(transaction: Transaction, key: str) -> Entry:
    entry = transaction.entries.get(key)
    if entry is None:
        raise WorklistError(f"the worklist has no study {key[:8]}; it may have been deleted")
    return entry


def _rebuilt(state: StateFolder) -> list[Entry]:
    entries = rebuild(state)
    if entries:
        audit.append(state, "worklist_rebuilt", BOX, detail=str(len(entries)))
    return entries
