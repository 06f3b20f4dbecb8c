"""The spool against real files: what is kept, under which name, and when."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian, generate_uid
from support.small_disk import small_disk
from support.synthetic_series import CANARY, write_head_ct

from edge_medgemma.runtime.clinic.arrival_record import note_sending, read_arrival_record
from edge_medgemma.runtime.clinic.arrivals.spool import Arrival, Spool
from edge_medgemma.runtime.clinic.maker import MANUFACTURER
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.errors import ResourceError, ScanError
from edge_medgemma.runtime.slicing.scan import find_series


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    state = StateFolder(tmp_path / "state")
    state.create()
    return Spool(state)


def _bring(spool: Spool, file: Path, sender: str = "CT1") -> Arrival:
    with spool.receive() as path:
        shutil.copyfile(file, path)
        return spool.accept(path, sender)


def _slices(folder: Path, count: int = 1, **changes: object) -> list[Path]:
    return sorted(write_head_ct(folder, slices=count, **changes).iterdir())


def _everything(state: StateFolder) -> list[str]:
    return [str(path) for path in state.path.rglob("*")]


def test_a_study_is_kept_in_one_folder_that_the_reader_reads(spool: Spool, tmp_path: Path) -> None:
    arrivals = [_bring(spool, file) for file in _slices(tmp_path / "ct", 6)]
    (key,) = {arrival.study_key for arrival in arrivals}
    assert all(arrival.is_new and not arrival.is_aside for arrival in arrivals)
    assert len(spool.files(key)) == 6
    assert spool.study_keys() == (key,)
    assert find_series(spool.state.spool / key).series[0].shape == (6, 32, 32)
    assert not [name for name in _everything(spool.state) if CANARY in name]


def test_a_file_is_found_by_its_uids(spool: Spool, tmp_path: Path) -> None:
    (file,) = _slices(tmp_path / "ct")
    key = _bring(spool, file).study_key
    dataset = dcmread(file)
    found = spool.path_of(key, dataset.SeriesInstanceUID, dataset.SOPInstanceUID)
    assert found is not None and found.read_bytes() == file.read_bytes()
    assert spool.path_of(key, "1.2", dataset.SOPInstanceUID) is None


def test_the_same_object_again_changes_nothing(spool: Spool, tmp_path: Path) -> None:
    (file,) = _slices(tmp_path / "ct")
    first, again = _bring(spool, file), _bring(spool, file)
    assert first.is_new and not again.is_new and not again.is_conflict
    assert len(spool.files(first.study_key)) == 1


def test_an_image_that_an_archive_relabelled_is_the_same(spool: Spool, tmp_path: Path) -> None:
    (file,) = _slices(tmp_path / "ct")
    _bring(spool, file)
    dataset = dcmread(file)
    dataset.PatientID, dataset.InstitutionName = "changed", "elsewhere"
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.save_as(file, implicit_vr=True, little_endian=True)
    again = _bring(spool, file)
    assert not again.is_new and not again.is_conflict


@pytest.mark.parametrize("change", ["pixels", "position"])
def test_another_image_with_the_same_uids_is_kept_beside_it(
    spool: Spool, tmp_path: Path, change: str
) -> None:
    (file,) = _slices(tmp_path / "ct")
    first = _bring(spool, file)
    dataset = dcmread(file)
    if change == "pixels":
        dataset.PixelData = bytes(len(dataset.PixelData))
    else:
        dataset.ImagePositionPatient = [-100.0, -100.0, 99.0]
    dataset.save_as(file)
    other, again = _bring(spool, file), _bring(spool, file)
    assert other.is_new and other.is_conflict
    assert not again.is_new and not again.is_conflict
    assert len(spool.files(first.study_key)) == 2


def test_one_object_uid_in_two_series_makes_two_files(spool: Spool, tmp_path: Path) -> None:
    (file,) = _slices(tmp_path / "a")
    (other,) = _slices(tmp_path / "b", SeriesInstanceUID="1.2.3.1.9")
    first, second = _bring(spool, file), _bring(spool, other)
    assert first.study_key == second.study_key
    assert second.is_new and not second.is_conflict


@pytest.mark.parametrize(
    ("changes", "is_aside"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.34"}, True),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}, True),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "Manufacturer": MANUFACTURER}, True),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, False),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.1"}, False),
    ],
)
def test_what_holds_no_image_and_our_own_results_are_put_aside(
    spool: Spool, tmp_path: Path, changes: dict[str, str], is_aside: bool
) -> None:
    (file,) = _slices(tmp_path / "one", **changes)
    arrival = _bring(spool, file)
    assert arrival.is_aside is is_aside
    assert len(spool.aside_files(arrival.study_key)) == is_aside
    assert len(spool.files(arrival.study_key)) == (not is_aside)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\0" * 128 + b"DICM" + b"\xff" * 400], ids=["empty", "text", "torn"]
)
def test_no_dicom_is_refused_and_leaves_nothing(spool: Spool, content: bytes) -> None:
    with spool.receive() as path:
        path.write_bytes(content)
        with pytest.raises(ScanError, match="not kept"):
            spool.accept(path, "CT1")
    assert spool.study_keys() == ()
    assert not list(spool.state.incoming.glob("*.dcm"))


@pytest.mark.filterwarnings("ignore:.*VR UI")  # of writing it
@pytest.mark.parametrize("uid", ["", "../../etc", "1.2.x", "1" * 65])
def test_a_study_uid_that_is_none_is_refused(spool: Spool, tmp_path: Path, uid: str) -> None:
    (file,) = _slices(tmp_path / "one", StudyInstanceUID=uid)
    with pytest.raises(ScanError, match="StudyInstanceUID"):
        _bring(spool, file)


def test_a_full_disk_is_said_and_nothing_half_is_left(spool: Spool, tmp_path: Path) -> None:
    (file,) = _slices(tmp_path / "ct")
    with spool.receive() as path:
        shutil.copyfile(file, path)
        with small_disk(1), pytest.raises(ResourceError):
            spool.accept(path, "CT1")
    assert not list(spool.state.spool.rglob("*.dcm"))
    assert _bring(spool, file).is_new


def test_senders_are_kept_without_the_worklist(spool: Spool, tmp_path: Path) -> None:
    files = _slices(tmp_path / "ct", 2)
    key = _bring(spool, files[0], "CT1").study_key
    _bring(spool, files[1], "CT2")
    note_sending(spool.state, key, "CT2")
    record = read_arrival_record(spool.state, key)
    assert record is not None
    assert (record.senders, record.sending) == (("CT1", "CT2"), ("CT2",))
    assert record.study_uid == "1.2.3.1"


def test_four_senders_of_one_study_lose_nothing(spool: Spool, tmp_path: Path) -> None:
    files = _slices(tmp_path / "ct", 25)
    arrivals: list[Arrival] = []

    def send(sender: str) -> None:
        arrivals.extend(_bring(spool, file, sender) for file in files)

    threads = [threading.Thread(target=send, args=(f"CT{index}",)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(arrivals) == 100
    assert sum(arrival.is_new for arrival in arrivals) == 25
    assert not any(arrival.is_conflict for arrival in arrivals)
    assert len(spool.files(arrivals[0].study_key)) == 25
    record = read_arrival_record(spool.state, arrivals[0].study_key)
    assert record is not None and set(record.senders) == {"CT0", "CT1", "CT2", "CT3"}


def test_two_images_with_one_uid_at_the_same_moment_are_both_kept(
    spool: Spool, tmp_path: Path
) -> None:
    uid = generate_uid()
    files = [
        _slices(tmp_path / str(shade), SOPInstanceUID=uid, PixelData=bytes([shade]) * 2048)[0]
        for shade in range(8)
    ]
    threads = [threading.Thread(target=_bring, args=(spool, file)) for file in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (key,) = spool.study_keys()
    assert len(spool.files(key)) == 8


def test_a_sweep_removes_only_what_nobody_receives(spool: Spool) -> None:
    code = (
        "import sys, os; from pathlib import Path\n"
        "from edge_medgemma.runtime.clinic.arrivals.spool import Spool\n"
        "from edge_medgemma.runtime.clinic.state_folder import StateFolder\n"
        "with Spool(StateFolder(Path(sys.argv[1]))).receive() as path:\n"
        "    path.write_bytes(b'half'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(spool.state.path)], check=True)
    assert len(list(spool.state.incoming.glob("*.dcm"))) == 1
    with spool.receive() as path:
        path.write_bytes(b"being received")
        spool.sweep()
        assert list(spool.state.incoming.glob("*.dcm")) == [path]


def test_all_is_on_the_disk_before_accept_returns(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = _slices(tmp_path / "ct")
    calls: list[str] = []
    fsync, link = os.fsync, os.link

    def recorded_fsync(descriptor: int) -> None:
        calls.append(f"fsync {os.readlink(f'/proc/self/fd/{descriptor}')}")
        fsync(descriptor)

    def recorded_link(source: Path, target: Path) -> None:
        calls.append(f"link {target}")
        link(source, target)

    with spool.receive() as path:
        shutil.copyfile(file, path)
        monkeypatch.setattr(os, "fsync", recorded_fsync)
        monkeypatch.setattr(os, "link", recorded_link)
        arrival = spool.accept(path, "CT1")
    folder = spool.state.spool / arrival.study_key
    expected = [f"fsync {path}", f"link {folder / arrival.name}", f"fsync {folder}"]
    places = [calls.index(call) for call in expected]
    assert places == sorted(places)
    assert f"fsync {spool.state.spool}" in calls  # the name of the study's folder
