"""Scans in one file: read as their folder would be, and harmless whatever is in them."""

import errno
import io
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_medgemma.runtime.errors import ResourceError, ScanError
from edge_medgemma.runtime.slicing.scan import find_series, read_volume

WriteSlice = Callable[..., Path]


def unpacked_files(private_folder: Path) -> list[Path]:
    return [path for path in private_folder.rglob("*") if path.is_file() and path.name != "lock"]


def zipped(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.iterdir():
            archive.write(path, f"PAT/{path.name}")
    return target


def tarred(folder: Path, target: Path, mode: str) -> Path:
    with tarfile.open(target, mode) as archive:  # type: ignore[call-overload]
        archive.add(folder, "PAT")
    return target


def tar_of(target: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(target, "w:gz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return target


def values(scan: Path) -> np.ndarray:
    (series,) = find_series(scan).series
    return read_volume(series).array


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("is_alone", [True, False])
def test_an_archive_reads_as_its_folder(
    phantom: Path, tmp_path: Path, kind: str, is_alone: bool
) -> None:
    target = tmp_path / "cd" / "scan.of.anything"
    target.parent.mkdir()
    if kind == "zip":
        zipped(phantom, target)
    else:
        tarred(phantom, target, "w:gz" if kind == "tar.gz" else "w")
    np.testing.assert_array_equal(values(target if is_alone else target.parent), values(phantom))


def test_files_of_an_archive_are_skipped_by_their_names(
    phantom: Path, tmp_path: Path, write_slice: WriteSlice
) -> None:
    (phantom / "notes\x1b").write_text("x")
    zipped(phantom, phantom / "inner.zip")
    skipped = find_series(zipped(phantom, tmp_path / "scan.zip")).skipped
    assert {file.path: file.reason for file in skipped} == {
        "scan.zip/PAT/notes\N{REPLACEMENT CHARACTER}": "neither DICOM nor NIfTI by its content",
        "scan.zip/PAT/inner.zip": "archive in an archive; unpack it first",
    }


def test_names_and_links_reach_nothing_outside(
    phantom: Path, tmp_path: Path, private_folder: Path
) -> None:
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    device = tarfile.TarInfo("device")
    device.type = tarfile.CHRTYPE
    names = ["../../escape", "/tmp/escape", "a/../../escape"]
    tar_of(
        phantom / "a.tgz", (link, b""), (device, b""), *((tarfile.TarInfo(n), b"x") for n in names)
    )
    zip_link = zipfile.ZipInfo("zip link")
    zip_link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(phantom / "b.zip", "w") as archive:
        archive.writestr(zip_link, "/etc/passwd")
        archive.writestr("../../escape", "x")
    before = {path for path in tmp_path.rglob("*") if private_folder not in path.parents}
    listing = find_series(phantom)
    reasons = {file.path: file.reason for file in listing.skipped}
    assert reasons["a.tgz/link"] == reasons["b.zip/zip link"] == "link in an archive, not followed"
    assert reasons["a.tgz/device"] == "not a file"
    assert listing.series[0].shape[0] == 9
    assert {p for p in tmp_path.rglob("*") if private_folder not in p.parents} == before
    unpacked = unpacked_files(private_folder)
    assert {path.name for path in unpacked} <= {f"{number:06d}" for number in range(10)}
    assert all(path.stat().st_mode & 0o077 == 0 for path in private_folder.iterdir())


def test_a_bomb_is_not_unpacked(phantom: Path, private_folder: Path) -> None:
    with zipfile.ZipFile(phantom / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(300 * 1024**2))
    listing = find_series(phantom)
    assert listing.series[0].shape[0] == 9
    assert [file.reason for file in listing.skipped] == [
        "archive that unpacks to more than 200 times its size"
    ]
    assert unpacked_files(private_folder) == []


def test_too_many_files_are_refused(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_medgemma.runtime.slicing.scan.MAX_FILES", 9)
    with pytest.raises(ScanError, match="archive that brings the scan to over"):
        find_series(zipped(phantom, tmp_path / "a.zip"))


def test_a_whole_dataset_may_hold_more_files(
    phantom: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_medgemma.runtime.slicing.scan.MAX_FILES", 8)
    with pytest.raises(ScanError, match="more than 8 files"):
        find_series(phantom)
    assert find_series(phantom, most_files=9).series
    with pytest.raises(ScanError, match="more than 7 files"):
        find_series(phantom, most_files=7)


def test_a_forged_header_asks_for_no_memory(phantom: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type = tarfile.XHDTYPE
    tar_of(phantom / "forged.tgz", (info, bytes(20 * 1024**2)))
    (file,) = find_series(phantom).skipped
    assert file.reason == "archive whose directory is too large"


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_what_stands_before_the_damage_is_read(phantom: Path, tmp_path: Path, keep: float) -> None:
    path = tarred(phantom, tmp_path / "a.tar", "w")
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    listing = find_series(path)
    assert 1 <= listing.series[0].shape[0] < 9 or keep > 0.5
    assert all("damaged" in f.reason or "truncated" in f.reason for f in listing.skipped)


def test_a_damaged_zip_is_named(phantom: Path, tmp_path: Path) -> None:
    path = zipped(phantom, phantom / "a.zip")
    path.write_bytes(path.read_bytes()[:2000])
    (file,) = find_series(phantom).skipped
    assert file.reason == "damaged archive"


def test_a_full_disk_is_said(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, private_folder: Path
) -> None:
    path = zipped(phantom, tmp_path / "a.zip")
    private_folder.rmdir()
    private_folder.touch()  # no folder can be made in it
    with pytest.raises(ResourceError, match=r"could not unpack an archive: .*; free some space"):
        find_series(path)


def test_a_disk_that_fills_up_keeps_nothing(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, private_folder: Path
) -> None:
    path = zipped(phantom, tmp_path / "a.zip")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", opening_for_writing(full))
    with pytest.raises(ResourceError, match="archive: No space left on device; free"):
        find_series(path)
    assert unpacked_files(private_folder) == []


def opening_for_writing(fail: Callable[..., None]) -> Callable[..., object]:
    """`Path.open` that calls `fail` where a file is written."""
    opened = Path.open

    def open_path(path: Path, mode: str = "r", **options: object) -> object:
        if "w" in mode:
            fail()
        return opened(path, mode, **options)  # type: ignore[call-overload]

    return open_path


@pytest.mark.parametrize("ending", ["", "raise KeyboardInterrupt"])
def test_nothing_stays_when_the_process_ends(
    phantom: Path, tmp_path: Path, private_folder: Path, ending: str
) -> None:
    path = zipped(phantom, tmp_path / "a.zip")
    code = (
        "import sys, tempfile, pathlib\n"
        "from edge_medgemma.runtime.slicing.scan import find_series\n"
        f"tempfile.tempdir = {str(private_folder)!r}\n"
        f"series = find_series(pathlib.Path({str(path)!r})).series\n"
        "assert series[0].sources[0].path.exists()\n"
    )
    done = subprocess.run([sys.executable, "-c", code + ending], capture_output=True, check=False)
    assert (done.returncode == 0) is (ending == ""), done.stderr
    assert list(private_folder.iterdir()) == []
