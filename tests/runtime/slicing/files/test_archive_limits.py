"""Archives made to harm, or compressed as few are: bounded, named, and no harm to what lies beside."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_medgemma.runtime.errors import ScanError
from edge_medgemma.runtime.slicing.files import budget
from edge_medgemma.runtime.slicing.files.archives import unpack
from edge_medgemma.runtime.slicing.files.budget import UnpackBudget
from edge_medgemma.runtime.slicing.files.discovery import FileKind, UnreadableFileError
from edge_medgemma.runtime.slicing.scan import find_series, read_volume

WriteSlice = Callable[..., Path]

ZEROS = bytes(1024**2)


def forged_zip(
    target: Path, content: bytes, *, method: int, size: int, flags: int = 0, name: bytes = b"member"
) -> Path:
    """A zip of one member whose compressed bytes are `content`, whatever the rest of it says."""
    common = struct.pack(
        "<HHHHHIIIHH", 63, flags, method, 0, 0, 0, len(content), size, len(name), 0
    )
    local = b"PK\x03\x04" + common + name + content
    entry = b"PK\x01\x02" + struct.pack("<H", 63) + common + struct.pack("<HHHII", 0, 0, 0, 0, 0)
    entry += name
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 1, 1, len(entry), len(local), 0)
    target.write_bytes(local + entry + end)
    return target


def lzma_of_zip(dictionary_bytes: int, content: bytes) -> bytes:
    raw = lzma.compress(
        content, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA1, "dict_size": 2**16}]
    )
    return struct.pack("<BBHBI", 9, 20, 5, 0x5D, dictionary_bytes) + raw


def reasons(scan: Path) -> dict[str, str]:
    """Of what is skipped beside the nine sound slices."""
    listing = find_series(scan)
    assert listing.series[0].shape[0] == 9
    return {file.path: file.reason for file in listing.skipped}


BOMB_BYTES = 150 * 1024**2


@pytest.fixture
def small_budget(monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes that a small archive may unpack to: 20 MB, so that a test of it is quick."""
    monkeypatch.setattr(budget, "LEAST_ARCHIVE_BYTES", 100_000)
    return 200 * 100_000


def zeros_by_bz2() -> bytes:
    """150 MB in 140 bytes."""
    packer = bz2.BZ2Compressor()
    return b"".join(packer.compress(ZEROS) for _ in range(150)) + packer.flush()


def zeros_by_lzma() -> bytes:
    filters = [{"id": lzma.FILTER_LZMA1, "preset": 0}]
    packer = lzma.LZMACompressor(lzma.FORMAT_RAW, filters=filters)
    raw = b"".join(packer.compress(ZEROS) for _ in range(150)) + packer.flush()
    return struct.pack("<BBHBI", 9, 20, 5, 0x5D, 2**23) + raw


@pytest.mark.usefixtures("small_budget")
@pytest.mark.parametrize(("method", "bomb"), [(12, zeros_by_bz2), (14, zeros_by_lzma)])
def test_a_bomb_takes_no_more_memory_than_its_steps(
    phantom: Path, method: int, bomb: Callable[[], bytes], grown_memory: Callable[[], int]
) -> None:
    forged_zip(phantom / "bomb.zip", bomb(), method=method, size=BOMB_BYTES)
    grown_memory()
    assert reasons(phantom) == {"bomb.zip": "archive that unpacks to more than 200 times its size"}
    assert grown_memory() < 64 * 1024**2


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_methods_of_zip_are_read(phantom: Path, tmp_path: Path, method: int) -> None:
    target = tmp_path / "scan.zip"
    with zipfile.ZipFile(target, "w", method) as archive:
        for path in phantom.iterdir():
            archive.write(path, path.name)
    (series,) = find_series(target).series
    (expected,) = find_series(phantom).series
    np.testing.assert_array_equal(read_volume(series).array, read_volume(expected).array)


@pytest.mark.parametrize(
    ("method", "flags", "reason"),
    [
        (9, 0, "compressed by a method that is not supported (deflate64); unpack the archive first"),
        (93, 0, "compressed by a method that is not supported (zstd); unpack the archive first"),
        (77, 0, "compressed by a method that is not supported (number 77); unpack the archive first"),
        (8, 32, "compressed by a method that is not supported (patch); unpack the archive first"),
        (8, 1, "encrypted; unpack the archive first"),
        (99, 0, "encrypted; unpack the archive first"),
    ],
)  # fmt: skip
def test_members_of_other_methods_are_named(
    phantom: Path, method: int, flags: int, reason: str
) -> None:
    forged_zip(phantom / "a.zip", b"content", method=method, size=7, flags=flags)
    assert reasons(phantom) == {"a.zip/member": reason}


def test_a_dictionary_of_gigabytes_is_refused(phantom: Path) -> None:
    content = lzma_of_zip(2**32 - 1, b"content")
    forged_zip(phantom / "a.zip", content, method=14, size=7)
    assert reasons(phantom) == {
        "a.zip/member": "compressed with a dictionary of more than 64 MiB; unpack the archive first"
    }


@pytest.mark.parametrize(
    "record", [b"5 a=", b"9 path=\n", b"99 path=a\n", b"0 path=a\n", b" path=a\n", b"x path=a\n", b"8 path\n"]
)  # fmt: skip
def test_damaged_records_of_a_tar_are_damage(phantom: Path, record: bytes) -> None:
    (phantom / "a.tar").write_bytes(pax_tar(record))
    assert reasons(phantom) == {"a.tar": "damaged archive"}


def test_a_forged_length_or_checksum_is_damage(phantom: Path) -> None:
    for number, size in enumerate((0, 3, 90)):
        content = zlib.compressobj(wbits=-15)
        packed = content.compress(b"content") + content.flush()
        forged_zip(phantom / f"{number}.zip", packed, method=8, size=size)
    assert reasons(phantom) == {
        "0.zip/member": "empty file",
        "1.zip/member": "damaged in its archive",
        "2.zip/member": "damaged in its archive",
    }


def test_refused_archives_spend_the_common_budget(tmp_path: Path, small_budget: int) -> None:
    bomb = forged_zip(tmp_path / "bomb.zip", zeros_by_bz2(), method=12, size=BOMB_BYTES)
    common = UnpackBudget(files_left=100, bytes_left=3 * small_budget + small_budget // 2)
    refusals = []
    for _ in range(6):
        with pytest.raises(UnreadableFileError) as refusal:
            unpack(bomb, FileKind.ZIP, "bomb.zip", common)
        refusals.append(str(refusal.value))
    own = "archive that unpacks to more than 200 times its size"
    common_one = "archives that together unpack to more than 4 GiB; unpack this one first"
    assert refusals == [own] * 3 + [common_one] * 3
    assert common.files_left == 100  # nothing of them is in the scan


def many_entries(path: Path, count: int) -> None:
    """Have the directory of a zip of one member name it many times."""
    data = path.read_bytes()
    begin = data.index(b"PK\x01\x02")
    entry = data[begin:-22]
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, count, count, len(entry) * count, begin, 0)
    path.write_bytes(data[:begin] + entry * count + end)


def test_members_of_the_same_bytes_are_damage(phantom: Path) -> None:
    with zipfile.ZipFile(phantom / "a.zip", "w") as archive:
        archive.writestr("member", "content")
    many_entries(phantom / "a.zip", 600)
    found = [file.reason for file in find_series(phantom).skipped]
    damaged, other = "damaged in its archive", "neither DICOM nor NIfTI by its content"
    assert sorted(found) == [damaged] * 599 + [other]


def pax_tar(*headers: bytes) -> bytes:
    """Extended headers, and no member after them."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for content in headers:
            info = tarfile.TarInfo("x")
            info.type, info.size = tarfile.XHDTYPE, len(content)
            archive.addfile(info, io.BytesIO(content))
    return target.getvalue()


@pytest.mark.usefixtures("small_budget")
@pytest.mark.parametrize(
    "archive",
    [pax_tar(b"5 a=\n" * 100_000), gzip.compress(pax_tar(*[b""] * 10_000))],
    ids=["records", "headers"],
)
def test_headers_that_take_time_are_charged(phantom: Path, archive: bytes) -> None:
    (phantom / "a.tar").write_bytes(archive)
    assert reasons(phantom) == {"a.tar": "archive that unpacks to more than 200 times its size"}


@pytest.mark.parametrize("name", ["slice.dcm.gz", "slice"])
def test_a_gzipped_slice_is_read(phantom: Path, name: str) -> None:
    whole = read_volume(find_series(phantom).series[0]).array
    path = next(phantom.iterdir())
    content = path.read_bytes()
    path.unlink()
    half = len(content) // 2
    packed = gzip.compress(content[:half]) + gzip.compress(content[half:]) + bytes(7)
    (phantom / name).write_bytes(packed)
    assert reasons(phantom) == {}
    np.testing.assert_array_equal(read_volume(find_series(phantom).series[0]).array, whole)


def test_a_gzip_with_a_wrong_checksum_is_not_believed(phantom: Path, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(next(phantom.iterdir()), "again")
    (phantom / "a.tgz").write_bytes(packed.getvalue()[:-5] + b"12345")
    slice_packed = gzip.compress(next(phantom.glob("[0-9]*")).read_bytes())
    (phantom / "b.dcm.gz").write_bytes(slice_packed[:-5] + b"12345")
    assert reasons(phantom) == {"a.tgz": "damaged gzip file", "b.dcm.gz": "damaged gzip file"}


@pytest.mark.usefixtures("small_budget")
def test_a_gzip_bomb_of_one_file_is_refused(phantom: Path, write_slice: WriteSlice) -> None:
    start = write_slice(30, "30").read_bytes()
    (phantom / "30").write_bytes(gzip.compress(start + bytes(30_000_000)))
    assert reasons(phantom) == {"30": "archive that unpacks to more than 200 times its size"}


def test_an_archive_without_files_is_said(tmp_path: Path) -> None:
    scan = tmp_path / "scan"
    scan.mkdir()
    for name, entries in (("empty.zip", []), ("folders.zip", ["a/", "a/b/"])):
        with zipfile.ZipFile(scan / name, "w") as archive:
            for entry in entries:
                archive.writestr(entry, "")
        with pytest.raises(ScanError, match=r"files skipped: 1, .*archive without any file"):
            find_series(scan / name)
    with pytest.raises(ScanError, match="files skipped: 2"):
        find_series(scan)


@pytest.mark.parametrize(
    "name", ["\x1b[31m", "a\nb", "\u202egnp", "a\0b", "/etc/x", "../x", "é" * 900]
)
def test_names_are_safe_to_print_in_text_and_json(phantom: Path, name: str) -> None:
    with zipfile.ZipFile(phantom / "a.zip", "w") as archive:
        archive.writestr(name, "content")
    info = tarfile.TarInfo(name)
    info.size = 7
    with tarfile.open(phantom / "a.tar", "w") as tar:
        tar.addfile(info, io.BytesIO(b"content"))
    for path in reasons(phantom):
        assert path.isprintable() and len(path) < 400
        path.encode()


def test_names_that_are_no_text_are_safe_to_print(phantom: Path) -> None:
    forged_zip(phantom / "a.zip", b"content", method=0, size=7, name=b"\xff\xfe\x80", flags=0x800)
    info = tarfile.TarInfo("surrogate\udc80")
    with tarfile.open(phantom / "a.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(info)
    for path in reasons(phantom):
        path.encode()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_of_every_form_of_tar_have_their_names(phantom: Path, form: int) -> None:
    names = ["short", "folder/" * 16 + "prefix", "é" if form == tarfile.PAX_FORMAT else "e"]
    if form != tarfile.USTAR_FORMAT:
        names.append("long" * 60)
    with tarfile.open(phantom / "a.tar", "w", format=form) as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = 700, 12.5 if form == tarfile.PAX_FORMAT else 12
            tar.addfile(info, io.BytesIO(b"x" * 700))
    assert set(reasons(phantom)) == {f"a.tar/{name}" for name in names}
