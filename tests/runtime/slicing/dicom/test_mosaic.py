"""A Siemens mosaic of known tiles, its private header written here byte by byte."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage

from edge_medgemma.runtime.errors import ScanError
from edge_medgemma.runtime.slicing.scan import find_series, read_volume

WriteSlice = Callable[..., Path]

TILES, TILE_ROWS, TILE_COLUMNS = 7, 4, 6


def csa_tag(name: str, vr: str, values: list[str]) -> bytes:
    tag = struct.pack("<64si4s3i", name.encode(), len(values), vr.encode(), 0, len(values), 77)
    for value in values:
        item = value.encode()
        tag += struct.pack("<4i", len(item), len(item), 77, len(item))
        tag += item.ljust(-(-len(item) // 4) * 4, b"\0")
    return tag


def csa_header(tiles: int, normal: list[float]) -> bytes:
    tags = [
        csa_tag("EchoLinePosition", "IS", []),
        csa_tag("NumberOfImagesInMosaic", "US", [str(tiles)]),
        csa_tag("SliceNormalVector", "FD", [f"{part:.8f}" for part in normal]),
    ]
    return b"SV10\x04\x03\x02\x01" + struct.pack("<2I", len(tags), 77) + b"".join(tags)


def write_mosaic(
    write_slice: WriteSlice, csa: bytes | None, across: int = 3, index: int = 0
) -> Path:
    """Tile t is filled with the value 10·t + index."""
    image = np.zeros((across * TILE_ROWS, across * TILE_COLUMNS), np.int16)
    for tile in range(TILES):
        row, column = tile // across * TILE_ROWS, tile % across * TILE_COLUMNS
        image[row : row + TILE_ROWS, column : column + TILE_COLUMNS] = 10 * tile + index
    private = {}
    if csa is not None:
        block = Dataset().private_block(0x29, "SIEMENS CSA HEADER", create=True)
        block.add_new(0x10, "OB", csa)
        private = {element.tag: element for element in block.dataset}
    return write_slice(
        index,
        SOPClassUID=MRImageStorage,
        ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"],
        ImagePositionPatient=[-100, -50, 20],
        SpacingBetweenSlices=4,
        RescaleSlope=None,
        RescaleIntercept=None,
        elements=private,
        pixels=image,
    )


@pytest.mark.parametrize(("normal", "first_z_mm"), [([0.0, 0, 1], 20), ([0.0, 0, -1], -4)])
def test_tiles_are_slices_with_their_own_corners(
    write_slice: WriteSlice, normal: list[float], first_z_mm: float
) -> None:
    (series,) = find_series(write_mosaic(write_slice, csa_header(TILES, normal))).series
    assert series.shape == (TILES, TILE_ROWS, TILE_COLUMNS)
    assert series.spacing_mm == (4, 0.5, 0.52)
    assert series.problems == ()
    # the corner of the image lies one tile before that of a slice, in rows and in columns
    np.testing.assert_allclose(
        series.affine_lps_mm[:3, 3], [-100 + TILE_COLUMNS * 0.52, -50 + TILE_ROWS * 0.5, first_z_mm]
    )
    values = read_volume(series).array
    assert (values == values[:, :1, :1]).all()
    ascending = [10 * tile for tile in range(TILES)]
    assert values[:, 0, 0].tolist() == (ascending if normal[2] > 0 else ascending[::-1])
    np.testing.assert_array_equal(read_volume(series, [2]).array[0], values[2])


def test_of_several_mosaics_the_first_time_point_is_read(write_slice: WriteSlice) -> None:
    for index in range(3):
        path = write_mosaic(write_slice, csa_header(TILES, [0, 0, 1]), index=index)
    (series,) = find_series(path.parent).series
    assert [problem.name for problem in series.problems] == ["time_series"]
    assert read_volume(series).array[:, 0, 0].tolist() == [10 * tile for tile in range(TILES)]


@pytest.mark.parametrize(
    ("csa", "why"),
    [
        (None, "its private header was removed"),
        (csa_header(TILES, [0, 0, 1])[:90], "its private header is damaged"),
        (csa_header(TILES, [1, 0, 0]), "its slice normal is not that of its plane"),
        (csa_header(17, [0, 0, 1]), "the image is not a grid of as many tiles as it says"),
        (csa_header(0, [0, 0, 1]), "the image is not a grid of as many tiles as it says"),
        (csa_header(TILES, [0, 0]), "the private header does not give its tiles"),
    ],
    ids=["removed", "damaged", "normal", "many", "none", "short"],
)
def test_without_a_sound_private_header_it_is_refused(
    write_slice: WriteSlice, csa: bytes | None, why: str
) -> None:
    with pytest.raises(ScanError, match=f"mosaic of tiles: {why}; export it as single slices"):
        find_series(write_mosaic(write_slice, csa))
