"""Folders into which other programs drop files."""

import shutil
from pathlib import Path

import pytest
from support.clinic_node import clinic_node, until
from support.synthetic_series import CANARY, write_head_ct

from edge_medgemma.runtime.clinic.arrivals.folder_watch import FolderWatch
from edge_medgemma.runtime.clinic.settings import (
    ClinicSettings,
    Node,
    TakenFiles,
    WatchedFolder,
)
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist.records import StudyRow, StudyState
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


def test_a_node_watches(tmp_path: Path):
    scan = write_head_ct(tmp_path / "scan", slices=2, study="77")
    drop = tmp_path / "drop"
    drop.mkdir()
    table = f'[[watched_folders]]\npath = "{drop}"\nrest_s = 0\n'
    with clinic_node(tmp_path / "node", other_settings=table) as node:
        shutil.copytree(scan, drop / "a")
        until(lambda: (row := node.row("1.2.3.77")) is not None and row.instances == 2)
        assert CANARY not in node.log.read_text()
