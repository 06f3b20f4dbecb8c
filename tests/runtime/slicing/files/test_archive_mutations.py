"""Damaged archives: no traceback, bounded memory, and the scan beside one is read as without it.

A sample runs with the other tests; ARCHIVE_MUTATIONS says how many more.
"""

import gzip
import io
import os
import random
import re
import struct
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_medgemma.runtime.slicing.scan import find_series, read_volume

WriteSlice = Callable[..., Path]

MUTATIONS = int(os.environ.get("ARCHIVE_MUTATIONS", "40"))
SEED = 20_261_128
SERIES, OTHER_SERIES = "1.2.3.4", "1.2.77.5"

GROWN_BYTES = 150 * 1024**2
"""Most that any archive may add to the memory of the process; the largest step of lzma is 64 MiB."""

REASONS = re.compile(
    r"damaged|archive (that|with|whose)|archives that|encrypted|compressed (by|with)|empty file|link in|"
    r"not a (file|CT, MR)|sparse|truncated|archive in an archive|neither DICOM|no pixel data|"
    r"no series or object UID|expected (1 to|at most)|duplicate|another image|localizer|colour|"
    r"gzip file|unpack it first|header of more|larger than|takes more memory|not a DICOM|"
    r"unsupported|not a scan|convert it"
)


def zip_of(files: dict[str, bytes], method: int) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return target.getvalue()


def tar_of(files: dict[str, bytes], form: int) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=form) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return target.getvalue()


@pytest.fixture
def files(write_slice: WriteSlice) -> dict[str, bytes]:
    """Slices of another series by a name for each, one too long for a header of ustar."""
    contents = {}
    for index in range(3):
        path = write_slice(
            index, "other", SeriesInstanceUID=OTHER_SERIES, SOPInstanceUID=f"1.2.77.6.{index}"
        )
        contents[f"{index}" * (1 + 120 * (index == 2))] = path.read_bytes()
        path.unlink()
    return contents


@pytest.fixture
def originals(files: dict[str, bytes]) -> dict[str, bytes]:
    gnu = tar_of(files, tarfile.GNU_FORMAT)
    return {
        "stored.zip": zip_of(files, zipfile.ZIP_STORED),
        "deflate.zip": zip_of(files, zipfile.ZIP_DEFLATED),
        "bzip2.zip": zip_of(files, zipfile.ZIP_BZIP2),
        "lzma.zip": zip_of(files, zipfile.ZIP_LZMA),
        "gnu.tar": gnu,
        "pax.tar": tar_of(files, tarfile.PAX_FORMAT),
        "gnu.tar.gz": gzip.compress(gnu, mtime=0),
        "slice.dcm.gz": gzip.compress(files["0"], mtime=0),
    }


def mutated(original: bytes, generator: random.Random) -> bytes:
    """Bits flipped, the end cut off, a run overwritten, or a number forged in a header."""
    data = bytearray(original)
    kind = generator.choice(["flip", "cut", "overwrite", "forge", "forge"])
    if kind == "flip":
        for _ in range(generator.randint(1, 12)):
            data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    elif kind == "cut":
        del data[generator.randrange(len(data)) :]
    elif kind == "overwrite":
        start, size = generator.randrange(len(data)), generator.choice([1, 2, 4, 16, 200])
        data[start : start + size] = generator.choice([b"\0", b"\xff", b"\x7f"]) * size
    elif original.startswith(b"PK"):
        forge_zip(data, generator)
    elif original.startswith(b"\x1f\x8b"):
        return gzip.compress(mutated(gzip.decompress(original), generator), mtime=0)
    else:
        forge_tar(data, generator)
    return bytes(data)


def forge_zip(data: bytearray, generator: random.Random) -> None:
    """Method, checksum, sizes, lengths or offsets in one of the headers."""
    places = [found.start() for found in re.finditer(rb"PK(\x01\x02|\x03\x04|\x05\x06)", data)]
    place = generator.choice(places) + generator.randrange(4, 46, 2)
    value = generator.choice([0, 1, 9, 12, 14, 99, 0x7FFF, 0xFFFF, generator.randrange(2**16)])
    width = generator.choice([2, 4])
    data[place : place + width] = struct.pack("<I", value * (1 + 2**16))[:width]


def forge_tar(data: bytearray, generator: random.Random) -> None:
    """Size and type of a header, or any field, whose checksum is right again."""
    headers = [found.start() - 257 for found in re.finditer(b"ustar", data)]
    place = generator.choice(headers) if headers else 0
    if generator.random() < 0.6:
        size = generator.choice([b"77777777777\0", b"\x80" + b"\xff" * 11, b"00000000001\0"])
        data[place + 124 : place + 136] = size
    if generator.random() < 0.5:
        data[place + 156] = generator.choice(b"0123456789xgLKSDMNV\0")
    if generator.random() < 0.3:
        data[place + generator.randrange(500)] = generator.randrange(256)
    data[place + 148 : place + 156] = b" " * 8
    data[place + 148 : place + 156] = b"%06o\0 " % sum(data[place : place + 512])


def test_a_scan_beside_a_damaged_archive_is_read_as_without_it(
    phantom: Path,
    originals: dict[str, bytes],
    grown_memory: Callable[[], int],
) -> None:
    generator, names = random.Random(SEED), sorted(originals)
    (sound,) = find_series(phantom).series
    expected = read_volume(sound).array
    outcomes: Counter[str] = Counter()
    most_grown = 0
    for number in range(MUTATIONS):
        name = names[number % len(names)]
        path = phantom / name
        path.write_bytes(mutated(originals[name], generator))
        grown_memory()
        listing = find_series(phantom)
        most_grown = max(most_grown, grown_memory())
        (series,) = [one for one in listing.series if one.series_uid == SERIES]
        assert series.problems == (), number
        np.testing.assert_array_equal(read_volume(series).array, expected, str(number))
        for file in listing.skipped:
            assert REASONS.search(file.reason), f"{number}: {file}"
            assert file.path.startswith(name) and file.path.isprintable(), f"{number}: {file}"
        if name.endswith(".zip"):  # the others have no checksum, or one that was forged too
            check_others(listing.series, expected)
        outcomes += Counter(file.reason.split(":")[0].split("(")[0] for file in listing.skipped)
        path.unlink()
    print(*outcomes.most_common(), f"{most_grown / 1e6:.0f} MB", sep="\n")
    assert most_grown < GROWN_BYTES


def check_others(found: tuple[object, ...], expected: np.ndarray) -> None:
    """What was read of a zip is as it was packed."""
    for series in found:
        if series.series_uid != SERIES:  # type: ignore[attr-defined]
            assert series.series_uid == OTHER_SERIES  # type: ignore[attr-defined]
            for one in read_volume(series).array:  # type: ignore[arg-type]
                assert any(np.array_equal(one, known) for known in expected[:3])
