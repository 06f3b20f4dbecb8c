"""What the node's one writer makes of arrivals, without a network and with a clock of the test's own."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydicom.uid import generate_uid
from support.synthetic_series import write_head_ct

from edge_medgemma.runtime.clinic.arrival_record import note_sending, read_arrival_record
from edge_medgemma.runtime.clinic.arrivals import arrival_clock
from edge_medgemma.runtime.clinic.arrivals.arrival_clock import ArrivalClock
from edge_medgemma.runtime.clinic.arrivals.arrival_log import ArrivalLog
from edge_medgemma.runtime.clinic.arrivals.completeness import Patience
from edge_medgemma.runtime.clinic.arrivals.recent import Outcome, recent_associations
from edge_medgemma.runtime.clinic.clock import is_clock_set
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist import audit
from edge_medgemma.runtime.clinic.worklist.records import Doubt, StudyRow, StudyState
from edge_medgemma.runtime.clinic.worklist.store import Worklist
from edge_medgemma.runtime.errors import ResourceError, WorklistError


@dataclass
class Box:
    """A node without ports."""

    state: StateFolder
    worklist: Worklist
    files: Path
    now_s: float = 1000.0
    log: ArrivalLog = field(default_factory=ArrivalLog)
    clock: ArrivalClock = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.log = ArrivalLog()
        patience = Patience(released_quiet_s=10, quiet_s=60, give_up_s=600)
        self.clock = ArrivalClock(self.state, self.worklist, self.log, patience, lambda: self.now_s)
        self.clock.start()

    def send(
        self, *indices: int, study: str = "1", series: str = "1", sender: str = "CT", **end: bool
    ) -> None:
        """An association that brings some slices of a series, and how it ends."""
        handle = object()
        self.log.begin(handle, sender, "BOX", "127.0.0.1", is_echo=False)
        uids = {"SeriesInstanceUID": f"1.2.3.{study}.{series}"}
        for index in indices:
            uids["SOPInstanceUID"] = f"1.2.3.{study}.{series}.{index + 1}"
            folder = self.files / generate_uid()
            position = [-100.0, -100.0, 5.0 * index]
            write_head_ct(folder, slices=1, study=study, ImagePositionPatient=position, **uids)
            with self.clock._spool.receive() as path:
                shutil.copyfile(next(folder.iterdir()), path)
                arrival = self.clock._spool.accept(path, sender)
            if self.log.note(handle, arrival):
                note_sending(self.state, arrival.study_key, sender)
        if end.get("is_refused_one"):
            self.log.note_refused(handle, Outcome.NO_ROOM_LEFT)
        if end.get("ends", True):
            self.log.end(handle, is_released=end.get("is_released", True))

    def after(self, seconds: float) -> None:
        self.now_s += seconds
        self.clock.tick()

    def row(self, study: str = "1") -> StudyRow:
        row = self.worklist.study(self.state.study_key(f"1.2.3.{study}"))
        assert row is not None
        return row


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    state = StateFolder(tmp_path / "state")
    state.create()
    with Worklist.open(state) as worklist:
        yield Box(state, worklist, tmp_path / "files")


def test_a_study_waits_ten_seconds_after_its_release(box: Box) -> None:
    box.send(*range(6))
    box.after(0)
    assert (box.row().state, box.row().instances) == (StudyState.ARRIVING, 6)
    box.after(9)
    assert box.row().state is StudyState.ARRIVING
    box.after(1)
    assert (box.row().state, box.row().doubts) == (StudyState.WAITING, ())


def test_a_stack_without_a_gap_waits_half_a_second(box: Box) -> None:
    box.send(*range(10))
    box.after(0.1)
    box.after(0.3)
    assert box.row().state is StudyState.ARRIVING
    box.after(0.3)
    assert box.row().state is StudyState.WAITING
    box.send(*range(11, 14), study="2", series="1")  # too few to tell
    box.send(*(index for index in range(12) if index != 6), study="3")  # one is missing
    box.after(0.1)
    box.after(5)
    assert {box.row(study).state for study in "23"} == {StudyState.ARRIVING}
    box.after(5)
    assert {box.row(study).state for study in "23"} == {StudyState.WAITING}


def test_a_frozen_sender_is_waited_for_a_minute_and_its_study_doubted(box: Box) -> None:
    box.send(*range(6), ends=False)
    box.after(0)
    box.after(59)
    assert box.row().state is StudyState.ARRIVING
    box.after(1)
    assert (box.row().state, box.row().doubts) == (StudyState.WAITING, (Doubt.STILL_ARRIVING,))


def test_an_open_association_that_only_repeats_is_no_doubt(box: Box) -> None:
    box.send(*range(6))
    box.after(0)
    box.after(10)
    box.send(*range(6), ends=False)
    box.after(1)
    assert (box.row().state, box.row().doubts) == (StudyState.WAITING, ())


def test_a_break_is_forgiven_by_the_same_series_of_the_same_sender_only(box: Box) -> None:
    box.send(*range(6), series="1")
    box.send(*range(3), series="2", is_released=False)
    box.after(0)
    assert box.row().doubts == (Doubt.ABORTED,)
    box.send(*range(6), series="1")
    box.send(*range(6), series="2", sender="OTHER")
    box.after(20)
    assert box.row().doubts == (Doubt.ABORTED,)
    box.send(*range(6), series="2")
    box.after(1)
    assert box.row().doubts == ()


def test_a_study_of_which_an_image_was_refused_is_doubted_until_all_of_it_was_taken(
    box: Box,
) -> None:
    box.send(0, 1, 2, is_refused_one=True)
    box.after(0)
    assert box.row().doubts == (Doubt.ABORTED,)
    box.send(0, 1, 2, is_refused_one=True)
    box.after(1)
    assert box.row().doubts == (Doubt.ABORTED,)
    box.send(0, 1, 2, 3)
    box.after(1)
    assert not box.row().doubts


def test_what_was_being_sent_when_the_node_ended_is_doubted(box: Box) -> None:
    box.send(*range(6), ends=False)
    box.after(0)
    box.restart()
    assert box.row().doubts == (Doubt.ABORTED,)
    box.after(20)
    assert (box.row().state, box.row().doubts) == (StudyState.WAITING, (Doubt.ABORTED,))
    record = read_arrival_record(box.state, box.row().key)
    assert record is not None and (record.sending, record.doubts) == ((), ("aborted",))
    box.send(*range(6))
    box.after(1)
    assert box.row().doubts == ()


def test_images_that_were_kept_and_not_noted_are_noted_at_the_start(box: Box) -> None:
    box.send(*range(4))
    box.after(0)
    box.send(4, 5)
    box.send(*range(6), study="2")
    box.restart()  # before any of it was noted
    box.after(0)
    assert (box.row().instances, box.row("2").instances) == (6, 6)


def test_an_archives_count_ends_the_wait_and_the_doubt(box: Box) -> None:
    box.send(*range(5), is_released=False)
    box.after(0)
    box.worklist.set_expected(box.row().key, 6)
    box.after(11)
    assert set(box.row().doubts) == {Doubt.ABORTED, Doubt.FEWER_THAN_ARCHIVE}
    box.send(5, sender="PULL")
    box.after(0)
    assert (box.row().state, box.row().doubts) == (StudyState.WAITING, ())


def test_a_clock_before_the_program_was_built_is_doubted(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_1970 = datetime(1970, 1, 1, tzinfo=UTC)
    monkeypatch.setattr(arrival_clock, "is_clock_set", lambda: is_clock_set(in_1970))
    box.send(*range(6))
    box.after(0)
    assert box.row().doubts == (Doubt.CLOCK_NOT_SET,)
    record = read_arrival_record(box.state, box.row().key)
    assert record is not None and record.doubts == ("clock_not_set",)


@pytest.mark.parametrize("error", [WorklistError("no such study"), ResourceError("disk full")])
def test_what_is_wrong_with_one_study_stops_no_other(
    box: Box, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    box.send(*range(6))
    box.send(*range(6), study="2")
    note, is_broken = box.worklist.note_arrivals, True

    def failing(key: str, *arguments: object) -> None:
        if is_broken and key == box.state.study_key("1.2.3.1"):
            raise error
        note(key, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(box.worklist, "note_arrivals", failing)
    box.after(0)
    is_broken = False
    box.after(1)
    assert box.row("2").instances == 6
    if isinstance(error, ResourceError):  # nothing of it is forgotten
        assert box.row().instances == 6


def test_the_audit_and_the_setup_page_are_told(box: Box) -> None:
    box.send(*range(6))
    box.after(0)
    box.send(*range(6), is_released=False)
    box.after(0)
    told = [(one.event, one.who, one.detail) for one in audit.read(box.state)]
    assert ("received", "CT", "6") in told
    assert ("sent_again", "CT", "") in told
    shown = recent_associations(box.state)
    assert [(one.images, one.outcome) for one in shown] == [(6, "aborted"), (6, "released")]
