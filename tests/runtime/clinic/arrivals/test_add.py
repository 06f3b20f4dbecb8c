"""`edge-medgemma clinic add`: folders, archives and sticks on their way into the worklist."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage
from support.small_disk import small_disk
from support.synthetic_series import CANARY, write_head_ct

from edge_medgemma.runtime.cli import cli
from edge_medgemma.runtime.clinic.arrival_record import read_arrival_record
from edge_medgemma.runtime.clinic.arrivals.arrival_clock import ArrivalClock
from edge_medgemma.runtime.clinic.arrivals.arrival_log import ArrivalLog
from edge_medgemma.runtime.clinic.arrivals.completeness import Patience
from edge_medgemma.runtime.clinic.arrivals.file_intake import FOLDER, take_paths
from edge_medgemma.runtime.clinic.arrivals.intake import Intake
from edge_medgemma.runtime.clinic.heartbeat import beat
from edge_medgemma.runtime.clinic.maker import MANUFACTURER
from edge_medgemma.runtime.clinic.settings import ClinicSettings, Node
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist.records import Doubt, FailureReason, StudyRow, StudyState
from edge_medgemma.runtime.clinic.worklist.store import Worklist
from edge_medgemma.runtime.errors import EdgeMedgemmaError
from edge_medgemma.runtime.slicing.scan import find_series


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    return StateFolder(tmp_path / "state")


def add(state: StateFolder, *words: str | Path) -> Result:
    return CliRunner().invoke(cli, ["clinic", "add", *map(str, words), "--state", str(state.path)])


def rows(state: StateFolder) -> tuple[StudyRow, ...]:
    with Worklist.open(state) as worklist:
        return worklist.studies()


def packed(folder: Path, kind: str) -> Path:
    return Path(shutil.make_archive(str(folder.parent / "packed"), kind, folder))


@pytest.mark.command("clinic add")
def test_a_folder_is_taken_and_waits_for_the_engine(state: StateFolder, tmp_path: Path):
    scan = write_head_ct(tmp_path / "stick" / "a", slices=4, study="91")
    write_head_ct(tmp_path / "stick" / "b", slices=3, study="92")
    (tmp_path / "stick" / "autorun.inf").write_text("[autorun]")
    (tmp_path / "stick" / "DICOMDIR").write_bytes(b"\0" * 200)
    done = add(state, tmp_path / "stick")
    assert done.exit_code == 0, done.output
    assert "skipped  1 file: DICOMDIR" in done.output
    assert CANARY not in done.output
    assert [(row.state, row.instances, row.senders) for row in rows(state)] == [
        (StudyState.WAITING, 4, ("folder",)),
        (StudyState.WAITING, 3, ("folder",)),
    ]
    key = state.study_key("1.2.3.91")
    assert find_series(state.spool / key).series[0].shape == (4, 32, 32)
    before = rows(state)
    again = add(state, scan)
    assert "4 of them there already" in again.output
    assert rows(state) == before


def test_a_study_beside_an_image_that_cannot_be_read_is_doubted_until_it_is_taken_whole(
    state: StateFolder, tmp_path: Path
):
    scan = write_head_ct(tmp_path / "stick", slices=6, study="93")
    image = max(scan.iterdir())
    whole = image.read_bytes()
    image.write_bytes(whole[:400])
    assert add(state, scan).exit_code == 0
    assert rows(state)[0].doubts == (Doubt.ABORTED,)
    image.write_bytes(whole)
    assert add(state, scan).exit_code == 0
    assert not rows(state)[0].doubts and rows(state)[0].instances == 6


def test_the_directory_of_a_disc_is_no_image_that_was_lost(state: StateFolder, tmp_path: Path):
    scan = write_head_ct(tmp_path / "disc", slices=2, study="93")
    directory = Dataset()
    directory.FileSetID = "DISC"
    directory.file_meta = FileMetaDataset()
    directory.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    directory.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    directory.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    directory.save_as(scan / "WITHOUT_ITS_NAME", enforce_file_format=True)
    assert "1 file" in add(state, scan).output
    assert not rows(state)[0].doubts


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar"])
def test_archives_are_taken(state: StateFolder, tmp_path: Path, kind: str):
    scan = write_head_ct(tmp_path / "scan", slices=3, study="93")
    inner = packed(scan, "zip")
    inner.rename(scan / "inner.zip")
    (scan / f"{CANARY}_0.dcm").unlink()
    done = add(state, packed(scan, kind))
    assert done.exit_code == 0, done.output
    assert rows(state)[0].instances == 3
    assert list(state.incoming.glob("*.dcm")) == []


def test_what_is_no_scan_is_refused_in_one_line(state: StateFolder, tmp_path: Path):
    nifti = tmp_path / "head.nii"
    nifti.write_bytes((348).to_bytes(4, "little") + b"\0" * 340 + b"n+1\0" + b"\0" * 200)
    own = write_head_ct(tmp_path / "own", slices=1, study="94", Manufacturer=MANUFACTURER)
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"{number}", b"\0" * 128 + b"DICM" + b"\0" * 100_000_000)
    for path, words in [
        (tmp_path / "nowhere", "does not exist"),
        (nifti, "edge-medgemma triage"),
        (own, "no DICOM image"),
        (bomb, "no DICOM image"),
    ]:
        done = add(state, path)
        assert isinstance(done.exception, EdgeMedgemmaError)
        assert words in str(done.exception)
    assert not state.database.exists() or rows(state) == ()


def test_a_full_disk_stops_and_says_so(state: StateFolder, tmp_path: Path):
    scan = write_head_ct(tmp_path / "scan", slices=3, study="95")
    file = tmp_path / "clinic.toml"
    file.write_text("[node]\nreserve_gb = 1e9\n")
    done = add(state, scan, "--settings", file)
    assert "free some space" in str(done.exception)
    assert rows(state) == ()


def test_a_disk_that_fills_keeps_what_was_taken(state: StateFolder, tmp_path: Path):
    small = write_head_ct(tmp_path / "scan" / "1", slices=1, study="96")
    large = write_head_ct(tmp_path / "scan" / "2", slices=1, study="97", PixelData=bytes(400_000))
    settings = ClinicSettings(node=Node(reserve_gb=0))
    state.create()
    with Worklist.open(state), Intake(state, settings, FOLDER) as intake:
        take_paths(intake, [small])
    with pytest.raises(EdgeMedgemmaError), Intake(state, settings, FOLDER) as intake:
        take_paths(intake, [small])
        with small_disk(100_000):
            take_paths(intake, [large])
    (row,) = rows(state)
    assert row.instances == 1
    assert list(state.incoming.glob("*.dcm")) == []


def test_what_was_broken_off_is_doubted_until_all_was_taken(state: StateFolder, tmp_path: Path):
    scan = write_head_ct(tmp_path / "scan", slices=4, study="98")

    def pull_the_stick_out(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with (
        pytest.raises(KeyboardInterrupt),
        Intake(state, ClinicSettings(), FOLDER) as intake,
    ):
        take_paths(intake, [scan], pull_the_stick_out)
    (row,) = rows(state)
    assert (row.instances, row.doubts, row.state) == (2, (Doubt.ABORTED,), StudyState.WAITING)
    shutil.copytree(scan, tmp_path / "rest")
    for name in sorted(os.listdir(tmp_path / "rest"))[:2]:
        (tmp_path / "rest" / name).unlink()
    add(state, tmp_path / "rest")
    assert rows(state)[0].doubts == (Doubt.ABORTED,)
    add(state, scan)
    assert (rows(state)[0].doubts, rows(state)[0].instances) == ((), 4)


def test_a_kill_loses_nothing_that_is_taken_again(state: StateFolder, tmp_path: Path):
    scan = write_head_ct(tmp_path / "scan", slices=3, study="99")
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from edge_medgemma.runtime.clinic.arrivals.file_intake import take_paths\n"
        "from edge_medgemma.runtime.clinic.arrivals.intake import Intake\n"
        "from edge_medgemma.runtime.clinic.settings import ClinicSettings\n"
        "from edge_medgemma.runtime.clinic.state_folder import StateFolder\n"
        "kill = lambda done, total: done == 2 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "with Intake(StateFolder(Path(sys.argv[1])), ClinicSettings(), 'folder') as intake:\n"
        "    take_paths(intake, [Path(sys.argv[2])], kill)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, state.path, scan],
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    key = state.study_key("1.2.3.99")
    record = read_arrival_record(state, key)
    assert record is not None and record.sending == ("folder",)
    assert add(state, scan).exit_code == 0
    (row,) = rows(state)
    assert row.instances == 3
    record = read_arrival_record(state, key)
    assert record is not None and record.sending == ()


def test_waiting_prints_the_urgency(state: StateFolder, tmp_path: Path):
    scan = write_head_ct(tmp_path / "scan", slices=2, study="90")
    assert "no engine looks at them" in str(add(state, scan, "--and-wait").exception)
    key = state.study_key("1.2.3.90")

    end = threading.Event()

    def look() -> None:
        with Worklist.open(state) as worklist:
            while not end.wait(0.05):
                if lease := worklist.acquire():
                    worklist.fail(lease.key, FailureReason.UNREADABLE)

    beat(state, "worker")
    engine = threading.Thread(target=look)
    engine.start()
    done = add(state, scan, "--and-wait")
    end.set()
    engine.join()
    assert f"study {key[:8]}  could not be looked at; a person must" in done.output


def test_the_node_hears_what_another_process_broke_off(state: StateFolder, tmp_path: Path):
    scan = write_head_ct(tmp_path / "scan", slices=6, study="89")
    now_s = [0.0]
    state.create()
    with Worklist.open(state) as worklist:
        clock = ArrivalClock(state, worklist, ArrivalLog(), Patience(10, 60, 600), lambda: now_s[0])
        clock.start()

        def ticks() -> tuple[Doubt, ...]:
            for _ in range(4):
                now_s[0] += 20
                clock.tick()
            return worklist.studies()[0].doubts

        with pytest.raises(KeyboardInterrupt), Intake(state, ClinicSettings(), FOLDER) as intake:
            take_paths(intake, [scan])
            clock.tick()
            intake.note()
            clock.tick()
            raise KeyboardInterrupt
        assert ticks() == (Doubt.ABORTED,)
        record = read_arrival_record(state, state.study_key("1.2.3.89"))
        assert record is not None and record.doubts == (Doubt.ABORTED,)
        add(state, scan)
        assert ticks() == ()


def test_what_a_starting_process_has_counted_is_not_counted_twice(
    state: StateFolder, tmp_path: Path
):
    scan = write_head_ct(tmp_path / "scan", slices=4, study="88")

    def start_a_worker(done: int, _: int) -> None:
        if done == 3:
            with Worklist.open(state) as worklist:
                worklist.reconcile()

    with Intake(state, ClinicSettings(), FOLDER) as intake:
        take_paths(intake, [scan], start_a_worker)
    assert rows(state)[0].instances == 4
