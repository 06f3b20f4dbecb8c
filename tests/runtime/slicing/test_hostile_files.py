"""Files made to harm: each costs little, is named, and leaves the others readable."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    RLELossless,
)

from edge_medgemma.runtime.slicing.scan import find_series, read_volume

WriteSlice = Callable[..., Path]


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


@pytest.mark.usefixtures("bounded_memory")
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


def sequence(content: bytes, length: int = 0xFFFFFFFF) -> bytes:
    """Shared functional groups, of undefined length unless one is given."""
    return struct.pack("<HH2sHI", 0x5200, 0x9229, b"SQ", 0, length) + content


def item(content: bytes = b"") -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content


ELEMENTS = b"".join(
    explicit(0x11 + 2 * (number >> 16), number & 0xFFFF, b"US", b"") for number in range(760_000)
)
"""The 5.8 MiB that take a parser longest."""

LONG_ELEMENTS = b"".join(explicit(0x11, n, b"LT", b" " * 60_000) for n in range(120))


@pytest.mark.usefixtures("bounded_memory")
@pytest.mark.parametrize(
    ("header", "why"),
    [
        (sequence(item() * 150_000), "header of more than 100,000 sequence items"),
        (sequence(item(ELEMENTS)), "header of more than 400,000 parts"),
        (sequence(item(ELEMENTS), 8 + len(ELEMENTS)), None),
        (sequence(item(LONG_ELEMENTS)), "header of more than 6 MiB"),
    ],
    ids=["items", "elements", "elements in a value", "bytes"],
)
def test_a_header_of_absurd_size_ends_the_parse(
    phantom: Path, write_slice: WriteSlice, header: bytes, why: str | None
) -> None:
    path = write_slice(30, "bomb", SeriesInstanceUID="1.2.66")
    before, tag, pixels = path.read_bytes().partition(b"\xe0\x7f\x10\x00OW")
    path.write_bytes(before + header + tag + pixels)
    listing = find_series(phantom)
    assert [file.reason for file in listing.skipped] == ([why] if why else [])


@pytest.mark.usefixtures("bounded_memory")
def test_an_rle_bomb_is_decoded_within_its_memory(phantom: Path, write_slice: WriteSlice) -> None:
    side, frames = 4096, 16
    run = bytes([129, 0]) * (side * side // 128)  # 128 zeros from two bytes
    segments = struct.pack("<16I", 2, 64, 64 + len(run), *[0] * 13) + run + run
    path = write_slice(
        30, "bomb", NumberOfFrames=1, SeriesInstanceUID="1.2.66", pixels=np.zeros((2, 2), np.int16)
    )
    dataset = pydicom.dcmread(path)
    dataset.Rows = dataset.Columns = side
    dataset.NumberOfFrames = frames
    dataset.file_meta.TransferSyntaxUID = RLELossless
    dataset.PixelData = encapsulate([segments] * frames)
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    sound, bomb = find_series(phantom).series
    assert (sound.shape, bomb.shape) == ((9, 16, 24), (frames, side, side))
    assert read_volume(bomb, [0]).array.max() == -1024
    assert read_volume(sound).array.shape == sound.shape


def test_more_pixels_than_any_image_has_are_refused(phantom: Path, write_slice: WriteSlice) -> None:
    path = write_slice(30, "huge", pixels=np.zeros((2, 2), np.int16))
    dataset = pydicom.dcmread(path)
    dataset.Rows = dataset.Columns = 8192
    dataset.file_meta.TransferSyntaxUID = RLELossless
    dataset.PixelData = encapsulate([bytes(64)])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    assert reason(phantom, "huge") == "8192 × 8192 pixels; expected at most 33,554,432"


@pytest.mark.parametrize("name", ["esc\x1b[31m", "new\nline"])
def test_names_of_skipped_files_are_safe_to_print(phantom: Path, name: str) -> None:
    (phantom / name).write_text("x")
    (file,) = find_series(phantom).skipped
    assert file.path.isprintable()
