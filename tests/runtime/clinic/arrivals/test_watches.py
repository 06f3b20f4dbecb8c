"""What the node does besides receiving: it watches folders and asks archives."""

import logging
import shutil
import threading
from pathlib import Path

import pytest
from pydicom import dcmread
from support.clinic_archive import answer, bad_archive
from support.clinic_node import CT_IMAGE, QUIET, association, clinic_node, until
from support.clinic_peers import DicomAddress, free_port, needs, running_orthanc
from support.synthetic_series import CANARY, write_head_ct

from edge_medgemma.runtime.clinic.arrivals.archive_watch import FIRST_PAUSE_S, ArchiveWatch
from edge_medgemma.runtime.clinic.arrivals.file_intake import FOLDER, take_paths
from edge_medgemma.runtime.clinic.arrivals.folder_watch import FolderWatch
from edge_medgemma.runtime.clinic.arrivals.intake import Intake
from edge_medgemma.runtime.clinic.settings import (
    ClinicSettings,
    Node,
    Peer,
    TakenFiles,
    WatchedFolder,
)
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist.records import Doubt, FailureReason, StudyRow, StudyState
from edge_medgemma.runtime.clinic.worklist.store import Worklist

SETTINGS = ClinicSettings(node=Node(reserve_gb=0.05))


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    state = StateFolder(tmp_path / "state")
    state.create()
    return state


class Clock:
    """A clock that a test sets."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def rows(state: StateFolder) -> tuple[StudyRow, ...]:
    with Worklist.open(state) as worklist:
        return worklist.studies()


def watch_of(state: StateFolder, root: Path, clock: Clock, taken: TakenFiles) -> FolderWatch:
    return FolderWatch(state, SETTINGS, WatchedFolder(str(root), taken, rest_s=10), clock)


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_files_are_taken_when_they_rest(state: StateFolder, tmp_path: Path):
    root, clock = tmp_path / "drop", Clock()
    watch = watch_of(state, root, clock, TakenFiles.MOVE)
    watch.tick()
    whole = write_head_ct(root / CANARY, slices=3, study="71")
    (root / "note.txt").write_text("no scan")
    growing = whole / f"{CANARY}_1.dcm"
    content = growing.read_bytes()
    for size in range(0, len(content), 500):
        growing.write_bytes(content[:size])
        watch.tick()
        assert rows(state) == ()
        clock.now_s += 9
    growing.write_bytes(content)
    watch.tick()
    clock.now_s += 11
    watch.tick()
    (row,) = rows(state)
    assert (row.instances, row.state) == (3, StudyState.WAITING)
    taken = {f"taken/{CANARY}/{CANARY}_{number}.dcm" for number in range(3)}
    assert names(root) == {*taken, "not_taken/note.txt"}
    clock.now_s += 100
    watch.tick()
    assert rows(state) == (row,)


def test_files_are_left_and_taken_again_only_if_they_change(state: StateFolder, tmp_path: Path):
    root, clock = tmp_path / "drop", Clock()
    write_head_ct(root, slices=2, study="72")
    shutil.make_archive(str(root / "more"), "zip", write_head_ct(tmp_path / "z", study="73"))
    watch = watch_of(state, root, clock, TakenFiles.LEAVE)
    before = names(root)
    for _ in range(3):
        watch.tick()
        clock.now_s += 11
    assert sorted(row.instances for row in rows(state)) == [2, 20]
    assert names(root) == before
    write_head_ct(tmp_path / "later", slices=1, study="74")
    shutil.copy(tmp_path / "later" / f"{CANARY}_0.dcm", root / f"{CANARY}_0.dcm")
    for _ in range(2):
        watch.tick()
        clock.now_s += 11
    assert len(rows(state)) == 3


def test_one_file_that_never_rests_holds_up_no_other(state: StateFolder, tmp_path: Path):
    root, clock = tmp_path / "drop", Clock()
    write_head_ct(root, slices=2, study="75")
    watch = watch_of(state, root, clock, TakenFiles.LEAVE)
    for number in range(12):
        (root / "growing.log").write_text("x" * number)
        watch.tick()
        clock.now_s += 7
    assert [row.instances for row in rows(state)] == [2]


def test_problems_of_a_watched_folder_are_said_once(
    state: StateFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    watch = watch_of(state, tmp_path / "nowhere", Clock(), TakenFiles.LEAVE)
    watch.tick()
    watch.tick()
    assert len(caplog.records) == 1


def test_archives_are_asked_until_they_are_given_up(
    state: StateFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    asked: list[str] = []

    def on_find(event):
        asked.append(event.identifier.StudyInstanceUID)
        count = 5 + len(asked)
        yield answer(SeriesInstanceUID="1.2", Modality="CT", NumberOfSeriesRelatedInstances=count)

    with Intake(state, SETTINGS, FOLDER) as intake:
        take_paths(intake, [write_head_ct(tmp_path / "scan", slices=2, study="76")])
    caplog.set_level(logging.WARNING)
    stop = threading.Event()
    with bad_archive(on_find) as address, Worklist.open(state) as worklist:
        peers = (
            Peer("archive", address.ae_title, address.host, address.port, query=True),
            Peer("away", "AWAY", "127.0.0.1", free_port(), query=True),
        )
        settings = ClinicSettings(node=Node(give_up_s=30), peers=peers)
        watch = ArchiveWatch(state, settings, worklist)
        for second in range(60):
            watch.tick(float(second), stop)
        assert asked == ["1.2.3.76"] * 3  # after 3, 9 and 21 s
        assert worklist.studies()[0].expected_instances == 8
        watch = ArchiveWatch(state, settings, worklist)  # as after a restart
        worklist.acquire()
        worklist.fail(worklist.studies()[0].key, FailureReason.UNREADABLE)
        for second in range(60, 120):
            watch.tick(float(second), stop)
        assert len(asked) == 3
    assert len([record for record in caplog.records if "is away" in record.message]) == 1
    assert FIRST_PAUSE_S == 3


def test_a_node_watches_and_asks(tmp_path: Path):
    scan = write_head_ct(tmp_path / "scan", slices=2, study="77")
    drop = tmp_path / "drop"
    drop.mkdir()

    def on_find(event):
        yield answer(SeriesInstanceUID="1.2", Modality="CT", NumberOfSeriesRelatedInstances=2)

    with bad_archive(on_find) as address:
        tables = (
            f'[[watched_folders]]\npath = "{drop}"\nrest_s = 0\n[[peers]]\nname = "archive"\n'
            f'ae_title = "BADARCHIVE"\nhost = "127.0.0.1"\nport = {address.port}\nquery = true\n'
        )
        with clinic_node(tmp_path / "node", other_settings=tables) as node:
            shutil.copytree(scan, drop / "a")
            until(lambda: (row := node.row("1.2.3.77")) is not None and row.instances == 2)
            row = node.settled("1.2.3.77", lambda row: row.expected_instances == 2)
            assert row.expected_instances == 2
            assert CANARY not in node.log.read_text()


@needs("Orthanc")
def test_an_archive_that_has_more_is_believed_until_all_is_here(tmp_path: Path) -> None:
    files = sorted(write_head_ct(tmp_path / "ct", slices=12, study="70").iterdir())
    with running_orthanc(tmp_path / "orthanc") as archive:
        archive.upload(*files)
        peer = (
            f'[[peers]]\nname = "pacs"\nae_title = "{archive.address.ae_title}"\n'
            f'host = "127.0.0.1"\nport = {archive.address.port}\nquery = true\n'
        )
        with clinic_node(tmp_path / "node", QUIET, peer) as node:
            archive.add_modality(DicomAddress(node.address.ae_title, node.address.port))
            with association(node, "CT", CT_IMAGE) as opened:
                for file in files[:-1]:
                    assert opened.send_c_store(dcmread(file)).Status == 0
            row = node.settled("1.2.3.70", lambda row: Doubt.FEWER_THAN_ARCHIVE in row.doubts)
            assert (row.expected_instances, row.instances) == (12, 11)
            assert Doubt.FEWER_THAN_ARCHIVE in row.doubts
            with association(node, "CT", CT_IMAGE) as opened:
                assert opened.send_c_store(dcmread(files[-1])).Status == 0
            row = node.settled("1.2.3.70", lambda row: not row.doubts)
            assert (row.instances, row.doubts) == (12, ())
