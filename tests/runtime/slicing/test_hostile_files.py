"""Files made to harm: each costs little, is named, and leaves the others readable."""

import random
import resource
import struct
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from edge_medgemma.runtime.errors import ScanError
from edge_medgemma.runtime.slicing.scan import find_series, read_volume

WriteSlice = Callable[..., Path]

MAX_SECONDS_A_FILE = 5


def reason(scan: Path, name: str) -> str:
    listing = find_series(scan)
    assert listing.series[0].shape[0] == 9
    (found,) = [file.reason for file in listing.skipped if file.path == name]
    return found


def explicit(group: int, element: int, vr: bytes, value: bytes) -> bytes:
    """One element in Explicit VR Little Endian with a short length."""
    return struct.pack("<HH2sH", group, element, vr, len(value)) + value


def file_start(transfer_syntax: str) -> bytes:
    uid = transfer_syntax.encode().ljust(len(transfer_syntax) + len(transfer_syntax) % 2, b"\0")
    syntax = explicit(2, 0x10, b"UI", uid)
    length = explicit(2, 0, b"UL", struct.pack("<I", len(syntax)))
    return b"\0" * 128 + b"DICM" + length + syntax


def test_a_deflated_bomb_is_not_inflated(phantom: Path) -> None:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    chunk = b"\0" * 2**20
    bomb = b"".join(packer.compress(chunk) for _ in range(160)) + packer.flush()
    (phantom / "bomb").write_bytes(file_start(DeflatedExplicitVRLittleEndian) + bomb)
    assert reason(phantom, "bomb") == "inflates to more than 128 MiB"


def test_a_deflated_image_is_read(phantom: Path, write_slice: WriteSlice) -> None:
    plain = write_slice(4).read_bytes()
    # the data set begins after the preamble and group 0002, whose length its first element gives
    meta_end = 144 + struct.unpack("<I", plain[140:144])[0]
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    body = packer.compress(plain[meta_end:]) + packer.flush()
    write_slice(4).write_bytes(file_start(DeflatedExplicitVRLittleEndian) + body)
    listing = find_series(phantom)
    assert listing.series[0].shape[0] == 9
    assert read_volume(listing.series[0]).array[4, 8, 12] == 40


def test_nested_sequences_end_in_a_reason(phantom: Path) -> None:
    item = b""
    for _ in range(400):
        item = (
            struct.pack("<HH2sHI", 0x5200, 0x9229, b"SQ", 0, 0xFFFFFFFF)
            + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
            + item
            + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
            + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
        )
    (phantom / "nested").write_bytes(file_start("1.2.840.10008.1.2.1") + item)
    assert reason(phantom, "nested") == "sequences nested too deeply"


def test_absurd_dimensions_are_refused_before_pixels(
    phantom: Path, write_slice: WriteSlice
) -> None:
    path = write_slice(30, "huge")
    data = path.read_bytes()
    rows = explicit(0x28, 0x10, b"US", struct.pack("<H", 16))
    assert rows in data
    path.write_bytes(data.replace(rows, explicit(0x28, 0x10, b"US", struct.pack("<H", 65535))))
    assert reason(phantom, "huge") == "65535 × 24 pixels; expected 1 to 8192 each way"


def test_damaged_files_never_break_the_scan(phantom: Path, write_slice: WriteSlice) -> None:
    original = write_slice(4).read_bytes()
    generator = random.Random(5)
    victim = write_slice(4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(100):
            data = bytearray(original)
            for _ in range(generator.randint(1, 8)):
                data[generator.randrange(128, len(data))] ^= 1 << generator.randrange(8)
            if generator.random() < 0.3:
                del data[generator.randrange(len(data)) :]
            victim.write_bytes(data)
            started = time.monotonic()
            listing = find_series(phantom)
            assert max(series.shape[0] for series in listing.series) >= 8
            for series in listing.series:
                try:
                    assert np.isfinite(read_volume(series).array).all()
                except ScanError:
                    assert series.shape[0] == 1
            assert time.monotonic() - started < MAX_SECONDS_A_FILE
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert peak_bytes < 10**9


@pytest.mark.parametrize("name", ["esc\x1b[31m", "new\nline"])
def test_names_of_skipped_files_are_safe_to_print(phantom: Path, name: str) -> None:
    (phantom / name).write_text("x")
    (file,) = find_series(phantom).skipped
    assert file.path.isprintable()
